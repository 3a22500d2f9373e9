"""Documents, one behaviour at a time: what goes in and comes out, which indexes serve, and what is refused."""

import asyncio
import time

import apsw
import msgspec
import pytest

from memoturnd.core import ulids
from memoturnd.engine.guard import OverBudgetError
from memoturnd.errors import ConflictError, InvalidRequestError, PayloadTooLargeError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import collections, document_queries, documents
from memoturnd.surfaces.document_queries import parse_count, parse_distinct, parse_find
from memoturnd.surfaces.documents import parse_delete, parse_insert, parse_update


async def insert(profile, *docs, coll="c"):
    return (await documents.insert(profile, coll, parse_insert({"docs": list(docs)}))).value


async def found(profile, coll="c", **body):
    page = (await document_queries.find(profile, coll, parse_find(body))).value
    return [doc if isinstance(doc, dict) else msgspec.json.decode(doc) for doc in page["docs"]]


async def update(profile, coll="c", **body):
    return (await documents.update(profile, coll, parse_update(body))).value


async def delete(profile, coll="c", **body):
    return (await documents.delete(profile, coll, parse_delete(body))).value


async def index(profile, path, coll="c", *, unique=False):
    await collections.create_index(profile, coll, collections.parse_index({"path": path, "unique": unique}))


# ---- in and out


@pytest.mark.parametrize(
    "text",
    [
        '{"_id":"a","z":1,"a":1.0,"m":[1,1.0,-0.0,0,1e16,1e-7,0.1,123456789012345678]}',
        '{"_id":"a","n":[9223372036854775807,9223372036854775808,18446744073709551615,-9223372036854775808]}',
        '{"_id":"a","":{"":""},"a.b":1,"$set":2,"\\"":3,"é\U0001f600":"\\u0000\\n"}',
        '{"x":{"y":{}},"_id":"a","t":true,"f":false,"n":null,"e":[]}',
    ],
)
async def test_a_document_comes_back_as_it_came(profile, text):
    await insert(profile, msgspec.json.decode(text))

    page = (await document_queries.find(profile, "c", parse_find({}))).value
    assert bytes(page["docs"][0]).decode() == text
    projected = (await document_queries.find(profile, "c", parse_find({"projection": {"no": 0}}))).value
    assert msgspec.json.encode(projected["docs"][0]).decode() == text


async def test_a_document_without_an_id_gets_a_ulid_as_its_first_key(profile):
    profile.now_ms = 1_700_000_000_000

    (key,) = await insert(profile, {"a": 1})
    (empty,) = await insert(profile, {})

    assert [list(doc) for doc in await found(profile)] == [["_id", "a"], ["_id"]]
    assert key[:10] == empty[:10] == ulids.text(ulids.first(profile.now_ms, 0))[:10]


async def test_ids_sort_as_they_were_made(profile):
    made = []
    for step in (0, 0, 1, 0, 5):
        profile.now_ms += step
        made += await insert(profile, {}, {"_id": f"zz{len(made)}"}, {})
        made += await insert(profile, {}, coll="other")

    ours = [key for key in made if not key.startswith("zz")]
    assert ours == sorted(ours)
    assert len(set(made)) == len(made)


async def test_ids_come_from_the_randomness_that_is_given(profile):
    class Ones:
        def hex(self, size_bytes):
            return "f" * 2 * size_bytes

    written = await documents.insert(profile, "c", parse_insert({"docs": [{}]}), randomness=Ones())

    assert written.value == [ulids.text(ulids.first(profile.now_ms, 2**80 - 1))]


async def test_nothing_to_insert_changes_nothing(profile):
    assert await insert(profile) == []
    assert profile.txid == 0
    assert (await collections.list_all(profile)).value == []


