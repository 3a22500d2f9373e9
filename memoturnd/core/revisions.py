"""Revisions: the words that name a state of a branch, read without looking at any branch. Pure.

    1234                         a txid: up to 12 digits
    head, head~3                 the newest commit, and so many commit rounds before it
    2026-11-24T09:30:00Z         a time (RFC 3339): the newest commit at or before it
    1790000000000                the same in unix milliseconds: 13 digits or more
    before-upgrade               a checkpoint: every other word of a checkpoint's letters

What a word means follows from its spelling alone, never from which checkpoints there are. So a checkpoint
cannot be named like any of the others (memoturnd.core.names asks here), and nobody who makes one changes
what a stored revision means.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from memoturnd.errors import InvalidRequestError

TXID_DIGITS: Final = 12
"""Most digits of a txid in a revision; a longer number is a time."""
FIRST_MS: Final = -62_135_596_800_000
LAST_MS: Final = 253_402_300_799_999
"""The first and last millisecond of the years 1 to 9999: microseconds sent for milliseconds lie beyond them."""
GRAMMAR: Final = (
    f"a txid (up to {TXID_DIGITS} digits), head, head~N (N commit rounds before it), "
    "a time (RFC 3339 such as 2026-11-24T09:30:00Z, or 13 and more digits of unix milliseconds), or a checkpoint"
)

_NUMBER = re.compile(r"[0-9]+")
_DIGITS = re.compile(r"0|[1-9][0-9]*")
_BACK = re.compile(rf"head~(0|[1-9][0-9]{{0,{TXID_DIGITS - 1}}})")
_TIME_LIKE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]")
# A `+` that was sent unescaped in a query arrives as a space.
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt ]({_CLOCK}):([0-5][0-9]|60)(?:\.([0-9]{{1,32}}))?"
    rf"(?:[Zz]|([+ -])({_CLOCK}))"
)
_CHECKPOINT = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN_LENGTH = 80


@dataclass(frozen=True, slots=True)
class AtTxid:
    """The state at a txid."""

    txid: int


@dataclass(frozen=True, slots=True)
class BeforeHead:
    """The state so many commit rounds before the newest one; 0 is the newest."""

    rounds: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """The state of the newest commit at or before a time in unix ms, from FIRST_MS to LAST_MS."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class AtCheckpoint:
    """The state that a checkpoint names."""

    name: str


Revision = AtTxid | BeforeHead | AtTime | AtCheckpoint


def parse(text: str) -> Revision:
    """Return the revision that `text` spells. Raises InvalidRequestError that shows the grammar."""
    if text == "head":
        return BeforeHead(0)
    if back := _BACK.fullmatch(text):
        return BeforeHead(int(back[1]))
    if _DIGITS.fullmatch(text):
        return _number(text)
    if _TIME_LIKE.match(text):
        return AtTime(_time_ms(text))
    if _CHECKPOINT.fullmatch(text) and not _NUMBER.fullmatch(text):
        return AtCheckpoint(text)
    raise _refused(text, "write numbers without leading zeros" if _NUMBER.fullmatch(text) else "")


def is_checkpoint(text: str) -> bool:
    """Return whether `text` can be the name of a checkpoint."""
    try:
        return isinstance(parse(text), AtCheckpoint)
    except InvalidRequestError:
        return False


def rfc3339(at_ms: int) -> str:
    """Return unix milliseconds as RFC 3339 in UTC, in the spelling that `parse` gives the same back for."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> Revision:
    if len(text) <= TXID_DIGITS:
        return AtTxid(int(text))
    if len(text) > len(str(LAST_MS)) or int(text) > LAST_MS:
        raise _refused(text, "as unix milliseconds it lies after the year 9999")
    return AtTime(int(text))


def _time_ms(text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise _refused(text, "a time takes seconds, and `Z` or an offset")
    date, clock, seconds, fraction, sign, offset = found.groups()
    is_leap = seconds == "60"
    try:
        local = datetime.fromisoformat(f"{date}T{clock}:{'59' if is_leap else seconds}+00:00")
    except ValueError as error:
        raise _refused(text, "there is no such day") from error
    hours, minutes = (offset or "00:00").split(":")
    ahead = timedelta(hours=int(hours), minutes=int(minutes))
    since = local - _EPOCH + (ahead if sign == "-" else -ahead) + timedelta(seconds=is_leap)
    if is_leap and since % timedelta(days=1):
        raise _refused(text, "a second 60 is the last one of a day in UTC")
    at_ms = since // timedelta(milliseconds=1) + int(f"{fraction or '0':0<3}"[:3])
    return min(LAST_MS, max(FIRST_MS, at_ms))  # an offset may lead out of the calendar


def _refused(text: str, why: str = "") -> InvalidRequestError:
    shown = ascii(text)
    if len(shown) > _SHOWN_LENGTH:
        shown = f"{shown[:_SHOWN_LENGTH]}..."
    return InvalidRequestError(
        f"revision {shown} is not valid{f': {why}' if why else ''}; it takes {GRAMMAR}"
    )
