"""The node as a request with `Memoturn-At` sees it: every profile that is opened through it is what it was."""

from typing import TYPE_CHECKING, Any, Optional

from memoturnd.audit.log import AuditLog
from memoturnd.audit.ports import AuditRules
from memoturnd.audit.reader import AuditReader
from memoturnd.clustering import Cluster
from memoturnd.core.revisions import Revision
from memoturnd.engine.accounts import Accounts
from memoturnd.engine.journal import Journal
from memoturnd.engine.maintenance import Maintenance
from memoturnd.engine.metering import Meter
from memoturnd.engine.releases import Releases
from memoturnd.engine.streams import Streams
from memoturnd.feeds import Feeds
from memoturnd.http.ports import (
    Branches,
    BranchProfile,
    Databases,
    Erasing,
    FollowedBranch,
    Governing,
    Node,
    Policies,
    Reembedding,
    Tails,
    Tenants,
    Transfers,
    Verifications,
)
from memoturnd.metrics import Metrics
from memoturnd.seams.embedder import Embeddings
from memoturnd.seams.language_model import LanguageModels
from memoturnd.seams.leases import Owner

if TYPE_CHECKING:
    from memoturnd.auth.authority import Authority
    from memoturnd.http.admission import Admission


class PastNode:
    """A node whose profiles are looked at as of a revision. Implements memoturnd.http.ports.Node."""

    def __init__(self, node: Node, at: Revision, asker: str) -> None:
        self._node = node
        self._asker = asker
        self._at = at

    @property
    def databases(self) -> Databases:
        """The directory of databases, as it is now."""
        return self._node.databases

    @property
    def accounts(self) -> Accounts:
        """What tenants and namespaces may use now."""
        return self._node.accounts

    @property
    def meter(self) -> Meter:
        """What they have used."""
        return self._node.meter

    @property
    def cluster(self) -> Cluster:
        """The nodes that are there now."""
        return self._node.cluster

    @property
    def streams(self) -> Streams:
        """What nodes ask one another about replicas, of now."""
        return self._node.streams

    @property
    def maintenance(self) -> Maintenance:
        """The chores of this node, of now."""
        return self._node.maintenance

    @property
    def releases(self) -> Releases:
        """What other nodes ask of this one's branches, of now."""
        return self._node.releases

    @property
    def tenants(self) -> Tenants:
        """The tenants, as they are now."""
        return self._node.tenants

    @property
    def branches(self) -> Branches:
        """The branches, as they are now."""
        return self._node.branches

    @property
    def tails(self) -> Tails:
        """The commits of other nodes that this one holds now."""
        return self._node.tails

    @property
    def journal(self) -> Journal:
        """Requests that are to take effect once."""
        return self._node.journal

    @property
    def authority(self) -> Optional["Authority"]:
        """Keys, tokens and revocations, as they are now."""
        return self._node.authority

    @property
    def admission(self) -> "Admission":
        """Who may send a request, now."""
        return self._node.admission

    @property
    def transfers(self) -> Transfers:
        """Exports and imports; what is exported is told the revision."""
        return self._node.transfers

    @property
    def verifications(self) -> Verifications:
        """Verifications, which look at everything that is kept."""
        return self._node.verifications

    @property
    def embedder(self) -> Embeddings | None:
        """What embeds texts, as it is now."""
        return self._node.embedder

    @property
    def reembedding(self) -> Reembedding:
        """The jobs that embed again, as they are now."""
        return self._node.reembedding

    @property
    def erasing(self) -> Erasing:
        """Erasures, which concern every state."""
        return self._node.erasing

    @property
    def models(self) -> LanguageModels:
        """The language models."""
        return self._node.models

    @property
    def policies(self) -> Policies:
        """What governs databases, as it is now."""
        return self._node.policies

    @property
    def governing(self) -> Governing:
        """Changes of policies."""
        return self._node.governing

    @property
    def audit(self) -> AuditLog:
        """Where audit events go."""
        return self._node.audit

    @property
    def audit_rules(self) -> AuditRules:
        """What of them is kept."""
        return self._node.audit_rules

    @property
    def audit_reader(self) -> AuditReader:
        """Where they are read."""
        return self._node.audit_reader

    @property
    def feeds(self) -> Feeds[Any]:
        """Those who follow changes, of which the past has none."""
        return self._node.feeds

    async def followed(self, db_name: str, branch: str = "main") -> FollowedBranch:
        """Return the branch as it is now: a past state does not move."""
        return await self._node.followed(db_name, branch)

    @property
    def metrics(self) -> Metrics:
        """What GET /metrics shows."""
        return self._node.metrics

    async def profile(self, db_name: str, branch: str = "main") -> BranchProfile:
        """Return a branch as it was. Raises DatabaseNotFoundError, BranchNotFoundError."""
        return await self._node.past(db_name, branch, self._at, asker=self._asker)

    async def owner_elsewhere(self, db_name: str, branch: str) -> Owner | None:
        """Return the other node that owns a branch."""
        return await self._node.owner_elsewhere(db_name, branch)

    async def past(self, db_name: str, branch: str, at: Revision, *, asker: str = "") -> BranchProfile:
        """Return a branch as it was at another revision."""
        return await self._node.past(db_name, branch, at, asker=asker or self._asker)

    async def ready(self) -> dict[str, Any]:
        """Return the state of store, leases and catalog."""
        return await self._node.ready()
