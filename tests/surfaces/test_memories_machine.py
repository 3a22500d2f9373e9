"""Memories against a plain model: lists and dictionaries, driven through random ingests, corrections, undos, patches,
forgets, sessions and passing time. After every step everything that can be read is what the model says.
"""

import io
import json
from dataclasses import dataclass, replace

import msgspec
from conftest import FakeProfile
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memoturnd.core import canonical
from memoturnd.errors import ConflictError, NotFoundError
from memoturnd.surfaces import (
    lines,
    lines_in,
    memories,
    memory_edits,
    memory_list,
    sessions,
    topics,
)

WORDS = ("apple", "berry", "cherry")
TOPICS = ("t", "t.x", "u")
SESSIONS = (None, "s1", "s2")
SOURCES = (None, "chat")
IMPORTANCE = st.sampled_from([None, 0, 0.25, 0.5, 1])


@dataclass
class Row:
    """A memory as the model keeps it."""

    id: str
    type: str
    topic_key: str | None
    summary: str
    content: str
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    expires_at: int | None
    pinned: bool
    importance: float | None
    version: int
    reason: str | None
    embedded: bool
    superseded_by: str | None = None
    superseded_at: int | None = None
    updated_at: int | None = None
    undone_at: int | None = None

    def expired(self, now):
        return self.expires_at is not None and self.expires_at <= now

    def shown(self):
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "embedded"}
        changed = max(self.created_at, self.updated_at or 0, self.superseded_at or 0)
        return {**fields, "updated_at": changed, "source_turns": None}


class Model:
    """What a profile holds, in the order in which it was stored."""

    def __init__(self):
        self.rows = []

    def remove(self, row):
        self.rows.remove(row)
        for other in self.rows:
            if other.superseded_by == row.id:
                other.superseded_by = row.superseded_by

    def versions(self, topic_key, type_):
        return sorted(
            (row for row in self.rows if (row.topic_key, row.type) == (topic_key, type_)),
            key=lambda row: -row.version,
        )

    def get(self, id_, now):
        return next((row for row in self.rows if row.id == id_ and not row.expired(now)), None)

    def ingest(self, batch, now):
        seen = set()
        return [self.store(item, seen, now) for item in batch]

    def store(self, item, seen, now):
        content = json.dumps(item["content"]).encode()
        plain = mixed = canonical.memory_id(item["type"], item["topic_key"], content)
        by_summary = item["type"] in {"event", "task"} or item["content"] is None
        if by_summary:
            mixed = canonical.memory_id_with_summary(
                item["type"], item["topic_key"], content, item["summary"]
            )
        found, taken = None, False
        for row in sorted((row for row in self.rows if row.id in {plain, mixed}), key=lambda row: row.id):
            if row.expired(now):
                self.remove(row)
            elif not by_summary or row.summary == item["summary"]:
                found = row
                break
            else:
                taken = taken or row.id == plain
        id_ = found.id if found else mixed if taken else plain
        if id_ in seen or (found and found.superseded_at is None):
            seen.add(id_)
            return id_, "duplicate", []
        seen.add(id_)
        before = self.versions(item["topic_key"], item["type"]) if item["topic_key"] else []
        version = before[0].version + 1 if before else 1
        if found:
            found.superseded_by = found.superseded_at = found.undone_at = None
            found.updated_at, found.version, found.reason = now, version, item["reason"]
            found.pinned = found.pinned if item["pinned"] is None else item["pinned"]
            found.importance = found.importance if item["importance"] is None else item["importance"]
            found.embedded = found.embedded or item["embedding"] is not None
        superseded = []
        if before and before[0].superseded_at is None and before[0] is not found:
            if before[0].expired(now):
                self.remove(before[0])
            else:
                before[0].superseded_by, before[0].superseded_at = id_, now
                superseded.append(before[0].id)
        if not found:
            self.rows.append(
                Row(
                    id=id_, type=item["type"], topic_key=item["topic_key"], summary=item["summary"],
                    content=item["content"], keywords=item["keywords"], session_id=item["session_id"],
                    source=item["source"], created_at=now,
                    expires_at=now + 1000 * item["ttl"] if item["type"] == "task" else None,
                    pinned=bool(item["pinned"]), importance=item["importance"], version=version,
                    reason=item["reason"], embedded=item["embedding"] is not None and item["type"] != "task",
                )
            )  # fmt: skip
        return id_, "revived" if found else "created", superseded

    def undo(self, id_, reason, now):
        row = self.get(id_, now)
        if row is None:
            return "missing"
        back = [
            other
            for other in self.versions(row.topic_key, row.type)
            if other.superseded_by == id_ and not other.expired(now)
        ]
        if row.superseded_at is not None or row.topic_key is None or not back:
            return "conflict"
        (prior, *_) = back
        prior.superseded_by = prior.superseded_at = prior.undone_at = None
        prior.updated_at, prior.version = now, row.version + 1
        prior.reason = prior.reason if reason is None else reason
        row.superseded_by, row.superseded_at, row.undone_at = prior.id, now, now
        return prior.id

    def meant(self, wanted, now):
        def fits(row):
            return (
                not row.expired(now)
                and (wanted.get("include_superseded") or row.superseded_at is None)
                and ("types" not in wanted or row.type in wanted["types"])
                and (
                    "topic_prefix" not in wanted
                    or (row.topic_key is not None and row.topic_key.startswith(wanted["topic_prefix"]))
                )
                and all(row.__dict__[name] == wanted[name] for name in PLAIN if name in wanted)
                and wanted.get("since", 0) <= row.created_at <= wanted.get("until", 2**53)
            )

        return [row for row in self.rows if fits(row)]


