"""The arrays of a profile's memories, brought to the state that a read sees.

the read's txid is kept         its state is used
kept ones are older             the newest is followed up: new rows, and noted changes (memories.note_change)
the whole state was replaced,
or too much has changed         built anew from the file
nothing can be kept, or the     built from the file for this one read, without the vectors: those stay in the
read sees an older state        file, and are compared there
"""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import apsw
import numpy as np
import numpy.typing as npt

from memoturnd.engine import schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.kept import Kept
from memoturnd.seams.profile import ElsewhereError
from memoturnd.surfaces import memories
from memoturnd.surfaces.memory_arrays import LOG_LIMIT, Columns, Row, Slots, State, Vectors, Words
from memoturnd.surfaces.models import Model

INLINE_ROWS: Final = 1000
"""Memories up to which arrays are built on the event loop."""
STATES_KEPT: Final = 4
"""States of one profile that can be read at once."""
_WAIT_S: Final = 0.01
"""How long a read waits for another that brings the arrays up to date, before it does without them."""
_TEXTS_LIMIT: Final = 256
_TEXT_LIMIT: Final = 64 * 1024
"""New memories, and characters in them, whose words are kept one by one."""
_ROWS_AT_ONCE: Final = 16_384
_VECTORS_AT_ONCE: Final = 4096
_WORD_LIMIT_BYTES: Final = 32_768
_WORD_LIMIT: Final = _WORD_LIMIT_BYTES // 4
_DEAD_SHARE: Final = 4
_DEAD_MIN: Final = 1024
_POSTINGS_SHARE: Final = 4

_ROWS: Final = """SELECT m.rid, CASE m.type {types} END, m.session_id, m.source, m.created_at, m.expires_at,
 m.superseded_at IS NOT NULL, coalesce(d.sz, x'')
 FROM __memoturn_memories AS m LEFT JOIN __memoturn_memories_fts_docsize AS d ON d.id = m.rid
 {which} ORDER BY m.rid""".replace(
    "{types}", " ".join(f"WHEN '{name}' THEN {number}" for number, name in enumerate(memories.TYPES))
)
_ALL_ROWS: Final = _ROWS.format(which="")
# Two branches, each of which walks along rids: with OR the whole table would be looked through.
_CHANGED_ROWS: Final = _ROWS.format(
    which="""WHERE m.rid IN (SELECT value FROM carray(?2) WHERE value <= ?1
 UNION ALL SELECT rid FROM __memoturn_memories WHERE rid > ?1)"""
)
_TEXTS: Final = "SELECT rid, summary, keywords FROM __memoturn_memories WHERE rid IN carray(?) ORDER BY rid"
_THOSE_VECTORS: Final = """SELECT v.rid, v.e FROM carray(?) AS c CROSS JOIN {table} AS v ON v.rid = c.value
 WHERE length(v.e) = ?"""
_HIGHEST: Final = "SELECT max(rid) FROM __memoturn_memories"
_NEWEST_CHANGE: Final = "SELECT max(seq) FROM __memoturn_memory_changes"
_SINCE: Final = """SELECT (SELECT replaced_txid FROM __memoturn_lineage),
 (SELECT min(seq) FROM __memoturn_memory_changes), (SELECT max(seq) FROM __memoturn_memory_changes)"""
_CHANGED: Final = "SELECT DISTINCT rid FROM __memoturn_memory_changes WHERE seq > ?"
_MODELS: Final = "SELECT id, name, dimensions, created_at FROM __memoturn_models"
_MADE_AT: Final = "SELECT created_at FROM __memoturn_models WHERE id = ?"
_NOBODY: Final = (-1,)


