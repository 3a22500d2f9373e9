"""What the HTTP layer needs of the node and of its settings, and nothing more.

`memoturnd.node.Node` and `memoturnd.config.Settings` fit these protocols by shape.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Optional, Protocol

from memoturnd.audit.log import AuditLog
from memoturnd.audit.ports import AuditRules
from memoturnd.audit.reader import AuditReader
from memoturnd.core.consistency import Consistency
from memoturnd.core.database_settings import LevelRules
from memoturnd.core.erasures import Coupon
from memoturnd.core.policy import Rules
from memoturnd.core.policy_document import Change, PolicyDocument
from memoturnd.core.revisions import Revision
from memoturnd.core.tails import Push
from memoturnd.engine.accounts import Accounts
from memoturnd.engine.idempotency import Once
from memoturnd.engine.journal import Journal
from memoturnd.engine.maintenance import Maintenance
from memoturnd.engine.metering import Meter
from memoturnd.engine.releases import Releases
from memoturnd.engine.streams import Streams
from memoturnd.feeds import Feeds, Followed
from memoturnd.http.streaming import Stream
from memoturnd.metrics import Metrics
from memoturnd.replication.points import Window
from memoturnd.seams.catalog import BranchRow, Database, Tenant
from memoturnd.seams.embedder import Embeddings
from memoturnd.seams.language_model import LanguageModels
from memoturnd.seams.leases import Owner
from memoturnd.seams.profile import Profile
from memoturnd.surfaces.erasing import Asked

if TYPE_CHECKING:
    from memoturnd.auth.authority import Authority
    from memoturnd.clustering import Cluster
    from memoturnd.http.admission import Admission


class HttpSettings(Protocol):
    """The limits of the HTTP layer."""

    @property
    def loopback_only(self) -> bool:
        """Whether the node serves only its own machine: it listens on loopback, without authentication."""
        ...

    @property
    def cors_origins(self) -> tuple[str, ...]:
        """Origins of web pages that may use the node, besides its own."""
        ...

    @property
    def request_log(self) -> Literal["off", "problems", "all"]:
        """Which requests have a line in the log."""
        ...

    @property
    def slow_request_ms(self) -> int:
        """Milliseconds from which on a request is slow, 0 for never."""
        ...

    @property
    def request_timeout_s(self) -> float:
        """Longest that one request may take, waiting for a slot included."""
        ...

    @property
    def model_timeout_s(self) -> float:
        """Longest that a request may wait for a language model, besides."""
        ...

    @property
    def max_body_bytes(self) -> int:
        """Largest body on routes that carry data."""
        ...

    @property
    def max_import_bytes(self) -> int:
        """Largest file that is imported."""
        ...

    @property
    def memory_budget_bytes(self) -> int:
        """Memory that the node may take for profiles; bodies may take a quarter as much."""
        ...

    @property
    def max_concurrency(self) -> int:
        """Most requests served at once; more wait."""
        ...

    @property
    def control_rate(self) -> float:
        """Control requests per second; twice as many may come in one burst."""
        ...


class BranchProfile(Profile, Protocol):
    """A branch of a database, with the positions that answers carry."""

    @property
    def branch_id(self) -> str:
        """Id of the branch, which no other branch ever has."""
        ...

    @property
    def txid(self) -> int:
        """Newest committed txid."""
        ...

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        ...

    @property
    def rules(self) -> LevelRules:
        """What is set for the database about the levels that writes wait for."""
        ...


class FollowedBranch(BranchProfile, Followed, Protocol):
    """A branch whose changes can be followed."""


class BranchCreated(Protocol):
    """A fork as it was made; `expires_at` is unix ms, None unless the branch is a burner."""

    @property
    def branch(self) -> str:
        """Name of the new branch."""
        ...

    @property
    def parent(self) -> str:
        """Name of the branch that it was forked from."""
        ...

    @property
    def fork_txid(self) -> int:
        """Txid of the parent at which it was forked."""
        ...

    @property
    def expires_at(self) -> int | None:
        """Unix ms at which the branch is deleted."""
        ...


class Checkpoint(Protocol):
    """A named txid; `created_at` is unix ms."""

    @property
    def name(self) -> str:
        """Name of the checkpoint, unique within its branch."""
        ...

    @property
    def txid(self) -> int:
        """Txid that it names."""
        ...

    @property
    def created_at(self) -> int:
        """Unix ms at which it was made."""
        ...

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        ...


class Rewound(Protocol):
    """A rewind, which is a new commit `txid` whose state equals that of `rewound_to`."""

    @property
    def rewound_to(self) -> int:
        """Txid whose state is the branch's state again."""
        ...

    @property
    def txid(self) -> int:
        """Txid of the rewind itself."""
        ...

    @property
    def epoch(self) -> int:
        """Epoch of the branch's owner."""
        ...

    @property
    def undo_txid(self) -> int:
        """Txid whose state an undo brings back."""
        ...

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        ...