async def test_a_batch_goes_in_whole_or_not_at_all(profile):
    await insert(profile, {"_id": "a"})

    with pytest.raises(InvalidRequestError, match="the _id 'a' is taken"):
        await insert(profile, {"_id": "b"}, {"_id": "a"})
    with pytest.raises(InvalidRequestError, match="the _id 'x' is taken"):
        await insert(profile, {"_id": "x"}, {"_id": "x"}, coll="fresh")

    assert [doc["_id"] for doc in await found(profile)] == ["a"]
    assert [row["name"] for row in (await collections.list_all(profile)).value] == ["c"]


async def test_collections_that_look_alike_are_different(profile):
    for name in ("a-b", "a_b", "A-b", "a_5fb", "-", "_"):
        await insert(profile, {"_id": name}, coll=name)

    for name in ("a-b", "a_b", "A-b", "a_5fb", "-", "_"):
        assert await found(profile, name) == [{"_id": name}]
    listed = (await collections.list_all(profile)).value
    assert [row["name"] for row in listed] == sorted(["a-b", "a_b", "A-b", "a_5fb", "-", "_"])


async def test_a_collection_that_is_not_there_is_empty_and_stays_so(profile):
    assert await found(profile, sort={"a": 1}) == []
    assert (await document_queries.count(profile, "c", parse_count({}))).value == 0
    assert (await document_queries.distinct(profile, "c", parse_distinct({"path": "a"}))).value == ([], False)
    assert await update(profile, filter={}, update={"$set": {"a": 1}}) == {"modified": 0, "upserted_id": None}
    assert await delete(profile, filter={}, multi=True) == 0
    await collections.drop(profile, "c")
    await collections.drop_index(profile, "c", "a")

    assert profile.txid == 0
    assert (await collections.list_all(profile)).value == []


# ---- finding


