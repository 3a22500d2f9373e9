"""The catalog seam: a directory of databases and branches. Manifests in the bucket stay the truth for data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from memoturnd.core import names
from memoturnd.core.limits import Owner, Quotas
from memoturnd.seams.credentials import Credentials

MAIN = "main"
COLLECT = "collect"
"""The chore of a database: what was deleted goes for good, and what nothing names is deleted."""
RETENTION = "retention"
"""The chore of a branch: its history is compacted, and what is past retention leaves the manifest."""

GOVERN = "govern"
"""The chore of a namespace: its policy changed. In place of a database it names the namespace as names.qualified does,
in place of a branch a profile, or nothing where it is about all of them."""
SWEEP = "sweep"
"""The chore of a branch: memories that a policy lets grow no older, or no more, are removed."""
REEMBED = "reembed"
"""The chore of a branch: what it holds is embedded again, and somebody has to be at it."""
ERASE = "erase"
"""The chore of a database: what was named to be erased leaves its history."""
EXPORTED_AT_ONCE = 250
"""New databases that come into the export's outbox at once: the event loop waits for it where the catalog is embedded."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database (for a profile, `name` is `{namespace}--{profile}`). Its name is its tenant's own.

    `uuid` and `main_branch_id` are 32 and 16 random lowercase hex digits; `created_at` is unix ms.
    `written` is false until `database.json` exists in the object store. `deleted_at` is unix ms, None while it is live.
    """

    name: str
    uuid: str
    main_branch_id: str
    created_at: int
    written: bool = False
    tenant: str = names.DEFAULT_TENANT
    deleted_at: int | None = None
    settings: str = ""
    """What is set for it, as memoturnd.core.database_settings encodes it; empty where nothing is."""

    @property
    def qualified_name(self) -> str:
        """Return the name by which it is looked up: with its tenant, but for the default one."""
        return names.qualified(self.tenant, self.name)


class Tenant(NamedTuple):
    """A tenant, whose databases have names of their own; `created_at` is unix ms."""

    name: str
    created_at: int


class Export(NamedTuple):
    """A change that is to be exported. Of one `id` the highest `change` counts; without a `body` (JSON) it is gone."""

    change: int
    kind: str
    id: str
    body: bytes | None


class NodeRow(NamedTuple):
    """A data-plane node: where it is reached, its release, and (unix ms) since when and until when it was there."""

    id: str
    address: str
    version: str
    started_at: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A branch other than main. Times are unix ms; `expires_at` is None unless the branch is a burner."""

    db_uuid: str
    branch_id: str
    name: str
    parent: str
    fork_txid: int
    created_at: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that a database, or with `branch_id` one of its branches, needs at some time; `kind` says which."""

    kind: str
    db_uuid: str
    branch_id: str = ""


@dataclass(frozen=True, slots=True)
class ClaimedChore:
    """A chore that was due at `due_at`, and is this caller's until `until` (unix ms).

    `attempts` counts how often it was claimed since it last ended well, this time included.
    """

    chore: Chore
    due_at: int
    until: int
    attempts: int


class RequestKey(NamedTuple):
    """What a request with an Idempotency-Key is known by: the database's uuid (empty where it is of none),
    `METHOD template`, who asks, and the key.
    """

    scope: str
    route: str
    principal: str
    key: str


class KnownRequest(NamedTuple):
    """A request that began before: a hash of it, what was known when it began, and its answer once it has one."""

    digest: bytes
    facts: bytes
    answer: bytes | None


class Cap(NamedTuple):
    """Of the databases of an owner there may be `most`."""

    owner: Owner
    most: int


class QuotaChange(NamedTuple):
    """Change number `change` gave an owner these quotas of its own."""

    change: int
    owner: Owner
    quotas: Quotas


class Totals(NamedTuple):
    """How many databases an owner has, and what they take up together."""

    databases: int
    bytes_stored: int
    memories: int


class Use(NamedTuple):
    """Requests of one day (UTC, as `2026-11-27`) to one database by its plain name, or with none to its owner besides."""

    owner: Owner
    database: str
    day: str
    requests: int
    reads: int
    writes: int
    recalls: int


class Size(NamedTuple):
    """What was shipped of a database, and what it stores: so much more, or where `is_whole`, so much altogether.

    `memories` are all that it has, None for as many as before.
    """

    db_uuid: str
    day: str
    bytes_shipped: int
    bytes_stored: int
    is_whole: bool
    memories: int | None


class UsageDay(NamedTuple):
    """Usage of one day (UTC): the counts of the day, and what was stored when it was last looked at."""

    day: str
    requests: int
    reads: int
    writes: int
    recalls: int
    bytes_shipped: int
    bytes_stored: int
    memories: int


class Catalog(Credentials, Protocol):
    """What every catalog does. Lookups that fail raise; they never guess. Databases are looked up by qualified name."""

    async def create_database(self, database: Database, caps: Sequence[Cap] = ()) -> None:
        """Insert one database. Raises AlreadyExistsError when the name is taken, NotFoundError for a missing tenant.

        Raises OverloadedError where it would be one too many: of several that are created at once, no more are than may be.
        """
        ...

    async def get_database(self, name: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        ...

    async def get_database_by_uuid(self, uuid: str) -> Database:
        """Return the database, deleted or not. Raises DatabaseNotFoundError."""
        ...

    async def list_databases(
        self, *, tenant: str = names.DEFAULT_TENANT, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[Database]:
        """Return up to `limit` of a tenant's databases ordered by name, with names starting `prefix` and above `after`."""
        ...

    async def is_empty(self) -> bool:
        """Return whether no tenant has a database."""
        ...

    async def written_after(self, uuid: str) -> Database | None:
        """Return the written database with the next higher uuid, after the highest the lowest; None without one.

        From a random `uuid` every written database is about as likely.
        """
        ...

    async def set_settings(self, uuid: str, settings: str) -> None:
        """Keep what is set for a database, as its register has it."""
        ...

    async def mark_written(self, uuid: str) -> None:
        """Record that the database has its `database.json`."""
        ...

    async def delete_database(self, uuid: str, *, at_ms: int) -> None:
        """Mark the database as deleted: its name is free, its branch rows are gone. No error when it is already gone."""
        ...

    async def undelete_database(self, uuid: str, caps: Sequence[Cap] = ()) -> Database:
        """Give a deleted database its name back; one that is live is returned.

        Raises DatabaseNotFoundError, AlreadyExistsError when the name was taken meanwhile, OverloadedError where there would
        be more than one of the caps says.
        """
        ...

    async def forget_database(self, uuid: str) -> None:
        """Remove the database and its branch rows, deleted or not; no error when it is already gone."""
        ...

    async def list_deleted(
        self, *, tenant: str, prefix: str = "", after: tuple[str, str] = ("", ""), limit: int = 1000
    ) -> list[Database]:
        """Return up to `limit` of a tenant's deleted databases by (name, uuid), above `after`."""
        ...

    async def find_deleted(self, name: str, uuid: str | None = None) -> Database:
        """Return the deleted database of a name, of several the one deleted last, or the one with `uuid`.

        Raises DatabaseNotFoundError.
        """
        ...

    async def list_namespaces(self, *, tenant: str, after: str = "", limit: int = 1000) -> list[str]:
        """Return up to `limit` of a tenant's namespaces that have a profile, by name, above `after`."""
        ...

    async def create_tenant(self, name: str, at_ms: int) -> Tenant:
        """Insert a tenant. Raises AlreadyExistsError."""
        ...

    async def get_tenant(self, name: str) -> Tenant:
        """Return the tenant. Raises NotFoundError."""
        ...

    async def list_tenants(self, *, after: str = "", limit: int = 1000) -> list[Tenant]:
        """Return up to `limit` tenants by name, above `after`."""
        ...

    async def delete_tenant(self, name: str, *, at_ms: int) -> None:
        """Remove a tenant and revoke its tokens; no error when it is already gone. Raises ConflictError while it has a database."""
        ...

    async def put_branch(self, row: BranchRow) -> None:
        """Insert a branch. Raises AlreadyExistsError when the database has a branch of that name."""
        ...

    async def get_branch(self, db_uuid: str, name: str) -> BranchRow:
        """Return the branch. Raises BranchNotFoundError."""
        ...

    async def list_branches(self, db_uuid: str) -> list[BranchRow]:
        """Return the branches of a database other than main, ordered by name."""
        ...

    async def delete_branch(self, db_uuid: str, name: str, *, branch_id: str | None = None) -> None:
        """Remove a branch row, with `branch_id` only that branch's; no error when it is already gone."""
        ...

    async def due_branches(self, now_ms: int, *, limit: int = 100) -> list[BranchRow]:
        """Return burners whose `expires_at` is at or before `now_ms`, oldest first, by index."""
        ...

    async def schedule(self, chore: Chore, due_ms: int) -> None:
        """Let the chore be due at `due_ms`, or earlier where it is already; one under way is due again then."""
        ...

    async def claim_due(self, now_ms: int, *, until_ms: int, limit: int = 10) -> list[ClaimedChore]:
        """Take what is due at `now_ms`, oldest first, by index. Nobody else gets it before `until_ms`."""
        ...

    async def finish(self, claimed: ClaimedChore, *, next_ms: int | None, failed: bool = False) -> None:
        """End a claim: the chore is due at `next_ms` again, or when it was scheduled meanwhile, else never.

        `failed` lets it count as tried in vain. A claim that has passed to somebody else is left to them.
        """
        ...

    async def release_claims(self, now_ms: int) -> None:
        """Let what was under way be due now: whoever claimed it is gone. For a catalog that only one node uses.

        What was claimed several times without an end stays until its claim runs out, since it may be what ends the node.
        """
        ...

    async def pending_exports(self, limit: int = 1000) -> list[Export]:
        """Return up to `limit` changes that were not exported, oldest first: of databases that were never written, ...

        New databases come into sight EXPORTED_AT_ONCE at a time: only fewer changes say that there are no more.
        """
        ...

    async def exported(self, changes: list[int]) -> None:
        """Forget exactly these changes: the export has them."""
        ...

    @property
    def exported_kinds(self) -> tuple[str, ...]:
        """Return every kind of thing that is exported: `database` (those that were never written), `tenant`, ..."""
        ...

    async def advance_changes(self, above: int) -> None:
        """Let the changes from here on have numbers above this one, which the export has seen."""
        ...

    async def restore_database(self, database: Database) -> None:
        """Enter a written database, live or deleted. Raises AlreadyExistsError, NotFoundError for a missing tenant."""
        ...

    async def restore_exported(self, kind: str, id_: str, body: bytes, *, is_dry: bool = False) -> bool:
        """Enter what the export has of a kind where it is absent, and return whether it was; with `is_dry` only look."""
        ...

    async def put_node(self, node: NodeRow) -> None:
        """Note that a node is there."""
        ...

    async def list_nodes(self, since_ms: int, *, limit: int = 1000) -> list[NodeRow]:
        """Return the nodes that were there at or after `since_ms`, by id."""
        ...

    async def forget_node(self, node_id: str) -> None:
        """Remove a node that stops; no error when it is not there."""
        ...

    async def forget_silent_nodes(self, since_ms: int) -> int:
        """Remove the nodes that were last there before `since_ms`, and return how many."""
        ...

    async def find_request(self, key: RequestKey, since_ms: int) -> KnownRequest | None:
        """Return a request that began at or after `since_ms`, None where there is none."""
        ...

    async def begin_request(
        self, key: RequestKey, digest: bytes, facts: bytes, at_ms: int, *, keep: int
    ) -> None:
        """Note that a request begins, in place of an older one of its key; the newest `keep` are kept."""
        ...

    async def finish_request(self, key: RequestKey, answer: bytes) -> None:
        """Keep the answer of a request that began."""
        ...

    async def forget_request(self, key: RequestKey) -> None:
        """Let go of a request that has changed nothing."""
        ...

    async def quotas_of(self, owner: Owner) -> Quotas:
        """Return the quotas that an owner has of its own."""
        ...

    async def quotas_changed(self, since: int, *, limit: int = 1000) -> list[QuotaChange]:
        """Return the quotas that changed after change `since`, each as it is now, in order."""
        ...

    async def put_quotas(self, owner: Owner, quotas: Quotas) -> None:
        """Give a tenant or namespace quotas, in place of what it had."""
        ...

    async def list_quotas(
        self, *, after: Owner | None = None, limit: int = 1000
    ) -> list[tuple[Owner, Quotas]]:
        """Return who has quotas of their own, ordered by tenant and namespace."""
        ...

    async def totals_of(self, owner: Owner) -> Totals:
        """Return how many databases a namespace, or a tenant, has, and what they take up."""
        ...

    async def add_usage(self, uses: Sequence[Use]) -> None:
        """Add to what is known of days, all or nothing. What is of no database that exists counts for its namespace alone."""
        ...

    async def add_sizes(self, sizes: Sequence[Size]) -> None:
        """Note what databases have shipped and store, all or nothing; those that do not exist any more are left out."""
        ...

    async def put_totals(self, owner: Owner, day: str, totals: Totals) -> None:
        """Note what the databases of an owner take up on a day."""
        ...

    async def usage_of_database(self, db_uuid: str, first: str, last: str, *, limit: int) -> list[UsageDay]:
        """Return the days from `first` to `last` on which something was counted, in order."""
        ...

    async def usage_of(self, owner: Owner, first: str, last: str, *, limit: int) -> list[UsageDay]:
        """Return the days of a namespace, or a tenant, in the same way."""
        ...

    async def prune_usage(self, before: str, *, limit: int) -> int:
        """Delete up to `limit` rows of days before `before`, and return how many."""
        ...

    async def ping(self) -> None:
        """Raise RetryableError when the catalog does not answer."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
