import msgspec
import pytest
from document_model import PATHS, documents, filters, matches, sort_rank
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoturnd.core import patterns
from memoturnd.core.filters import (
    CONDITIONS_LIMIT,
    DEPTH_LIMIT,
    LIST_LIMIT,
    Filter,
    compile_filter,
    extracted,
)
from memoturnd.engine.connection import open_connection
from memoturnd.errors import InvalidRequestError

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def conn():
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=1024)
    conn.execute("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL)")
    yield conn
    conn.close()


def stored(conn, docs):
    conn.execute("DELETE FROM t")
    for at, doc in enumerate(docs):
        doc = {"_id": f"{at}", **doc}
        conn.execute("INSERT INTO t VALUES (?, ?)", (doc["_id"], msgspec.json.encode(doc).decode()))


def found(conn, payload):
    compiled = compile_filter(payload)
    return [
        i for (i,) in conn.execute(f"SELECT id FROM t WHERE {compiled.sql} ORDER BY id", compiled.bindings)
    ]


@slowly
@given(docs=st.lists(documents, max_size=8), payload=filters)
def test_a_filter_matches_what_its_meaning_says(conn, docs, payload):
    stored(conn, docs)

    expected = [f"{at}" for at, doc in enumerate(docs) if matches({"_id": f"{at}", **doc}, payload)]
    assert found(conn, payload) == expected


@slowly
@given(docs=st.lists(documents, max_size=8), payload=filters)
def test_what_a_filter_says_that_all_matches_fulfil_is_so(conn, docs, payload):
    stored(conn, docs)
    compiled = compile_filter(payload)

    for name in found(conn, payload):
        document = {"_id": name, **docs[int(name)]}
        for path, value in compiled.equal.items():
            assert matches(document, {path: value})