async def test_a_page_says_where_the_next_begins_and_the_last_that_there_is_none(profile):
    await insert(profile, *({"_id": f"{n}", "n": n // 2} for n in range(5)))

    page = (await document_queries.find(profile, "c", parse_find({"limit": 2, "sort": {"n": -1}}))).value
    seen = [msgspec.json.decode(doc)["_id"] for doc in page["docs"]]
    await insert(profile, {"_id": "5", "n": 9}, {"_id": "20", "n": 1})
    await delete(profile, filter={"_id": seen[-1]})
    while page["next_cursor"] is not None:
        body = {"limit": 2, "sort": {"n": -1}, "cursor": page["next_cursor"]}
        page = (await document_queries.find(profile, "c", parse_find(body))).value
        seen += [msgspec.json.decode(doc)["_id"] for doc in page["docs"]]

    assert seen == ["4", "3", "20", "2", "1", "0"]


async def test_a_cursor_behind_long_text_goes_on_while_its_document_is_there(profile):
    await insert(profile, *({"_id": f"{n}", "t": "x" * 10_000 + f"{n}"} for n in range(4)))
    body = {"sort": {"t": 1}, "limit": 2}
    cursor = (await document_queries.find(profile, "c", parse_find(body))).value["next_cursor"]

    assert len(cursor) < 100
    assert [doc["_id"] for doc in await found(profile, **body, cursor=cursor)] == ["2", "3"]
    await delete(profile, filter={"_id": "1"})
    with pytest.raises(ConflictError, match="gone"):
        await found(profile, **body, cursor=cursor)
    await collections.drop(profile, "c")
    with pytest.raises(ConflictError, match="gone"):
        await found(profile, **body, cursor=cursor)


async def test_a_cursor_of_another_sort_is_refused_also_where_nothing_is(profile):
    await insert(profile, {"a": 1}, {"a": 2})
    cursor = (await document_queries.find(profile, "c", parse_find({"limit": 1}))).value["next_cursor"]

    for coll in ("c", "none"):
        with pytest.raises(InvalidRequestError, match="start again without it"):
            await found(profile, coll, sort={"a": 1}, cursor=cursor)
    with pytest.raises(InvalidRequestError, match="skip"):
        await found(profile, cursor=cursor, skip=1)


async def test_limits_are_clamped_and_0_is_none(profile):
    await insert(profile, *({} for _ in range(1010)))

    assert len(await found(profile)) == 100
    assert len(await found(profile, limit=5000)) == 1000
    assert await found(profile, limit=0) == []
    assert len(await found(profile, limit=1000, skip=1000)) == 10
    assert await found(profile, skip=2**60) == []


async def test_an_answer_that_is_too_large_is_refused_with_the_way_out(profile, monkeypatch):
    monkeypatch.setattr(document_queries, "FIND_LIMIT_BYTES", 1000)
    await insert(profile, *({"t": "x" * 300 + str(n)} for n in range(5)))

    with pytest.raises(InvalidRequestError, match="lower limit"):
        await found(profile)
    with pytest.raises(InvalidRequestError, match="lower limit"):
        await document_queries.distinct(
            profile, "c", parse_distinct({"path": "t", "filter": {"t": {"$gt": "x"}}})
        )
    assert len(await found(profile, limit=1)) == 1


@pytest.mark.parametrize("indexed", [False, True])
async def test_distinct_values_among_many_containers_take_steps_in_proportion(profile, indexed):
    await insert(profile, *({"v": [n]} for n in range(300)), *({"v": f"[{n}"} for n in range(300)))
    if indexed:
        await collections.create_index(profile, "c", collections.Index("v", unique=False))
    looks = []
    profile.conn.set_progress_handler(lambda: looks.append(1) or False, 1000)

    listed, _ = (await document_queries.distinct(profile, "c", parse_distinct({"path": "v"}))).value

    profile.conn.set_progress_handler(None)
    assert listed == sorted(f"[{n}" for n in range(300))
    assert len(looks) < 100


async def test_distinct_values_come_in_order_and_as_what_they_are(profile):
    values = [3, 1, 1.0, "b", "a", True, False, 0, None, [1], {"x": 1}, 2.5, 2**64 - 1]
    await insert(profile, *({"v": {"w": value}} for value in values), {})

    listed, has_more = (await document_queries.distinct(profile, "c", parse_distinct({"path": "v.w"}))).value
    assert [(type(v) is bool, v) for v in listed] == [
        (False, 0), (True, False), (False, 1), (True, True), (False, 2.5), (False, 3), (False, 2**64), (False, "a"), (False, "b"),
    ]  # fmt: skip
    assert not has_more
    some = parse_distinct({"path": "v.w", "limit": 2, "filter": {"v.w": {"$gt": 1}}})
    assert (await document_queries.distinct(profile, "c", some)).value == ([2.5, 3], True)


async def test_documents_are_sorted_without_their_text(profile):
    text = "x" * 500_000
    await insert(profile, *({"_id": f"{n:02}", "n": -n, "text": text} for n in range(40)))
    apsw.status(apsw.SQLITE_STATUS_MEMORY_USED, reset=True)
    before = apsw.memory_used()

    assert [doc["n"] for doc in await found(profile, sort={"n": 1}, limit=40)] == list(range(-39, 1))
    assert [doc["n"] for doc in await found(profile, skip=39)] == [-39]
    _, most = apsw.status(apsw.SQLITE_STATUS_MEMORY_USED)
    assert most - before < 8_000_000


# ---- indexes


def plans(profile, run):
    """What SQLite plans for the statements that `run` runs on documents, one line each."""
    seen = []

    def trace(_cursor, sql, bindings):
        seen.append((sql, bindings))
        return True

    profile.conn.exec_trace = trace
    try:
        run()
    finally:
        profile.conn.exec_trace = None
    return [
        " / ".join(
            row[3].replace("COVERING ", "")
            for row in profile.conn.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)
        )
        for sql, bindings in seen
        if "__memoturn_docs_" in sql and "FROM" in sql and "WHERE id = ?" not in sql
    ]


def find_plan(profile, **body):
    *_, plan = plans(profile, lambda: document_queries.read_find(profile.conn, "c", parse_find(body)))
    return plan


PATHS = ["n", "a.b", "a-b", "a_b", "A", "0", "0.1", "-", "_", "--.__", "x.y-z_0.Z", "select", "a" * 200]


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:20])
async def test_an_index_serves_equality_lists_ranges_and_sorting(profile, path, unique):
    docs = []
    for n in range(50):
        doc = value = {}
        *outer, last = path.split(".")
        for key in outer:
            value = value.setdefault(key, {})
        value[last] = n
        docs.append(doc)
    await insert(profile, *docs)
    await index(profile, path, unique=unique)
    name = collections._index_of("c", path)

    for filter_ in (
        {path: 5},
        {path: {"$eq": 5}},
        {path: "x"},
        {path: "[x"},
        {path: None},
        {path: {"$in": [1, 2, "x"]}},
        {path: {"$gt": 45}},
        {path: {"$gte": 5, "$lt": 7}},
        {path: {"$lte": "x"}},
        {"$and": [{path: 5}], "other": 1},
        {"$or": [{path: 5}, {path: {"$in": [6]}}]},
    ):
        for more in ({}, {"limit": 1}, {"sort": {path: 1}}, {"sort": {path: -1}}, {"sort": {"_id": -1}}):
            plan = find_plan(profile, filter=filter_, **more)
            assert f"USING INDEX {name} (<expr>" in plan, (filter_, more, plan)
            if path in filter_ and not isinstance(filter_[path], dict) and not unique:
                assert "TEMP B-TREE" not in plan, (filter_, more, plan)
    for sort in ({path: 1}, {path: -1}):
        plan = find_plan(profile, sort=sort)
        assert f"SCAN __memoturn_docs_c USING INDEX {name}" in plan
        if not unique:
            assert "TEMP B-TREE" not in plan
        page = document_queries.read_find(profile.conn, "c", parse_find({"sort": sort, "limit": 5}))
        plan = find_plan(profile, sort=sort, limit=5, cursor=page["next_cursor"])
        assert f"SEARCH __memoturn_docs_c USING INDEX {name} (<expr>" in plan, plan


