"""Recall over arrays that are kept answers what recall over the file answers, and what the formulas say."""

import asyncio
import contextlib
import math
import random

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import bm25
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.engine.kept import Memory
from memoturnd.errors import MemoturnError, NotFoundError
from memoturnd.seams.profile import ElsewhereError
from memoturnd.surfaces import memories, memory_edits, memory_index, recall, sessions, topics
from memoturnd.surfaces.channels import ArrayChannels, SqlChannels
from memoturnd.surfaces.scope import Scope

WORDS = [
    "refund",
    "seats",
    "deploying",
    "invoice",
    "theme",
    "flights",
    "ticket",
    "billing",
    "the",
    "of",
    "Café",
    "cafe",
    "über",
    "東京",
    "naïve",
    "run",
    "running",
    "runs",
]
VECTORS = [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [1, 1, 0],
    [1, 2, 3],
    [2, 4, 6],
    [-1, 0, 0],
    [0, 0, 0],
    [3, -1, 2],
]
WINDOW = 40


class Profile:
    """One file in memory, written and read as the engine does it, with and without what is kept of it."""

    def __init__(self, *, limit_bytes=1 << 24):
        self.conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
        self.now_ms, self.txid = 1_000_000, 0
        self.memory = Memory(limit_bytes)
        self.kept = self.memory.open()
        self.write(lambda conn, _: schema.create(conn))

    def write(self, op):
        conn, self.now_ms, self.txid = self.conn, self.now_ms + 1, self.txid + 1
        conn.kept, conn.round_txid = None, self.txid
        conn.execute("BEGIN IMMEDIATE")
        try:
            value = op(conn, self.now_ms)
        except MemoturnError:
            conn.execute("ROLLBACK")
            raise
        schema.write_meta(conn, self.txid, self.now_ms, 1)
        conn.execute("COMMIT")
        return value

    def ingest(self, *items):
        parsed = memories.parse_items({"memories": list(items)})
        return self.write(lambda conn, now_ms: memories.apply_ingest(conn, now_ms, parsed)[0])

    def rewind(self, state):
        """Let the whole state be an older one."""
        source = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
        source.deserialize("main", state)
        with self.conn.backup("main", source, "main") as backup:
            backup.step(-1)
        source.close()
        self.write(lambda conn, _: schema.note_replaced(conn, self.txid))

    def recall(self, *, kept, **body):
        self.conn.kept = self.kept if kept else None
        query = recall.parse_query({"explain": True, **body})
        return recall.read_recall(self.conn, self.now_ms, query)["memories"]

    def both(self, **body):
        """Recall with and without what is kept, which must be alike; return the hits of the default ranking."""
        answers = []
        for fusion in ("reference", "relevance"):
            if fusion == "reference" and not {"weights", "decay"}.isdisjoint(body):
                continue
            slow, fast = (self.recall(kept=kept, fusion=fusion, **body) for kept in (False, True))
            assert [hit["id"] for hit in fast] == [hit["id"] for hit in slow]
            for one, other in zip(fast, slow, strict=True):
                assert one["score"] == pytest.approx(other["score"], abs=1e-6)
                assert one["channels"] == other["channels"]
                for name, found in one["explain"].items():
                    assert found == {k: pytest.approx(v, abs=1e-6) for k, v in other["explain"][name].items()}
            answers.append(fast)
        return answers[-1]

    def states(self):
        return self.kept.item.states if self.kept.item is not None else ()


@pytest.fixture
def one():
    profile = Profile()
    yield profile
    profile.conn.close()


