"""Erasing: what a request names, and taking that out of any one state of a profile, however old.

Names of things are the same in every state, so each state is looked at by itself: what it holds under the name goes,
with its words, vectors, links and kept answers. States of the first schema lack many of today's tables. What a topic,
a session or a filter turned out to name is remembered, so that other states lose it by its id as well.
"""

import json
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from memoturnd.core import filters, names
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.erasures import (
    DocumentTarget,
    KeyTarget,
    Target,
    TimelineTarget,
    TurnTarget,
    VectorTarget,
)
from memoturnd.engine import changes, schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import MEMORY_VECTORS
from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import collections, fields, memories, timeline_store, transcripts, vectors

TARGETS_LIMIT: Final = 100
"""Things that one erasure may name."""
GRACE_LIMIT_S: Final = 365 * 86_400
_KINDS: Final = (
    "memory_id",
    "topic_key",
    "session_id",
    "turn",
    "document",
    "kv",
    "vector",
    "timeline",
)
_SAID_WITH: Final = ("type", "turns", "memories")
_PARTS: Final = {
    "turn": {"session_id", "seq"},
    "document": {"collection", "id", "filter"},
    "kv": {"ns", "key", "prefix"},
    "vector": {"collection", "id"},
    "timeline": {"name", "key"},
}
_TOPICAL: Final = ("fact", "instruction")
_LOCAL_BYTES: Final = 256
"""So much of a key lies in the page of its index entry, wherever SQLite put the rest."""
_TEXT_TYPE: Final = 13
"""What SQLite adds to twice the length of a text to say its type and length."""
_MEMORY_ID: Final = re.compile("mem_[0-9a-f]{32}")
_PATCH_ROUTE: Final = "PATCH /v1/memory/%"
_INCREMENT_ROUTE: Final = "POST /v1/db/%/increment"
_FOUND: Final = "rid, id, summary, keywords, superseded_by"
_LISTED: Final = "SELECT value FROM json_each(?)"
_MEMORIES: Final = "__memoturn_memories"
_MEMORIES_TEXT: Final = "__memoturn_memories_fts"
_MESSAGES: Final = "__memoturn_messages"
_MESSAGES_TEXT: Final = "__memoturn_messages_fts"


class Asked(NamedTuple):
    """A request, checked. `grace_s` is None where it leaves the time to the policy."""

    targets: tuple[Target, ...]
    grace_s: int | None


# ---- what comes in


def parse(payload: Any) -> Asked:
    """Return what `{memory_id | topic_key, type | session_id, turns? | ... | targets, grace_secs?}` asks for.

    Raises InvalidRequestError.
    """
    body = fields.mapping(payload, "the body")
    _only(body, {*_KINDS, *_SAID_WITH, "targets", "grace_secs"}, "")
    grace = body.get("grace_secs")
    grace_s = None if grace is None else fields.count(grace, "grace_secs", limit=GRACE_LIMIT_S)
    several = body.get("targets")
    if several is None:
        return Asked((_target(body, ""),), grace_s)
    if any(body.get(kind) is not None for kind in _KINDS):
        raise InvalidRequestError("the body has `targets` beside a target of its own: send one or the other")
    listed = fields.array(several, "targets")
    if not 0 < len(listed) <= TARGETS_LIMIT:
        raise InvalidRequestError(
            f"targets has {len(listed)} entries: 1 to {TARGETS_LIMIT} are erased at once"
        )
    each = (
        _target(fields.mapping(item, f"targets[{at}]"), f"targets[{at}].") for at, item in enumerate(listed)
    )
    return Asked(tuple(each), grace_s)


def _target(body: dict[str, Any], at: str) -> Target:
    if at:
        _only(body, {*_KINDS, *_SAID_WITH}, at)
    kinds = [kind for kind in _KINDS if body.get(kind) is not None]
    if len(kinds) != 1:
        raise InvalidRequestError(
            f"{at or 'the body '}names {' and '.join(kinds) or 'nothing'}: name exactly one of {', '.join(_KINDS)}"
        )
    kind, value = kinds[0], body[kinds[0]]
    where = f"{at}{kind}"
    match kind:
        case "memory_id":
            return Target(memory_id=_id(value, where))
        case "topic_key":
            topic = fields.text(value, where, length_limit=memories.TOPIC_LENGTH_LIMIT)
            return Target(topic_key=topic, type=_type(body.get("type"), f"{at}type"))
        case "session_id":
            session = fields.name(value, where, names.session_id)
            turns = fields.boolean(body, "turns")
            return Target(session_id=session, turns=turns, memories=fields.boolean(body, "memories"))
        case _:
            return _structure(kind, fields.mapping(value, where), f"{where}.")