async def test_writes_and_counts_use_the_index_too(profile):
    await insert(profile, *({"n": n} for n in range(50)))
    await index(profile, "n")
    runs = {
        "count": lambda: document_queries.read_count(profile.conn, "c", parse_count({"filter": {"n": 5}})),
        "distinct": lambda: document_queries.read_distinct(
            profile.conn, "c", parse_distinct({"path": "n", "filter": {"n": {"$gt": 5}}})
        ),
        "update": lambda: documents.apply_update(
            profile.conn, 1, "c", parse_update({"filter": {"n": 5}, "update": {"$set": {"m": 1}}})
        ),
        "update the first of a range": lambda: documents.apply_update(
            profile.conn, 1, "c", parse_update({"filter": {"n": {"$gt": 45}}, "update": {"$set": {"m": 1}}})
        ),
        "delete the first of a range": lambda: documents.apply_delete(
            profile.conn, "c", parse_delete({"filter": {"n": {"$gt": 45}}})
        ),
        "update all": lambda: documents.apply_update(
            profile.conn,
            1,
            "c",
            parse_update({"filter": {"n": 5}, "update": {"$set": {"m": 2}}, "multi": True}),
        ),
        "delete": lambda: documents.apply_delete(profile.conn, "c", parse_delete({"filter": {"n": 5}})),
        "delete all": lambda: documents.apply_delete(
            profile.conn, "c", parse_delete({"filter": {"n": {"$lt": 9}}, "multi": True})
        ),
    }

    for name, run in runs.items():
        first, *_ = plans(profile, run)
        assert "__memoturn_docix_c__n (<expr>" in first, (name, first)


async def test_a_key_is_found_without_an_index_of_ones_own(profile):
    await insert(profile, {"_id": "a"}, {"_id": "b"})
    await index(profile, "_id", unique=True)

    assert (await collections.indexes(profile, "c")).value == []
    for filter_ in ({"_id": "a"}, {"_id": {"$in": ["a"]}}, {"_id": {"$gt": "a"}}):
        assert "SEARCH __memoturn_docs_c USING INDEX sqlite_autoindex___memoturn_docs_c_1" in find_plan(
            profile, filter=filter_
        )


