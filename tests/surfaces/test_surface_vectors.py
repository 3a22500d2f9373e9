import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core.filters import compile_filter
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import vector_search, vectors


async def store(profile, collection, *items):
    body = {"vectors": [{"id": i, "embedding": e, **({"metadata": m} if m else {})} for i, e, m in items]}
    return [
        r["status"] for r in (await vectors.upsert(profile, collection, vectors.parse_upsert(body))).value
    ]


async def search(profile, collection, vector, **body):
    query = vector_search.parse_query({"vector": vector, **body})
    return (await vector_search.search(profile, collection, query)).value


async def ids(profile, collection, vector, **body):
    return [hit["id"] for hit in await search(profile, collection, vector, **body)]


async def listed(profile):
    return {c["name"]: (c["dimensions"], c["count"]) for c in (await vectors.collections(profile)).value}


async def test_a_vector_is_stored_found_shown_and_deleted(profile, plain):
    body = {"id": "a", "embedding": [3, 4.5], "metadata": {"n": 1}}
    stored = await vectors.upsert(profile, "c", vectors.parse_upsert(body))

    assert stored.value == [{"id": "a", "status": "created"}]
    assert plain((await vectors.get(profile, "c", "a")).value) == body
    [hit] = plain(await search(profile, "c", [4.5, -3], include_metadata=True, include_embedding=True))
    assert hit == {"id": "a", "distance": pytest.approx(1), "metadata": {"n": 1}, "embedding": [3, 4.5]}
    assert (await vectors.delete(profile, "c", ("a", "b"))).value == {
        "deleted": 1,
        "results": [{"id": "a", "status": "deleted"}, {"id": "b", "status": "absent"}],
    }
    with pytest.raises(NotFoundError, match="'a'"):
        await vectors.get(profile, "c", "a")
    assert await search(profile, "c", [1, 0]) == []


async def test_statuses_say_what_became_of_each_vector(profile):
    assert await store(profile, "c", ("a", [1, 0], None), ("b", [0, 1], {"x": 1})) == ["created"] * 2
    assert await store(
        profile,
        "c",
        ("a", [1, 0], None),
        ("b", [0, 1], None),
        ("c", [1, 1], None),
        ("c", [1, 2], None),
        ("c", [1, 2], None),
    ) == ["unchanged", "updated", "created", "updated", "unchanged"]
    assert await listed(profile) == {"c": (2, 3)}
    txid = profile.txid
    assert await store(profile, "c", ("a", [1, 0], None)) == ["unchanged"]
    assert await store(profile, "c") == []
    assert (await vectors.delete(profile, "c", ("x",))).value["deleted"] == 0
    assert profile.txid == txid


async def test_collections_have_dimensions_and_ids_of_their_own(profile):
    names = ["a-b", "a_b", "A-B", "a", "A" * 64, "1", "-", "_"]
    for n, name in enumerate(names, start=1):
        await store(profile, name, ("x", [1] + [0] * n, {"of": name}))

    assert await listed(profile) == {name: (n + 1, 1) for n, name in enumerate(names, start=1)}
    for n, name in enumerate(names, start=1):
        [hit] = await search(profile, name, [1] + [0] * n, include_metadata=True)
        assert json.loads(bytes(hit["metadata"])) == {"of": name}


async def test_another_dimension_than_the_collections_is_refused(profile):
    await store(profile, "c", ("a", [1, 0], None))

    with pytest.raises(InvalidRequestError, match=r"embedding has 3 dimensions.* c have 2"):
        await store(profile, "c", ("b", [1, 0, 0], None))
    with pytest.raises(InvalidRequestError, match=r"vector has 1 dimensions"):
        await search(profile, "c", [1])
    with pytest.raises(InvalidRequestError, match=r"vectors\[1\].embedding has 1 dimensions"):
        await store(profile, "d", ("b", [1, 0], None), ("c", [1], None))
    await vectors.delete(profile, "c", ("a",))
    with pytest.raises(InvalidRequestError):
        await store(profile, "c", ("b", [1, 0, 0], None))
    assert await listed(profile) == {"c": (2, 0)}
    await vectors.drop(profile, "c")
    assert await store(profile, "c", ("b", [1, 0, 0], None)) == ["created"]


