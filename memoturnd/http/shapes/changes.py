"""Bodies of the change feed."""

from typing import Annotated, Literal

from msgspec import Meta

from memoturnd.http.shapes import UNSET, Maybe, Struct, Time, Txid

Key = str | int


class Entry(Struct, rename={"within": "in"}):
    """What a commit did in one place: keys put (made or changed) and deleted."""

    surface: str
    within: Annotated[
        Maybe[str], Meta(description="The namespace, collection, session or timeline that the keys are of.")
    ] = UNSET
    put: Maybe[list[Key]] = UNSET
    deleted: Maybe[list[Key]] = UNSET
    dropped: Annotated[Maybe[bool], Meta(description="All that was there before went.")] = UNSET
    more: Annotated[Maybe[bool], Meta(description="More changed there than is named: read it again.")] = UNSET


class Change(Struct):
    """What one commit changed; with `all` anything may have."""

    txid: Txid
    at: Time
    changes: list[Entry]
    all: Maybe[Literal["rewound", "imported", "erased"]] = UNSET


class ChangePage(Struct):
    """Commits that changed something, in order; `more` says that others follow already."""

    changes: list[Change]
    next_since: Txid
    more: bool