def item(rng, n):
    kind = rng.choice(["fact", "event", "event", "instruction", "task"])
    body = {
        "type": kind,
        "summary": " ".join(rng.choices(WORDS, k=rng.randint(1, 9))),
        "keywords": " ".join(rng.choices(WORDS, k=rng.randint(0, 3))),
        "content": rng.choice([n, n, n // 3]),
        "session_id": rng.choice([None, "a", "b"]),
        "source": rng.choice([None, "chat", "mail"]),
        "pinned": rng.random() < 0.1,
    }
    if kind in ("fact", "instruction"):
        body["topic_key"] = rng.choice([None, "t1", "t2"])
    if kind == "task":
        body["ttl"] = rng.choice([0, 1, 100])
    elif rng.random() < 0.8:
        body["embedding"] = rng.choice(VECTORS)
    return body


def question(rng):
    body = {"k": rng.choice([1, 2, 5, 8])}
    body["query"] = rng.choice([None, " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))])
    body["embedding"] = rng.choice([None, rng.choice(VECTORS), [rng.uniform(-1, 1) for _ in range(3)]])
    body["topic_key"] = rng.choice([None, None, "t1"])
    if body["query"] is body["embedding"] is body["topic_key"] is None:
        body["query"] = "refund"
    if rng.random() < 0.3:
        body["types"] = rng.sample(memories.TYPES, rng.randint(1, 3))
    if rng.random() < 0.3:
        body["session_id"] = rng.choice(["a", "b", "nobody"])
    if rng.random() < 0.3:
        body["source"] = rng.choice(["chat", "mail", "nothing"])
    if rng.random() < 0.2:
        body["since"] = 1_000_000 + rng.randint(0, 60)
    if rng.random() < 0.2:
        body["until"] = 1_000_000 + rng.randint(0, 60)
    if rng.random() < 0.2:
        body["min_score"] = rng.choice([0, 0.01, 0.2, 1])
    if rng.random() < 0.2:
        body["weights"] = {
            name: rng.choice([0, 0.5, 2]) for name in rng.sample(["topic", "keyword", "vector"], 2)
        }
    if rng.random() < 0.2:
        body["decay"] = {"half_life_s": rng.choice([0.01, 1, 1e6])}
    body["pinned_first"] = rng.random() < 0.2
    body["include_superseded"] = rng.random() < 0.3
    return body


def change(rng, profile, n, states):
    """Do one random thing to the profile."""
    ids = [id_ for (id_,) in profile.conn.execute("SELECT id FROM __memoturn_memories").fetchall()]
    what = rng.choice(
        ["ingest"] * 5
        + ["many", "forget", "patch", "undo", "expire", "sweep", "end", "save", "rewind", "nothing"]
    )
    if what == "ingest":
        profile.ingest(*(item(rng, n + i) for i in range(rng.randint(1, 4))))
    elif what == "many":
        profile.ingest(*(item(rng, n + i) for i in range(30)))
    elif what == "forget" and ids:
        for id_ in {rng.choice(ids), ids[-1]}:
            with contextlib.suppress(NotFoundError):
                profile.write(lambda conn, now_ms, id_=id_: memories.apply_forget(conn, now_ms, id_))
    elif what == "patch" and ids:
        patch = memory_edits.parse_patch({"keywords": rng.choice(WORDS), "pinned": rng.random() < 0.5})
        with contextlib.suppress(NotFoundError):
            profile.write(lambda conn, now_ms: memory_edits.apply_patch(conn, now_ms, rng.choice(ids), patch))
    elif what == "undo" and ids:
        with contextlib.suppress(MemoturnError):
            profile.write(lambda conn, now_ms: topics.apply_undo(conn, now_ms, rng.choice(ids), None))
    elif what == "expire":
        profile.now_ms += 1500
    elif what == "sweep":
        profile.write(lambda conn, now_ms: memories.sweep_expired(conn, now_ms, 10))
    elif what == "end":
        profile.write(lambda conn, now_ms: sessions.apply_end_session(conn, now_ms, "a"))
    elif what == "save":
        states.append(profile.conn.serialize("main"))
    elif what == "rewind" and states:
        profile.rewind(rng.choice(states))
    else:
        profile.write(lambda conn, now_ms: None)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_arrays_and_file_answer_alike_through_any_history(seed):
    rng = random.Random(seed)
    profile, states = Profile(), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory_index, "LOG_LIMIT", rng.choice([5, 1024]))
        patched.setattr(memory_index, "_DEAD_MIN", rng.choice([2, 1024]))
        for n in range(40):
            change(rng, profile, 1000 * n, states)
            for _ in range(rng.randint(0, 3)):
                profile.both(**question(rng))
    profile.conn.close()


def test_arrays_are_followed_up_and_not_built_anew(one):
    one.ingest(*(item(random.Random(n), n) for n in range(50)))
    one.both(query="refund", embedding=[1, 0, 0])
    columns = one.states()[-1].columns

    one.ingest({"type": "event", "summary": "refund again", "embedding": [1, 0, 0], "content": "x"})
    (hit,) = [
        h for h in one.both(query="refund again", embedding=[1, 0, 0]) if h["summary"] == "refund again"
    ]
    one.write(lambda conn, now_ms: memories.apply_forget(conn, now_ms, hit["id"]))
    after = one.both(query="refund again", embedding=[1, 0, 0])

    assert hit["id"] not in [h["id"] for h in after]
    assert one.states()[-1].columns is columns


def test_a_row_number_that_is_used_again_is_another_memory(one):
    one.ingest(*(item(random.Random(n), n) for n in range(50)))
    (last,) = one.ingest({"type": "event", "summary": "flight", "content": 1, "embedding": [1, 0, 0]})
    one.both(query="flight deploy", embedding=[1, 0, 0])
    one.write(lambda conn, now_ms: memories.apply_forget(conn, now_ms, last["id"]))
    (new,) = one.ingest({"type": "event", "summary": "deploy", "content": 2, "embedding": [0, 1, 0]})

    hits = one.both(query="flight deploy", embedding=[1, 0, 0], k=60)

    assert last["id"] not in [hit["id"] for hit in hits]
    assert new["id"] in [hit["id"] for hit in hits]


def test_more_changes_than_are_kept_build_the_arrays_anew(one, monkeypatch):
    monkeypatch.setattr(memories, "CHANGES_KEPT", 3)
    stored = one.ingest(*({"type": "event", "summary": f"refund {n}", "content": n} for n in range(20)))
    one.both(query="refund")
    columns = one.states()[-1].columns

    for result in stored[:5]:
        one.write(lambda conn, now_ms, id_=result["id"]: memories.apply_forget(conn, now_ms, id_))

    assert len(one.both(query="refund", k=50)) == 15
    assert one.states()[-1].columns is not columns


def test_a_superseded_memory_that_is_told_again_is_found_again(one):
    old = {"type": "fact", "topic_key": "t", "summary": "theme dark", "content": 1}
    new = {**old, "summary": "theme light", "content": 2}
    (first,) = one.ingest(old)
    one.ingest(new)
    for _ in range(3):
        one.ingest({"type": "event", "summary": "x", "content": random.random()})
        assert [hit["summary"] for hit in one.both(query="theme")] == ["theme light"]

    one.ingest(old)

    assert [hit["id"] for hit in one.both(query="theme")] == [first["id"]]


def test_a_reader_of_an_older_state_does_without_arrays_of_a_newer_one(tmp_path):
    path = str(tmp_path / "p.db")
    main = open_connection(path, read_only=False, sync="normal", cache_kib=256)
    kept = Memory(1 << 24).open()

    def write(txid, *items):
        main.execute("BEGIN IMMEDIATE")
        if txid == 1:
            schema.create(main)
        memories.apply_ingest(main, 0, memories.parse_items({"memories": list(items)}))
        schema.write_meta(main, txid, 0, 1)
        main.execute("COMMIT")

    def found(conn):
        conn.kept = kept
        return {
            hit["id"]
            for hit in recall.read_recall(conn, 0, recall.parse_query({"query": "refund"}))["memories"]
        }

    def event(n):
        return {"type": "event", "summary": "refund", "content": n}

    write(1, event(1))
    behind, fresh = (open_connection(path, read_only=True, sync="normal", cache_kib=64) for _ in range(2))
    behind.execute("BEGIN")
    assert len(found(behind)) == 1
    write(2, event(2))
    write(3, event(3))
    unseen = open_connection(path, read_only=True, sync="normal", cache_kib=64)
    unseen.execute("BEGIN")
    assert schema.read_meta(unseen).txid == 3
    write(4, event(4))

    assert len(found(fresh)) == 4
    assert len(found(behind)) == 1  # whose arrays are kept beside the newer ones
    assert len(found(unseen)) == 3  # whose are not
    assert memory_index.open_state(unseen) is None
    assert [state.txid for state in kept.item.states] == [1, 4]
    for conn in (unseen, fresh, behind, main):
        conn.close()


def test_a_reader_of_an_older_state_finds_by_a_word_what_a_newer_one_has_lost(tmp_path):
    path = str(tmp_path / "p.db")
    main = open_connection(path, read_only=False, sync="normal", cache_kib=256)
    kept = Memory(1 << 24).open()

    def write(txid, op):
        main.execute("BEGIN IMMEDIATE")
        op()
        schema.write_meta(main, txid, 0, 1)
        main.execute("COMMIT")

    def found(conn, query):
        conn.kept = kept
        return len(recall.read_recall(conn, 0, recall.parse_query({"query": query}))["memories"])

    def begin():
        item = {"type": "event", "summary": "refund of a ticket"}
        schema.create(main)
        return memories.apply_ingest(main, 0, memories.parse_items({"memories": [item]}))[0][0]["id"]

    ids = []
    write(1, lambda: ids.append(begin()))
    behind, fresh = (open_connection(path, read_only=True, sync="normal", cache_kib=64) for _ in range(2))
    behind.execute("BEGIN")
    assert found(behind, "ticket") == 1
    write(2, lambda: memories.apply_forget(main, 0, ids[0]))

    assert found(fresh, "refund") == 0  # reads the word's postings, which are kept
    assert found(behind, "refund") == 1
    assert found(fresh, "refund") == 0
    for conn in (fresh, behind, main):
        conn.close()


def test_arrays_end_with_the_opening_of_the_file(one):
    one.ingest(*(item(random.Random(n), n) for n in range(50)))
    one.both(query="refund")
    assert len(one.memory) == 1
    assert one.memory.size_bytes > 0

    one.kept.close()

    assert (len(one.memory), one.memory.size_bytes, one.kept.item) == (0, 0, None)
    one.both(query="refund")
    assert len(one.memory) == 0


def test_a_profile_beyond_the_bound_is_read_from_the_file():
    profile = Profile(limit_bytes=2000)
    profile.ingest(*(item(random.Random(n), n) for n in range(200)))

    profile.both(query="refund", embedding=[1, 0, 0])

    assert profile.kept.refused
    assert profile.kept.item is None
    assert profile.memory.size_bytes == 0
    profile.both(query="refund", embedding=[1, 0, 0])
    profile.conn.close()


def test_the_event_loop_does_not_build_the_arrays_of_many_memories(one, monkeypatch):
    monkeypatch.setattr(memory_index, "INLINE_ROWS", 10)
    one.ingest(*(item(random.Random(n), n) for n in range(50)))

    async def read():
        return one.recall(kept=True, query="refund")

    with pytest.raises(ElsewhereError):
        asyncio.run(read())
    one.both(query="refund")  # no event loop here: a thread of the pool
    assert asyncio.run(read())


def test_words_that_are_several_to_the_index_are_left_to_it(one):
    one.ingest(
        {"type": "event", "summary": "one\u0604two three", "content": 1}, *(item(random.Random(1), 1),)
    )

    one.both(query="𐑐one two")


def test_a_word_longer_than_the_index_keeps_is_found_before_and_after_it_was_read_anew(one):
    long = "a" * 40_000
    one.ingest({"type": "event", "summary": f"{long} one", "content": 1})
    assert len(one.both(query=f"{long} zebra")) == 1
    one.ingest({"type": "event", "summary": f"{long} two", "content": 2})

    assert len(one.both(query=f"{long} zebra")) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"query": "!?"},
        {"query": ""},
        {"query": " ".join(f"w{n}" for n in range(500))},
        {"query": 'NEAR(a b) OR "c" AND NOT d*', "k": 1000},
        {"query": "\U0001f600 \ufffd \u0000".replace("\0", ""), "embedding": [0, 0, 0]},
        {"embedding": [1e-300, 0, 0]},
        {"topic_key": "nothing"},
        {"query": "refund", "weights": {"topic": 0, "keyword": 0, "vector": 0}},
        {"query": "refund", "since": 9_000_000_000_000, "pinned_first": True},
        {"query": "refund", "since": 2, "until": 1},
    ],
)
def test_odd_questions_are_answered_alike(one, body):
    one.both(**body)
    one.ingest(*(item(random.Random(n), n) for n in range(60)))
    one.both(**body)


