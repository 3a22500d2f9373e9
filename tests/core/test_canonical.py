import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core.canonical import canonical_json, decode_json, memory_id, memory_id_with_summary
from memoturnd.errors import InvalidRequestError

VECTORS = [
    ("fact", "user.theme", {"v": "dark"}, "mem_5758fd9d59dc40b7225a7ebf08fa0f22"),
    ("fact", "user.diet", {"diet": "vegan"}, "mem_9ba542e1e57fea3f1d1f1a052ebef27f"),
    ("event", None, None, "mem_006e7494200d7e4085a06be94574bda6"),
    ("event", None, {}, "mem_878944971b91afea25b9ef2cea6b105f"),
    ("task", None, {"n": 1, "a": [1, 2.5, "é"]}, "mem_17acea0a819b9c41cc56c4cb16e36232"),
]


@pytest.mark.parametrize(("type_", "topic", "content", "expected"), VECTORS)
def test_ids_are_those_of_the_reference(type_, topic, content, expected):
    assert memory_id(type_, topic, canonical_json(content)) == expected


def test_a_summary_in_the_id_sets_it_apart():
    content = canonical_json({"v": 1})
    ids = {memory_id("event", None, content)} | {
        memory_id_with_summary("event", None, content, summary) for summary in ("a", "b", "é")
    }

    assert len(ids) == 4
    assert memory_id_with_summary("event", None, b"null", "seen") == "mem_3892d2ff8e35dc177b7b0161940cd8ce"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e16"),
        (12345678901234567.0, "1.2345678901234568e16"),
        (0.00001, "0.00001"),
        (0.000001, "1e-6"),
        (1.234e-7, "1.234e-7"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_numbers_have_one_spelling(number, text):
    assert canonical_json(number).decode() == text


def spelled_out(number):
    """The float format, from the shortest digits that `repr` finds."""
    sign = "-" if math.copysign(1, number) < 0 else ""
    if number == 0:
        return f"{sign}0.0"
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    k = int(exponent or 0) - len(fraction)
    stripped = digits.rstrip("0")
    k += len(digits) - len(stripped)
    point = len(stripped) + k
    if k >= 0 and point <= 16:
        return f"{sign}{stripped}{'0' * k}.0"
    if 0 < point <= 16:
        return f"{sign}{stripped[:point]}.{stripped[point:]}"
    if -5 < point <= 0:
        return f"{sign}0.{'0' * -point}{stripped}"
    dotted = stripped if len(stripped) == 1 else f"{stripped[0]}.{stripped[1:]}"
    return f"{sign}{dotted}e{point - 1}"


@given(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e18, 1e18)
    | st.floats(-1e-3, 1e-3)
    | st.integers(0, 2**60).map(float)
)
def test_floats_follow_the_written_rule(number):
    assert canonical_json(number).decode() == spelled_out(number)


def test_keys_sort_by_utf8_bytes_and_controls_are_escaped():
    value = {"😀": 2, "\ue000": 1, "a": {"c": 1, "b": '\x00\x1f\x7f\b\t\n\f\r"\\/é'}}

    text = canonical_json(value).decode()

    assert text == '{"a":{"b":"\\u0000\\u001f\x7f\\b\\t\\n\\f\\r\\"\\\\/é","c":1},"\ue000":1,"😀":2}'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(JSON)
def test_canonical_json_reads_back_as_the_same_value(value):
    assert json.loads(canonical_json(value)) == value
    assert canonical_json(decode_json(canonical_json(value))) == canonical_json(value)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_depth_128_passes_and_129_does_not():
    assert canonical_json(nested(128)).startswith(b"[[[")
    with pytest.raises(InvalidRequestError, match=r"memories\[0\].content is nested over 128"):
        canonical_json(nested(129), where="memories[0].content")
    with pytest.raises(InvalidRequestError, match="nested"):
        canonical_json(nested(100_000))


@pytest.mark.parametrize(
    "bad",
    [
        2**64,
        -(2**63) - 1,
        math.nan,
        math.inf,
        -math.inf,
        "\ud800",
        {"\udc00": 1},
        {1: 2},
        b"x",
        {"a": [math.nan]},
    ],
)
def test_what_json_cannot_carry_is_refused(bad):
    with pytest.raises(InvalidRequestError, match="content"):
        canonical_json(bad)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"1 2",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"01",
        b'"\xff"',
        b'{"\xff":1}',
        b'"\\ud800"',
        b'"\x00"',
        b"\xef\xbb\xbf{}",
        b"[" * 200_000,
        b"[" * 50_000 + b"]" * 50_000,
        b"1" + b"0" * 5000,
    ],
)
def test_bodies_that_are_not_json_are_refused_without_a_crash(body):
    with pytest.raises(InvalidRequestError, match="the body"):
        decode_json(body)


def test_the_last_of_duplicate_keys_wins_and_pairs_of_surrogates_join():
    assert decode_json(b'{"a":1,"a":2}') == {"a": 2}
    assert decode_json(b'"\\ud83d\\ude00"') == "😀"
    assert struct.pack("<d", decode_json(b"-0.0")) == struct.pack("<d", -0.0)