async def test_a_dropped_collection_is_gone_and_its_name_free(profile):
    await store(profile, "a", ("x", [1], None))
    await store(profile, "b", ("y", [1], None))

    assert (await vectors.drop(profile, "b")).value is True
    assert (await vectors.drop(profile, "b")).value is False
    assert await search(profile, "b", [1, 2, 3]) == []
    assert await listed(profile) == {"a": (1, 1)}
    assert await store(profile, "b", ("z", [1, 2], None)) == ["created"]
    assert await ids(profile, "b", [1, 2]) == ["z"]
    tables = profile.conn.execute("SELECT name FROM sqlite_schema WHERE name LIKE '%vectors\\_%' ESCAPE '\\'")
    assert len(tables.fetchall()) == 4


async def test_what_is_not_there_is_empty(profile):
    assert await search(profile, "none", [1, 2]) == []
    assert (await vectors.page(profile, "none", with_metadata=True)).value == {
        "ids": [],
        "next_cursor": None,
        "vectors": [],
    }
    assert (await vectors.collections(profile)).value == []
    assert (await vectors.delete(profile, "none", ("a",))).value["deleted"] == 0
    everything = vectors.parse_delete({"filter": {}})
    assert (await vectors.delete(profile, "none", everything)).value == {"deleted": 0}
    with pytest.raises(NotFoundError):
        await vectors.get(profile, "none", "a")
    assert profile.txid == 0


async def test_pages_of_ids_are_joined_by_their_cursor(profile, plain):
    names = sorted(["a", "b%2F", "é", "\U0001f600", "a\x01"])
    await store(profile, "c", *((name, [1], {"n": name}) for name in names))

    seen, after = [], None
    while True:
        page = plain((await vectors.page(profile, "c", after=after, limit=2, with_metadata=True)).value)
        seen += page["vectors"]
        assert [v["id"] for v in page["vectors"]] == page["ids"]
        after = page["next_cursor"]
        if after is None:
            break

    assert seen == [{"id": name, "metadata": {"n": name}} for name in names]


async def test_vectors_are_found_and_deleted_by_a_filter_of_their_metadata(profile):
    await store(
        profile,
        "c",
        *((f"v{n}", [1, n], {"n": n, "kind": "even" if n % 2 == 0 else "odd"}) for n in range(10)),
        ("bare", [1, 0], None),
    )

    assert await ids(profile, "c", [1, 0], k=3, filter={"kind": "odd"}) == ["v1", "v3", "v5"]
    assert await ids(profile, "c", [1, 0], filter={"n": {"$gte": 8}, "kind": "even"}) == ["v8"]
    assert await ids(profile, "c", [1, 0], filter={"kind": None}) == ["bare"]
    assert await ids(profile, "c", [1, 0], filter={"_id": {"$in": ["v2", "x"]}}) == ["v2"]
    assert await ids(profile, "c", [1, 0], filter={"kind": {"$regex": "^ev"}}, k=1) == ["v0"]
    assert profile.works[-1] == ("read", Work.OPAQUE)
    wanted = vectors.parse_delete({"filter": {"n": {"$lt": 9}}})
    assert (await vectors.delete(profile, "c", wanted)).value == {"deleted": 9}
    assert await ids(profile, "c", [1, 0]) == ["bare", "v9"]
    assert await listed(profile) == {"c": (2, 2)}
    assert (await vectors.delete(profile, "c", vectors.parse_delete({"filter": {}}))).value == {"deleted": 2}


async def test_bounds_of_distance_cut_the_hits(profile):
    await store(profile, "c", ("same", [1, 0], None), ("right", [0, 2], None), ("back", [-1, 0], None))

    assert [(h["id"], round(h["distance"], 6)) for h in await search(profile, "c", [5, 0])] == [
        ("same", 0),
        ("right", 1),
        ("back", 2),
    ]
    assert await ids(profile, "c", [1, 0], max_distance=1.0) == ["same", "right"]
    assert await ids(profile, "c", [1, 0], min_score=0.5) == ["same"]
    assert await ids(profile, "c", [1, 0], min_score=0.5, max_distance=2) == ["same"]
    assert await ids(profile, "c", [1, 0], min_score=-1, max_distance=0) == ["same"]
    assert await ids(profile, "c", [1, 0], k=0) == ["same"]