# ---- what is computed


def brute_force(conn, words, embedding, window):
    """Return the score of every memory that is found, by row, as memoturnd.core.relevance describes it."""
    tokenizer = conn.fts5_tokenizer("porter", ["unicode61"])

    def tokens(text):
        return tokenizer(
            text.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False
        )

    rows = conn.execute(
        "SELECT rid, summary, keywords, session_id, superseded_at FROM __memoturn_memories ORDER BY rid"
    ).fetchall()
    texts = {rid: list(tokens(summary)) + list(tokens(keywords)) for rid, summary, keywords, _, _ in rows}
    terms = list(dict.fromkeys(term for word in words for term in tokens(word)))
    sessions = {}
    for rid, _, _, session_id, _ in rows:
        if session_id is not None:
            sessions.setdefault(session_id, []).append(rid)

    def bm25_of(documents, k1, b):
        mean = sum(map(len, documents.values())) / len(documents)
        idf = {}
        for term in terms:
            n = sum(term in text for text in documents.values())
            idf[term] = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
        ideal = sum(weight * (k1 + 1) for weight in idf.values())
        return {
            at: sum(
                idf[t]
                * text.count(t)
                * (k1 + 1)
                / (text.count(t) + k1 * (1 - b + b * len(text) / mean))
                / ideal
                for t in terms
                if t in text
            )
            for at, text in documents.items()
        }

    own = bm25_of(texts, 0.9, 0.4)
    of_session = bm25_of({s: [t for r in rids for t in texts[r]] for s, rids in sessions.items()}, 1.2, 0.75)
    lexical = dict(own)
    for session_id, rids in sessions.items():
        for at, rid in enumerate(rids):
            lexical[rid] += 0.6 * of_session[session_id]
            for distance, weight in ((1, 0.35), (2, 0.175)):
                beside = [n for n in (at - distance, at + distance) if 0 <= n < len(rids)]
                lexical[rid] += weight * sum(own[rids[n]] for n in beside)
    wanted = np.array(embedding) / np.linalg.norm(embedding)
    cosines = {
        rid: float(np.frombuffer(e, "<f4") @ wanted)
        for rid, e in conn.execute("SELECT rid, e FROM __memoturn_memory_vectors_1")
    }
    active = [rid for rid, *_, superseded_at in rows if superseded_at is None]
    nearest = sorted((r for r in active if r in cosines), key=lambda r: (-cosines[r], -r))[:window]
    found = {rid for rid in active if own[rid] > 0} | set(nearest)
    return {rid: lexical[rid] + max(0.0, cosines.get(rid, 0.0)) for rid in found}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_scores_are_those_of_the_formula(seed):
    rng = random.Random(seed)
    profile = Profile()
    for n in range(rng.randint(3, 40)):
        body = {
            **item(rng, n),
            "type": "fact",
            "topic_key": rng.choice([None, "t"]),
            "session_id": rng.choice("abc"),
        }
        body.pop("ttl", None)
        body["session_id"] = rng.choice([None, "a", "b", "c"])
        body["embedding"] = [rng.uniform(-1, 1) for _ in range(3)]
        profile.ingest(body)
        if rng.random() < 0.3:
            profile.recall(kept=True, query="refund", embedding=[1, 0, 0])
    words = list(dict.fromkeys(rng.choices(["refund", "seats", "flight", "billing", "run", "zebra"], k=3)))
    embedding = [rng.uniform(-1, 1) for _ in range(3)]
    k = rng.randint(1, 8)

    hits = profile.both(query=" ".join(words), embedding=embedding, k=k)

    scores = brute_force(profile.conn, words, embedding, 5 * k)
    best = sorted(scores.values(), reverse=True)[:k]
    assert [hit["score"] for hit in hits] == pytest.approx(best, abs=1e-6)
    profile.conn.close()


