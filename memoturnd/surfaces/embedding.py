"""Vectors that the node makes: of memories and turns that come without one, and of what is searched for.

All of it happens before a state is read or a write queued. Where the embedder has no vector in time, whatever is done
goes on without, and the answer says `degraded: ["vector"]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from memoturnd.core import names
from memoturnd.core.durability import Durability
from memoturnd.core.turn_text import words_in
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.embedder import Embeddings, Vectors
from memoturnd.seams.profile import Profile, Seen, Written
from memoturnd.surfaces import fields, memories, memory_edits, models, turn_search, turns
from memoturnd.surfaces.memories import Item
from memoturnd.surfaces.memory_edits import Patch
from memoturnd.surfaces.recall import Query
from memoturnd.surfaces.turn_search import Search
from memoturnd.surfaces.turns import Turn

DEGRADED: Final = ["vector"]
T = TypeVar("T", Item, Turn)


def text_of(summary: str, keywords: str) -> str:
    """Return what is embedded of a memory."""
    return f"{summary} {keywords}" if keywords else summary


@dataclass(frozen=True, slots=True)
class Filled(Generic[T]):
    """Memories or turns with the vectors that the node made: of the model `model`, for the items `made`.

    `missed` is whether others should have one too, `places` what memories.apply_ingest takes.
    """

    items: list[T]
    model: str
    made: frozenset[int]
    missed: bool
    places: Sequence[int] | None = None

    def fitting(self, conn: ProfileConnection) -> "Filled[T]":
        """Return the items as the profile takes them: without the node's vectors where these do not fit its model."""
        if not self.made:
            return self
        first = self.items[min(self.made)].embedding
        if first is not None and models.takes(conn, self.model, fields.dimensions(first)):
            return self
        items = [
            replace(item, embedding=None, embedding_model=models.UNNAMED) if at in self.made else item
            for at, item in enumerate(self.items)
        ]
        return replace(self, items=items, made=frozenset(), missed=True)

    @property
    def said(self) -> dict[str, Any]:
        """What an answer says of the vectors."""
        degraded = {"degraded": DEGRADED} if self.missed else {}
        return {"embedded": len(self.made), **degraded}


async def _filled(embeddings: Embeddings, items: list[T], texts: dict[int, str]) -> Filled[T]:
    """Embed the texts of items by their places, and give each item its vector."""
    if not texts:
        return Filled(items, embeddings.model, frozenset(), missed=False)
    made = dict(zip(texts, await embeddings.documents(list(texts.values())), strict=True))
    filled = [
        item
        if (vector := made.get(at)) is None
        else replace(item, embedding=vector, embedding_model=embeddings.model)
        for at, item in enumerate(items)
    ]
    found = frozenset(at for at, vector in made.items() if vector is not None)
    return Filled(filled, embeddings.model, found, missed=len(found) < len(texts))


def needs_vectors(items: Sequence[Item]) -> bool:
    """Return whether some memory comes without a vector that it should have."""
    return any(item.embedding is None and item.type != "task" for item in items)


def needs_vector(query: Query) -> bool:
    """Return whether a recall comes without a vector and has words to make one of."""
    return query.embedding is None and _searchable(query)


async def fill(embeddings: Embeddings, items: list[Item]) -> Filled[Item]:
    """Embed the memories that come without a vector; tasks never have one."""
    texts = {
        at: text_of(item.summary, item.keywords)
        for at, item in enumerate(items)
        if item.embedding is None and item.type != "task"
    }
    return await _filled(embeddings, items, texts)


def apply_filled(conn: ProfileConnection, now_ms: int, filled: Filled[Item]) -> tuple[dict[str, Any], bool]:
    """Store a batch as memories.apply_ingest does; return `{results, embedded}`, and `degraded` where vectors lack.

    Vectors of the node that do not fit what the profile has of its model are left away: they fail no write.
    """
    filled = filled.fitting(conn)
    results, changed = memories.apply_ingest(conn, now_ms, filled.items, places=filled.places)
    return {"results": results, **filled.said}, changed