async def test_a_null_vector_is_at_right_angles_to_everything(profile):
    await store(profile, "c", ("null", [0, 0], None), ("a", [1, 0], None))

    assert [h["distance"] for h in await search(profile, "c", [1, 0])] == [0, 1]
    assert [h["distance"] for h in await search(profile, "c", [0, 0])] == [1, 1]


async def test_lengths_do_not_matter_however_large_or_small(profile):
    for n, length in enumerate((1e-38, 1e-20, 1e-12, 1, 1e12, 1e19, 3e38)):
        await store(profile, "c", (f"v{n}", [length, 0], None), (f"w{n}", [0, length], None))

    hits = await search(profile, "c", [1e-30, 0], k=100)

    assert [h["id"][0] for h in hits] == ["v"] * 7 + ["w"] * 7
    assert [round(h["distance"], 6) for h in hits] == [0] * 7 + [1] * 7


async def test_the_number_of_collections_is_bounded(profile, monkeypatch):
    monkeypatch.setattr(vectors, "COLLECTIONS_LIMIT", 2)
    for name in "ab":
        await store(profile, name, ("x", [1], None))

    with pytest.raises(ConflictError, match="2 collections"):
        await store(profile, "c", ("x", [1], None))
    assert await store(profile, "a", ("y", [1], None)) == ["created"]


async def test_large_upserts_and_deletes_are_done_in_the_pool(profile):
    await store(profile, "c", ("a", [1.0] * 256, None))
    await store(profile, "c", *((f"v{n}", [1.0] * 256, None) for n in range(100)))
    await vectors.delete(profile, "c", tuple(f"v{n}" for n in range(33)))
    await vectors.delete(profile, "c", ("a",))
    await vectors.delete(profile, "c", compile_filter({"a": 1}, doc="metadata"))
    await vectors.drop(profile, "c")

    assert [work for _, work in profile.works] == [
        Work.POINT,
        Work.HEAVY,
        Work.HEAVY,
        Work.POINT,
        Work.OPAQUE,
        Work.HEAVY,
    ]


WRONG = [
    ([], "body"),
    ({}, "id"),
    ({"id": "", "embedding": [1]}, "id"),
    ({"id": 1, "embedding": [1]}, "id"),
    ({"id": "a" * 1025, "embedding": [1]}, "id"),
    ({"id": "a\0", "embedding": [1]}, "id"),
    ({"id": "a"}, "embedding"),
    ({"id": "a", "embedding": []}, "embedding"),
    ({"id": "a", "embedding": [1, None]}, r"embedding\[1\]"),
    ({"id": "a", "embedding": [1], "metadata": []}, "metadata"),
    ({"id": "a", "embedding": [1], "metadata": {"a\0b": 1}}, "NUL"),
    ({"id": "a", "embedding": [1], "metadata": {"a": "x" * 16384}}, "metadata"),
    ({"id": "a", "embedding": [1], "vectors": []}, "vectors"),
    ({"vectors": {}}, "vectors"),
    ({"vectors": None}, "vectors"),
    ({"vectors": [1]}, r"vectors\[0\]"),
    ({"vectors": [{"id": "a", "embedding": [1]}, {"embedding": [1]}]}, r"vectors\[1\].id"),
    ({"vectors": [{"id": "a", "embedding": [1]}] * 1001}, "1001"),
]


@pytest.mark.parametrize(("body", "named"), WRONG)
def test_a_bad_upsert_is_refused_by_the_name_of_what_is_wrong(body, named):
    with pytest.raises(InvalidRequestError, match=named):
        vectors.parse_upsert(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"vector": []},
        {"vector": [1], "k": -1},
        {"vector": [1], "filter": []},
        {"vector": [1], "filter": {"a": {"$near": 1}}},
        {"vector": [1], "min_score": "1"},
        {"vector": [1], "min_score": 1.1},
        {"vector": [1], "max_distance": True},
        {"vector": [1], "max_distance": -0.1},
        {"vector": [1], "include_metadata": 1},
        {"vector": [1] * 1001, "k": 1000, "include_embedding": True},
    ],
)
def test_a_bad_search_is_refused(body):
    with pytest.raises(InvalidRequestError):
        vector_search.parse_query(body)


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": ["a"], "filter": {}}, {"ids": {}}, {"ids": [1]}, {"ids": ["a"] * 1001}, {"filter": []}],
)
def test_a_bad_delete_is_refused(body):
    with pytest.raises(InvalidRequestError):
        vectors.parse_delete(body)