# ---- bm25


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_bm25_is_that_of_fts5(seed):
    rng = random.Random(seed)
    profile = Profile()
    for n in range(rng.randint(1, 60)):
        profile.ingest(item(rng, n))
        if n == 10:
            profile.recall(kept=True, query="refund")
    words = list(dict.fromkeys(word.lower() for word in rng.choices(WORDS, k=rng.randint(1, 5))))
    scope = Scope(include_superseded=True)
    slow = SqlChannels(profile.conn, scope, profile.now_ms, 1000).keyword(words)
    found = arrays(profile, scope, 1000).keyword(words)
    assert [c.rid for c in found] == [c.rid for c in slow]
    assert [c.measure for c in found] == pytest.approx([c.measure for c in slow], rel=1e-9)
    profile.conn.close()


def arrays(profile, scope, window):
    profile.conn.kept = profile.kept
    state = memory_index.open_state(profile.conn)
    return ArrayChannels(profile.conn, scope, profile.now_ms, window, state=state)


def test_what_most_rows_have_weighs_next_to_nothing():
    assert bm25.idf(10, 5) == bm25.idf(10, 9) == 1e-6
    assert bm25.idf(10, 4) > 0.1
    assert bm25.saturated(np.ones(1), np.full(1, 7.0), 7.0) == pytest.approx(1.0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_dropping_frequent_words_moves_scores_by_next_to_nothing(seed):
    rng = random.Random(seed)
    profile = Profile()
    rare = rng.choice([0.02, 0.2, 0.32, 0.4])
    for start in (0, 300):
        texts = [
            " ".join(
                ["update"] * (rng.random() < 0.9)
                + ["number"] * (rng.random() < 0.7)
                + ["refund"] * (rng.random() < rare) * rng.randint(1, 3)
                + rng.choices(["x", "y", "z"], k=rng.randint(1, 9))
            )
            for _ in range(300)
        ]
        profile.ingest(*({"type": "event", "summary": t, "content": start + n} for n, t in enumerate(texts)))
    scope = Scope(include_superseded=True)

    def ranked(words):
        slow = SqlChannels(profile.conn, scope, profile.now_ms, 30).keyword(words)
        exact = arrays(profile, scope, 600).keyword(words)
        return slow, {c.rid: c.measure for c in exact}, [c.measure for c in exact[:30]]

    for words in (["refund", "update"], ["update", "number", "refund"]):
        slow, exact, best = ranked(words)
        assert [c.measure for c in slow] == pytest.approx(best, rel=1e-4)
        assert [exact[c.rid] for c in slow] == pytest.approx(best, rel=1e-4)
    slow, _, best = ranked(["update", "number"])  # of which none is dropped
    assert [c.measure for c in slow] == pytest.approx(best, rel=1e-9)
    profile.conn.close()


def test_the_nearest_of_100_000_are_found_exactly():
    count, dimensions, k = 100_000, 32, 10
    profile = Profile(limit_bytes=1 << 28)
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(count, dimensions))
    matrix[50_000] = matrix[7]  # equals, of which the newest comes first
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    stored = matrix.astype("<f4")
    profile.ingest({"type": "event", "summary": "x", "embedding": stored[0].tolist(), "content": -1})

    def fill(conn, now_ms):
        conn.executemany(
            "INSERT INTO __memoturn_memories(rid, id, type, summary, content, created_at) VALUES (?, ?, 'event', 's', '1', 1)",
            ((n + 2, str(n + 1)) for n in range(count - 1)),
        )
        conn.executemany(
            "INSERT INTO __memoturn_memory_vectors_1(rid, e) VALUES (?, ?)",
            ((n + 2, stored[n + 1].tobytes()) for n in range(count - 1)),
        )

    profile.write(fill)
    wanted = [stored[7].tolist(), *rng.normal(size=(20, dimensions)).tolist()]

    for query in wanted:
        hits = profile.recall(kept=True, embedding=query, k=k)

        cosines = stored.astype(np.float64) @ (np.array(query) / np.linalg.norm(query))
        best = np.lexsort((-np.arange(count), -np.round(cosines, 12)))[:k]
        rids = [
            profile.conn.execute("SELECT rid FROM __memoturn_memories WHERE id = ?", (h["id"],)).get
            for h in hits
        ]
        assert rids == (best + 1).tolist()
    assert profile.states()[-1].vectors[1].used == count
    profile.conn.close()