PLAIN = ("topic_key", "session_id", "source", "pinned")
ITEMS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["fact", "fact", "fact", "instruction", "event", "task"]),
        "topic_key": st.sampled_from(["t", "t", "t", "t.x", None]),
        "summary": st.sampled_from(WORDS),
        "content": st.sampled_from((*WORDS, None)),
        "keywords": st.sampled_from(["", "kiwi"]),
        "session_id": st.sampled_from(SESSIONS),
        "source": st.sampled_from(SOURCES),
        "pinned": st.sampled_from([None, True, False]),
        "importance": IMPORTANCE,
        "reason": st.sampled_from([None, "because"]),
        "embedding": st.sampled_from([None, [1, 0], [0, 1]]),
        "ttl": st.integers(0, 3),
    }
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "types": st.lists(st.sampled_from(memories.TYPES), max_size=2),
        "topic_key": st.sampled_from(TOPICS),
        "topic_prefix": st.sampled_from(["", "t", "t."]),
        "session_id": st.sampled_from(SESSIONS[1:]),
        "source": st.just("chat"),
        "pinned": st.booleans(),
        "since": st.integers(1_000_000, 1_006_000),
        "until": st.integers(1_000_000, 1_006_000),
        "include_superseded": st.booleans(),
    },
)
NUMBER = st.integers(0, 50)


def decoded(value):
    return json.loads(msgspec.json.encode(value))


