import pytest

from memoturnd.errors import InvalidRequestError, PreconditionFailedError
from memoturnd.surfaces import conditions
from memoturnd.surfaces.conditions import Condition, parse_header


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("*", {"*"}),
        (" * ", {"*"}),
        ('"a"', {"a"}),
        ("a", {"a"}),
        ('"a", "b,c" ,d', {"a", "b,c", "d"}),
        ('""', {""}),
        ('W/"a"', set()),
        ('W/"a", "b"', {"b"}),
    ],
)
def test_a_header_names_etags(text, tags):
    assert parse_header(text, "If-Match", weak=False) == tags


def test_weak_tags_count_where_they_may():
    assert parse_header('W/"a", W/b, "c"', "If-None-Match", weak=True) == {"a", "b", "c"}


@pytest.mark.parametrize("text", ["", " ", ",", '"a', 'a"', '"a" "b"', '"a",', "*, a", '"a\x00"', '"a\x7f"'])
def test_a_header_that_names_none_is_refused(text):
    with pytest.raises(InvalidRequestError, match="If-Match"):
        parse_header(text, "If-Match", weak=False)


def test_a_long_header_is_read_in_linear_time():
    with pytest.raises(InvalidRequestError):
        parse_header('"a",' * 16_000 + '"', "If-Match", weak=False)
    assert len(parse_header(", ".join(f'"{n}"' for n in range(8000)), "If-Match", weak=False)) == 8000


@pytest.mark.parametrize(
    ("match", "none_match", "etag", "holds"),
    [
        (None, None, None, True),
        ({"a"}, None, "a", True),
        ({"a"}, None, "b", False),
        ({"a"}, None, None, False),
        ({"*"}, None, "b", True),
        ({"*"}, None, None, False),
        (set(), None, "a", False),
        (None, {"*"}, None, True),
        (None, {"*"}, "a", False),
        (None, {"a"}, "a", False),
        (None, {"a"}, "b", True),
        (None, {"a"}, None, True),
        (None, set(), "a", True),
        ({"a"}, {"a"}, "a", False),
        ({"a"}, {"b"}, "a", True),
    ],
)
def test_a_condition_holds_for_what_it_names(match, none_match, etag, holds):
    condition = Condition(
        None if match is None else frozenset(match), None if none_match is None else frozenset(none_match)
    )

    assert condition.holds(etag) is holds
    if not holds:
        with pytest.raises(PreconditionFailedError, match=r"^the key"):
            condition.require(etag, "the key")


def test_fields_without_conditions_have_none():
    assert conditions.parse_fields({"if_match": None}, "x") is None
    assert conditions.parse_fields({"if_match": 'W/"a"', "if_none_match": "*"}, "x") == Condition(
        frozenset({"a"}), frozenset({"*"})
    )