async def test_indexes_that_look_alike_are_different(profile):
    alike = ["a.b", "a_b", "a-b", "A.b", "a_2eb"]
    for path in alike:
        await index(profile, path)
    await index(profile, "a.b", coll="other", unique=True)

    assert (await collections.indexes(profile, "c")).value == [
        {"path": path, "unique": False} for path in sorted(alike)
    ]
    await collections.drop_index(profile, "c", "a.b")
    assert [row["path"] for row in (await collections.indexes(profile, "c")).value] == sorted(alike[1:])
    assert (await collections.indexes(profile, "other")).value == [{"path": "a.b", "unique": True}]


async def test_a_unique_index_lets_one_of_equal_values_in(profile):
    await index(profile, "a.b", unique=True)
    await insert(profile, {"_id": "1", "a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}, {})
    before = profile.txid

    for value in (1, 1.0, True):
        with pytest.raises(ConflictError, match=r"holds the same a\.b as 'x'"):
            await insert(profile, {"a": {"b": 2}}, {"_id": "x", "a": {"b": value}})
    await insert(profile, {"_id": "y", "a": {"b": "1"}})
    with pytest.raises(ConflictError, match=r"holds the same a\.b as 'y'"):
        await update(profile, filter={"_id": "y"}, update={"$set": {"a.b": 1}})
    with pytest.raises(ConflictError, match=r"the same a\.b"):
        await update(profile, filter={"x": 1}, update={"$set": {"a.b": 1}}, upsert=True)

    assert profile.txid == before + 1
    assert (await document_queries.count(profile, "c", parse_count({}))).value == 5


async def test_an_index_that_is_there_stays_and_one_of_the_other_kind_is_refused(profile):
    await insert(profile, {"a": 1}, {"a": 1}, {"b": 1})
    await index(profile, "a")
    await index(profile, "b", unique=True)
    before = profile.txid
    await index(profile, "a")
    await index(profile, "b", unique=True)
    assert profile.txid == before

    with pytest.raises(ConflictError, match="not unique: drop that one first"):
        await index(profile, "a", unique=True)
    with pytest.raises(ConflictError, match="unique: drop that one first"):
        await index(profile, "b")
    await collections.drop_index(profile, "c", "a")
    with pytest.raises(ConflictError, match="hold equal values of a"):
        await index(profile, "a", unique=True)
    assert (await collections.indexes(profile, "c")).value == [{"path": "b", "unique": True}]


async def test_collections_and_indexes_are_bounded(profile, monkeypatch):
    monkeypatch.setattr(collections, "COLLECTIONS_LIMIT", 3)
    monkeypatch.setattr(collections, "INDEXES_LIMIT", 2)
    for name in "abc":
        await insert(profile, {}, coll=name)
    await index(profile, "x", coll="a")
    await index(profile, "y", coll="a")

    with pytest.raises(InvalidRequestError, match="3 collections"):
        await insert(profile, {}, coll="d")
    with pytest.raises(InvalidRequestError, match="3 collections"):
        await index(profile, "x", coll="d")
    with pytest.raises(InvalidRequestError, match="2 indexes"):
        await index(profile, "z", coll="a")
    await index(profile, "x", coll="a")
    await collections.drop(profile, "b")
    await insert(profile, {}, coll="d")


# ---- updates


async def test_without_multi_the_first_by_sort_is_changed(profile):
    await insert(profile, {"_id": "b", "n": 1}, {"_id": "a", "n": 1}, {"_id": "c", "n": 0})

    assert (await update(profile, filter={"n": 1}, update={"$set": {"hit": 1}}))["modified"] == 1
    assert (await update(profile, filter={}, sort={"n": -1}, update={"$set": {"hit": 2}}))["modified"] == 1
    assert await delete(profile, filter={}, sort={"n": 1}) == 1
    assert await found(profile) == [{"_id": "a", "n": 1, "hit": 1}, {"_id": "b", "n": 1, "hit": 2}]
    assert await delete(profile, filter={}) == 1
    assert [doc["_id"] for doc in await found(profile)] == ["b"]


async def test_an_update_of_many_that_one_refuses_changes_none(profile):
    await insert(profile, {"_id": "a", "n": 1}, {"_id": "b", "n": "x"}, {"_id": "c", "n": 1})

    with pytest.raises(InvalidRequestError, match="document 'b': \\$inc of n: n is a string"):
        await update(profile, filter={}, update={"$inc": {"n": 1}}, multi=True)
    assert [doc["n"] for doc in await found(profile)] == [1, "x", 1]
    assert (await update(profile, filter={"n": 1}, update={"$inc": {"n": 1}}, multi=True))["modified"] == 2
    assert [doc["n"] for doc in await found(profile)] == [2, "x", 2]


async def test_a_document_whose_place_in_the_index_moves_is_changed_once(profile):
    await insert(profile, *({"n": n} for n in range(20)))
    await index(profile, "n")

    change = {"filter": {"n": {"$gte": 0}}, "update": {"$inc": {"n": 5}}, "multi": True}
    assert (await update(profile, **change))["modified"] == 20
    assert sorted(doc["n"] for doc in await found(profile)) == list(range(5, 25))


async def test_an_update_that_changes_nothing_counts_and_commits_nothing(profile):
    await insert(profile, {"a": 1})
    before = profile.txid

    assert (await update(profile, filter={}, update={"$set": {"a": 1}}))["modified"] == 1
    assert profile.txid == before


async def test_an_upsert_inserts_what_the_filter_pins_updated(profile):
    done = await update(
        profile,
        filter={
            "a.b": 1,
            "$and": [{"c": {"$eq": "x"}}, {"n": {"$gt": 5}}],
            "d": None,
            "$or": [{"e": 1}, {"e": 2}],
        },
        update={"$inc": {"a.b": 1}, "$push": {"tags": "t"}},
        upsert=True,
    )
    key = done["upserted_id"]

    assert done["modified"] == 0
    assert await found(profile) == [{"_id": key, "a": {"b": 2}, "c": "x", "d": None, "tags": ["t"]}]
    named = await update(profile, filter={"_id": "k"}, update={"$set": {"n": 1}}, upsert=True)
    again = await update(profile, filter={"_id": "k"}, update={"$inc": {"n": 1}}, upsert=True)
    assert (named, again) == ({"modified": 0, "upserted_id": "k"}, {"modified": 1, "upserted_id": None})
    assert await found(profile, filter={"_id": "k"}) == [{"_id": "k", "n": 2}]


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"_id": 5}, r"filter\._id must be a string"),
        ({"_id": None}, r"filter\._id must be a string"),
        ({"_id": ""}, r"filter\._id is empty"),
        ({"_id.a": 5}, "_id is a string"),
        ({"a": 1, "a.b": 2}, "a is a number, not an object"),
        ({"n": "x"}, r"the new document: \$inc of n"),
    ],
)
async def test_an_upsert_that_makes_no_document_is_refused(profile, filter_, message):
    with pytest.raises(InvalidRequestError, match=message):
        await update(profile, filter=filter_, update={"$inc": {"n": 1}}, upsert=True)
    assert profile.txid == 0


