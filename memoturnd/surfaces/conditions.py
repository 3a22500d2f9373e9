"""Conditions on what is stored, over ETags: `If-Match` and `If-None-Match`. Pure.

An ETag here is what stands between the quotes; `*` stands for any.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from memoturnd.errors import InvalidRequestError, PreconditionFailedError
from memoturnd.surfaces import fields

ANY: Final = "*"
ETAG_LENGTH_LIMIT: Final = 128

_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"|[^\s",*]+'
_ONE: Final = re.compile(_TAG)
_LIST: Final = re.compile(rf"\s*(?:{_TAG})(?:\s*,\s*(?:{_TAG}))*\s*")
_WEAK: Final = "W/"


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a request to be carried out: sets of ETags, None where that header is not sent."""

    if_match: frozenset[str] | None
    if_none_match: frozenset[str] | None

    def holds(self, etag: str | None) -> bool:
        """Return whether it holds for what has `etag`, None for what is not there."""
        if self.if_match is not None and not _names(self.if_match, etag):
            return False
        return self.if_none_match is None or not _names(self.if_none_match, etag)

    def require(self, etag: str | None, what: str) -> None:
        """Raise PreconditionFailedError unless it holds."""
        if not self.holds(etag):
            state = "is not there" if etag is None else f"has the ETag {etag}"
            raise PreconditionFailedError(
                f"{what} {state}, which the request's condition excludes: nothing was changed; read it again"
            )

    def require_match(self, etag: str, what: str) -> None:
        """Raise PreconditionFailedError where the request wants another state than that of `etag`."""
        Condition(self.if_match, None).require(etag, what)


def _names(tags: frozenset[str], etag: str | None) -> bool:
    return etag is not None and (etag in tags or ANY in tags)


def of(if_match: frozenset[str] | None, if_none_match: frozenset[str] | None) -> Condition | None:
    """Return the condition of both, None where there is none."""
    return None if if_match is None and if_none_match is None else Condition(if_match, if_none_match)


def parse_header(text: str, name: str, *, weak: bool) -> frozenset[str]:
    """Return the ETags of a header: `*`, or tags with commas between them, whose quotes may be left out.

    Without `weak` a weak tag (`W/"..."`) matches nothing. Raises InvalidRequestError.
    """
    if text.strip() == ANY:
        return frozenset((ANY,))
    if not _LIST.fullmatch(text):
        raise InvalidRequestError(f'{name} takes `*`, or ETags such as "5f3a" with commas between them')
    tags = _ONE.findall(text)
    return frozenset(_opaque(tag) for tag in tags if weak or not tag.startswith(_WEAK))


def parse_fields(item: dict[str, Any], where: str) -> Condition | None:
    """Return the condition in an object's `if_match` and `if_none_match`: an ETag or `*` each."""
    return of(
        _parse_field(item.get("if_match"), f"{where}.if_match"),
        _parse_field(item.get("if_none_match"), f"{where}.if_none_match"),
    )


def _parse_field(value: Any, where: str) -> frozenset[str] | None:
    tag = fields.optional_text(value, where, length_limit=ETAG_LENGTH_LIMIT)
    if tag is None:
        return None
    if tag != ANY and not _ONE.fullmatch(tag):
        raise InvalidRequestError(f"{where} is {tag!a}: it takes an ETag, or `*`")
    return frozenset((_opaque(tag),))


def _opaque(tag: str) -> str:
    return tag.removeprefix(_WEAK).strip('"')
