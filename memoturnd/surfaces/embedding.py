"""Vectors that the node makes: of memories that come without one, and of what a recall searches for.

All of it happens before a state is read or a write queued. Where the embedder has no vector in time, ingest and
recall go on without, and their answers say `degraded: ["vector"]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.embedder import Embeddings
from memoturnd.seams.profile import Profile, Written
from memoturnd.surfaces import fields, memories, models
from memoturnd.surfaces.memories import Item
from memoturnd.surfaces.recall import Query

DEGRADED: Final = ["vector"]


def text_of(summary: str, keywords: str) -> str:
    """Return what is embedded of a memory."""
    return f"{summary} {keywords}" if keywords else summary


@dataclass(frozen=True, slots=True)
class Filled:
    """Memories to ingest with the vectors that the node made: of the model `model`, for the items `made`.

    `missed` is whether others should have one too, `places` what memories.apply_ingest takes.
    """

    items: list[Item]
    model: str
    made: frozenset[int]
    missed: bool
    places: Sequence[int] | None = None


async def fill(embeddings: Embeddings, items: list[Item]) -> Filled:
    """Embed the memories that come without a vector; tasks never have one."""
    lacking = [at for at, item in enumerate(items) if item.embedding is None and item.type != "task"]
    if not lacking:
        return Filled(items, embeddings.model, frozenset(), missed=False)
    texts = [text_of(items[at].summary, items[at].keywords) for at in lacking]
    made = dict(zip(lacking, await embeddings.documents(texts), strict=True))
    filled = [
        item
        if (vector := made.get(at)) is None
        else replace(item, embedding=vector, embedding_model=embeddings.model)
        for at, item in enumerate(items)
    ]
    found = frozenset(at for at, vector in made.items() if vector is not None)
    return Filled(filled, embeddings.model, found, missed=len(found) < len(lacking))


def apply_filled(conn: ProfileConnection, now_ms: int, filled: Filled) -> tuple[dict[str, Any], bool]:
    """Store a batch as memories.apply_ingest does; return `{results, embedded}`, and `degraded` where vectors lack.

    Vectors of the node that do not fit what the profile has of its model are left away: they fail no write.
    """
    items, made, missed = filled.items, filled.made, filled.missed
    if made:
        first = items[min(made)].embedding
        if first is None or not models.takes(conn, filled.model, fields.dimensions(first)):
            items = [
                replace(item, embedding=None, embedding_model=models.UNNAMED) if at in made else item
                for at, item in enumerate(items)
            ]
            made, missed = frozenset(), True
    results, changed = memories.apply_ingest(conn, now_ms, items, places=filled.places)
    answer: dict[str, Any] = {"results": results, "embedded": len(made)}
    if missed:
        answer["degraded"] = DEGRADED
    return answer, changed


async def ingest(
    profile: Profile,
    embeddings: Embeddings | None,
    items: list[Item],
    *,
    places: Sequence[int] | None = None,
    durable: bool = False,
) -> Written[dict[str, Any]]:
    """Store a batch, with vectors of the node's where there is an embedder; see `apply_filled`."""
    if embeddings is None:
        written = await memories.ingest(profile, items, places=places, durable=durable)
        return Written({"results": written.value}, written.txid, written.durable_txid, written.durable)
    filled = replace(await fill(embeddings, items), places=places)
    return await profile.write(
        lambda conn, now_ms: apply_filled(conn, now_ms, filled), durable=durable, work=memories.work_of(items)
    )


def check_recall(embeddings: Embeddings | None, query: Query) -> None:
    """Raise InvalidRequestError when a recall asks for what takes a vector that nobody makes."""
    if query.embedding is not None:
        return
    if query.include_turns and (embeddings is None or not _searchable(query)):
        hint = "" if embeddings is None else ", which this node makes of a query"
        raise InvalidRequestError(f"include_turns takes an embedding{hint}: turns are searched by vector")
    named = query.embedding_model
    if named != models.UNNAMED and (embeddings is None or named != embeddings.model):
        does = "has no embedder" if embeddings is None else f"embeds with {embeddings.model}"
        raise InvalidRequestError(
            f"embedding_model is {named}, and this node {does}: send the embedding with it"
        )


def _searchable(query: Query) -> bool:
    return query.query is not None and bool(query.query.strip())


async def resolve(embeddings: Embeddings | None, query: Query) -> Query:
    """Return the recall with the vector that it searches by, which the node makes where the body has none.

    Raises what `check_recall` does.
    """
    check_recall(embeddings, query)
    if query.embedding is not None or embeddings is None or query.query is None or not _searchable(query):
        return query
    vector = await embeddings.query(query.query)
    if vector is None:
        return replace(query, degraded=True)
    return replace(query, embedding=vector, embedding_model=embeddings.model, computed=True)