@slowly
@given(docs=st.lists(documents, max_size=8), path=st.sampled_from(PATHS))
def test_what_is_extracted_sorts_null_then_numbers_then_strings(conn, docs, path):
    stored(conn, docs)

    rows = conn.execute(f"SELECT id FROM t ORDER BY {extracted('doc', path)}, CAST(id AS INTEGER)")
    expected = sorted(range(len(docs)), key=lambda at: sort_rank(docs[at], path))
    assert [int(i) for (i,) in rows] == expected


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        ({}, "0123456"),
        ({"a": None}, "013"),
        ({"a": {"$eq": None}}, "013"),
        ({"a": {"$ne": None}}, "2456"),
        ({"a": {"$ne": 1}}, "013456"),
        ({"a": {"$in": []}}, ""),
        ({"a": {"$in": [], "$exists": True}}, ""),
        ({"a": {"$nin": [], "$exists": True}}, "12456"),
        ({"a": {"$nin": []}}, "0123456"),
        ({"a": {"$nin": [1, "x"]}}, "01356"),
        ({"a": {"$nin": [None]}}, "2456"),
        ({"a": {"$in": [None, 1]}}, "0123"),
        ({"a": {"$exists": True}}, "12456"),
        ({"a": {"$gt": None}}, ""),
        ({"a": {"$gt": 0}}, "24"),
        ({"a": "[1]"}, ""),
        ({"a": {"$all": [1]}}, "6"),
        ({"a": {"$size": 1}}, "6"),
        ({"a": {"$regex": "X"}}, ""),
        ({"a": {"$regex": "X", "$options": "i"}}, "4"),
        ({"a": {"$not": {"$gt": 0}}}, "01356"),
        ({"$not": {"a": 1}}, "013456"),
        ({"_id": "2"}, "2"),
        ({"_id": 2}, ""),
        ({"_id": {"$gte": "5"}}, "56"),
        ({"_id": {"$in": ["1", 2, None]}}, "1"),
        ({"_id": {"$exists": False}}, ""),
        ({"$or": [{"a": 1}, {"_id": "0"}], "a": {"$exists": True}}, "2"),
    ],
)
def test_null_empty_lists_and_kinds_of_values(conn, payload, ids):
    stored(conn, [{}, {"a": None}, {"a": 1}, {"b": 1}, {"a": "x"}, {"a": {"b": 1}}, {"a": [1]}])

    assert "".join(found(conn, payload)) == ids


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([], "filter must be an object"),
        (None, "filter must be an object"),
        ({"$and": []}, r"filter\.\$and must be an array of one or more"),
        ({"$or": []}, r"filter\.\$or must be an array of one or more"),
        ({"$or": {}}, r"filter\.\$or must be an array"),
        ({"$and": [{"a": 1}, 2]}, r"filter\.\$and\[1\] must be an object"),
        ({"$nor": [{}]}, r"unknown operator '\$nor'"),
        ({"a": {"$near": 1}}, r"filter\.a has the unknown operator '\$near'"),
        ({"a": {"b": 1}}, r"filter\.a has the unknown operator 'b'"),
        ({"a": {}}, "empty object"),
        ({"a": [1]}, r"filter\.a\.\$eq must be a string, number, boolean or null, not an array"),
        ({"a": {"$gt": {}}}, "not an object"),
        ({"a": {"$in": 1}}, r"filter\.a\.\$in must be an array"),
        ({"a": {"$in": [1, [2]]}}, r"filter\.a\.\$in\[1\] must be"),
        ({"a": {"$in": [1] * (LIST_LIMIT + 1)}}, f"at most {LIST_LIMIT}"),
        ({"a": {"$nin": [1] * (LIST_LIMIT + 1)}}, f"at most {LIST_LIMIT}"),
        ({"a": {"$exists": 1}}, r"\$exists must be true or false"),
        ({"a": {"$size": -1}}, r"\$size must be an integer from 0"),
        ({"a": {"$size": True}}, r"\$size must be an integer"),
        ({"a": {"$size": 1.0}}, r"\$size must be an integer"),
        ({"a": {"$all": 1}}, r"\$all must be an array"),
        ({"a": {"$all": [[]]}}, r"\$all\[0\] must be"),
        ({"a": {"$all": [1] * CONDITIONS_LIMIT}}, f"takes {CONDITIONS_LIMIT}"),
        ({f"a{at}": 1 for at in range(CONDITIONS_LIMIT + 1)}, f"takes {CONDITIONS_LIMIT}"),
        ({"a": {"$regex": 1}}, r"\$regex must be a string"),
        ({"a": {"$regex": "x" * 1001}}, "at most 1000"),
        ({"a": {"$regex": "("}}, "not a pattern that RE2 takes"),
        ({"a": {"$regex": r"(a)\1"}}, "not a pattern that RE2 takes"),
        ({"a": {"$regex": "\ud800"}}, "not valid UTF-8"),
        ({"a": {"$regex": "(.{300}){3}"}}, "program of"),
        ({"a": {"$regex": "a", "$options": "x"}}, r"\$options takes"),
        ({"a": {"$regex": "a", "$options": "ii"}}, r"\$options takes"),
        ({"a": {"$regex": "a", "$options": 1}}, r"\$options takes"),
        ({"a": {"$options": "i"}}, r"\$options goes with \$regex"),
        ({"a": {"$not": 1}}, r"\$not must be an object"),
        ({"a": float("nan")}, "must be a string, number"),
        ({"a": 10**400}, "beyond 64-bit floats"),
        ({"a": "\ud800"}, "surrogate"),
        ({"": 1}, "field path ''"),
        ({"a..b": 1}, r"field path 'a\.\.b'"),
        ({".a": 1}, "field path"),
        ({"a.": 1}, "field path"),
        ({"a b": 1}, "field path"),
        ({"a'": 1}, "field path"),
        ({'a"': 1}, "field path"),
        ({"é": 1}, "field path"),
        ({"a\n": 1}, "field path"),
        ({"a" * 201: 1}, "field path"),
        ({1: 1}, "field path"),
    ],
)
def test_what_is_no_filter_is_refused_by_its_place(payload, message):
    with pytest.raises(InvalidRequestError, match=message):
        compile_filter(payload)


