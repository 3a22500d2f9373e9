"""Bodies of the routes for operators and of the directory."""

from memoturnd.http.shapes import UNSET, Maybe, Struct, Time, Txid


class Ready(Struct):
    """What answers: `ok` each; and what the node has: the model that it embeds with, null without, and what it asks a language model for."""

    store: str
    leases: str
    catalog: str
    version: str
    embedder: Maybe[str | None] = UNSET
    language_models: Maybe[list[str]] = UNSET


class Database(Struct):
    """A database of the directory. `deleted_at` and `undelete_until` where it is deleted and can still come back."""

    name: str
    uuid: str
    created_at: Time
    tenant: str
    deleted_at: Maybe[Time] = UNSET
    undelete_until: Maybe[Time] = UNSET
    durability: Maybe[dict[str, str]] = UNSET
    """Of writes, by surface, where any is set."""


class DatabaseSettings(Struct):
    """The level that writes wait for: `local`, `replicated` or `durable`, by `default`, surface (`docs`), or part of one (`docs/orders`)."""

    durability: Maybe[dict[str, str]] = UNSET


class Undelete(Struct):
    """Which of the deleted databases of a name; the one that was deleted last unless given."""

    uuid: str | None = None


class Tenant(Struct):
    """A tenant, whose databases have names of their own."""

    name: str
    created_at: Time


class TenantPage(Struct):
    """Tenants by name; `next_cursor` is null where no more follow."""

    tenants: list[Tenant]
    next_cursor: str | None


class Namespace(Struct):
    """A namespace that has profiles."""

    namespace: str


class NamespacePage(Struct):
    """The namespaces of a tenant by name."""

    namespaces: list[Namespace]
    next_cursor: str | None


class DatabasePage(Struct):
    """Databases by name; `next_cursor` is null where no more follow."""

    databases: list[Database]
    next_cursor: str | None


class ProfileRow(Struct):
    """A profile of a namespace."""

    profile: str
    created_at: Time


class ProfilePage(Struct):
    """The profiles of a namespace by name."""

    namespace: str
    profiles: list[ProfileRow]
    next_cursor: str | None


class ImportedFile(Struct):
    """The database or branch that was made of a file."""

    name: str
    branch: str
    uuid: str
    created_at: Time
    txid: Txid


class Synced(Struct):
    """What object storage has."""

    txid: Txid
    durable_txid: Txid


class Fork(Struct):
    """A branch as it was made; `ttl_at` is when a burner goes."""

    branch: str
    parent: str
    fork_txid: Txid
    ttl_at: Time | None
    spec: str


class BranchRow(Struct):
    """A branch other than main. `deleted_at` and `undelete_until` where it is deleted and can still come back."""

    db_name: str
    branch: str
    ttl_at: Time | None
    created_at: Time
    parent: str | None
    fork_txid: Txid | None
    deleted_at: Maybe[Time] = UNSET
    undelete_until: Maybe[Time] = UNSET


class BranchPage(Struct):
    """The branches other than main by name; a page of them where one was asked for."""

    branches: list[BranchRow]
    next_cursor: Maybe[str | None] = UNSET


class Checkpoint(Struct):
    """A named txid."""

    checkpoint: str
    txid: Txid
    created_at: Time


class CheckpointPage(Struct):
    """Checkpoints by txid; a page of them where one was asked for."""

    checkpoints: list[Checkpoint]
    next_cursor: Maybe[str | None] = UNSET


class Rewound(Struct):
    """A rewind: commit `txid` has the state of `rewound_to`, and `undo_txid` is the head before it."""

    rewound_to: Txid
    epoch: int
    txid: Txid
    undo_txid: Txid


class RestorePoint(Struct):
    """A commit that can be restored; `time` is `created_at` in RFC 3339."""

    txid: Txid
    created_at: Time
    time: str
    kind: str
    checkpoints: list[str]


class PastRewind(Struct):
    """A rewind that was made: commit `txid` brought back the state of `rewound_to`; `undo_txid` is the head before it."""

    txid: Txid
    rewound_to: Txid
    undo_txid: Txid
    created_at: Time


class RestorePointPage(Struct):
    """Restore points in the order asked for, and the newest rewinds of the branch, the oldest of them first."""

    restore_points: list[RestorePoint]
    rewinds: list[PastRewind]
    next_cursor: str | None
