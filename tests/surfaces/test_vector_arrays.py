"""Searches by what is kept in memory answer what searches of the file answer."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.engine.kept import Memory
from memoturnd.seams.profile import ElsewhereError
from memoturnd.surfaces import vector_arrays, vector_search, vectors


class File:
    """One file in memory, written as the engine does it, read with and without what is kept of it."""

    def __init__(self, *, limit_bytes=1 << 24):
        self.conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
        self.txid = 0
        self.memory = Memory(limit_bytes)
        self.kept = self.memory.open()
        self.write(lambda conn: (schema.create(conn), True))

    def write(self, op):
        self.conn.kept = None
        self.conn.round_txid = self.txid + 1
        self.conn.execute("BEGIN")
        _, changed = op(self.conn)
        if changed:
            self.txid += 1
            schema.write_meta(self.conn, self.txid, 0, 1)
        self.conn.execute("COMMIT")

    def store(self, name, *items):
        body = {"vectors": [{"id": i, "embedding": e, "metadata": {"t": t}} for i, e, t in items]}
        self.write(lambda conn: vectors.apply_upsert(conn, 0, name, vectors.parse_upsert(body)))

    def delete(self, name, *ids):
        self.write(lambda conn: vectors.apply_delete(conn, name, ids))

    def save(self):
        return self.conn.serialize("main"), self.txid

    def rewind(self, saved):
        data, _ = saved
        self.conn.deserialize("main", data)
        self.write(lambda conn: (schema.note_replaced(conn, conn.round_txid), True))

    def search(self, name, vector, *, with_kept=True, at_once=False, **body):
        query = vector_search.parse_query({"vector": vector, "include_metadata": True, **body})
        self.conn.kept = self.kept if with_kept else None
        return [
            (hit["id"], hit["distance"], bytes(hit["metadata"]))
            for hit in vector_search.read_hits(self.conn, name, query, at_once=at_once)
        ]

    def snapshot(self, name):
        self.conn.kept = self.kept
        collection = vectors.find(self.conn, name)
        return collection and vector_arrays.opened(self.conn, collection, at_once=True)

    def close(self):
        self.kept.close()
        assert self.memory.size_bytes == 0
        self.conn.close()


@pytest.fixture
def file():
    file = File()
    yield file
    file.close()


def many(n, dimensions=16, seed=0):
    rng = np.random.default_rng(seed)
    return [(f"v{i}", rng.normal(size=dimensions).tolist(), i % 3) for i in range(n)]


def test_the_second_search_builds_what_later_ones_use(file):
    file.store("c", *many(300))
    query = many(1, seed=1)[0][1]
    right = file.search("c", query, with_kept=False)

    assert file.snapshot("c") is None
    assert file.search("c", query) == right
    assert file.snapshot("c") is None
    assert file.search("c", query) == right
    snapshot = file.snapshot("c")
    assert (len(snapshot.rids), snapshot.total) == (300, 300)
    assert file.search("c", query, at_once=True) == right
    assert file.memory.size_bytes >= snapshot.matrix.nbytes


def test_what_is_kept_follows_the_file(file):
    file.store("c", *many(300))
    query = [1.0] * 16
    for _ in range(2):
        file.search("c", query)

    file.store("c", ("new", query, 9))
    assert file.search("c", query, at_once=True)[0][0] == "new"
    file.store("c", ("new", [-1.0] * 16, 9), ("v0", query, 9))
    assert file.snapshot("c").total == 301
    assert file.search("c", query, at_once=True)[0][0] == "v0"
    file.delete("c", "v0", "v7")
    file.store("c", ("v7", query, 1))
    assert file.snapshot("c") is None
    found = file.search("c", query, k=301)
    assert found == file.search("c", query, with_kept=False, k=301)
    assert found[0][0] == "v7"
    assert len(found) == 300
    assert file.snapshot("c").total == 300


def test_replaced_rows_are_copied_away_in_the_end(file):
    file.store("c", *many(200))
    for seed in range(5):
        file.search("c", [1.0] * 16)
        file.store("c", *many(200, seed=seed))

    found = file.search("c", [1.0] * 16, k=500)

    assert len(found) == 200
    assert len(file.snapshot("c").rids) <= 200 + 200 // 4 + 64
    assert found == file.search("c", [1.0] * 16, with_kept=False, k=500)


SAME = [(f"same{n}", [1, 1], 0) for n in range(150)]
AWAY = [(f"other{n}", [0, 1], 0) for n in range(150)]
NEAR = [(f"other{n}", [1, 0], 0) for n in range(150)]


def test_nothing_is_believed_of_a_state_that_was_rewound(file):
    file.store("c", *SAME)
    saved = file.save()
    file.store("c", *AWAY)
    for _ in range(3):
        file.search("c", [1, 0])

    file.rewind(saved)
    file.store("c", *NEAR)

    for _ in range(3):
        assert [hit[0] for hit in file.search("c", [1, 0], k=2)] == ["other0", "other1"]
    assert file.snapshot("c").total == 300


def test_nothing_is_believed_of_a_collection_that_was_dropped(file):
    file.store("c", *SAME, *AWAY)
    for _ in range(3):
        file.search("c", [1, 0])

    file.write(lambda conn: vectors.apply_drop(conn, "c"))
    file.store("c", *SAME, *NEAR)

    for _ in range(3):
        assert [hit[0] for hit in file.search("c", [1, 0], k=2)] == ["other0", "other1"]
    assert file.snapshot("c").total == 300


def test_a_reader_of_an_earlier_state_neither_uses_nor_changes_what_is_kept(tmp_path):
    path = str(tmp_path / "c.db")
    make_file(path)
    writer, early, late = [
        open_connection(path, read_only=read_only, sync="normal", cache_kib=256)
        for read_only in (False, True, True)
    ]
    kept = Memory(1 << 24).open()
    query = vector_search.parse_query({"vector": [1, 0], "k": 2})

    def search(conn):
        conn.kept = kept
        return [hit["id"] for hit in vector_search.read_hits(conn, "c", query)]

    def store(txid, *items):
        body = {"vectors": [{"id": i, "embedding": e} for i, e, _ in items]}
        writer.round_txid = txid
        vectors.apply_upsert(writer, 0, "c", vectors.parse_upsert(body))

    store(1, *SAME, *AWAY)
    early.execute("BEGIN")
    assert search(early) == ["same0", "same1"]
    store(2, *NEAR)

    for _ in range(3):
        assert search(late) == ["other0", "other1"]
        assert search(early) == ["same0", "same1"]
    newest = vectors.find(late, "c")
    assert vector_arrays.opened(late, newest, at_once=True).total == 300
    early.execute("ROLLBACK")
    assert search(early) == ["other0", "other1"]
    for conn in (early, late, writer):
        conn.close()


def make_file(path):
    conn = open_connection(path, read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("COMMIT")
    conn.close()


def test_small_collections_and_those_over_the_bound_are_read_from_the_file():
    small, tight = File(), File(limit_bytes=10_000)
    small.store("c", *many(vector_arrays.LEAST_VECTORS - 1))
    tight.store("c", *many(300))
    for file in (small, tight):
        for _ in range(3):
            assert file.search("c", [1.0] * 16) == file.search("c", [1.0] * 16, with_kept=False)
        assert file.snapshot("c") is None
        file.close()


def test_large_searches_are_not_done_on_the_event_loop(file, monkeypatch):
    file.store("c", *many(300))
    with monkeypatch.context() as patch:
        patch.setattr(vector_search, "_INLINE_FILE_NUMBERS", 1000)
        with pytest.raises(ElsewhereError):
            file.search("c", [1.0] * 16, at_once=True)
    for _ in range(2):
        file.search("c", [1.0] * 16)
    assert len(file.search("c", [1.0] * 16, at_once=True, k=100)) == 100
    with pytest.raises(ElsewhereError):
        file.search("c", [1.0] * 16, at_once=True, k=101)
    monkeypatch.setattr(vector_search, "_INLINE_NUMBERS", 1000)
    with pytest.raises(ElsewhereError):
        file.search("c", [1.0] * 16, at_once=True)


def test_many_equal_vectors_and_rare_matches_of_a_filter_are_found(file, monkeypatch):
    monkeypatch.setattr(vector_arrays, "_TIES_LIMIT", 10)
    file.store("c", *((f"a{n}", [1, 0], 0) for n in range(150)), *((f"b{n}", [0, 1], n) for n in range(150)))
    for _ in range(2):
        file.search("c", [1, 0])

    for body in ({}, {"filter": {"t": 149}}, {"filter": {"t": {"$gt": 140}}, "k": 20}, {"filter": {"t": -1}}):
        found = file.search("c", [1, 0.01], **body)
        assert found == file.search("c", [1, 0.01], with_kept=False, **body)
    assert [hit[0] for hit in file.search("c", [1, 0.01], filter={"t": 149})] == ["b149"]


def test_equally_near_ones_come_in_the_order_in_which_they_were_stored(file):
    file.store("c", *((f"{n:03}", [1, 2], 0) for n in range(300)))
    expected = [f"{n:03}" for n in range(10)]

    for _ in range(3):
        assert [hit[0] for hit in file.search("c", [2, 1])] == expected


def test_searches_and_writes_at_once_agree_with_the_file(tmp_path):
    path = str(tmp_path / "c.db")
    make_file(path)
    writer = open_connection(path, read_only=False, sync="normal", cache_kib=256)
    memory = Memory(1 << 24)
    kept = memory.open()
    done, wrong = threading.Event(), []

    def write(txid, items):
        writer.round_txid = txid
        writer.execute("BEGIN")
        body = {"vectors": [{"id": i, "embedding": e} for i, e, _ in items]}
        vectors.apply_upsert(writer, 0, "c", vectors.parse_upsert(body))
        if txid % 3 == 0:
            vectors.apply_delete(writer, "c", [f"v{txid}"])
        writer.execute("COMMIT")

    def read(seed):
        conn = open_connection(path, read_only=True, sync="normal", cache_kib=256)
        rng = np.random.default_rng(seed)
        while not done.is_set():
            query = vector_search.parse_query({"vector": rng.normal(size=16).tolist(), "k": 20})
            conn.execute("BEGIN")
            answers = []
            for conn.kept in (kept, None):
                answers.append(vector_search.read_hits(conn, "c", query))
            conn.execute("ROLLBACK")
            if answers[0] != answers[1]:
                wrong.append(answers)
        conn.close()

    write(1, many(400))
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for txid in range(2, 150):
        write(txid, many(txid % 40 + 1, seed=txid))
    done.set()
    for thread in threads:
        thread.join()
    writer.close()

    assert wrong == []
    assert memory.size_bytes > 0


# ---- whatever happens

IDS = st.sampled_from([f"v{n}" for n in range(8)])
VECTORS = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
ITEMS = st.lists(st.tuples(IDS, VECTORS, st.integers(0, 2)), min_size=1, max_size=5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), ITEMS),
        st.tuples(st.just("delete"), st.lists(IDS, max_size=3)),
        st.tuples(st.just("delete matching"), st.integers(0, 2)),
        st.tuples(st.just("drop")),
        st.tuples(st.just("save")),
        st.tuples(st.just("rewind")),
        st.tuples(st.just("search"), VECTORS, st.one_of(st.none(), st.integers(0, 2))),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_searches_with_and_without_what_is_kept_agree_through_anything(steps):
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (vector_arrays, "LEAST_VECTORS", 1),
            (vector_arrays, "_CHUNK", 2),
            (vector_arrays, "_FEW", 3),
            (vector_arrays, "_SLACK", 0),
        ):
            patch.setattr(module, name, value)
        file = File()
        saved = file.save()
        for step, *rest in steps:
            match step, rest:
                case "store", (items,):
                    file.store("c", *items)
                case "delete", (ids,):
                    file.delete("c", *ids)
                case "delete matching", (tag,):
                    wanted = vectors.parse_delete({"filter": {"t": tag}})
                    file.write(lambda conn, wanted=wanted: vectors.apply_delete_matching(conn, "c", wanted))
                case "drop", ():
                    file.write(lambda conn: vectors.apply_drop(conn, "c"))
                case "save", ():
                    saved = file.save()
                case "rewind", ():
                    file.rewind(saved)
                case "search", (vector, tag):
                    body = {"k": 4} if tag is None else {"k": 2, "filter": {"t": tag}}
                    right = file.search("c", vector, with_kept=False, **body)
                    for at_once in (True, False, False, True):
                        assert file.search("c", vector, at_once=at_once, **body) == right
                    assert right == [] or file.snapshot("c") is not None
        file.close()


def test_a_reader_of_an_older_commit_is_not_given_the_newer_one_that_is_just_made(file, monkeypatch):
    file.store("c", *many(300))
    for _ in range(2):
        file.search("c", [1.0] * 16)
    older = vectors.find(file.conn, "c")
    assert vector_arrays.opened(file.conn, older, at_once=True).total == 300
    publish, found = vector_arrays.Arrays._publish, []

    def publish_and_look(arrays, *args):
        publish(arrays, *args)
        found.append(vector_arrays.opened(file.conn, older, at_once=True))

    monkeypatch.setattr(vector_arrays.Arrays, "_publish", publish_and_look)
    file.store("c", ("another", [1.0] * 16, 0))

    assert file.snapshot("c").total == 301
    assert found == [None]