@pytest.mark.parametrize("name", ["$and", "$or", "$not"])
def test_filters_nest_up_to_their_depth(conn, name):
    def nested(depth):
        payload = {"a": 1}
        for _ in range(depth):
            payload = {name: payload if name == "$not" else [payload]}
        return payload

    stored(conn, [{"a": 1}])

    assert found(conn, nested(DEPTH_LIMIT)) == ["0"]
    with pytest.raises(InvalidRequestError, match=f"over {DEPTH_LIMIT} deep"):
        compile_filter(nested(DEPTH_LIMIT + 1))
    with pytest.raises(InvalidRequestError, match=f"over {DEPTH_LIMIT} deep"):
        compile_filter(nested(500))


def test_operators_nest_up_to_the_same_depth():
    operators = {"$gt": 1}
    for _ in range(500):
        operators = {"$not": operators}

    with pytest.raises(InvalidRequestError, match=f"at most {DEPTH_LIMIT} deep"):
        compile_filter({"a": operators})


def test_the_largest_filters_run(conn):
    stored(conn, [{"a": 1}])
    many = [{"a": {"$gt": at}} for at in range(CONDITIONS_LIMIT)]

    assert found(conn, {"$or": many}) == ["0"]
    assert found(conn, {"$and": many}) == []
    assert found(conn, {"a": {"$in": [0.5] * (LIST_LIMIT - 1) + [1]}}) == ["0"]


def test_values_are_bound_and_never_part_of_the_sql():
    compiled = compile_filter({"a": "'; DROP TABLE t --", "b": {"$in": ["x'y"]}})

    assert "DROP" not in compiled.sql
    assert compiled.bindings == ("'; DROP TABLE t --", '["x\'y"]')


def test_a_filter_of_another_column_and_without_conditions(conn):
    conn.execute("CREATE TABLE IF NOT EXISTS v(name TEXT NOT NULL, meta BLOB NOT NULL)")
    conn.execute("INSERT INTO v VALUES ('x', jsonb(?)), ('y', jsonb('{}'))", ('{"tag": ["a", 1], "n": 5}',))
    compiled = compile_filter(
        {"_id": "x", "n": {"$gte": 5}, "tag": {"$all": ["a"]}}, doc="v.meta", key="v.name"
    )

    assert conn.execute(f"SELECT name FROM v WHERE {compiled.sql}", compiled.bindings).fetchall() == [("x",)]
    assert compile_filter({}) == Filter("TRUE", ())


def test_what_all_matches_fulfil_is_told():
    compiled = compile_filter(
        {
            "a": 1,
            "b": {"$gte": 2},
            "c": {"$eq": None},
            "$and": [{"d": "x"}, {"$or": [{"e": {"$in": [1]}}]}],
            "$or": [{"f": 1}, {"g": 1}],
            "$not": {"h": 1},
            "i": {"$not": {"$eq": 1}},
            "j": {"$regex": "x"},
        }
    )

    assert compiled.equal == {"a": 1, "c": None, "d": "x"}
    assert compiled.ranged == {"b", "e"}
    assert compiled.slow
    assert not compile_filter({"a": 1}).slow


def test_a_pattern_that_backtracks_elsewhere_takes_time_in_proportion_to_the_text():
    whole = patterns.pattern("(a*)*(a|aa)+$", None, "filter.a")

    assert not patterns.matches(whole, "a" * 1_000_000 + "b")
    assert patterns.matches(whole, "a" * 1_000_000)


@pytest.mark.parametrize(
    ("options", "text", "is_match"),
    [
        (None, "x\nab", False),
        ("m", "x\nab", True),
        ("im", "x\nAB", True),
        ("i", "AB", True),
        ("", "AB", False),
    ],
)
def test_options_of_patterns(options, text, is_match):
    assert patterns.matches(patterns.pattern("^ab", options, "a"), text) is is_match
