"""Bodies of key-values. A value is text where it is UTF-8, else `{"$base64": text}`."""

from typing import Literal

from memoturnd.http.shapes import UNSET, Count, Maybe, Object, Struct, Time, Txid

Value = str | dict[Literal["$base64"], str]


class Entry(Struct):
    """A key and what stands under it."""

    key: str
    etag: str
    size_bytes: Count
    metadata: Object | None
    expires_at: Time | None
    value: Maybe[Value] = UNSET


class KeyPage(Struct):
    """Live keys, ascending; `entries` where values or metadata were asked for."""

    keys: list[str]
    next_cursor: str | None
    entries: Maybe[list[Entry]] = UNSET


class Increment(Struct):
    """What to add, 1 unless given; `ttl` (seconds) is the lifetime of a key that has none."""

    by: int | None = None
    ttl: Count | None = None


class Incremented(Struct):
    """The number that is there now."""

    value: int
    etag: str
    txid: Txid


class PutItem(Struct):
    """A value to store, where `if_match` or `if_none_match` (an ETag or `*`) hold."""

    key: str
    value: Value
    ttl: Count | None = None
    metadata: Object | None = None
    if_match: str | None = None
    if_none_match: str | None = None


class DeleteItem(Struct):
    """A key to remove under a condition."""

    key: str
    if_match: str | None = None
    if_none_match: str | None = None


class Batch(Struct):
    """Keys to get, put and remove as one commit; with `partial` unmet conditions leave out their items alone."""

    gets: list[str] | None = None
    puts: list[PutItem] | None = None
    deletes: list[str | DeleteItem] | None = None
    partial: bool | None = None


class Got(Struct):
    """A key as it was before the batch: the whole entry where it is found."""

    key: str
    status: Literal["found", "absent"]
    etag: Maybe[str] = UNSET
    size_bytes: Maybe[Count] = UNSET
    metadata: Maybe[Object | None] = UNSET
    expires_at: Maybe[Time | None] = UNSET
    value: Maybe[Value] = UNSET


class PutDone(Struct):
    """What became of a put; `etag` is what is there now, null where nothing is and the condition asks for something."""

    key: str
    status: Literal["stored", "precondition_failed"]
    etag: str | None


class DeleteDone(Struct):
    """What became of a deletion; `etag` is what is there where the condition does not hold."""

    key: str
    status: Literal["deleted", "absent", "precondition_failed"]
    etag: Maybe[str | None] = UNSET


class Batched(Struct):
    """One result per item, in order."""

    gets: list[Got]
    puts: list[PutDone]
    deletes: list[DeleteDone]
    txid: Txid
