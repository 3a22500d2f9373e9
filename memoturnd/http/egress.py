"""What may be sent to a model: asked of the policy before anything is. Where that is not known, nothing may (503)."""

from typing import Literal

from memoturnd.core import names
from memoturnd.errors import ForbiddenError
from memoturnd.http.call import Call
from memoturnd.policies import PolicyUnreadableError
from memoturnd.seams.embedder import Embeddings


async def require_model(call: Call, database: str, feature: Literal["extract", "ask"]) -> None:
    """Raise ForbiddenError where the policy keeps what a database holds from language models, PolicyUnreadableError."""
    rules = await call.node.policies.egress(database)
    if getattr(rules, feature) == "deny":
        _, name = names.split_qualified(database)
        raise ForbiddenError(
            f"the policy for {name} lets nothing be sent to a language model (ai_egress.{feature} is deny): "
            "whoever sets it has to allow that first"
        )


async def embedder_for(call: Call, database: str, *, is_needed: bool = True) -> Embeddings | None:
    """Return what embeds texts of a database, None where nothing does or the policy forbids it.

    `is_needed` is whether the request has a text to embed; without one it goes on though the policy is not known. Raises
    PolicyUnreadableError.
    """
    node = call.node
    if node.embedder is None:
        return None
    try:
        return node.embedder if await node.policies.lets_embed(database) else None
    except PolicyUnreadableError:
        if is_needed:
            raise
        return node.embedder
