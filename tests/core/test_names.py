import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import names
from memoturnd.errors import InvalidRequestError

BAD_PARTS = [
    "",
    "-a",
    "_a",
    "a-",
    "a--b",
    "A",
    "é",
    "а",  # Cyrillic
    "ａ",  # full width
    "a b",
    "a.b",
    "..",
    "a/b",
    "a@b",
    "a\n",
    "a\0",
    "a" * 65,
    "١",
    "\ud800",
]


@pytest.mark.parametrize("check", [names.namespace, names.profile, names.new_database])
@pytest.mark.parametrize("bad", BAD_PARTS)
def test_a_bad_part_is_refused_with_its_kind_and_the_rule(check, bad):
    with pytest.raises(
        InvalidRequestError, match=r"^(namespace|profile|database) .* takes 1 to 64 characters"
    ):
        check(bad)


@pytest.mark.parametrize("good", ["a", "0", "a-b_c", "a_", "a" * 64, "0-0"])
def test_good_parts_pass_unchanged(good):
    assert (
        names.namespace(good)
        == names.profile(good)
        == names.new_database(good)
        == names.database(good)
        == good
    )


def test_an_existing_database_may_be_a_profile_and_a_new_one_not():
    assert names.database("ns--user") == names.profile_database("ns", "user") == "ns--user"
    with pytest.raises(InvalidRequestError, match="database"):
        names.new_database("ns--user")


@pytest.mark.parametrize("bad", ["a--", "--a", "a--b--c", "a---b", "A--b", "a--..", "--"])
def test_a_bad_profile_database_is_refused(bad):
    with pytest.raises(InvalidRequestError, match="database"):
        names.database(bad)


@pytest.mark.parametrize("good", ["main", "recovered-7", "a.b-c_d", "0", "a_", "a--b", "b" * 64])
def test_good_branches_pass(good):
    assert names.branch(good) == good


@pytest.mark.parametrize("bad", ["", ".a", "-a", "a.", "a-", "a..b", "A", "a/b", "a@b", "b" * 65, "а", "a\n"])
def test_bad_branches_are_refused(bad):
    with pytest.raises(InvalidRequestError, match=r"branch .* takes"):
        names.branch(bad)


def test_a_spec_has_main_by_default_and_no_empty_branch():
    assert names.parse_spec("db") == ("db", "main")
    assert names.parse_spec("ns--p@try.1") == ("ns--p", "try.1")
    for bad in ("db@", "@main", "db@a@b", "db@..", ""):
        with pytest.raises(InvalidRequestError):
            names.parse_spec(bad)


def test_checkpoints_are_not_digits_alone():
    assert names.checkpoint("v1.0:Before-Deploy_2") == "v1.0:Before-Deploy_2"
    for bad in ("", "7", "0123", "a b", "a/b", "é", "c" * 129, "a\n"):
        with pytest.raises(InvalidRequestError, match="checkpoint"):
            names.checkpoint(bad)


def test_sessions_take_any_script_but_no_control_characters():
    assert names.session_id("Zoë/42 ✓") == "Zoë/42 ✓"
    for bad in ("", "a\nb", "a\0", "a\x7f", "a\u2028", "a\x85", "\ud800", "s" * 257):
        with pytest.raises(InvalidRequestError, match="session_id"):
            names.session_id(bad)


def test_keys_are_bounded_in_bytes():
    assert names.kv_key("é" * 512) == "é" * 512
    assert names.kv_prefix("") == ""
    assert names.kv_namespace("my space") == "my space"
    for bad in ("", "a\0b", "é" * 513, "\udfff"):
        with pytest.raises(InvalidRequestError, match=r"key .* takes 1 to 1024 bytes"):
            names.kv_key(bad)
    with pytest.raises(InvalidRequestError, match="kv namespace"):
        names.kv_namespace("n" * 257)


@given(st.text(max_size=70))
def test_whatever_passes_as_a_part_is_safe_as_a_path(value):
    try:
        names.namespace(value)
    except InvalidRequestError:
        return
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert "--" not in value
    assert 0 < len(value) <= 64


def test_a_refusal_shows_only_the_start_of_a_long_name():
    with pytest.raises(InvalidRequestError) as caught:
        names.namespace("x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("good", ["a", "A", "-", "_", "a-b", "a_b", "0" * 64])
def test_a_collection_of_letters_digits_and_two_marks_is_taken(good):
    assert names.collection(good) == good


@pytest.mark.parametrize("bad", ["", "a" * 65, "a b", "a.b", "a/b", "é", "a\n", 'a"', "a'", "\ud800"])
def test_another_collection_is_refused(bad):
    with pytest.raises(InvalidRequestError, match=r"^collection .* takes 1 to 64 characters"):
        names.collection(bad)


ascii_names = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=8)


@given(ascii_names, ascii_names)
def test_no_two_names_have_one_suffix_whatever_its_case(one, other):
    assert (names.suffix(one).lower() == names.suffix(other).lower()) == (one == other)
    assert names.of_suffix(names.suffix(one)) == one
    assert re.fullmatch(names.SUFFIX_PATTERN, names.suffix(one))
