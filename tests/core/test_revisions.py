"""Revisions: what a word means, and that nothing else is taken."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memoturnd.core import names
from memoturnd.core.revisions import (
    FIRST_MS,
    LAST_MS,
    AtCheckpoint,
    AtTime,
    AtTxid,
    BeforeHead,
    is_checkpoint,
    parse,
    rfc3339,
)
from memoturnd.errors import InvalidRequestError

MORNING_MS = 1_795_512_600_000
WORDS = {
    "0": AtTxid(0),
    "1234": AtTxid(1234),
    "999999999999": AtTxid(999_999_999_999),
    "1000000000000": AtTime(1_000_000_000_000),
    "253402300799999": AtTime(LAST_MS),
    "head": BeforeHead(0),
    "head~0": BeforeHead(0),
    "head~17": BeforeHead(17),
    "2026-11-24T09:30:00Z": AtTime(MORNING_MS),
    "2026-11-24t09:30:00z": AtTime(MORNING_MS),
    "2026-11-24 09:30:00Z": AtTime(MORNING_MS),
    "2026-11-24T11:30:00+02:00": AtTime(MORNING_MS),
    "2026-11-24T11:30:00 02:00": AtTime(MORNING_MS),
    "2026-11-24T01:30:00-08:00": AtTime(MORNING_MS),
    "2026-11-24T09:30:00-00:00": AtTime(MORNING_MS),
    "2026-11-24T09:30:00.5Z": AtTime(MORNING_MS + 500),
    "2026-11-24T09:30:00.1239999Z": AtTime(MORNING_MS + 123),
    "1969-12-31T23:59:59.25Z": AtTime(-750),
    "1990-12-31T23:59:60Z": AtTime(662_688_000_000),
    "1990-12-31T15:59:60.5-08:00": AtTime(662_688_000_500),
    "0001-01-01T00:00:00+23:59": AtTime(FIRST_MS),
    "9999-12-31T23:59:59-23:59": AtTime(LAST_MS),
    "before-upgrade": AtCheckpoint("before-upgrade"),
    "v1.0:2": AtCheckpoint("v1.0:2"),
    "2026-11-24": AtCheckpoint("2026-11-24"),
    "2026-11-24T-late": AtCheckpoint("2026-11-24T-late"),
    "HEAD": AtCheckpoint("HEAD"),
    "-1": AtCheckpoint("-1"),
}
REFUSED = [
    "", " ", " 1", "1 ", "1\n", "007", "00", "+1", "1.5 ", "٣", "²", "9" * 13 + "9999", "9" * 4000, "1790000000000000",
    "head~", "head~-1", "head~03", "head~1~1", "head~" + "9" * 13, "head ~1", "head^",
    "2026-11-24T09:30Z", "2026-11-24T09:30:00", "2026-11-24T24:00:00Z", "2026-11-24T09:60:00Z",
    "2026-02-30T09:30:00Z", "2026-11-24T09:30:61Z", "2026-11-24T09:30:60Z", "2026-11-24T09:30:00+24:00",
    "2026-11-24T09:30:00+0200", "2026-11-24T09:30:00.Z", "2026-11-24T09:30:00Z ", "0000-01-01T00:00:00Z",
    "a b", "a/b", "naïve", "x" * 129, "a\0", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize(("text", "meaning"), WORDS.items(), ids=WORDS)
def test_word_means_what_its_spelling_says(text, meaning):
    assert parse(text) == meaning


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_anything_else_is_refused_with_the_grammar(text):
    with pytest.raises(InvalidRequestError, match="head~N") as refused:
        parse(text)
    assert len(str(refused.value)) < 500


@given(st.text(max_size=40) | st.text("0123456789-T:.Z+~head ", max_size=40))
@example("2026-11-24T09:30:00.")
def test_any_text_is_read_as_one_thing_or_refused(text):
    try:
        meaning = parse(text)
    except InvalidRequestError:
        return
    match meaning:
        case AtTxid(txid):
            assert str(txid) == text
        case BeforeHead(rounds):
            assert text in {f"head~{rounds}", "head" if rounds == 0 else text}
        case AtCheckpoint(name):
            assert name == text
        case AtTime(at_ms):
            assert FIRST_MS <= at_ms <= LAST_MS


@given(st.integers(FIRST_MS, LAST_MS))
@example(FIRST_MS)
@example(-1)
@example(LAST_MS)
def test_time_that_is_written_down_is_read_back(at_ms):
    assert parse(rfc3339(at_ms)) == AtTime(at_ms)


@given(
    st.datetimes(datetime(1970, 1, 3), datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone comes from the next one
    st.integers(-23 * 60 - 59, 23 * 60 + 59).filter(bool),
    st.sampled_from("Tt "),
)
def test_offsets_count_as_they_do_elsewhere(moment, offset_min, separator):
    there = moment.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    since = there - datetime(1970, 1, 1, tzinfo=UTC)

    assert parse(there.isoformat(separator)) == AtTime(since // timedelta(milliseconds=1))
    assert parse(there.isoformat(separator).replace("+", " ")) == AtTime(since // timedelta(milliseconds=1))


@given(st.text("abcHEADheadTZ0123456789._:-", min_size=1, max_size=30))
@example("head")
@example("2026-11-24T09:30:00Z")
@example("2026-11-24T09")
@example("12")
def test_no_checkpoint_can_be_named_like_another_revision(name):
    try:
        names.checkpoint(name)
    except InvalidRequestError:
        assert not is_checkpoint(name)
    else:
        assert parse(name) == AtCheckpoint(name)