async def ingest(
    profile: Profile,
    embeddings: Embeddings | None,
    items: list[Item],
    *,
    places: Sequence[int] | None = None,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Store a batch, with vectors of the node's where there is an embedder; see `apply_filled`."""
    if embeddings is None:
        written = await memories.ingest(profile, items, places=places, durability=durability)
        return Written({"results": written.value}, written.txid, written.durable_txid, written.durability)
    filled = replace(await fill(embeddings, items), places=places)
    return await profile.write(
        lambda conn, now_ms: apply_filled(conn, now_ms, filled),
        durability=durability,
        work=memories.work_of(items),
    )


async def append(
    profile: Profile,
    embeddings: Embeddings | None,
    session_id: str,
    new: list[Turn],
    *,
    batch: bool,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Append turns, with vectors of the node's where there is an embedder; return `{seqs}`, and what `ingest` adds.

    A turn without words has none. Raises InvalidRequestError for a bad session id.
    """
    names.session_id(session_id)
    if embeddings is None:
        written = await turns.append(profile, session_id, new, batch=batch, durability=durability)
        return Written({"seqs": written.value}, written.txid, written.durable_txid, written.durability)
    said = {at: words_in(turn.content.decode()) for at, turn in enumerate(new) if turn.embedding is None}
    filled = await _filled(embeddings, new, {at: words for at, words in said.items() if words.strip()})

    def op(conn: ProfileConnection, now_ms: int) -> tuple[dict[str, Any], bool]:
        fitting = filled.fitting(conn)
        seqs, changed = turns.apply_append(conn, now_ms, session_id, fitting.items, batch=batch)
        return {"seqs": seqs, **fitting.said}, changed

    return await profile.write(op, durability=durability, work=turns.work_of(new))


async def patch(
    profile: Profile,
    embeddings: Embeddings | None,
    memory_id: str,
    change: Patch,
    *,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Change what is said of a memory; where that changes its text, the node's vector of it is made anew.

    A vector that cannot be made is removed, since it would be of the text as it was, and the answer is `degraded`.
    Raises NotFoundError.
    """
    if embeddings is None or "keywords" not in change.given:
        return await memory_edits.patch(profile, memory_id, change, durability=durability)
    seen = await profile.read(lambda conn, now_ms: memories.find(conn, now_ms, memory_id))
    vectors: Vectors = [None]
    if seen.value is not None and seen.value.keywords != change.keywords:
        vectors = await embeddings.documents([text_of(seen.value.summary, change.keywords)])

    def op(conn: ProfileConnection, now_ms: int) -> tuple[dict[str, Any], bool]:
        before = memories.find(conn, now_ms, memory_id)
        answer, changed = memory_edits.apply_patch(conn, now_ms, memory_id, change)
        if before is None or before.keywords == change.keywords or _is_task(conn, before.rid):
            return answer, changed
        fits = _replace_vector(conn, now_ms, embeddings.model, before.rid, vectors[0])
        return (answer if fits else {**answer, "degraded": DEGRADED}), changed

    return await profile.write(op, durability=durability, work=memory_edits.work_of(change))


def _is_task(conn: ProfileConnection, rid: int) -> bool:
    return bool(conn.execute("SELECT type FROM __memoturn_memories WHERE rid = ?", (rid,)).get == "task")


def _replace_vector(conn: ProfileConnection, now_ms: int, name: str, rid: int, vector: bytes | None) -> bool:
    """Store the node's vector of a memory whose text changed, in place of the old one; return whether it is there."""
    if vector is None or not models.takes(conn, name, fields.dimensions(vector)):
        model = models.find(conn, name)
        if model is not None:
            conn.execute(f"DELETE FROM {model.table} WHERE rid = ?", (rid,))
        return False
    model = models.ensure(conn, now_ms, name, fields.dimensions(vector), "the node's embedding")
    conn.execute(f"INSERT OR REPLACE INTO {model.table}(rid, e) VALUES (?, ?)", (rid, vector))
    return True


async def search_turns(
    profile: Profile,
    embeddings: Embeddings | None,
    wanted: Search,
    *,
    session_id: str | None = None,
    min_txid: int = 0,
) -> Seen[dict[str, Any]]:
    """Search turns, by a vector of the node's too where the search has words alone; return `{turns}`, and `degraded`.

    Raises InvalidRequestError.
    """
    makes = wanted.vector is None and wanted.mode != turn_search.KEYWORD
    if makes:
        _check_model(embeddings, wanted.embedding_model)
        if embeddings is None and wanted.mode == turn_search.VECTOR:
            raise InvalidRequestError("mode is vector, and this node has no embedder: send a vector")
    degraded = False
    if makes and embeddings is not None and wanted.query is not None and wanted.query.strip():
        vector = await embeddings.query(wanted.query)
        degraded = vector is None
        if vector is not None:
            wanted = replace(wanted, vector=vector, embedding_model=embeddings.model)
    seen = await turn_search.search(profile, wanted, session_id=session_id, min_txid=min_txid)
    answer: dict[str, Any] = {"turns": seen.value}
    if degraded:
        answer["degraded"] = DEGRADED
    return Seen(answer, seen.txid, seen.durable_txid)


def check_recall(embeddings: Embeddings | None, query: Query) -> None:
    """Raise InvalidRequestError when a recall asks for what takes a vector that nobody makes."""
    if query.embedding is not None:
        return
    if query.include_turns and (embeddings is None or not _searchable(query)):
        hint = "" if embeddings is None else ", which this node makes of a query"
        raise InvalidRequestError(f"include_turns takes an embedding{hint}: turns are searched by vector")
    _check_model(embeddings, query.embedding_model)


def _check_model(embeddings: Embeddings | None, named: str) -> None:
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
