"""Databases as the catalog has them, as files, and as object storage proves them; SQL."""

from typing import Literal, TypedDict

from memoturn.types.options import Durability
from memoturn.types.stamps import Written

SqlValue = None | int | float | str | bool | bytes
"""A value in a SQL parameter or row."""


class SqlResult(TypedDict):
    """The rows of one statement; blobs are bytes."""

    columns: list[str]
    rows: list[list[SqlValue]]
    rows_affected: int


class SqlBatchResult(Written):
    """The results of a batch that was applied as one."""

    results: list[SqlResult]


class _Database(TypedDict):
    name: str
    uuid: str
    created_at: int
    tenant: str


class DatabaseInfo(_Database, total=False):
    """A database as the catalog lists it.

    `durability` is there where it was set by surface. A deleted one says when that was, and until when it can be
    brought back.
    """

    deleted_at: int
    undelete_until: int
    durability: dict[str, str]


class DatabaseSettings(TypedDict, total=False):
    """What is set for a database: the level that its writes wait for, by surface (`default`, `kv`, `docs/orders`)."""

    durability: dict[str, Durability]


class Exported(TypedDict):
    """A state that was saved to a file of `size_bytes`, whose SHA-256 is `sha256` in hex."""

    txid: int
    durable_txid: int
    size_bytes: int
    sha256: str


class ImportedDatabase(TypedDict):
    """A branch that was made of a file; `txid` is that of its first state."""

    name: str
    branch: str
    uuid: str
    created_at: int
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
