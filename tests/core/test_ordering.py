import base64
import json

import apsw
import pytest
from document_model import documents, in_order, sorts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoturnd.core.ordering import CURSOR_VALUES_LENGTH, FIELDS_LIMIT, Order, parse_sort
from memoturnd.errors import InvalidRequestError

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def stored(docs):
    conn = apsw.Connection(":memory:")
    conn.execute("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL)")
    conn.executemany("INSERT INTO t VALUES (?, ?)", [(doc["_id"], json.dumps(doc)) for doc in docs])
    return conn


@slowly
@given(st.lists(documents, max_size=6), sorts)
def test_an_order_sorts_as_the_model_does_and_goes_on_behind_every_document(docs, sort):
    docs = [{**doc, "_id": f"{at}"} for at, doc in enumerate(docs)]
    expected = [doc["_id"] for doc in in_order(docs, sort)]
    order = parse_sort(sort)
    conn = stored(docs)

    found = conn.execute(f"SELECT id FROM t ORDER BY {order.sql}").fetchall()
    assert [key for (key,) in found] == expected
    for at, key in enumerate(expected):
        columns = ", ".join(["id", *order.extracted])
        _, *values = conn.execute(f"SELECT {columns} FROM t WHERE id = ?", (key,)).fetchone()
        cursor = order.parse_cursor(order.cursor(key, values))
        behind = []
        for sql, bindings in order.behind(cursor.key, cursor.values):
            behind += conn.execute(f"SELECT id FROM t WHERE {sql} ORDER BY {order.sql}", bindings)
        assert [other for (other,) in behind] == expected[at + 1 :]


@pytest.mark.parametrize(
    ("sort", "fields"),
    [
        (None, [("_id", False)]),
        ({}, [("_id", False)]),
        ({"b": 1, "a": 1}, [("b", False), ("a", False), ("_id", False)]),
        ({"a": 1, "b": -1}, [("a", False), ("b", True), ("_id", True)]),
        ({"a": 1, "_id": -1, "b": 1}, [("a", False), ("_id", True)]),
    ],
)
def test_fields_are_sorted_by_in_the_order_in_which_they_were_sent(sort, fields):
    assert parse_sort(sort).fields == tuple(fields)


def test_what_is_equal_is_not_sorted_by():
    order = parse_sort({"a": 1, "b": -1, "c": 1})

    assert order.without({"b", "x"}).fields == (("a", False), ("c", False), ("_id", False))
    assert order.without({"a", "b", "c", "_id"}).fields == (("_id", False),)
    assert order.without({"x"}) is order


@pytest.mark.parametrize(
    ("sort", "message"),
    [
        ([], "must be an object"),
        ({"a": 0}, r"sort\.a must be 1"),
        ({"a": True}, r"sort\.a must be 1"),
        ({"a": 1.0}, r"sort\.a must be 1"),
        ({"a": "asc"}, r"sort\.a must be 1"),
        ({"a b": 1}, "field path"),
        ({f"a{at}": 1 for at in range(FIELDS_LIMIT + 1)}, f"at most {FIELDS_LIMIT}"),
    ],
)
def test_what_is_no_sort_is_refused(sort, message):
    with pytest.raises(InvalidRequestError, match=message):
        parse_sort(sort)


def test_a_cursor_of_long_values_names_the_document_alone():
    order = parse_sort({"a": 1})

    assert order.parse_cursor(order.cursor("k", ["x" * CURSOR_VALUES_LENGTH])).values is not None
    assert order.parse_cursor(order.cursor("k", ["x" * (CURSOR_VALUES_LENGTH + 1)])).values is None
    assert len(order.cursor("k", ["x" * 10**6])) < 100


def packed(*parts):
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()


def test_what_is_no_cursor_of_the_sort_is_refused():
    order = parse_sort({"a": 1})
    digest = json.loads(base64.urlsafe_b64decode(order.cursor("k", [1]) + "=="))[1]
    assert order.parse_cursor(packed(1, digest, "k", [1])).values == (1,)

    for text in (
        "",
        "x",
        "é",
        "!!!!",
        "A" * 1000,
        Order().cursor("k", []),
        parse_sort({"a": -1}).cursor("k", [1]),
        packed(2, digest, "k", [1]),
        packed(1, "0", "k", [1]),
        packed(1, digest, 1, [1]),
        packed(1, digest, "k", []),
        packed(1, digest, "k", [1, 2]),
        packed(1, digest, "k", [[1]]),
        packed(1, digest, "k", [True]),
        packed(1, digest, "k", [2**63]),
        packed(1, digest, "k"),
        packed(1, digest, "k", [1], 1),
    ):
        with pytest.raises(InvalidRequestError, match="start again without it"):
            order.parse_cursor(text)