def _only(body: dict[str, Any], known: AbstractSet[str], at: str) -> None:
    """Raise InvalidRequestError for a field that is not known: what was meant by it would stay."""
    for name in body:
        if name not in known:
            raise InvalidRequestError(
                f"{at}{name[:64]!a} is no field of an erasure: {', '.join(sorted(known))}"
            )


def _structure(kind: str, body: dict[str, Any], at: str) -> Target:
    _only(body, _PARTS[kind], at)
    match kind:
        case "turn":
            session = fields.name(body.get("session_id"), f"{at}session_id", names.session_id)
            return Target(
                turn=TurnTarget(session, fields.count(body.get("seq"), f"{at}seq", limit=INTEGER_MAX))
            )
        case "document":
            return Target(document=_document(body, at))
        case "kv":
            return Target(kv=_key(body, at))
        case "vector":
            name = fields.name(body.get("collection"), f"{at}collection", names.collection)
            return Target(vector=VectorTarget(name, fields.name(body.get("id"), f"{at}id", names.vector_id)))
        case _:
            name = fields.name(body.get("name"), f"{at}name", names.timeline)
            return Target(timeline=TimelineTarget(name, _id(body.get("key"), f"{at}key")))


def _document(body: dict[str, Any], at: str) -> DocumentTarget:
    name = fields.name(body.get("collection"), f"{at}collection", names.collection)
    one, wanted = body.get("id"), body.get("filter")
    if (one is None) == (wanted is None):
        raise InvalidRequestError(f"{at}id or {at}filter says which documents: send one of them")
    if one is not None:
        return DocumentTarget(name, id=_id(one, f"{at}id"))
    wanted = fields.mapping(wanted, f"{at}filter")
    _compiled(wanted, f"{at}filter")
    return DocumentTarget(name, filter=wanted)


def _key(body: dict[str, Any], at: str) -> KeyTarget:
    ns = fields.name(body.get("ns"), f"{at}ns", names.kv_namespace)
    key, prefix = body.get("key"), body.get("prefix")
    if (key is None) == (prefix is None):
        raise InvalidRequestError(f"{at}key or {at}prefix says which keys: send one of them")
    if key is not None:
        return KeyTarget(ns, key=fields.name(key, f"{at}key", names.kv_key))
    return KeyTarget(ns, prefix=fields.name(prefix, f"{at}prefix", names.kv_prefix))


def _id(value: Any, where: str) -> str:
    found = fields.text(value, where, length_limit=1024)
    if not found:
        raise InvalidRequestError(f"{where} is empty: name what is to be erased")
    return found


def _type(value: Any, where: str) -> str:
    if value not in _TOPICAL:
        raise InvalidRequestError(f"{where} is fact or instruction: topics are of one type")
    return str(value)


def _compiled(wanted: dict[str, Any], where: str = "filter") -> filters.Filter:
    return filters.compile_filter(wanted, where=where, doc="doc", key="id")


def is_of_memory(target: Target) -> bool:
    """Return whether a target names a memory or a topic, which has to be there somewhere to be erased."""
    return target.memory_id is not None or target.topic_key is not None


def traces(target: Target) -> re.Pattern[bytes] | None:
    """Return what is found in a page of every state that holds the memory or topic; None for an id that none can have.

    A topic is found by its entry in the index of topics: the length of its key and two integers, then the key.
    """
    if target.memory_id is not None:
        return re.compile(target.memory_id.encode()) if _MEMORY_ID.fullmatch(target.memory_id) else None
    key = (target.topic_key or "").encode()
    length = re.escape(_varint(2 * len(key) + _TEXT_TYPE))
    return re.compile(length + rb"[\x00-\x09]{2}" + re.escape(key[:_LOCAL_BYTES]), re.DOTALL)