class Memories(RuleBasedStateMachine):
    """One profile and its model."""

    def __init__(self):
        super().__init__()
        self.profile = FakeProfile()
        self.conn = self.profile.conn
        self.now = 1_000_000
        self.model = Model()

    def teardown(self):
        file, again = io.BytesIO(), io.BytesIO()
        lines.write(self.conn, file)
        other = FakeProfile()
        other.conn.round_txid = 1
        lines_in.apply_import(other.conn, file, branch_id="b", replace=False)
        lines.write(other.conn, again)
        assert again.getvalue().partition(b"\n")[2] == file.getvalue().partition(b"\n")[2]
        for conn in (self.conn, other.conn):
            conn.execute(
                "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rank) VALUES ('integrity-check', 1)"
            )
            conn.close()

    def write(self, op, *given, **named):
        """Apply an operation as a round does: undone where it raises."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            value, changed = op(self.conn, self.now, *given, **named)
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT" if changed else "ROLLBACK")
        return value

    def some_id(self, number):
        """Return the id of a memory, more often than not that of a correction; now and then of none."""
        corrections = [row.id for row in self.model.rows if row.superseded_at is None and row.version > 1]
        ids = corrections if corrections and number % 3 else [row.id for row in self.model.rows]
        return ids[number // 3 % len(ids)] if ids and number != 7 else "mem_0"

    # ---- what happens

    @rule(items=st.lists(ITEMS, min_size=1, max_size=4))
    def ingest(self, items):
        self.store(items)

    @rule(item=ITEMS)
    def ingest_one(self, item):
        self.store([item])

    def store(self, items):
        batch = []
        for drawn in items:
            item = dict(drawn)
            if item["type"] not in {"fact", "instruction"}:
                item["topic_key"] = None
            if item["topic_key"] is None:
                item["reason"] = None
            batch.append(item)
        sent = [{k: v for k, v in item.items() if k != "ttl" or item["type"] == "task"} for item in batch]
        got = self.write(memories.apply_ingest, memories.parse_items({"memories": sent}))
        expected = self.model.ingest(batch, self.now)
        assert [(result["id"], result["status"], result["superseded"]) for result in got] == expected

    @rule(number=NUMBER, reason=st.sampled_from([None, "undone"]))
    def undo(self, number, reason):
        id_ = self.some_id(number)
        expected = self.model.undo(id_, reason, self.now)
        try:
            got = self.write(topics.apply_undo, id_, reason)["active"]
        except NotFoundError:
            got = "missing"
        except ConflictError:
            got = "conflict"
        assert got == expected

    @rule(
        number=NUMBER,
        change=st.fixed_dictionaries(
            {},
            optional={
                "pinned": st.booleans(),
                "importance": IMPORTANCE,
                "keywords": st.sampled_from([None, "", "kiwi", "lime"]),
                "ttl": st.sampled_from([None, 0, 0, 2]),
            },
        ).filter(bool),
    )
    def patch(self, number, change):
        id_ = self.some_id(number)
        row = self.model.get(id_, self.now)
        try:
            got = self.write(memory_edits.apply_patch, id_, memory_edits.parse_patch(change))
        except NotFoundError:
            assert row is None
            return
        before = replace(row)
        row.pinned = change.get("pinned", row.pinned)
        row.importance = change.get("importance", row.importance)
        row.keywords = change.get("keywords", row.keywords) or ""
        if "ttl" in change:
            row.expires_at = None if change["ttl"] is None else self.now + 1000 * change["ttl"]
        if row != before:
            row.updated_at = self.now
        shown = row.shown()
        assert got == {name: shown[name] for name in got}

    @rule(number=NUMBER)
    def forget(self, number):
        id_ = self.some_id(number)
        row = self.model.get(id_, self.now)
        try:
            self.write(memories.apply_forget, id_)
        except NotFoundError:
            assert row is None
        else:
            self.model.remove(row)

    @rule(wanted=FILTERS, limit=st.integers(1, 2), dry_run=st.booleans())
    def forget_many(self, wanted, limit, dry_run):
        everything = not (wanted.keys() - {"include_superseded"})
        forget = memory_edits.parse_forget({**wanted, "all": everything, "limit": limit})
        meant = self.model.meant({"include_superseded": True, **wanted}, self.now)
        if dry_run:
            got = memory_edits.read_forget_many(self.conn, self.now, forget)
            assert got["matched"] == len(meant)
        else:
            got = self.write(memory_edits.apply_forget_many, forget)
            for row in meant[:limit]:
                self.model.remove(row)
        assert [result["id"] for result in got["results"]] == [row.id for row in meant[:limit]]
        assert got["more"] == (len(meant) > limit)

    @rule(session_id=st.sampled_from(SESSIONS[1:]))
    def end_session(self, session_id):
        self.write(sessions.apply_end_session, session_id)
        for row in [row for row in self.model.rows if (row.session_id, row.type) == (session_id, "task")]:
            self.model.remove(row)

    @rule(passed=st.sampled_from([0, 1, 1000, 2000]))
    def wait(self, passed):
        self.now += passed

    @rule()
    def sweep(self):
        self.write(memories.sweep_expired, 1000)
        for row in [row for row in self.model.rows if row.expired(self.now)]:
            self.model.remove(row)

    # ---- what is read

    @rule(wanted=FILTERS, order=st.sampled_from(memory_list.ORDERS), limit=st.integers(1, 5))
    def pages(self, wanted, order, limit):
        meant = self.model.meant(wanted, self.now)
        down = order in {"newest", "most_important"}
        if down:
            meant = meant[::-1]
        if "important" in order:
            rated = [row for row in meant if row.importance is not None]
            rated.sort(key=lambda row: -row.importance if down else row.importance)
            meant = rated + [row for row in meant if row.importance is None]
        found, cursor = [], None
        while True:
            listing = memory_list.parse_listing(wanted, order=order, limit=limit, cursor=cursor)
            got = memory_list.read_page(self.conn, self.now, listing)
            found += decoded(got["memories"])
            cursor = got["next_cursor"]
            if cursor is None:
                break
        assert found == [row.shown() for row in meant]

    @invariant()
    def every_memory_is_what_the_model_says(self):
        listing = memory_list.parse_listing({"include_superseded": True}, order="oldest", limit=1000)
        got = decoded(memory_list.read_page(self.conn, self.now, listing)["memories"])
        assert got == [row.shown() for row in self.model.rows if not row.expired(self.now)]

    @invariant()
    def every_topic_has_its_history(self):
        expected = {}
        for row in self.model.rows:
            if row.topic_key is not None and not row.expired(self.now):
                expected.setdefault((row.topic_key, row.type), []).append(row)
        page = topics.Page()
        listed = topics.read_topics(self.conn, self.now, prefix="", type_=None, page=page)["topics"]
        assert [(topic["topic_key"], topic["type"]) for topic in listed] == sorted(expected)
        for topic in listed:
            rows = sorted(expected[topic["topic_key"], topic["type"]], key=lambda row: -row.version)
            active = [row.id for row in rows if row.superseded_at is None]
            assert len(active) <= 1
            assert topic["active"] == (active[0] if active else None)
            assert (topic["count"], topic["version"]) == (len(rows), rows[0].version)
            assert topic["pinned"] == any(row.pinned for row in rows if row.superseded_at is None)
            chain = topics.read_history(self.conn, self.now, rows[0].id, page)
            assert {name: chain[name] for name in topic} == topic
            assert [version["id"] for version in chain["versions"]] == [row.id for row in rows]

    @invariant()
    def words_and_vectors_are_those_of_what_is_there(self):
        for word in (*WORDS, "kiwi", "lime"):
            matched = self.conn.execute(
                "SELECT m.id FROM __memoturn_memories_fts AS f JOIN __memoturn_memories AS m ON m.rid = f.rowid"
                " WHERE __memoturn_memories_fts MATCH ? ORDER BY m.rid",
                (word,),
            ).fetchall()
            assert [id_ for (id_,) in matched] == [
                row.id for row in self.model.rows if word in f"{row.summary} {row.keywords}".split()
            ]
        if self.conn.table_exists("main", "__memoturn_memory_vectors_1"):
            embedded = self.conn.execute(
                "SELECT m.id FROM __memoturn_memory_vectors_1 AS v LEFT JOIN __memoturn_memories AS m"
                " ON m.rid = v.rid ORDER BY v.rid"
            ).fetchall()
            assert [id_ for (id_,) in embedded] == [row.id for row in self.model.rows if row.embedded]


TestMemories = Memories.TestCase
TestMemories.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
