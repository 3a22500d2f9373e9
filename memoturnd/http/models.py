"""Routes of a profile's embedding models, and of the job that embeds what it holds again."""

from memoturnd.core.canonical import decode_json
from memoturnd.errors import InvalidRequestError, UnconfiguredError
from memoturnd.http.addresses import open_profile, profile_of
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, described
from memoturnd.http.egress import embedder_for
from memoturnd.http.envelope import Answer, read_reply, write_reply, written_nothing_to_say
from memoturnd.http.memory import nothing, open_or_none
from memoturnd.http.shapes import models as shapes
from memoturnd.surfaces import models, reembed

_UNNAMED = "-"
"""What stands for the model without a name in a path."""


@described(gives={200: shapes.Models})
async def list_all(call: Call) -> Answer:
    """List the models, how much each has embedded, and which one the node embeds with."""
    min_txid = call.min_txid
    embedder = await embedder_for(call, profile_of(call)[0], is_needed=False)
    active = None if embedder is None else embedder.model
    profile = await open_or_none(call, min_txid)
    if profile is None:
        return nothing({"models": [], "embeddable": {"memories": 0, "turns": 0}, "embedder": active})
    seen = await models.listing(profile, active, min_txid=min_txid)
    return read_reply({**seen.value, "embedder": active, "txid": seen.txid}, seen)


@described(gives={204: NOTHING})
async def drop(call: Call) -> Answer:
    """Drop a model with its vectors. Raises NotFoundError, ConflictError while a job embeds with it."""
    durability = call.durability
    name = call.params["name"]
    name = models.UNNAMED if name == _UNNAMED else models.parse_name(name, "the model")
    profile = await open_profile(call)
    return written_nothing_to_say(
        await reembed.drop_model(profile, profile.branch_id, name, durability=durability)
    )


@described(takes=shapes.Reembed, gives={202: shapes.Job})
async def begin(call: Call) -> Answer:
    """Begin to embed again what the profile holds; 202, and the job goes on in the background."""
    wanted = reembed.parse(call.decoded(decode_json))
    durability = call.durability
    profile = await open_profile(call)
    embedder = await embedder_for(call, profile_of(call)[0])
    if embedder is None:
        raise UnconfiguredError(
            "this node has no embedder that it may use here: set MEMOTURN_EMBED_PROVIDER there, and see that the"
            " policy's ai_egress.embed allows it"
        )
    if wanted.model not in {None, embedder.model}:
        raise InvalidRequestError(
            f"model is {wanted.model}, and this node embeds with {embedder.model}: leave it out, or change the node's"
        )
    jobs = call.node.reembedding
    written = await reembed.begin(
        profile, profile.branch_id, jobs.new_job_id(), embedder.model, wanted, durability=durability
    )
    await jobs.go_on(*profile_of(call))
    return write_reply({**written.value, "txid": written.txid}, written, status=202)


@described(gives={200: shapes.Job})
async def progress(call: Call) -> Answer:
    """Show how far the job is, or how the last one ended."""
    min_txid = call.min_txid
    profile = await open_or_none(call, min_txid)
    if profile is None:
        return nothing(reembed.NOTHING)
    live = call.at is not None or call.node.reembedding.is_live(profile.branch_id)
    seen = await reembed.progress(profile, profile.branch_id, live=live, min_txid=min_txid)
    return read_reply({**seen.value, "txid": seen.txid}, seen)


@described(gives={204: NOTHING})
async def cancel(call: Call) -> Answer:
    """Cancel the job; what it made stays. 204 also where none runs."""
    durability = call.durability
    profile = await open_profile(call)
    return written_nothing_to_say(await reembed.cancel(profile, profile.branch_id, durability=durability))