def _varint(value: int) -> bytes:
    """Return a number as SQLite writes it, below 2^21 (https://www.sqlite.org/fileformat2.html, section 1.6)."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def is_there(conn: ProfileConnection, target: Target) -> bool:
    """Return whether a state holds the memory or topic that a target names."""
    if target.memory_id is not None:
        which, bindings = "id = ?", (target.memory_id,)
    else:
        which, bindings = "topic_key = ? AND type = ?", (target.topic_key, target.type)  # type: ignore[assignment]
    return conn.execute(f"SELECT 1 FROM {_MEMORIES} WHERE {which} LIMIT 1", bindings).get is not None


# ---- one state


class Eraser:
    """Takes the targets out of states, one after another, and remembers what they turned out to name.

    `cut` is the commit that took them out of the branch's newest state. What was stored again after it is new: a state
    behind it is left as it is, unless a rewind brought an older one back.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        memory_ids: Sequence[str] = (),
        document_ids: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.targets = targets
        self.memory_ids = set(memory_ids)
        """Ids of memories that the targets turned out to name."""
        self.document_ids = set(document_ids)
        """(collection, id) of documents that the targets turned out to name."""
        self._known_memories = frozenset(memory_ids)
        self._known = sorted(
            self.document_ids
        )  # what one state tells must not change what becomes of another
        self.named = {t.memory_id for t in targets if t.memory_id is not None}
        """Ids of memories that the targets name themselves."""

    def apply(self, conn: ProfileConnection, now_ms: int) -> tuple[int, bool]:
        """Take the targets out of the newest state, as a write; return how many rows went."""
        return apply_all([self], conn, now_ms)

    def erase(self, conn: ProfileConnection, cut_txid: int | None = None) -> int:
        """Take the targets out of the state that `conn` holds; return how many rows went, 0 where it stays as it is."""
        return erase_all([(self, cut_txid)], conn)

    def take_out(self, state: "_State") -> int:
        """Take the targets but memories by id out of a state; return how many rows went."""
        gone = sum(self._one(state, target) for target in self.targets if target.memory_id is None)
        return gone + sum(state.document(name, id_) for name, id_ in self._known)

    def _one(self, state: "_State", target: Target) -> int:
        if target.topic_key is not None:
            return self._memories(state, "topic_key = ? AND type = ?", (target.topic_key, target.type))
        if target.session_id is not None:
            which = "session_id = ?" if target.memories else "session_id = ? AND type = 'task'"
            gone = self._memories(state, which, (target.session_id,))
            return gone + state.session(target.session_id, turns=target.turns)
        if target.turn is not None:
            return state.turns(target.turn.session_id, target.turn.seq, target.turn.seq)
        if target.document is not None:
            return self._documents(state, target.document)
        if target.kv is not None:
            return state.keys(target.kv)
        if target.vector is not None:
            return state.vector(target.vector)
        return state.timeline(target.timeline) if target.timeline is not None else 0

    def _memories(self, state: "_State", which: str, bindings: tuple[Any, ...]) -> int:
        ids = state.memories(which, bindings)
        self.memory_ids.update(ids)
        return len(ids)

    def _documents(self, state: "_State", target: DocumentTarget) -> int:
        if target.id is not None:
            return state.document(target.collection, target.id)
        if target.filter is None:
            return 0
        ids = state.matching(target.collection, _compiled(target.filter))
        self.document_ids.update((target.collection, id_) for id_ in ids)
        return sum(state.document(target.collection, id_) for id_ in ids)

    def answers(self) -> tuple[set[str], set[str]]:
        """Return the routes whose kept answers say something of what was erased, and the names by which others do."""
        named = [target.kv.key or target.kv.prefix or "" for target in self.targets if target.kv is not None]
        named += [target.vector.id for target in self.targets if target.vector is not None]
        named += [target.timeline.key for target in self.targets if target.timeline is not None]
        named += [t.document.id for t in self.targets if t.document is not None and t.document.id is not None]
        named += [id_ for _, id_ in self._known]
        routes = set()
        if any(t.memory_id or t.topic_key or t.session_id for t in self.targets):
            routes.add(_PATCH_ROUTE)
        if any(target.kv is not None for target in self.targets):
            routes.add(_INCREMENT_ROUTE)
        return routes, {name for name in named if name}

    @property
    def may_name_more(self) -> bool:
        """Return whether what was removed earlier may have been of the targets, without this being able to tell."""
        return any(
            target.topic_key is not None
            or target.session_id is not None
            or (target.document is not None and target.document.filter is not None)
            for target in self.targets
        )

    def names_in_changes(self) -> set[str]:
        """Return the names by which the change feed may speak of what is erased, those aside that a state tells."""
        found = {*self._known_memories, *self.named}
        for target in self.targets:
            found.update(
                {
                    target.session_id or "",
                    target.turn.session_id if target.turn else "",
                    target.kv.key or target.kv.prefix or target.kv.ns if target.kv else "",
                    target.vector.id if target.vector else "",
                    target.timeline.key if target.timeline else "",
                    target.document.id or "" if target.document else "",
                }
            )
        found.update(id_ for _, id_ in self._known)
        return {name for name in found if name}