class MemoryIndex:
    """What is kept of one profile: its newest states, which share their arrays."""

    def __init__(self) -> None:
        self.states: tuple[State, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Return about how much memory it takes."""
        return self.states[-1].size_bytes if self.states else 0

    def find(self, txid: int) -> State | None:
        """Return the state of a txid, None where it is not kept."""
        return next((state for state in reversed(self.states) if state.txid == txid), None)

    def publish(self, state: State) -> None:
        """Let readers find a state, which is the newest."""
        self.states = (*self.states[1 - STATES_KEPT :], state)


def open_state(conn: ProfileConnection) -> State | None:
    """Return the arrays in the state that the connection's transaction sees, None where none can be kept for it.

    Raises ElsewhereError on the event loop, where many memories would have to be read.
    """
    kept = conn.kept
    return None if kept is None or kept.refused or not kept.room_bytes else _kept_state(conn, kept)


def build(conn: ProfileConnection) -> State:
    """Return the arrays read from the file for one read, without vectors. Raises what `open_state` does."""
    return _built(conn, 0)


def _kept_state(conn: ProfileConnection, kept: Kept) -> State | None:
    txid = schema.read_meta(conn).txid
    index = kept.item
    state = index.find(txid) if isinstance(index, MemoryIndex) else None
    kept.looked(hit=state is not None)
    if state is not None:
        return state
    if not kept.lock.acquire(timeout=_WAIT_S):
        return None
    try:
        return _bring_up(conn, kept, txid)
    finally:
        kept.lock.release()


def _bring_up(conn: ProfileConnection, kept: Kept, txid: int) -> State | None:
    index = kept.item if isinstance(kept.item, MemoryIndex) else MemoryIndex()
    state = index.find(txid)
    if state is None:
        newest = index.states[-1] if index.states else None
        if newest is not None and newest.txid > txid:
            return None
        state = None if newest is None else _followed(conn, newest, txid)
        if state is None:
            state = _built(conn, txid)
        index.publish(state)
    kept.keep(index)
    return state


def open_vectors(
    conn: ProfileConnection, state: State, model: Model
) -> tuple[Slots, npt.NDArray[np.float32]] | None:
    """Return (slots, unit vectors) of a model in a state that is kept, None where they are not in memory.

    Raises ElsewhereError on the event loop, where many would have to be read.
    """
    known = state.vectors.get(model.id)
    if known is None or known.model != model:
        kept = conn.kept
        if kept is None or not kept.lock.acquire(timeout=_WAIT_S):
            return None
        try:
            known = _read_vectors(conn, kept, state, model)
        finally:
            kept.lock.release()
    return None if known is None else known.of(state.count)


def note_use(conn: ProfileConnection, state: State) -> None:
    """Count what a read has added to the arrays, and that they were used; the read goes on with them."""
    kept = conn.kept
    if kept is not None and isinstance(kept.item, MemoryIndex) and state in kept.item.states:
        state.words.shrink(kept.room_bytes // _POSTINGS_SHARE)
        kept.keep(kept.item)


def _read_vectors(conn: ProfileConnection, kept: Kept, state: State, model: Model) -> Vectors | None:
    known = state.vectors.get(model.id)
    if known is not None and known.model == model:
        return known
    index = kept.item
    if not isinstance(index, MemoryIndex) or state is not index.states[-1]:
        return None
    if index.size_bytes + 5 * state.rows * model.dimensions > kept.room_bytes:
        return None
    _leave_event_loop(state.rows)
    known = Vectors(model, conn.execute(_MADE_AT, (model.id,)).get)
    _put_vectors(conn, known, state, np.flatnonzero(state.alive))
    state.vectors[model.id] = known
    kept.keep(index)
    return known


def _put_vectors(conn: ProfileConnection, known: Vectors, state: State, slots: Slots) -> None:
    """Append the vectors of slots, which ascend; a slot whose memory has none is passed over."""
    statement = _THOSE_VECTORS.format(table=known.model.table)
    known.reserve(len(slots))
    for start in range(0, len(slots), _VECTORS_AT_ONCE):
        part = slots[start : start + _VECTORS_AT_ONCE]
        rids = state.columns.rids.data[part]
        rows: list[Any] = conn.execute(statement, (apsw.carray(rids), 4 * known.model.dimensions)).fetchall()
        if not rows:
            continue
        if len(rows) < len(part):
            order = np.argsort(rids, kind="stable")
            found = np.array([rid for rid, _ in rows], np.int64)
            part = part[order[np.searchsorted(rids, found, sorter=order)]]
        known.put(part, [e for _, e in rows])


def _leave_event_loop(rows: int) -> None:
    """Raise ElsewhereError on the event loop where there are many rows to read."""
    if rows <= INLINE_ROWS:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ElsewhereError


def _built(conn: ProfileConnection, txid: int) -> State:
    """Return the state of a txid, read from the file."""
    highest: int = conn.execute(_HIGHEST).get or 0
    _leave_event_loop(highest)
    changes: int = conn.execute(_NEWEST_CHANGE).get or 0
    columns, count = Columns(), 0
    found: Any = conn.execute(_ALL_ROWS)
    while rows := list(islice(found, _ROWS_AT_ONCE)):
        columns.put(count, rows)
        count += len(rows)
    return State(
        txid=txid,
        changes=changes,
        highest=highest,
        count=count,
        alive=np.ones(count, np.bool_),
        rows=count,
        tokens=float(columns.lengths.data[:count].sum()),
        columns=columns,
        words=Words(count),
        vectors={},
    )


def _followed(conn: ProfileConnection, before: State, txid: int) -> State | None:
    """Return the state of a txid, made from an older one; None where it has to be built anew."""
    since: Any = conn.execute(_SINCE).fetchone()
    replaced_txid, oldest, newest = since[0], since[1] or 0, since[2] or 0
    if replaced_txid > before.txid:
        return None
    if newest < before.changes or (newest > before.changes and oldest > before.changes + 1):
        return None
    changed: list[int] = []
    if newest > before.changes:
        changed = [rid for (rid,) in conn.execute(_CHANGED, (before.changes,))]
    gone, highest = _left(before, changed)
    if before.count - before.rows + len(gone) > max(_DEAD_MIN, before.count // _DEAD_SHARE):
        return None
    rows: list[Any] = conn.execute(_CHANGED_ROWS, (highest, _array(changed or _NOBODY))).fetchall()
    state = _extended(before, gone, rows)
    state.txid, state.changes, state.highest = txid, newest, max(highest, rows[-1][0] if rows else 0)
    rids = [row[0] for row in rows]
    if rows:
        _add_words(conn, state, rids)
    if before.vectors:
        _add_vectors(conn, state, before)
    return state


def _left(state: State, changed: Sequence[int]) -> tuple[Slots, int]:
    """Return (the slots of changed rows, the highest rid of the rows that did not change).

    Every rid above that is looked at again: where the rows that had the highest were removed, new ones took
    their rids.
    """
    if not changed:
        return np.empty(0, np.int64), state.highest
    slots, known = state.slots_of(np.array(changed, np.int64))
    gone = slots[known]
    alive = state.alive.copy()
    alive[gone] = False
    return gone, int(state.columns.rids.data[: state.count].max(initial=0, where=alive))


def _extended(before: State, gone: Slots, rows: Sequence[Row]) -> State:
    """Return the state after `before` in which slots are gone, and rows have new ones."""
    count = before.count + len(rows)
    alive = np.concatenate((before.alive, np.ones(len(rows), np.bool_)))
    alive[gone] = False
    columns = before.columns
    columns.put(before.count, rows)
    lengths = columns.lengths.data
    return State(
        txid=before.txid,
        changes=before.changes,
        highest=before.highest,
        count=count,
        alive=alive,
        rows=before.rows - len(gone) + len(rows),
        tokens=before.tokens - float(lengths[gone].sum()) + float(lengths[before.count : count].sum()),
        columns=columns,
        words=before.words,
        vectors={},
    )


def _add_words(conn: ProfileConnection, state: State, rids: Sequence[int]) -> None:
    """Keep the words of the newest slots, which have these rids; where they are too many, forget all postings."""
    words = state.words
    first = state.count - len(rids) - words.base
    texts: list[Any] = []
    if len(rids) <= _TEXTS_LIMIT and first + len(rids) <= LOG_LIMIT:
        texts = conn.execute(_TEXTS, (_array(rids),)).fetchall()
    size = sum(len(summary) + len(keywords) for _, summary, keywords in texts)
    if len(texts) != len(rids) or size > _TEXT_LIMIT:
        state.words = Words(state.count)
        return
    del words.log[first:]  # of a state that did not come to be
    for _, summary, keywords in texts:
        counts: dict[str, int] = {}
        for text in (summary, keywords):
            for word in words_of(conn, text, query=False):
                counts[word] = counts.get(word, 0) + 1
        words.log.append(counts)


def _add_vectors(conn: ProfileConnection, state: State, before: State) -> None:
    """Keep the vectors of the newest slots by each model that still is what it was."""
    there = {
        id_: (Model(id_, name, dimensions), made_at)
        for id_, name, dimensions, made_at in conn.execute(_MODELS)
    }
    for model_id, known in before.vectors.items():
        if there.get(model_id) != (known.model, known.made_at):
            continue
        known.cut(before.count)
        _put_vectors(conn, known, state, np.arange(before.count, state.count))
        state.vectors[model_id] = known


def _array(rids: Sequence[int]) -> Any:
    return apsw.carray(np.array(rids, np.int64))


def words_of(conn: ProfileConnection, text: str, *, query: bool) -> list[str]:
    """Return the words of a text as FTS5 has them in its index, by its own tokenizer."""
    tokenizer = conn.fts5_tokenizer("porter", ["unicode61"])
    reason = apsw.FTS5_TOKENIZE_QUERY if query else apsw.FTS5_TOKENIZE_DOCUMENT
    tokens: Any = tokenizer(text.encode(), reason, None, include_offsets=False, include_colocated=False)
    return [token if len(token) <= _WORD_LIMIT else _cut(token) for token in tokens]


def _cut(word: str) -> str:
    """Return as much of a word as FTS5 keeps of one."""
    return word.encode()[:_WORD_LIMIT_BYTES].decode(errors="ignore")