# ---- bounds and bad input


async def test_documents_are_bounded_in_bytes_nesting_and_number(profile):
    large = {"t": "x" * (documents.DOCUMENT_LIMIT_BYTES - 8)}
    await insert(profile, large)
    with pytest.raises(PayloadTooLargeError, match=r"docs\[1\] takes"):
        parse_insert({"docs": [{}, {"t": large["t"] + "x"}]})
    with pytest.raises(PayloadTooLargeError, match=r"document '.*' takes"):
        await update(profile, filter={}, update={"$set": {"u": 1}})
    with pytest.raises(InvalidRequestError, match="at most 10000"):
        parse_insert({"docs": [{}] * 10_001})

    deep = {}
    for _ in range(125):
        deep = {"a": deep}
    await insert(profile, {"_id": "deep", "d": deep})
    with pytest.raises(InvalidRequestError, match="nested over 128"):
        await update(profile, filter={"_id": "deep"}, update={"$set": {"x.y.z": [deep]}})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "docs must be an array"),
        ({"docs": {}}, "docs must be an array"),
        ({"docs": [1]}, r"docs\[0\] must be an object"),
        ({"docs": [{}, {"_id": 1}]}, r"docs\[1\]\._id must be a string"),
        ({"docs": [{"_id": None}]}, r"docs\[0\]\._id must be a string, not null"),
        ({"docs": [{"_id": ""}]}, r"docs\[0\]\._id is empty"),
        ({"docs": [{"_id": "a\0"}]}, "NUL"),
        ({"docs": [{}, {"a": [{"b\0c": 1}]}]}, r"docs\[1\] has a key with a NUL"),
        ({"docs": [{"_id": "\ud800"}]}, "surrogate"),
        ({"docs": [{"_id": "x" * 513}]}, "at most 512"),
        ({"docs": [{"a": "\ud800"}]}, "surrogate"),
        ({"docs": [{"\ud800": 1}]}, "surrogate"),
        ({"docs": [{"a": float("nan")}]}, "not a JSON number"),
        ({"docs": [{"a": 2**64}]}, "integer outside"),
    ],
)
def test_what_is_no_document_is_refused_by_its_place(body, message):
    with pytest.raises(InvalidRequestError, match=message):
        parse_insert(body)


