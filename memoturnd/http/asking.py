"""Routes that ask a language model: memories out of a transcript, and answers out of memories.

The model is asked before anything is written, and outside the queue of writes.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

import structlog

from memoturnd.core.canonical import decode_json
from memoturnd.core.durability import level_of
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import MemoturnError, NotFoundError, OverloadedError, UnconfiguredError, UpstreamError
from memoturnd.http.addresses import open_or_create_profile, open_profile_or_none, profile_of
from memoturnd.http.call import Call
from memoturnd.http.describe import EVENTS, described
from memoturnd.http.egress import embedder_for, require_model
from memoturnd.http.envelope import Answer, at, reached, read_reply, reply, write_reply
from memoturnd.http.events import Event, event_reply
from memoturnd.http.once import kept
from memoturnd.http.ports import BranchProfile
from memoturnd.http.shapes import asking as shapes
from memoturnd.seams.language_model import LanguageModel, ModelStream
from memoturnd.seams.profile import Seen, Work, Written
from memoturnd.surfaces import ask as asks
from memoturnd.surfaces import embedding, memories, structured
from memoturnd.surfaces import extract as extractions
from memoturnd.surfaces import recall as recalls
from memoturnd.surfaces.extract import Extraction, Said

_NOTHING: Final[Seen[dict[str, Any]]] = Seen({"memories": []}, 0, 0)
_log = structlog.get_logger(__name__)


# ---- extract


@described(takes=shapes.Extract, gives={200: shapes.Proposed, 201: shapes.Extracted})
async def extract(call: Call) -> Answer:
    """Let a language model propose memories from a transcript, and ingest them as one commit."""
    database, _ = profile_of(call)
    await require_model(call, database, "extract")
    model = call.node.models.extractor
    if model is None:
        raise UnconfiguredError("extraction is off at this node: set MEMOTURN_EXTRACT_API_KEY there")
    wanted = await call.decoded_large(_extraction)
    durability = call.durability
    profile = await open_profile_or_none(call)
    if profile is not None and not wanted.dry_run:
        earlier = await kept(profile, durability=durability)
        if earlier is not None:
            return _extracted(earlier)
    turns, topics = await _transcript(profile, wanted)
    with _waiting(call, "extract"), _failing_as_upstream():
        async with asyncio.timeout(call.node.models.timeout_s):
            found = await extractions.propose(model, wanted, turns, topics)
    if wanted.dry_run:
        return reply({"proposed": found.items, "dropped": found.dropped})
    if not found.items:
        return _nothing_found(profile, found.dropped)
    items = memories.capped(found.checked, await call.node.policies.task_ttl_max_s(database))
    embedder = await embedder_for(call, database, is_needed=embedding.needs_vectors(items))
    profile = await open_or_create_profile(call)
    written = await extractions.store(profile, embedder, items, found.dropped, durability=durability)
    if "degraded" in written.value:
        call.node.metrics.embed_degraded["ingest"].inc()
    return _extracted(written)


def _extraction(body: bytes) -> Extraction:
    return extractions.parse(decode_json(body))


async def _transcript(
    profile: BranchProfile | None, wanted: Extraction
) -> tuple[tuple[Said, ...], list[str]]:
    """Return the turns to extract from, and the topic keys that the profile has."""
    if profile is None:
        if wanted.turns is None:
            raise NotFoundError("no such profile here, so it has no turns: append them first, or send turns")
        return wanted.turns, []

    def op(conn: ProfileConnection, _now_ms: int) -> tuple[tuple[Said, ...], list[str]]:
        topics = extractions.read_topics(conn)
        if wanted.turns is not None or wanted.session_id is None:
            return wanted.turns or (), topics
        stored = extractions.read_stored(conn, wanted.session_id, wanted.from_seq, wanted.to_seq)
        return stored, topics

    return (await profile.read(op, work=Work.SCAN)).value


def _extracted(written: Written[dict[str, Any]]) -> Answer:
    return write_reply({**written.value, "txid": written.txid}, written, status=201)


def _nothing_found(profile: BranchProfile | None, dropped: list[dict[str, str]]) -> Answer:
    """Answer that nothing was proposed, and so nothing was written."""
    txid, durable_txid = (0, 0) if profile is None else (profile.txid, profile.durable_txid)
    answer = reply({"results": [], "dropped": dropped, "txid": None}, status=201)
    return reached(at(answer, txid, durable_txid), level_of(txid, durable_txid=durable_txid))


# ---- ask


@described(takes=shapes.Ask, gives={200: (shapes.Answered, EVENTS)})
async def ask(call: Call) -> Answer:
    """Answer a question from memories, whole or as it is written. No model is asked where nothing is recalled."""
    model = call.node.models.assistant
    if model is None:
        raise UnconfiguredError(
            "answers are off at this node: set MEMOTURN_ASSISTANT_API_KEY or MEMOTURN_EXTRACT_API_KEY there"
        )
    asked = await call.parsed(asks.parse)
    database, _ = profile_of(call)
    await require_model(call, database, "ask")
    min_txid = call.min_txid
    profile = await open_profile_or_none(call, min_txid)
    seen = _NOTHING
    if profile is not None:
        embedder = await embedder_for(call, database, is_needed=embedding.needs_vector(asked.query))
        query = await embedding.resolve(embedder, asked.query)
        seen = await recalls.recall(profile, query, min_txid=min_txid, timed=call.node.metrics.recall_timer)
    if "degraded" in seen.value:
        call.node.metrics.embed_degraded["recall"].inc()
    if asked.stream or call.wants_events:
        return await _streamed(call, model, asked.question, seen)
    hits = seen.value["memories"]
    answer = None
    if hits:
        with _waiting(call, "ask"), _failing_as_upstream():
            async with asyncio.timeout(call.node.models.timeout_s):
                answer = await asks.answer(model, asked.question, hits)
    return read_reply({**_answered(answer), **seen.value, "txid": seen.txid}, seen)


def _answered(answer: asks.Reply | None) -> dict[str, Any]:
    if answer is None:
        return {"answer": None, "sources": [], "unknown_sources": []}
    return {
        "answer": answer.answer,
        "sources": answer.sources,
        "unknown_sources": answer.unknown_sources,
    }


async def _streamed(call: Call, model: LanguageModel, question: str, seen: Seen[dict[str, Any]]) -> Answer:
    """Answer with events. The model has accepted the request before the status is sent."""
    hits, timeout_s = seen.value["memories"], call.node.models.timeout_s
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    upstream: ModelStream | None = None
    if hits:
        with _waiting(call, "ask", counts_success=False), _failing_as_upstream():
            async with asyncio.timeout(timeout_s):
                upstream = await model.stream(asks.prompt_of(question, hits))
    events = _events(call, model, question, seen, upstream, deadline_s)
    return at(event_reply(events, _release(upstream)), seen.txid, seen.durable_txid)


def _release(upstream: ModelStream | None) -> Any:
    return (lambda: None) if upstream is None else upstream.close


async def _events(
    call: Call,
    model: LanguageModel,
    question: str,
    seen: Seen[dict[str, Any]],
    upstream: ModelStream | None,
    deadline_s: float,
) -> AsyncGenerator[Event, None]:
    """Yield `memories`, then `delta` as the answer is written, then `done`; `error` where it fails."""
    yield Event("memories", {**seen.value, "txid": seen.txid})
    answer = None
    try:
        if upstream is not None:
            reader, said = structured.AnswerReader("answer"), False
            with _waiting(call, "ask"):
                async with aclosing(_within(upstream.pieces(), deadline_s)) as pieces:
                    async for piece in pieces:
                        delta = reader.feed(piece)
                        if delta:
                            said = True
                            yield Event("delta", {"text": delta})
                with _failing_as_upstream():
                    async with asyncio.timeout_at(deadline_s):
                        answer = await _whole(model, question, seen.value["memories"], reader.text)
            if not said:
                yield Event("delta", {"text": answer.answer})
    except MemoturnError as error:
        yield Event("error", {"error": str(error), "code": error.code})
        return
    except Exception as error:  # noqa: BLE001 - the status is sent: all that is left is to say that it failed
        _log.error("answer_failed", exc_info=error)
        yield Event("error", {"error": "internal error; the node's log has the cause", "code": "internal"})
        return
    yield Event("done", {**_answered(answer), "txid": seen.txid})


async def _within(pieces: AsyncGenerator[str, None], deadline_s: float) -> AsyncGenerator[str, None]:
    """Yield what comes until the deadline. Raises UpstreamError then."""
    async with aclosing(pieces):
        while True:
            with _failing_as_upstream():
                async with asyncio.timeout_at(deadline_s):
                    piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece


async def _whole(model: LanguageModel, question: str, hits: list[dict[str, Any]], text: str) -> asks.Reply:
    """Return the answer that was streamed; one that is not what was asked for is asked for again."""
    try:
        said = asks.decode(structured.json_in(text))
    except (ValueError, RecursionError) as error:
        prompt = asks.prompt_of(question, hits)
        said = await structured.repair(model, prompt, text, str(error), asks.decode)
    return asks.checked(*said, hits)


@contextmanager
def _waiting(call: Call, surface: str, *, counts_success: bool = True) -> Iterator[None]:
    """Count a request that waits for a language model, and how long it does."""
    metrics, started_s = call.node.metrics, asyncio.get_running_loop().time()
    outcome = "ok"
    try:
        yield
    except OverloadedError:
        outcome = "shed"
        raise
    except MemoturnError:
        outcome = "failed"
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "gone"
        raise
    finally:
        if counts_success or outcome != "ok":
            metrics.model_requests[surface, outcome].inc()
            metrics.model_seconds[surface].observe(asyncio.get_running_loop().time() - started_s)


@contextmanager
def _failing_as_upstream() -> Iterator[None]:
    """Turn the model's deadline, and the group in which the parts of a transcript are asked about, into one error."""
    try:
        yield
    except TimeoutError as error:
        raise UpstreamError("the language model did not answer in time; try again, or send less") from error
    except BaseExceptionGroup as group:
        known = [failure for failure in group.exceptions if isinstance(failure, MemoturnError)]
        if not known:
            raise
        raise known[0] from group