def apply_all(erasers: Sequence[Eraser], conn: ProfileConnection, now_ms: int) -> tuple[int, bool]:
    """Take the targets of several erasers out of the newest state, as a write; return how many rows went."""
    del now_ms
    gone = _take_out_all(erasers, conn, live=True)
    return gone, gone > 0


def erase_all(erasers: Sequence[tuple[Eraser, int | None]], conn: ProfileConnection) -> int:
    """Take the targets of several erasers, each with its cut, out of the state that `conn` holds.

    Returns how many rows went, 0 where it stays as it is.
    """
    txid, replaced = _standing(conn) if any(cut is not None for _, cut in erasers) else (0, 0)
    held = [one for one, cut in erasers if cut is None or txid <= cut or replaced > cut]
    return _take_out_all(held, conn, live=False)


def _standing(conn: ProfileConnection) -> tuple[int, int]:
    """Return the commit of a state, and the one that last brought an older state back: the same where it does not say."""
    txid = schema.read_meta(conn).txid
    if not conn.table_exists("main", "__memoturn_lineage"):
        return txid, txid
    return txid, conn.execute("SELECT replaced_txid FROM __memoturn_lineage", can_cache=False).get


def _take_out_all(erasers: Sequence[Eraser], conn: ProfileConnection, *, live: bool) -> int:
    if not erasers:
        return 0
    state = _State(conn, _tables(conn), live=live)
    named = json.dumps(sorted(set().union(*(eraser.named for eraser in erasers))))
    memory_ids = set(state.memories(f"id IN ({_LISTED})", (named,)))
    for eraser in erasers:
        eraser.memory_ids |= eraser.named & memory_ids
    gone = len(memory_ids) + sum(eraser.take_out(state) for eraser in erasers)
    routes, names_ = (
        set[str]().union(*each) for each in zip(*(one.answers() for one in erasers), strict=True)
    )
    gone += state.answers(sorted(routes), sorted(names_)) + state.tidy()
    named_changes = state.ids.union(*(eraser.names_in_changes() for eraser in erasers))
    unknown = any(eraser.may_name_more for eraser in erasers)
    return gone + state.changes(sorted(named_changes), any_gone=gone > 0, unknown=unknown)


def _tables(conn: ProfileConnection) -> set[str]:
    rows: Any = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'", can_cache=False)
    return {name for (name,) in rows}