@pytest.mark.parametrize(
    ("parse", "body", "message"),
    [
        (parse_find, [], "the body must be an object"),
        (parse_find, {"limit": -1}, "limit is -1"),
        (parse_find, {"limit": "5"}, "limit must be an integer"),
        (parse_find, {"skip": 1.5}, "skip must be an integer"),
        (parse_find, {"cursor": 5}, "cursor must be a string"),
        (parse_find, {"cursor": "x" * 70_000}, "at most 65536"),
        (parse_count, {"filter": []}, "filter must be an object"),
        (parse_distinct, {}, "path has the field path None"),
        (parse_update, {"update": {"$set": {"a": 1}}}, "filter is missing"),
        (parse_update, {"filter": {}}, "update is missing"),
        (parse_update, {"filter": {}, "update": {"$set": {"a": 1}}, "multi": 1}, "multi must be true"),
        (parse_update, {"filter": {}, "update": {"$set": {"a": 1}}, "upsert": "x"}, "upsert must be true"),
        (parse_delete, {}, "filter is missing"),
        (parse_delete, {"filter": None}, "filter is missing"),
        (collections.parse_index, {}, "path has the field path None"),
        (collections.parse_index, {"path": "a", "unique": 1}, "unique must be true"),
    ],
)
def test_what_is_no_request_is_refused_by_its_field(parse, body, message):
    with pytest.raises(InvalidRequestError, match=message):
        parse(body)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "é", "a/b", "x" * 65])
async def test_bad_collections_are_refused_by_every_operation(profile, name):
    change = parse_update({"filter": {}, "update": {"$set": {"a": 1}}})
    for operation in (
        documents.insert(profile, name, []),
        documents.update(profile, name, change),
        documents.delete(profile, name, parse_delete({"filter": {}})),
        document_queries.find(profile, name, parse_find({})),
        document_queries.count(profile, name, parse_count({})),
        document_queries.distinct(profile, name, parse_distinct({"path": "a"})),
        collections.drop(profile, name),
        collections.indexes(profile, name),
        collections.create_index(profile, name, collections.Index("a", unique=False)),
        collections.drop_index(profile, name, "a"),
    ):
        with pytest.raises(InvalidRequestError, match=r"^collection "):
            await operation
    with pytest.raises(InvalidRequestError, match="field path"):
        await collections.drop_index(profile, "c", "a b")