class DeletedBranch(Protocol):
    """A deleted branch that can still come back. Times are unix ms."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def branch_id(self) -> str:
        """Its id."""
        ...

    @property
    def parent(self) -> str:
        """The branch that it was forked from."""
        ...

    @property
    def fork_txid(self) -> int:
        """The state that it began with."""
        ...

    @property
    def created_at(self) -> int:
        """When it was forked."""
        ...

    @property
    def expires_at(self) -> int | None:
        """When it would go by itself."""
        ...

    @property
    def deleted_at(self) -> int:
        """When it was deleted."""
        ...

    @property
    def until(self) -> int:
        """When it can come back no more."""
        ...


class RestorePoint(Protocol):
    """A commit that can be restored; `at` is its wall time in unix ms."""

    @property
    def txid(self) -> int:
        """Txid of the commit."""
        ...

    @property
    def at(self) -> int:
        """Unix ms at which it was committed."""
        ...

    @property
    def kind(self) -> str:
        """`checkpoint` where it has names, else `snapshot` where it is kept as a whole, else `commit`."""
        ...

    @property
    def checkpoints(self) -> Sequence[str]:
        """Names of the checkpoints that name it."""
        ...


class Rewind(Protocol):
    """A commit that brought back the state of an older one; `at` is its wall time in unix ms."""

    @property
    def txid(self) -> int:
        """Txid of the commit."""
        ...

    @property
    def to_txid(self) -> int:
        """Txid of the state that it brought back."""
        ...

    @property
    def from_txid(self) -> int:
        """Txid of the head before it."""
        ...

    @property
    def at(self) -> int:
        """Unix ms at which it was committed."""
        ...


class RestorePoints(Protocol):
    """Some of a branch's restore points."""

    @property
    def head_txid(self) -> int:
        """Newest txid that object storage has."""
        ...

    @property
    def rows(self) -> Sequence[RestorePoint]:
        """The points, by txid."""
        ...

    @property
    def rewinds(self) -> Sequence[Rewind]:
        """The newest rewinds of the branch, by txid, whichever points were asked for."""
        ...


class Databases(Protocol):
    """The directory of databases. Look-ups raise DatabaseNotFoundError."""

    async def create(self, name: str, *, uuid: str | None = None) -> Database:
        """Register a database. Raises AlreadyExistsError, InvalidRequestError."""
        ...

    async def get(self, name: str) -> Database:
        """Return a database."""
        ...

    async def set_durability(self, name: str, levels: dict[str, str]) -> Database:
        """Set the levels that writes to a database's surfaces wait for."""
        ...

    async def last_deleted(self, name: str) -> str | None:
        """Return the uuid of the database that was deleted last under a name, None where none waits."""
        ...

    @property
    def grace_ms(self) -> int:
        """Return how long a deleted database can be undeleted."""
        ...

    async def list_namespaces(self, after: str = "", limit: int = 1000, *, tenant: str) -> list[str]:
        """Return up to `limit` of a tenant's namespaces by name, above `after`."""
        ...

    async def list_deleted(
        self, prefix: str = "", after: tuple[str, str] = ("", ""), limit: int = 1000, *, tenant: str
    ) -> list[Database]:
        """Return up to `limit` deleted databases by (name, uuid), starting `prefix` and above `after`."""
        ...

    async def list(
        self, prefix: str = "", after: str = "", limit: int = 1000, *, tenant: str
    ) -> list[Database]:
        """Return up to `limit` databases by name, starting `prefix` and above `after`."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a database and everything in it; its objects stay for a while."""
        ...

    async def undelete(self, name: str, uuid: str | None = None) -> Database:
        """Bring back the database that was deleted last under a name, or the one with `uuid`. Raises AlreadyExistsError."""
        ...

    async def ensure_profile(self, name: str) -> Database:
        """Return the profile's database, registering it when absent."""
        ...