@pytest.mark.parametrize("name", ["", "a b", "é", "a" * 65, "a.b", "a/b", "a\0"])
async def test_bad_collections_are_refused_everywhere(profile, name):
    query = vector_search.parse_query({"vector": [1]})
    for call in (
        lambda: vectors.upsert(profile, name, []),
        lambda: vectors.delete(profile, name, ("a",)),
        lambda: vectors.drop(profile, name),
        lambda: vectors.get(profile, name, "a"),
        lambda: vectors.page(profile, name),
        lambda: vector_search.search(profile, name, query),
    ):
        with pytest.raises(InvalidRequestError, match="collection"):
            await call()
    assert profile.works == []


# ---- against brute force

COMPONENTS = st.integers(-3, 3)
IDS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), IDS, st.lists(COMPONENTS, min_size=3, max_size=3), st.integers(0, 2)),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("delete matching"), st.integers(0, 2)),
        st.tuples(st.just("drop")),
        st.tuples(st.just("search"), st.lists(COMPONENTS, min_size=3, max_size=3), st.integers(0, 2)),
    ),
    max_size=20,
)


def distance(one, other):
    one, other = np.array(one, dtype=float), np.array(other, dtype=float)
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return 1.0 if lengths == 0 else float(1 - one @ other / lengths)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_a_collection_does_what_a_dictionary_and_brute_force_do(steps):
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("COMMIT")
    model = {}
    exists = False
    for txid, (step, *rest) in enumerate(steps, start=1):
        conn.round_txid = txid
        before = vectors.find(conn, "c")
        changed = False
        match step, rest:
            case "store", (id_, components, tag):
                item = {"id": id_, "embedding": components, "metadata": {"t": tag}}
                [result], changed = vectors.apply_upsert(conn, 0, "c", vectors.parse_upsert(item))
                same = model.get(id_) == (components, tag)
                assert result["status"] == ("unchanged" if same else "updated" if id_ in model else "created")
                model[id_], exists = (components, tag), True
            case "delete", (id_,):
                [result], changed = vectors.apply_delete(conn, "c", (id_,))
                assert result["status"] == ("deleted" if model.pop(id_, None) else "absent")
            case "delete matching", (tag,):
                wanted = vectors.parse_delete({"filter": {"t": {"$ne": tag}}})
                count, changed = vectors.apply_delete_matching(conn, "c", wanted)
                kept = {id_: v for id_, v in model.items() if v[1] == tag}
                assert count == len(model) - len(kept)
                model = kept
            case "drop", ():
                _, changed = vectors.apply_drop(conn, "c")
                assert changed is exists
                model, exists = {}, False
            case "search", (components, tag):
                body = {"vector": components, "k": 3, "filter": {"t": {"$gte": tag}}}
                hits = vector_search.read_hits(conn, "c", vector_search.parse_query(body))
                right = {i: distance(components, e) for i, (e, t) in model.items() if t >= tag}
                assert len(hits) == min(3, len(right))
                for hit, nearest in zip(hits, sorted(right.values()), strict=False):
                    assert hit["distance"] == pytest.approx(nearest, abs=1e-5)
                    assert right[hit["id"]] == pytest.approx(nearest, abs=1e-5)
        after = vectors.find(conn, "c")
        assert (after is not None) is exists
        if after is not None:
            assert after.count == len(model)
            assert after.changed_txid == (txid if changed else before.changed_txid)
    conn.close()


def test_search_finds_what_brute_force_finds(profile):
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(5000, 64)).astype(np.float32)
    items = [
        vectors.parse_upsert({"id": f"{n}", "embedding": row.tolist()})[0] for n, row in enumerate(matrix)
    ]
    vectors.apply_upsert(profile.conn, 0, "c", items)
    unit = matrix.astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)

    for query in rng.normal(size=(20, 64)):
        right = np.argsort(1 - unit @ (query / np.linalg.norm(query)), kind="stable")[:10]
        hits = vector_search.read_hits(
            profile.conn, "c", vector_search.parse_query({"vector": query.tolist()})
        )
        assert [hit["id"] for hit in hits] == [str(n) for n in right]