async def test_what_a_filter_may_cost_decides_where_it_runs(profile):
    await insert(profile, {"a": "x"})
    await insert(profile, *({} for _ in range(201)))
    await insert(profile, {"t": "x" * 200_000})
    profile.works.clear()

    await found(profile, filter={"_id": "a"})
    await found(profile, filter={"a": "x"})
    await found(profile, filter={"a": {"$regex": "x"}})
    await update(profile, filter={"$or": [{"a": {"$regex": "x"}}]}, update={"$set": {"b": 1}})
    await update(profile, filter={"_id": "a"}, update={"$set": {"b": 1}})
    await delete(profile, filter={"b": 2})
    await delete(profile, filter={"_id": "a"})

    assert [work for _, work in profile.works] == [
        Work.USER, Work.USER, Work.OPAQUE, Work.OPAQUE, Work.USER, Work.USER, Work.POINT,
    ]  # fmt: skip


class LargeFile:
    is_large = True


async def test_the_event_loop_walks_through_no_collection_of_a_large_file_and_decodes_no_large_document(
    profile,
):
    await insert(
        profile, *({"_id": f"{n}", "n": n, "m": n} for n in range(10)), {"_id": "x", "t": "x" * 300_000}
    )
    await index(profile, "n")
    conn, change = profile.conn, {"$set": {"a": 1}}

    def run(kind, **body):
        match kind:
            case "find":
                document_queries.read_find(conn, "c", parse_find(body))
            case "count":
                document_queries.read_count(conn, "c", parse_count(body))
            case "distinct":
                document_queries.read_distinct(conn, "c", parse_distinct({"path": "n", **body}))
            case "update":
                documents.apply_update(conn, 1, "c", parse_update({"update": change, **body}))
            case "delete":
                documents.apply_delete(conn, "c", parse_delete(body))

    kinds = ("find", "count", "distinct", "update", "delete")
    stays = [(kind, {"filter": {"n": 1, "m": 1}}) for kind in kinds]
    stays += [(kind, {"filter": {"_id": "2"}}) for kind in kinds]
    stays += [("find", {}), ("find", {"sort": {"n": -1}}), ("find", {"filter": {"_id": "x"}})]
    leaves = [(kind, {"filter": {"m": 5}}) for kind in kinds] + [
        (kind, {"filter": {"$or": [{"n": 5}, {"n": 6}]}}) for kind in kinds
    ]
    leaves += [("find", {"sort": {"m": 1}}), ("count", {}), ("distinct", {})]
    large = [("find", {"filter": {"_id": "x"}, "projection": {"t": 0}}), ("update", {"filter": {"_id": "x"}})]

    conn.guard.on_loop = True
    for kind, body in stays + leaves:
        run(kind, **body)
    for kind, body in large:
        with pytest.raises(OverBudgetError):
            run(kind, **body)
    conn.guard.file = LargeFile()
    for kind, body in stays:
        run(kind, **body)
    for kind, body in leaves:
        with pytest.raises(OverBudgetError):
            run(kind, **body)


async def test_patterns_match_strings_alone(profile):
    await insert(
        profile,
        {"_id": "1", "a": "Hello"},
        {"_id": "2", "a": ["Hello"]},
        {"_id": "3", "a": 5},
        {"_id": "Hello"},
    )

    assert [d["_id"] for d in await found(profile, filter={"a": {"$regex": "^h", "$options": "i"}})] == ["1"]
    assert [d["_id"] for d in await found(profile, filter={"a": {"$not": {"$regex": "ell"}}})] == [
        "2",
        "3",
        "Hello",
    ]
    assert [d["_id"] for d in await found(profile, filter={"_id": {"$regex": "ll"}})] == ["Hello"]


async def test_a_large_collection_is_found_in_at_once(profile):
    batch = parse_insert({"docs": [{"kind": "fact", "n": n, "text": "bench"} for n in range(10_000)]})
    await documents.insert(profile, "c", batch)
    await index(profile, "n")
    started = time.perf_counter()
    for n in range(0, 10_000, 100):
        assert len(await found(profile, filter={"n": n})) == 1
        await asyncio.sleep(0)
    assert (time.perf_counter() - started) / 100 < 0.005, "an indexed find takes tens of microseconds"