class Tenants(Protocol):
    """Tenants by name."""

    async def create(self, name: str) -> Tenant:
        """Register a tenant. Raises AlreadyExistsError."""
        ...

    async def get(self, name: str) -> Tenant:
        """Return a tenant. Raises NotFoundError."""
        ...

    async def list(self, after: str = "", limit: int = 1000) -> list[Tenant]:
        """Return up to `limit` tenants by name, above `after`."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a tenant. Raises ConflictError while it has a database."""
        ...


class Branches(Protocol):
    """Forks, checkpoints and rewinds. All of it is durable when it returns."""

    async def create(
        self,
        db_name: str,
        name: str,
        *,
        from_branch: str = "main",
        at: str | None = None,
        ttl_s: int | None = None,
        branch_id: str | None = None,
    ) -> BranchCreated:
        """Fork `from_branch` at a revision, its head when `at` is None."""
        ...

    async def list(self, db_name: str, *, after: str = "", limit: int | None = None) -> Sequence[BranchRow]:
        """Return up to `limit` (None: all) branches other than main, by name, above `after`."""
        ...

    async def list_deleted(
        self, db_name: str, *, after: tuple[str, str] = ("", ""), limit: int | None = None
    ) -> Sequence[DeletedBranch]:
        """Return up to `limit` (None: all) branches that can be undeleted, by (name, id) above `after`."""
        ...

    async def delete(self, db_name: str, name: str) -> None:
        """Delete a branch; no error when it is already gone."""
        ...

    async def undelete(self, db_name: str, name: str) -> BranchCreated:
        """Bring back the branch that was deleted last under that name. Raises BranchNotFoundError."""
        ...

    async def checkpoint(self, db_name: str, branch: str, name: str) -> Checkpoint:
        """Name the branch's head."""
        ...

    async def checkpoints(
        self, db_name: str, branch: str, *, after: tuple[int, str] = (0, ""), limit: int | None = None
    ) -> Sequence[Checkpoint]:
        """Return the branch's checkpoints by txid and name: up to `limit` of them behind the (txid, name) `after`."""
        ...

    async def find_checkpoint(self, db_name: str, branch: str, name: str) -> Checkpoint | None:
        """Return a checkpoint by name, None without one."""
        ...

    async def delete_checkpoint(self, db_name: str, branch: str, name: str) -> None:
        """Drop a checkpoint. Raises BranchNotFoundError."""
        ...

    async def restore_points(
        self, db_name: str, branch: str, window: Window, limit: int, *, newest_first: bool
    ) -> RestorePoints:
        """Return up to `limit` commits of the window that can be restored, by txid."""
        ...

    async def rewind(self, db_name: str, branch: str, to: str, *, once: Once | None = None) -> Rewound:
        """Bring back the state of a revision as a new commit."""
        ...

    async def undo_rewind(self, db_name: str, branch: str, *, once: Once | None = None) -> Rewound:
        """Bring back the state from before the last rewind as a new commit. Raises ConflictError."""
        ...

    async def sync(self, db_name: str, branch: str, txid: int | None = None) -> int:
        """Ship up to `txid`, the head when None, and return the durable txid."""
        ...


class ExportedFile(Stream, Protocol):
    """A state as a SQLite file. `durable_txid` is the newest of its branch in object storage."""

    @property
    def txid(self) -> int:
        """Txid of the state."""
        ...

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        ...