class _State:
    """One state, and how each kind of thing leaves it. `live` is whether it is the one that a writer goes on from."""

    def __init__(self, conn: ProfileConnection, tables: set[str], *, live: bool) -> None:
        self._conn = conn
        self._tables = tables
        self._live = live
        self.ids: set[str] = set()
        """Ids of the memories and documents that were here."""

    def _has(self, table: str) -> bool:
        return table in self._tables

    def _run(self, sql: str, *bindings: Any) -> int:
        """Run a statement that the connection does not keep; return how many rows it changed."""
        before = self._conn.total_changes()
        self._conn.execute(sql, bindings, can_cache=False)
        return self._conn.total_changes() - before

    def _rows(self, sql: str, *bindings: Any) -> list[Any]:
        return self._conn.execute(sql, bindings, can_cache=False).fetchall()

    def memories(self, which: str, bindings: tuple[Any, ...]) -> list[str]:
        """Remove memories with their words, vectors and links; return their ids."""
        if not self._has(_MEMORIES):
            return []
        found = self._rows(f"SELECT {_FOUND} FROM {_MEMORIES} WHERE {which}", *bindings)
        if not found:
            return []
        for rid, _, summary, keywords, _ in found:
            memories.unindex(self._conn, rid, summary, keywords)
        rids = json.dumps([row[0] for row in found])
        for table in self._tables:
            if (
                MEMORY_VECTORS.names(table)
                or table == MEMORY_VECTORS.prefix[:-1]
                or table == "__memoturn_memory_origins"
            ):
                self._run(f"DELETE FROM {table} WHERE rid IN ({_LISTED})", rids)
        self._run(f"DELETE FROM {_MEMORIES} WHERE rid IN ({_LISTED})", rids)
        self._mend({id_: heir for _, id_, _, _, heir in found})
        if self._live:
            for row in found:
                memories.note_change(self._conn, row[0])
        if self._has("__memoturn_reembed"):
            self._run("UPDATE __memoturn_reembed SET error = NULL WHERE error IS NOT NULL")
        ids = [row[1] for row in found]
        self.ids.update(ids)
        return ids

    def _mend(self, gone: dict[str, str | None]) -> None:
        """Let what was superseded by a memory that is gone point to the next one that stays."""
        left = self._rows(
            f"SELECT rid, superseded_by FROM {_MEMORIES} WHERE superseded_by IN ({_LISTED})",
            json.dumps(list(gone)),
        )
        for rid, heir in left:
            seen: set[str] = set()
            while heir in gone and heir not in seen:  # links may go in circles
                seen.add(heir)
                heir = gone[heir]
            heir = None if heir in gone else heir
            self._run(f"UPDATE {_MEMORIES} SET superseded_by = ? WHERE rid = ?", heir, rid)

    def session(self, session_id: str, *, turns: bool) -> int:
        """Remove a session, with `turns` its transcript and what memories say of having been drawn from it."""
        gone = 0
        if self._has("__memoturn_memory_sessions"):
            gone += self._run("DELETE FROM __memoturn_memory_sessions WHERE id = ?", session_id)
        if not turns:
            return gone
        if self._has("__memoturn_memory_origins"):
            gone += self._run("DELETE FROM __memoturn_memory_origins WHERE session_id = ?", session_id)
        return gone + self.turns(session_id, 0, transcripts.END)

    def turns(self, session_id: str, first: int, last: int) -> int:
        """Remove turns with their words and vectors."""
        if self._has(_MESSAGES_TEXT):
            return transcripts.delete(self._conn, session_id, first, last)
        if not self._has(_MESSAGES):
            return 0
        return self._run(
            f"DELETE FROM {_MESSAGES} WHERE session_id = ? AND seq BETWEEN ? AND ?", session_id, first, last
        )

    def matching(self, collection: str, wanted: filters.Filter) -> list[str]:
        """Return the ids of the documents that match."""
        table = collections.table_of(collection)
        if not self._has(table):
            return []
        return [id_ for (id_,) in self._rows(f"SELECT id FROM {table} WHERE {wanted.sql}", *wanted.bindings)]

    def document(self, collection: str, id_: str) -> int:
        """Remove a document."""
        table = collections.table_of(collection)
        gone = self._run(f"DELETE FROM {table} WHERE id = ?", id_) if self._has(table) else 0
        if gone:
            self.ids.add(id_)
        return gone

    def keys(self, target: KeyTarget) -> int:
        """Remove key-values."""
        if not self._has("__memoturn_kv"):
            return 0
        if target.key is not None:
            return self._run("DELETE FROM __memoturn_kv WHERE ns = ? AND k = ?", target.ns, target.key)
        prefix = target.prefix or ""
        return self._run(
            "DELETE FROM __memoturn_kv WHERE ns = ?1 AND k >= ?2 AND substr(k, 1, length(?2)) = ?2",
            target.ns,
            prefix,
        )

    def vector(self, target: VectorTarget) -> int:
        """Remove a vector with its metadata."""
        if not self._has("__memoturn_vector_collections"):
            return 0
        if self._live:
            results, _ = vectors.apply_delete(self._conn, target.collection, (target.id,))
            return sum(result["status"] == "deleted" for result in results)
        collection = vectors.find(self._conn, target.collection)
        if collection is None or not self._run(f"DELETE FROM {collection.table} WHERE id = ?", target.id):
            return 0
        self._run(
            "UPDATE __memoturn_vector_collections SET vectors = vectors - 1 WHERE name = ?", target.collection
        )
        return 1

    def timeline(self, target: TimelineTarget) -> int:
        """Remove the rows of a key, also those of a deleted timeline, which wait to be removed."""
        gone = 0
        if not self._has("__memoturn_timelines"):
            return gone
        for timeline in self._timelines(target.name):
            rows = self._rows(
                "SELECT id, rows FROM __memoturn_timeline_keys WHERE timeline_id = ? AND key = ?",
                timeline.id,
                target.key,
            )
            for key_id, count in rows:
                key = timeline_store.get_key(self._conn, key_id)
                timeline_store.remove_oldest(self._conn, timeline, key, count)
                gone += 1
        return gone

    def _timelines(self, name: str) -> list[timeline_store.Timeline]:
        named = timeline_store.find(self._conn, name)
        return [*([] if named is None else [named]), *timeline_store.those(self._conn, "name IS NULL")]

    def answers(self, routes: Sequence[str], named: Sequence[str]) -> int:
        """Remove the answers of writes that were kept of those routes, or that have one of these names in them."""
        table = "__memoturn_idempotency"
        if not self._has(table):
            return 0
        gone = sum(self._run(f"DELETE FROM {table} WHERE route LIKE ?", route) for route in routes)
        if not self._rows(f"SELECT 1 FROM {table} LIMIT 1"):
            return gone
        for name in named:
            gone += self._run(f"DELETE FROM {table} WHERE instr(answer, CAST(? AS BLOB))", name)
        return gone

    def changes(self, named: Sequence[str], *, any_gone: bool, unknown: bool) -> int:
        """Forget what is kept of the changes of rounds, where that names one of these; return how many rows that is.

        All of it goes: what one round says of a key cannot be told from what another says. Of the state that a writer goes on
        from it goes also where names are `unknown`, since later states are not looked at.
        """
        if not self._has("__memoturn_changes"):
            return 0
        is_named = changes.mentions(self._conn, list(named)) or (
            unknown and self._live and changes.any_kept(self._conn)
        )
        if self._live and (any_gone or is_named):
            self._conn.noted.why = "erased"
        if not is_named:
            return 0
        txid = self._conn.round_txid - 1 if self._live else schema.read_meta(self._conn).txid
        changes.forget(self._conn, txid)
        return 1

    # ---- what indexes of words keep of words that are gone

    def tidy(self) -> int:
        """Make an index of words anew that still names one that no text holds; return how many were.

        FTS5 tells its pages apart by the beginnings of words, which stay when the words go.
        """
        made = 0
        if self._has(_MEMORIES_TEXT) and self._has_orphans(_MEMORIES_TEXT):
            self._run(f"INSERT INTO {_MEMORIES_TEXT}({_MEMORIES_TEXT}) VALUES ('rebuild')")
            made += 1
        if self._has(_MESSAGES_TEXT) and self._has_orphans(_MESSAGES_TEXT):
            transcripts.index_anew(self._conn)
            made += 1
        return made

    def _has_orphans(self, index: str) -> bool:
        # The first byte of a term is that of its index; a page without a separator has an empty one.
        terms = self._rows(f"SELECT DISTINCT substr(term, 2) FROM {index}_idx WHERE length(term) > 1")
        if not terms:
            return False
        vocabulary = "__memoturn_erasing_terms"
        self._conn.execute(
            f"CREATE VIRTUAL TABLE temp.{vocabulary} USING fts5vocab(main, {index}, row)", can_cache=False
        )
        try:
            return any(self._is_orphan(vocabulary, bytes(term)) for (term,) in terms)
        finally:
            self._conn.execute(f"DROP TABLE temp.{vocabulary}", can_cache=False)

    def _is_orphan(self, vocabulary: str, term: bytes) -> bool:
        start = term.decode(errors="ignore")  # a page may end within a character
        row: Any = self._conn.execute(
            f"SELECT term FROM temp.{vocabulary} WHERE term >= ? LIMIT 1", (start,), can_cache=False
        ).get
        return row is None or not str(row).startswith(start)
