"""Databases as the catalog has them, as files, and as object storage proves them; SQL."""

from typing import Literal, TypedDict

SqlValue = None | int | float | str | bool | bytes
"""A value in a SQL parameter or row."""


class SqlResult(TypedDict):
    """The rows of one statement; blobs are bytes."""

    columns: list[str]
    rows: list[list[SqlValue]]
    rows_affected: int


class SqlBatchResult(TypedDict):
    """The results of a batch that was applied as one."""

    results: list[SqlResult]
    txid: int
    durable_txid: int


class DatabaseInfo(TypedDict):
    """A database as the catalog lists it."""

    name: str
    uuid: str
    created_at: int


class Exported(TypedDict):
    """A state that was saved to a file of `size_bytes`, whose SHA-256 is `sha256` in hex."""

    txid: int
    durable_txid: int
    size_bytes: int
    sha256: str


class ImportedDatabase(DatabaseInfo):
    """A branch that was made of a file; `txid` is that of its first state."""

    branch: str
    txid: int


class VerifyFinding(TypedDict):
    """One thing that a verification found wrong: the object's `key`, and `what` is wrong with it.

    `lost` are the first and last txids of the ranges that cannot be restored because of it, of `branch`;
    that is empty where the whole database is concerned. `todo` is the next step.
    """

    kind: Literal["missing", "damaged", "contradiction", "unrestorable"]
    branch: str
    key: str
    what: str
    lost: list[list[int]]
    todo: str


class Verification(TypedDict):
    """What a verification found. `seed` draws the same sample again; `unfinished` is what it could not look at.

    Unreachable objects are no damage: uploads that nothing names. They are None where that is not known.
    """

    outcome: Literal["clean", "damaged", "unfinished"]
    deep: bool
    seed: str
    branches: int
    objects: int
    bytes: int
    states: int
    findings: list[VerifyFinding]
    damaged_objects: int
    unreachable_objects: int | None
    unreachable_bytes: int | None
    unreachable_keys: list[str]
    unfinished: list[str]