class Spool(Stream, Protocol):
    """A file of the node's that has no name, to be written and sent, or received and read."""

    @property
    def file(self) -> BinaryIO:
        """The file itself."""
        ...

    async def receive(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Write what comes to the file; return a hash of it. Raises DiskFullError."""
        ...


class Imported(Protocol):
    """A database that was made of a file, and the txid at which it begins."""

    @property
    def database(self) -> Database:
        """The new database."""
        ...

    @property
    def txid(self) -> int:
        """Txid of the state that the file held."""
        ...


class Transfers(Protocol):
    """States that leave as files, and files that become databases."""

    def spool(self) -> Spool:
        """Return an empty file; the caller closes it. Raises OverloadedError, DiskFullError."""
        ...

    async def export(self, db_name: str, branch: str, at: Revision | None, *, min_txid: int) -> ExportedFile:
        """Return a state as a file, the head's when `at` is None; the caller closes it.

        Raises PreconditionFailedError for one below `min_txid`.
        """
        ...

    async def take(
        self, db_name: str, file: AsyncIterator[bytes], *, branch: str, ttl_s: int | None
    ) -> Imported:
        """Make a new database of a SQLite file, or a new branch of one.

        Raises AlreadyExistsError, InvalidRequestError.
        """
        ...


class Verifications(Protocol):
    """Verifications of what object storage has."""

    async def begin(self, db_name: str, branch: str | None, *, deep: bool, seed: str | None) -> Stream:
        """Return a verification as lines of JSON; the caller closes it. Raises OverloadedError."""
        ...


class Reembedding(Protocol):
    """The jobs that embed again, in the background."""

    def new_job_id(self) -> str:
        """Return a name for a job."""
        ...

    def is_live(self, branch_id: str) -> bool:
        """Return whether this node is at the branch's job."""
        ...

    async def go_on(self, db_name: str, branch: str) -> None:
        """See to the branch's job. Raises DatabaseNotFoundError, BranchNotFoundError."""
        ...


class Policies(Protocol):
    """What governs databases, which are told by their qualified names. Nothing known raises PolicyUnreadableError."""

    @property
    def ceiling(self) -> Rules:
        """What holds for every database."""
        ...

    async def egress(self, database: str) -> Rules:
        """Return what holds for sending memories to a model."""
        ...

    async def lets_embed(self, database: str) -> bool:
        """Return whether this node's embedder may be sent what a database holds."""
        ...

    async def reads(self, database: str) -> Consistency:
        """Return what reads that do not say ask for."""
        ...

    async def task_ttl_max_s(self, database: str) -> int | None:
        """Return the longest life of a task, None without a bound."""
        ...

    async def document(self, tenant: str, namespace: str) -> PolicyDocument | None:
        """Return the policies of a namespace as they stand now. Raises StoreUnavailableError, CorruptionError."""
        ...

    def holds_for(self, document: PolicyDocument | None, profile: str) -> Rules:
        """Return what holds for a profile by these policies of its namespace."""
        ...


class Governing(Protocol):
    """Changes of policies, and what follows."""

    async def change(
        self, tenant: str, namespace: str, change: Change, *, profile: str = ""
    ) -> PolicyDocument:
        """Change the policies of a namespace, or of one profile. Raises ConflictError, StoreUnavailableError."""
        ...


class Requested(Protocol):
    """An erasure as it was accepted, and the commit that took what it names out of the newest state."""

    @property
    def coupon(self) -> Coupon:
        """The erasure."""
        ...

    @property
    def txid(self) -> int:
        """Txid of that commit."""
        ...

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        ...


class Coupons(Protocol):
    """The coupons of erasures, by the database's uuid."""

    async def page(self, uuid: str, *, before: str | None, limit: int) -> list[Coupon]:
        """Return coupons older than the id `before`, the newest first."""
        ...

    async def get(self, uuid: str, erasure_id: str) -> Coupon:
        """Return a coupon. Raises NotFoundError."""
        ...


class Erasing(Protocol):
    """Erasures."""

    @property
    def coupons(self) -> Coupons:
        """How far each has come."""
        ...

    async def purges(self, db_name: str) -> bool:
        """Return whether what is forgotten in a profile is to be erased. Raises PolicyUnreadableError."""
        ...

    def new_id(self) -> str:
        """Return an id for an erasure that is about to be requested."""
        ...

    async def request(
        self, db_name: str, branch_name: str, ask: Callable[[], Awaitable[Asked]], erasure_id: str
    ) -> Requested:
        """Take something out of a branch's newest state, durably, and promise the rest. Raises NotFoundError."""
        ...


class TailHolder(Protocol):
    """Holds other nodes' commits until object storage has them."""

    async def push(self, push: Push, data: bytes) -> None:
        """Keep a piece of a tail; see memoturnd.replication.tail_store."""
        ...

    async def read(self, branch_id: str, epoch: int) -> list[bytes]:
        """Return what is held of a branch to its new owner."""
        ...

    async def forget(self, branch_id: str, epoch: int) -> None:
        """Let go of a branch."""
        ...


class Tails(Protocol):
    """Tails, as routes reach them."""

    @property
    def store(self) -> TailHolder:
        """What is held here."""
        ...


class Node(Protocol):
    """The node behind the routes."""

    @property
    def databases(self) -> Databases:
        """The directory of databases."""
        ...

    @property
    def tenants(self) -> Tenants:
        """The tenants."""
        ...

    @property
    def branches(self) -> Branches:
        """Forks, checkpoints and rewinds."""
        ...

    @property
    def cluster(self) -> "Cluster":
        """The nodes that are there, and where branches are."""
        ...

    @property
    def journal(self) -> Journal:
        """Requests that are to take effect once."""
        ...

    @property
    def authority(self) -> Optional["Authority"]:
        """Keys, tokens and revocations; None while authentication is off."""
        ...

    @property
    def admission(self) -> "Admission":
        """Who may send a request."""
        ...

    @property
    def transfers(self) -> Transfers:
        """Exports and imports."""
        ...

    @property
    def verifications(self) -> Verifications:
        """Verifications of what object storage has."""
        ...

    @property
    def tails(self) -> "Tails":
        """The commits of other nodes that this one holds."""
        ...

    @property
    def embedder(self) -> Embeddings | None:
        """What embeds texts that come without a vector, None where nothing does."""
        ...

    @property
    def streams(self) -> Streams:
        """What nodes ask one another about replicas."""
        ...

    @property
    def maintenance(self) -> Maintenance:
        """The chores of this node."""
        ...

    @property
    def releases(self) -> Releases:
        """What other nodes ask of this one's branches."""
        ...

    @property
    def reembedding(self) -> Reembedding:
        """The jobs that embed again."""
        ...

    @property
    def erasing(self) -> Erasing:
        """Erasures."""
        ...

    @property
    def models(self) -> LanguageModels:
        """The language models."""
        ...

    @property
    def policies(self) -> Policies:
        """What governs databases."""
        ...

    @property
    def governing(self) -> Governing:
        """Changes of policies."""
        ...

    @property
    def audit(self) -> AuditLog:
        """Where audit events go."""
        ...

    @property
    def audit_rules(self) -> AuditRules:
        """What of them is kept."""
        ...

    @property
    def audit_reader(self) -> AuditReader:
        """Where they are read."""
        ...

    @property
    def accounts(self) -> Accounts:
        """What tenants and namespaces may use."""
        ...

    @property
    def meter(self) -> Meter:
        """What they have used."""
        ...

    @property
    def metrics(self) -> Metrics:
        """What GET /metrics shows."""
        ...

    async def profile(self, db_name: str, branch: str = "main") -> BranchProfile:
        """Return a branch. Raises DatabaseNotFoundError, BranchNotFoundError."""
        ...

    async def followed(self, db_name: str, branch: str = "main") -> FollowedBranch:
        """Return a branch to follow. Raises DatabaseNotFoundError, BranchNotFoundError."""
        ...

    @property
    def feeds(self) -> Feeds[Any]:
        """Those who follow changes here."""
        ...

    async def owner_elsewhere(self, db_name: str, branch: str) -> Owner | None:
        """Return the other node that owns a branch; None where this one does, or nobody, or where there is no such branch."""
        ...

    async def past(self, db_name: str, branch: str, at: Revision, *, asker: str = "") -> BranchProfile:
        """Return a branch as it was at a revision; `asker` is the token that asks.

        Raises DatabaseNotFoundError, BranchNotFoundError.
        """
        ...

    async def ready(self) -> dict[str, Any]:
        """Return the state of store, leases and catalog. Raises RetryableError when one does not answer."""
        ...
