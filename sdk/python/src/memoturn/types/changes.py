"""The change feed: what each commit of a branch changed, by surface and key."""

from typing import Literal, TypedDict

from memoturn.types.stamps import Seen

Surface = Literal["memory", "turns", "documents", "kv", "vectors", "timelines", "sql"]
"""A part of a database that changes are told of."""

_Place = TypedDict("_Place", {"in": str}, total=False)


class _Entry(TypedDict):
    surface: Surface


class ChangeEntry(_Entry, _Place, total=False):
    """What changed of one surface, in the namespace, collection, session or timeline `in`.

    `put` are keys that are new or have changed, `deleted` those that went. `dropped`: all that was there before
    went. `more`: something else changed there, so read it again.
    """

    put: list[str | int]
    deleted: list[str | int]
    dropped: bool
    more: bool


class _Change(TypedDict):
    txid: int
    at: int
    changes: list[ChangeEntry]


class Change(_Change, total=False):
    """What a commit changed. With `all` anything may have changed, and no key is named."""

    all: Literal["rewound", "imported", "erased"]


class ChangePage(Seen):
    """Commits in their order; go on with `since=next_since`, at once where `more` is True."""

    changes: list[Change]
    next_since: int
    more: bool
