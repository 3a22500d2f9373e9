import msgspec
import pytest
from document_model import RefusedError, documents, updated
from document_model import updates as any_update
from hypothesis import HealthCheck, given, settings

from memoturnd.core.updates import CHANGES_LIMIT, EACH_LIMIT, apply, parse_update
from memoturnd.errors import InvalidRequestError


def applied(document, update):
    document = msgspec.json.decode(msgspec.json.encode(document))
    apply(parse_update(update), document)
    return document


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents, any_update)
def test_an_update_does_what_the_model_does(document, update):
    try:
        expected = updated(document, update)
    except RefusedError:
        with pytest.raises(InvalidRequestError):
            applied(document, update)
        return

    assert msgspec.json.encode(applied(document, update)) == msgspec.json.encode(expected)


@pytest.mark.parametrize(
    ("before", "update", "after"),
    [
        ({}, {"$set": {"a.b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1, "c": 2}}, {"$unset": {"a.b": ""}}, {"a": {"c": 2}}),
        ({"a": 1}, {"$unset": {"a.b": "", "x": ""}}, {"a": 1}),
        ({}, {"$inc": {"n": 2}}, {"n": 2}),
        ({"n": None}, {"$inc": {"n": 2}}, {"n": 2}),
        ({"n": 1}, {"$inc": {"n": 0.5}}, {"n": 1.5}),
        ({"n": 2**63 - 1}, {"$inc": {"n": 1}}, {"n": 2**63}),
        ({"n": 1}, {"$inc": {"n": 1}, "$set": {"n": 10}}, {"n": 10}),
        ({"n": 1}, {"$set": {"n": 10}, "$inc": {"n": 1}}, {"n": 11}),
        ({"n": 1}, {"$max": {"n": 3}, "$min": {"n": 2}}, {"n": 2}),
        ({"n": 1}, {"$min": {"n": 2}, "$max": {"n": 3}}, {"n": 3}),
        ({"n": 3}, {"$max": {"n": 2, "m": 1}}, {"n": 3, "m": 1}),
        ({"n": 3}, {"$max": {"n": "a"}}, {"n": "a"}),
        ({"n": True}, {"$max": {"n": 0.5}}, {"n": True}),
        ({"n": None}, {"$min": {"n": 5}}, {"n": 5}),
        ({}, {"$push": {"a": [1]}}, {"a": [[1]]}),
        ({"a": [1]}, {"$push": {"a": {"$each": [2, 2]}}}, {"a": [1, 2, 2]}),
        ({"a": [1]}, {"$addToSet": {"a": {"$each": [1.0, True, 2, 2]}}}, {"a": [1, True, 2]}),
        ({"a": [{"x": 1, "y": 2}]}, {"$addToSet": {"a": {"y": 2, "x": 1.0}}}, {"a": [{"x": 1, "y": 2}]}),
        ({"a": [1, True, 1.0, "1", [1]]}, {"$pull": {"a": 1}}, {"a": [True, "1", [1]]}),
        ({"a": [1, 2, 3]}, {"$pull": {"a": {"$in": [1, 3]}}}, {"a": [2]}),
        ({}, {"$pull": {"a": 1, "b.c": 1}}, {}),
        ({"b": 2, "a": 1}, {"$set": {"b": 3}}, {"b": 3, "a": 1}),
    ],
)
def test_operators_one_by_one(before, update, after):
    assert msgspec.json.encode(applied(before, update)) == msgspec.json.encode(after)


def test_a_value_that_two_documents_get_is_shared_by_neither():
    update = parse_update({"$set": {"a": {"n": 1}}, "$inc": {"a.n": 1}, "$push": {"b": []}})
    first, second = {}, {}

    for document in (first, second):
        apply(update, document)
    first["a"]["n"] = 0
    first["b"][0].append(1)

    assert second == {"a": {"n": 2}, "b": [[]]}


@pytest.mark.parametrize(
    ("before", "update", "message"),
    [
        ({"a": "x"}, {"$set": {"a.b.c": 1}}, r"\$set of a\.b\.c: a is a string, not an object"),
        ({"a": {"b": [1]}}, {"$set": {"a.b.0": 1}}, r"a\.b is an array, not an object"),
        ({"a": None}, {"$set": {"a.b": 1}}, "a is null, not an object"),
        ({"n": "1"}, {"$inc": {"n": 1}}, r"\$inc of n: n is a string, not a number"),
        ({"n": True}, {"$inc": {"n": 1}}, "a boolean, not a number"),
        ({"n": 2**64 - 1}, {"$inc": {"n": 1}}, "leaves the numbers"),
        ({"n": 1.7e308}, {"$inc": {"n": 1.7e308}}, "leaves the numbers"),
        ({"n": [1]}, {"$max": {"n": 1}}, r"\$max of n: n is an array"),
        ({"a": None}, {"$push": {"a": 1}}, "a is null, not an array"),
        ({"a": 1}, {"$addToSet": {"a": 1}}, "a is a number, not an array"),
        ({"a": {}}, {"$pull": {"a": 1}}, "a is an object, not an array"),
    ],
)
def test_what_does_not_fit_a_document_is_refused(before, update, message):
    with pytest.raises(InvalidRequestError, match=message):
        applied(before, update)


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (None, "update must be an object of operators"),
        ({}, "update must be an object of operators"),
        ([], "update must be an object"),
        ({"a": 1}, "unknown operator 'a'"),
        ({"$rename": {"a": "b"}}, r"unknown operator '\$rename'"),
        ({"$set": {}}, r"update\.\$set must be an object of field paths"),
        ({"$set": 1}, r"update\.\$set must be an object"),
        ({"$set": {"a..b": 1}}, r"field path 'a\.\.b'"),
        ({"$set": {"_id": "x"}}, "_id, which stays"),
        ({"$unset": {"_id.a": 1}}, "_id, which stays"),
        ({"$set": {"a": float("inf")}}, "not a JSON number"),
        ({"$set": {"a": 2**64}}, "integer outside"),
        ({"$set": {"a": deep(200)}}, "nested over"),
        ({"$inc": {"a": "1"}}, r"update\.\$inc\.a must be a number"),
        ({"$inc": {"a": True}}, "must be a number"),
        ({"$inc": {"a": None}}, "must be a number"),
        ({"$inc": {"a": 2**70}}, "integer outside"),
        ({"$max": {"a": None}}, "must be a number, string or boolean"),
        ({"$min": {"a": []}}, "must be a number, string or boolean"),
        ({"$push": {"a": {"$each": 1}}}, r"\$each must be an array"),
        ({"$push": {"a": {"$each": [1] * (EACH_LIMIT + 1)}}}, f"at most {EACH_LIMIT}"),
        ({"$addToSet": {"a": {"$each": {}}}}, r"\$each must be an array"),
        ({"$pull": {"a": {"$gt": 1}}}, r"nothing but \$in"),
        ({"$pull": {"a": {"$in": [1], "$nin": []}}}, r"nothing but \$in"),
        ({"$pull": {"a": {"$in": 1}}}, r"\$in must be an array"),
        ({"$pull": {"a": {"$in": [1] * (EACH_LIMIT + 1)}}}, f"at most {EACH_LIMIT}"),
        ({"$set": {f"a{at}": 1 for at in range(CHANGES_LIMIT + 1)}}, f"at most {CHANGES_LIMIT}"),
    ],
)
def test_what_is_no_update_is_refused_by_its_place(update, message):
    with pytest.raises(InvalidRequestError, match=message):
        parse_update(update)
