"""Key-values. Values are bytes; `etag` names the put that a value comes from."""

from typing import Any, Literal, TypedDict

from memoturn.types.stamps import Written


class _Entry(TypedDict):
    key: str
    etag: str
    size_bytes: int
    metadata: dict[str, Any] | None
    expires_at: int | None


class KeyEntry(_Entry, total=False):
    """A key and what stands under it; without the `value` where that was not asked for."""

    value: bytes


class _Put(TypedDict):
    key: str
    value: str | bytes


class PutItem(_Put, total=False):
    """A value to store, text or bytes, for `ttl` seconds.

    `if_match` and `if_none_match` are conditions: an ETag, or `*`, which any value has.
    """

    ttl: int | None
    metadata: dict[str, Any] | None
    if_match: str | None
    if_none_match: str | None


class _Delete(TypedDict):
    key: str


class DeleteItem(_Delete, total=False):
    """A key to remove under a condition."""

    if_match: str | None
    if_none_match: str | None


class KeyStored(Written):
    """A value that was stored, and the ETag that names it."""

    etag: str


class _Got(TypedDict):
    key: str
    status: Literal["found", "absent"]


class BatchGot(_Got, total=False):
    """A key of a batch as it was before it: with the whole entry where it is `found`."""

    etag: str
    size_bytes: int
    metadata: dict[str, Any] | None
    expires_at: int | None
    value: bytes


class BatchPut(TypedDict):
    """What became of a put: `etag` names what is there now, None where a condition failed for want of a value."""

    key: str
    status: Literal["stored", "precondition_failed"]
    etag: str | None


class _BatchDeleted(TypedDict):
    key: str
    status: Literal["deleted", "absent", "precondition_failed"]


class BatchDeleted(_BatchDeleted, total=False):
    """What became of a deletion; `etag` is that of the value that is there where its condition failed."""

    etag: str | None


class KeyBatchResult(Written):
    """One result for each item of a batch, in their order."""

    gets: list[BatchGot]
    puts: list[BatchPut]
    deletes: list[BatchDeleted]


class KeyIncremented(Written):
    """The number that is there now, and its ETag."""

    value: int
    etag: str
