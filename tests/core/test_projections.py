import pytest
from document_model import documents, projected, projections
from hypothesis import HealthCheck, given, settings

from memoturnd.core.projections import FIELDS_LIMIT, parse_projection
from memoturnd.errors import InvalidRequestError

DOC = {"_id": "1", "a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [{"g": 4}]}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents, projections)
def test_a_projection_shows_what_the_model_shows(document, payload):
    document = {**document, "_id": "1"}
    projection = parse_projection(payload)

    shown = document if projection is None else projection.of(document)
    assert list(shown.items()) == list(projected(document, payload or {}).items())


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"a": 1}, {"_id": "1", "a": 1}),
        ({"a": True, "_id": False}, {"a": 1}),
        ({"b.d.e": 1, "a": 1}, {"_id": "1", "a": 1, "b": {"d": {"e": 3}}}),
        ({"a.x": 1}, {"_id": "1"}),
        ({"b.x": 1}, {"_id": "1", "b": {}}),
        ({"b": 0, "f": 0}, {"_id": "1", "a": 1}),
        ({"b.c": False}, {"_id": "1", "a": 1, "b": {"d": {"e": 3}}, "f": [{"g": 4}]}),
        ({"f.g": 0}, DOC),
        ({"_id": 0}, {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [{"g": 4}]}),
        ({"_id": 1}, {"_id": "1"}),
        ({"_id": 1, "b": 0, "f": 0}, {"_id": "1", "a": 1}),
        ({"_id": 0, "b": 0, "f": 0}, {"a": 1}),
    ],
)
def test_projections_one_by_one(payload, shown):
    found = parse_projection(payload).of(DOC)

    assert list(found.items()) == list(shown.items())


def test_nothing_asked_for_is_everything():
    assert parse_projection(None) is parse_projection({}) is None


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([], "must be an object"),
        ({"a": 2}, r"projection\.a must be true or false"),
        ({"a": 1.0}, "must be true or false"),
        ({"a": "x"}, "must be true or false"),
        ({"a": 1, "b": 0}, "do one of both"),
        ({"a": 1, "a.b": 1}, "a field around it"),
        ({"a.b": 1, "a": 1}, "a field inside it"),
        ({"a b": 1}, "field path"),
        ({f"a{at}": 1 for at in range(FIELDS_LIMIT + 1)}, f"at most {FIELDS_LIMIT}"),
    ],
)
def test_what_is_no_projection_is_refused(payload, message):
    with pytest.raises(InvalidRequestError, match=message):
        parse_projection(payload)
