"""The node: every part put together, started, watched, and drained.

    async with running(settings, store=..., ...) as node:
        profile = await node.profile("app--user")

Background work runs in one task group: shipping, tier sweeps, expiry, the catalog's export, the watch on
the event loop. On the way out the node ships and closes everything, then stops them.
"""

import asyncio
import resource
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import structlog

from memoturnd import config
from memoturnd.audit.acts import Acts
from memoturnd.audit.log import AuditLog
from memoturnd.audit.open import audit_log, audited_embedder, audited_models
from memoturnd.audit.ports import AuditRules
from memoturnd.audit.reader import AuditReader
from memoturnd.audit.retention import RETENTION_S, AuditRetention
from memoturnd.auth.authority import Authority
from memoturnd.clustering import Cluster
from memoturnd.config import Settings
from memoturnd.core.durability import LEVELS
from memoturnd.core.manifest import Manifest
from memoturnd.core.retention import GRAIN_S, Windows
from memoturnd.core.revisions import Revision
from memoturnd.datadir import forget_boot, last_boot, note_boot
from memoturnd.embedders.guard import NodeEmbedder
from memoturnd.embedders.local import TURN_TEXTS
from memoturnd.engine.accounts import Accounts
from memoturnd.engine.agenda import Agenda
from memoturnd.engine.branch import Branch
from memoturnd.engine.branching import Branching
from memoturnd.engine.budget import Deadlines
from memoturnd.engine.catalog_export import EXPORT_S, CatalogExport
from memoturnd.engine.databases import Databases
from memoturnd.engine.departures import Departures
from memoturnd.engine.draining import Draining, hand_over
from memoturnd.engine.drill import Drill
from memoturnd.engine.files import BranchFiles, Owner, found
from memoturnd.engine.journal import Journal
from memoturnd.engine.kept import Memory
from memoturnd.engine.looking_back import PastProfile
from memoturnd.engine.maintenance import TICK_S, Maintenance
from memoturnd.engine.metering import Meter
from memoturnd.engine.owner_of import owner_elsewhere
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.periodic import periodic
from memoturnd.engine.presence import BEAT_S, Presence
from memoturnd.engine.readers import EXTRA_DESCRIPTORS, EXTRA_LIMIT
from memoturnd.engine.recovered import keep_as_branch
from memoturnd.engine.registers import Registers
from memoturnd.engine.releases import Releases
from memoturnd.engine.replicas import CONFIRM_S, REPLICAS_LIMIT, Replicas
from memoturnd.engine.rewriting import Rewriter
from memoturnd.engine.services import Services
from memoturnd.engine.streams import Streams
from memoturnd.engine.subscribers import NODE_LIMIT, Subscribers
from memoturnd.engine.tails import SWEEP_S as TAILS_SWEEP_S
from memoturnd.engine.tails import TELL_S, Tails
from memoturnd.engine.tenants import Tenants
from memoturnd.engine.tiers import SWEEP_S, TierLimits, Tiers
from memoturnd.engine.transfers import Transfers
from memoturnd.engine.verifying import Verifications
from memoturnd.engine.writer import WriterSettings
from memoturnd.erased_copies import without_erased
from memoturnd.erasing import RELEASE_S, Erasing
from memoturnd.errors import (
    DatabaseNotFoundError,
    MemoturnError,
    NotFoundError,
    NotOwnerError,
    RetryableError,
)
from memoturnd.feeds import Feeds
from memoturnd.governing import Governing
from memoturnd.housekeeping import BURNER_S, ROWS_S, Housekeeping
from memoturnd.http.admission import Admission, OpenAdmission
from memoturnd.leases.standing import lease_answers
from memoturnd.logs import apart
from memoturnd.metrics import Metrics, watch_loop_lag
from memoturnd.policies import Policies
from memoturnd.reembedding import Reembedding
from memoturnd.replication.archive import Archive
from memoturnd.replication.collector import Collector, Graces
from memoturnd.replication.compactor import SNAPSHOT_MARGIN_S
from memoturnd.replication.few_at_once import together
from memoturnd.replication.retention import Retention
from memoturnd.replication.schedule import ShipScheduler
from memoturnd.replication.shipper import Limits
from memoturnd.replication.tail_store import TailStore
from memoturnd.seams.catalog import COLLECT, ERASE, GOVERN, MAIN, REEMBED, RETENTION, SWEEP, Catalog, Database
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.embedder import Embedder
from memoturnd.seams.executor import Executor, PoolExecutor
from memoturnd.seams.language_model import LanguageModels
from memoturnd.seams.leases import Leases
from memoturnd.seams.leases import Owner as Holder
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore
from memoturnd.seams.peers import Peers
from memoturnd.stores.counted import CountedStore, StoreUsage
from memoturnd.stores.timed import TimedStore
from memoturnd.trust import credentials, peers_of

STORE_TIMEOUT_S = 10.0
DURABLE_WAIT_S = 10.0
DRAIN_S = 6.0
"""How long a stopping node hands over, ships and closes before it gives up on what is left: below an orchestrator's 10 s."""
STATEMENT_SHARE = 0.9
"""Part of a request's time that one statement may take, so that its own error comes before the request's."""
EMBED_SHARE = 0.5
"""Part of a request's time that its texts may take to be embedded; what has no vector by then is stored without."""
LOCAL_CALLS = 2
"""Calls of the local embedder at once: one that it is at, and the next."""
RECOVERY_S = 1.0
"""How long a stopping node lets the recovery of an earlier process's branches go on before it closes them."""
USER_THREADS = 2
USER_WAITING = 32
HEAP_ROOM_BYTES = 1024 * 1024 * 1024
"""Memory that SQLite may take in the process beyond what open profiles may: for statements, imports, past states."""
"""Users' statements that are beyond the event loop's budget: so many run, so many wait, the next gets a 429."""
ACCOUNTS_S = 1.0
"""How often it is looked whether usage is to be put away, and quotas are to be read."""
TAILS_OF_DISK = 4
"""The part of the disk budget, one in so many, that other nodes' tails may take."""
COMPACTIONS = 2
"""Branches compacted at once; more wait."""
REWRITTEN_SLACK_MS = 3_600_000
"""How far the clocks of node and store may be apart where a file is told to be older than its rewritten history."""
_BEHIND_S = 1.0
"""How late ships may be before maintenance waits."""
_PROBE_TIMEOUT_S = 2.0
_PARALLEL = 16
_RECOVER_AGAIN_S = 0.1
_RECOVER_AGAIN_MAX_S = 5.0
_log = structlog.get_logger(__name__)


class Node:
    """One data-plane node. `databases` and `branches` hold the operations, `profile` opens a branch."""

    def __init__(
        self,
        services: Services,
        retention: Retention,
        settings: Settings,
        counted: CountedStore,
        policies: Policies,
        audit: AuditLog,
        audit_rules: AuditRules,
        embedder: NodeEmbedder | None = None,
        models: LanguageModels | None = None,
    ) -> None:
        self.authority: Authority | None = None
        """Keys, tokens and revocations; None while authentication is off."""
        self.admission: Admission = OpenAdmission()
        self.recovery: asyncio.Task[None] | None = None
        """What an earlier process left is shipped by it."""
        self.embedder = embedder
        self.policies = policies
        self.audit = audit
        self.audit_rules = audit_rules
        self.audit_reader = AuditReader(services.store, audit, services.clock, keys=self._public_keys)
        self.audit_retention = AuditRetention(services.store, audit, audit_rules, services.clock)
        self.models = models or LanguageModels()
        self.metrics = services.metrics
        self.tiers = Tiers(services, self, tier_limits(settings))
        registers = Registers(services)
        self.accounts = services.accounts
        self.databases = Databases(services, self.tiers, registers)
        self.tenants = Tenants(services)
        self.branches = Branching(services, self.tiers, registers)
        self.journal = Journal(services.catalog, services.clock, services.randomness)
        self.feeds = Feeds(self.owner_of, services.metrics)
        self.transfers = Transfers(services, self.branches)
        self.verifications = Verifications(services, self.tiers)
        self.rewriter = Rewriter(services)
        self.drill = Drill(services, self.tiers)
        self.catalog_export = CatalogExport(services)
        self.releases = Releases(services, self.tiers)
        self.streams = Streams(services.subscribers, services.replicas, self.tiers, self.releases.departed)
        self.retention = retention
        acts = Acts(audit, audit_rules, services.clock)
        self.housekeeping = Housekeeping(services, self.tiers, self.branches, acts)
        self.reembedding = Reembedding(services, self.branches, policies, embedder, acts)
        self.governing = Governing(services, self.branches, policies, retention, acts)
        self.meter = Meter(
            services.catalog,
            services.clock,
            services.metrics,
            flush_s=settings.usage_flush_s,
            retention_days=settings.usage_retention_days,
            main_of=self.profile,
        )
        counted.stored = self.meter.put

        def is_behind() -> bool:
            return services.scheduler.behind_s > _BEHIND_S

        self.collector = Collector(
            services.store,
            services.archive,
            services.catalog,
            register_file=registers.borrow,
            manifest_file=services.manifest_file,
            graces=services.graces,
            clock=services.clock,
            randomness=services.randomness,
            executor=services.executor,
            metrics=services.metrics,
            sizes=self.meter,
            is_busy=is_behind,
        )
        self.erasing = Erasing(
            services,
            self.tiers,
            registers,
            self.branches,
            policies,
            self.collector,
            self.rewriter,
            node_id=settings.node_id,
            on_completed=acts.erasure_completed,
        )
        self.maintenance = Maintenance(
            services.catalog,
            services.agenda,
            {
                COLLECT: lambda chore: self.collector.collect(chore.db_uuid),
                RETENTION: self.governing.apply_retention,
                GOVERN: self.governing.spread,
                SWEEP: self.governing.sweep,
                REEMBED: self.reembedding.look,
                ERASE: self.erasing.look,
            },
            clock=services.clock,
            metrics=services.metrics,
            is_busy=is_behind,
            peers=services.peers,
        )
        self.cluster = Cluster(
            services,
            self.tiers,
            self.branches,
            node_id=settings.node_id,
            is_recovering=lambda: self.recovery is not None and not self.recovery.done(),
        )
        self.tails = services.tails
        """The tails that this node holds for others, and where its own are."""
        self.memory = services.memory
        """What is kept in memory of the files that are open."""
        self._registers = registers
        self._services = services
        self._counted = counted
        services.metrics.before_scrape(self._measure)

    async def profile(self, db_name: str, branch: str = MAIN) -> Branch:
        """Return a branch. Raises DatabaseNotFoundError, BranchNotFoundError, InvalidRequestError."""
        return await self.branches.find(db_name, branch)

    async def followed(self, db_name: str, branch: str = MAIN) -> Branch:
        """Return a branch whose changes are followed; as `profile`."""
        return await self.profile(db_name, branch)

    async def owner_of(self, branch: Branch) -> Holder | None:
        """Return the other node that owns a branch; None where this one does, or nobody. Raises RetryableError."""
        return await owner_elsewhere(self._services, branch)

    async def owner_elsewhere(self, db_name: str, branch: str) -> Holder | None:
        """Return the other node that owns a branch; None where this one does, or nobody, or where there is no such branch.

        Raises RetryableError.
        """
        try:
            return await self.owner_of(await self.profile(db_name, branch))
        except NotFoundError:
            return None

    @property
    def store_usage(self) -> StoreUsage:
        """What this node has asked of the object store since its start; two of them subtract."""
        return self._counted.usage

    async def past(self, db_name: str, branch: str, at: Revision, *, asker: str = "") -> PastProfile:
        """Return a branch as it was at a revision, which is looked up when it is read; `asker` is the token that asks.

        Raises DatabaseNotFoundError, BranchNotFoundError, InvalidRequestError.
        """
        return PastProfile(await self.branches.find(db_name, branch), self.tiers.past, at, asker)

    async def ready(self) -> dict[str, Any]:
        """Return what answers, and which models the node has. Raises RetryableError naming what does not answer."""
        services = self._services
        answers: dict[str, str] = {}
        probes = {
            "store": services.store.get("v1/_probe/ready"),
            "leases": lease_answers(services.leases, services.clock),
            "catalog": services.catalog.ping(),
        }
        for name, probe in probes.items():
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await probe
            except ObjectMissingError:
                pass  # the store has answered
            except (MemoturnError, TimeoutError) as error:
                answers[name] = str(error) or "no answer"
                continue
            answers[name] = "ok"
        failed = {name: answer for name, answer in answers.items() if answer != "ok"}
        if failed:
            raise RetryableError("not ready: " + "; ".join(f"{n}: {a}" for n, a in failed.items()))
        models = {"extract": self.models.extractor, "ask": self.models.assistant}
        return {
            **answers,
            "embedder": None if self.embedder is None else self.embedder.model,
            "language_models": [use for use, model in models.items() if model is not None],
        }

    async def tell_tails(self) -> None:
        """Let the nodes that hold commits of this one's branches know what is in object storage by now."""
        owned = [branch.owned for branch in self.tiers.hot() if branch.owned is not None]
        await together([o.tail for o in owned if o.tail.has_to_tell], lambda tail: tail.tell())

    async def count(self) -> None:
        """Put away what was counted where it is time, and read what has become old of the accounts in use."""
        await self.meter.tick()
        await self.accounts.refresh()

    # ---- what branches ask of the node (memoturnd.engine.services.Surroundings)

    async def make_room(self, branch: Branch) -> None:
        """Count a branch among the hot ones; see Tiers.make_room."""
        await self.tiers.make_room(branch)

    async def register_database(self, database: Database) -> None:
        """Make sure that the database's register exists."""
        await self._registers.ensure(database)

    async def keep_diverged(self, path: str, source: Manifest, txid: int, at_ms: int, epoch: int) -> str:
        """Keep a local state that the chain went on without as a branch of its own, without what was erased meanwhile."""
        register = self._registers.get(source.db)
        async with without_erased(self._services, self.erasing.coupons, path, source, at_ms) as clean:
            return await keep_as_branch(self._services, register, clean, source, txid, at_ms, epoch)

    # ---- start and stop

    async def start(self, *, shares_catalog: bool) -> list[Branch]:
        """Bring back a lost catalog, unless it is shared (`memoturn-control rebuild` does that), and take up what an earlier process left on the disk.

        Returns the branches that `recover` has to see to.
        """
        services = self._services
        data_dir = services.branches_folder.parent
        await self.tiers.past.start()
        self.transfers.sweep()
        self.verifications.sweep()
        self.rewriter.sweep()
        doubtful = last_boot(data_dir) != services.boot_id
        forget_boot(data_dir)  # a catalog that was rebuilt half way is doubtful as well
        restored = 0 if shares_catalog else await self.catalog_export.start(doubtful=doubtful)
        note_boot(data_dir, services.boot_id)
        if restored:
            _log.info("catalog rebuilt from the object store", databases=restored)
        if not shares_catalog:
            await services.catalog.release_claims(services.clock.now_ms())
        await self.erasing.schedule_waiting()
        dirty = []
        rewritten = await self.erasing.coupons.rewritten()
        for uuid, branch_id, owner, clean in found(services.branches_folder):
            if clean and uuid in rewritten:
                files = BranchFiles(services.branches_folder, uuid, branch_id)
                if files.closed_at_ms() < rewritten[uuid] + REWRITTEN_SLACK_MS:
                    files.remove()  # another node may have erased something meanwhile; all of it is shipped
                    continue
            branch = await self._left_behind(uuid, branch_id, owner)
            if branch is not None and clean:
                self.tiers.adopt_warm(branch)
            elif branch is not None:
                dirty.append(branch)
        return dirty

    async def _left_behind(self, uuid: str, branch_id: str, owner: Owner | None) -> Branch | None:
        """Return the branch that a folder belongs to; a folder that was only read, or has no owner, goes."""
        files = BranchFiles(self._services.branches_folder, uuid, branch_id)
        if owner is None and files.is_marked():
            aside = files.set_aside(self._services.randomness.hex(4))
            _log.error("local files whose mark cannot be read were set aside", kept=str(aside))
            return None
        if owner is None:
            files.remove()
            return None
        try:  # by its id: the name may be another database's by now
            database = await self._services.catalog.get_database_by_uuid(uuid)
        except DatabaseNotFoundError:
            _log.warning("local files of an unknown database are left alone", folder=str(files.folder))
            return None
        if database.deleted_at is not None:
            _log.info("local files of a deleted database wait for its end", folder=str(files.folder))
            return None
        return self.tiers.get(BranchRef(database, branch_id, owner.branch))

    def _public_keys(self) -> list[dict[str, str]]:
        return [] if self.authority is None else self.authority.keyring.jwks()

    async def admit_by(self, admission: Admission, authority: Authority | None) -> None:
        """Let `admission` decide about requests, by what the catalog knows of credentials."""
        self.admission, self.authority = admission, authority
        if authority is not None:
            authority.exports_by(self.catalog_export)
            self.erasing.sign = authority.keyring.sign
            await authority.revocations.refresh()

    async def recover(self, dirty: list[Branch]) -> None:
        """Ship what the last process committed and did not ship, a few branches at a time, until it is done.

        A branch that cannot be shipped yet is tried again and again: nobody else may ever use it.
        """
        gate = asyncio.Semaphore(min(_PARALLEL, self.tiers.limits.hot_cap))

        async def one(branch: Branch) -> None:
            pause_s = _RECOVER_AGAIN_S
            while True:
                async with gate:
                    if await self._recover(branch):
                        return
                await self._services.clock.sleep(pause_s)
                pause_s = min(_RECOVER_AGAIN_MAX_S, 2 * pause_s)

        async with asyncio.TaskGroup() as group:
            for branch in dirty:
                group.create_task(one(branch))
        if dirty:
            _log.info("recovered branches that were not closed", branches=len(dirty))

    async def _recover(self, branch: Branch) -> bool:
        """Ship one branch; False when it is to be tried again."""
        branch.users += 1
        try:
            owned = await branch.own()
            await owned.shipper.ship()
        except (RetryableError, NotOwnerError) as error:
            if isinstance(error, NotOwnerError) and not branch.may_hold_more:
                return True  # what its owner has not is kept as a branch of its own
            _log.warning("recovery is tried again", branch=str(branch.ref), error=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - what is wrong with one branch must not stop the node
            _log.error(
                "recovery failed; the branch's next use tries again", branch=str(branch.ref), exc_info=error
            )
        finally:
            branch.leave()
        return True

    async def hand_over(self) -> int:
        """Give every branch to other nodes while requests are answered; return how many could not be."""
        self.feeds.stop()
        return await hand_over(self.tiers, self._services.draining)

    async def drain(self) -> int:
        """Ship, give back and close every open branch within DRAIN_S; return how many could not be."""
        self.feeds.stop()
        gate = asyncio.Semaphore(_PARALLEL)
        left = 0

        async def one(branch: Branch) -> None:
            nonlocal left
            async with gate:
                try:
                    if not (await branch.close() and await branch.give_back()):
                        left += 1
                except MemoturnError as error:
                    left += 1
                    _log.warning("branch not shipped", branch=str(branch.ref), error=str(error))

        branches = list(self.tiers.hot())
        try:
            limit_s = self._services.draining.left_s(DRAIN_S, least_s=1.0)
            async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
                for branch in branches:
                    group.create_task(one(branch))
        except TimeoutError:
            left = sum(branch.hot for branch in branches)
        for branch in branches:  # of those that could not be closed nothing may hold up the end
            if branch.owned is not None:
                await branch.owned.shipper.compactor.stop()
        try:
            async with asyncio.timeout(1.0):
                await self.catalog_export.export()
                await self.meter.flush()
                await self._services.agenda.flush(self._services.catalog)
        except (MemoturnError, TimeoutError) as error:
            _log.warning("catalog not exported", error=str(error))
        return left

    def _measure(self) -> None:
        """Set the gauges that are cheaper to compute than to keep."""
        metrics = self.metrics
        hot, warm, disk_bytes = self.tiers.counts
        metrics.branches["hot"].set(hot)
        metrics.branches["warm"].set(warm)
        metrics.hot_handles.set(hot)
        metrics.extra_readers.set(self._services.readers.extra)
        metrics.hot_handles_limit.set(self.tiers.limits.hot_cap)
        metrics.disk_bytes.set(disk_bytes)
        metrics.tails.set(len(self.tails.store))
        metrics.tail_bytes.set(self.tails.store.size_bytes)
        made, making = self.tiers.past.counts
        metrics.past_states.set(made)
        metrics.past_making.set(making)
        metrics.past_bytes.set(self.tiers.past.size_bytes)
        metrics.disk_budget_bytes.set(self.tiers.limits.disk_budget_bytes)
        memory = self.memory
        metrics.recall_cache_bytes.set(memory.size_bytes)
        metrics.replicas.set(len(self._services.replicas))
        metrics.replica_subscribers.set(len(self._services.subscribers))
        metrics.recall_cache_profiles.set(len(memory))
        owned = [branch.owned for branch in self.tiers.hot() if branch.owned is not None]
        sizes = [o.shipper.unshipped_bytes for o in owned]
        metrics.unshipped_bytes.set(sum(sizes))
        metrics.unshipped_branch_bytes.set(max(sizes, default=0))
        metrics.unshipped_age_seconds.set(max((o.shipper.unshipped_age_s for o in owned), default=0))
        metrics.reembed_jobs.set(self.reembedding.running)
        metrics.write_queue_depth.set(max((len(o.writer) for o in owned), default=0))


def _tending(
    node: Node, scheduler: ShipScheduler, presence: Presence, clock: Clock, settings: Settings
) -> list[Coroutine[Any, Any, None]]:
    """Return the background work on profiles, their history and their objects."""
    drill_s = settings.drill_interval_s
    return [
        scheduler.run(),
        periodic(clock, SWEEP_S, "tier sweep", node.tiers.sweep),
        periodic(clock, TELL_S, "tails", node.tell_tails),
        periodic(clock, TAILS_SWEEP_S, "tail sweep", node.tails.sweep),
        periodic(clock, BURNER_S, "burner sweep", node.housekeeping.delete_burners),
        periodic(clock, ROWS_S, "expiry sweep", node.housekeeping.sweep_rows),
        periodic(clock, TICK_S, "maintenance", node.maintenance.run_due),
        periodic(clock, RETENTION_S, "audit retention", node.audit_retention.run),
        periodic(clock, RELEASE_S, "release", node.erasing.release),
        periodic(clock, BEAT_S, "sign of life", presence.beat),
        periodic(clock, CONFIRM_S, "replicas", node.streams.tend),
        *([] if drill_s == 0 else [periodic(clock, drill_s, "restore drill", node.drill.run)]),
    ]


async def _started(
    node: Node,
    presence: Presence | None,
    settings: Settings,
    admission: Admission,
    authority: Authority | None,
) -> list[Branch]:
    """Start a node and return the branches to recover. Raises whatever keeps it from starting, with its files closed."""
    node.audit.start()
    try:
        if presence is not None:
            await presence.announce()
        dirty = await node.start(shares_catalog=settings.shares_catalog)
        await node.admit_by(admission, authority)
    except BaseException:
        node.audit.let_go()
        raise
    return dirty


async def _say_goodbye(presence: Presence) -> None:
    try:
        async with asyncio.timeout(1.0):
            await presence.leave()
    except (MemoturnError, TimeoutError) as error:
        _log.warning("the catalog still lists this node, for a while", error=str(error))


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    store: ObjectStore,
    leases: Leases,
    catalog: Catalog,
    clock: Clock,
    randomness: Randomness,
    executor: Executor,
    boot_id: str,
    metrics: Metrics | None = None,
    embedder: Embedder | None = None,
    models: LanguageModels | None = None,
    peers: Peers | None = None,
    hosts_profiles: bool = True,
) -> AsyncIterator[Node]:
    """Run a node on these parts; leaving drains it. The parts stay the caller's to start and to close.

    Without `hosts_profiles` it is a control plane: it tends no profile, and no catalog lists it as a node.
    """
    metrics = metrics or Metrics()
    counted = CountedStore(store, metrics)
    scheduler = ShipScheduler(
        clock,
        interval_s=settings.ship_interval_ms / 1000,
        rate_per_s=settings.ship_rate,
        concurrency=settings.ship_concurrency,
    )
    failure: Exception | None = None
    stopping = threading.Event()
    user_executor = PoolExecutor(USER_THREADS, "user-sql", waiting=USER_WAITING)
    timed = TimedStore(counted, STORE_TIMEOUT_S)
    authority, admission = await credentials(
        settings, timed, catalog, clock=clock, randomness=randomness, metrics=metrics
    )
    async with (
        peers_of(settings, leases, authority, peers) as asked,
        asyncio.TaskGroup() as group,
    ):

        def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            return group.create_task(work, context=apart())

        services = Services(
            node_id=settings.node_id,
            peers=asked,
            store=timed,
            archive=Archive(timed, executor=executor, clock=clock, randomness=randomness),
            leases=leases,
            catalog=catalog,
            clock=clock,
            randomness=randomness,
            executor=executor,
            user_executor=user_executor,
            metrics=metrics,
            scheduler=scheduler,
            compaction_slots=asyncio.Semaphore(COMPACTIONS),
            spawn=spawn,
            branches_folder=Path(settings.data_dir) / "dbs",
            boot_id=boot_id,
            sync=settings.sync,
            durability=LEVELS[settings.durability],
            ship_limits=Limits(
                unshipped_max_bytes=settings.unshipped_max_bytes,
                unshipped_max_age_s=settings.unshipped_max_age_s,
                unshipped_wait_s=settings.unshipped_wait_s,
                durable_wait_s=DURABLE_WAIT_S,
                snapshot_named_within_s=settings.gc_grace_s - SNAPSHOT_MARGIN_S,
            ),
            writer_settings=WriterSettings(
                depth=settings.write_queue_depth,
                deadlines=Deadlines(clock, STATEMENT_SHARE * settings.request_timeout_s, stopping),
                inline=settings.sync == "normal",
            ),
            agenda=Agenda(clock, interval_s=settings.maintenance_interval_s, of_branches=(RETENTION,)),
            accounts=Accounts(catalog, clock, metrics, settings.default_quotas),
            graces=Graces(
                unreachable_ms=round(1000 * settings.gc_grace_s),
                deleted_ms=round(1000 * settings.delete_grace_s),
            ),
            tails=Tails(
                leases,
                asked,
                TailStore(
                    Path(settings.data_dir) / "tails",
                    fsync=settings.sync == "full",
                    limit_bytes=settings.disk_budget_bytes // TAILS_OF_DISK,
                    clock=clock,
                    executor=executor,
                    metrics=metrics,
                ),
                timed,
                node_id=settings.node_id,
                replicas=settings.sync_replicas,
                clock=clock,
                metrics=metrics,
            ),
            memory=Memory(
                settings.recall_cache_bytes,
                evicted=metrics.recall_cache_evictions.inc,
                looked=metrics.recall_looked,
            ),
            subscribers=Subscribers(asked, clock, metrics, spawn),
            replicas=Replicas(
                leases,
                asked,
                clock,
                metrics,
                spawn,
                node_id=settings.node_id,
                address=settings.advertise,
                lease_ttl_s=settings.lease_ttl_s,
            ),
            departures=Departures(leases, asked, spawn, node_id=settings.node_id),
            draining=Draining(leases, clock, node_id=settings.node_id),
        )
        windows = Windows(
            round(1000 * settings.fine_retention_s), round(1000 * settings.coarse_retention_s), 1000 * GRAIN_S
        )
        retention = Retention(timed, services.archive, executor, clock, randomness, windows)
        embeddings = None if embedder is None else node_embedder(embedder, services, settings)
        policies = Policies(
            timed,
            clock=clock,
            randomness=randomness,
            metrics=metrics,
            cache_s=settings.policy_cache_s,
            ceiling=settings.policy_ceiling,
            self_hosted_embedder=settings.embeds_at_home,
        )
        audit = audit_log(settings, services, None if authority is None else authority.keyring.sign)
        rules = AuditRules(policies, settings.audit, settings.audit_retention_s)
        node = Node(
            services,
            retention,
            settings,
            counted,
            policies,
            audit,
            rules,
            embeddings,
            audited_models(models or LanguageModels(), clock, settings),
        )
        _set_limits(metrics, settings)
        presence = Presence(catalog, clock, node_id=settings.node_id, address=settings.advertise)
        dirty = await _started(node, presence if hosts_profiles else None, settings, admission, authority)
        recovery = node.recovery = group.create_task(node.recover(dirty))
        loops = [
            group.create_task(work)
            for work in (
                periodic(clock, EXPORT_S, "catalog export", node.catalog_export.export),
                periodic(clock, ACCOUNTS_S, "usage", node.count),
                audit.run(),
                watch_loop_lag(metrics, clock),
                *(_tending(node, scheduler, presence, clock, settings) if hosts_profiles else ()),
                *([] if node.authority is None else node.authority.loops()),
            )
        ]
        try:
            yield node
        except Exception as error:  # noqa: BLE001 - raised again below, as itself and not in a group
            failure = error
        finally:
            stopping.set()
            # What an earlier process left is shipped as well, while the store lets it.
            await asyncio.wait([recovery], timeout=RECOVERY_S)
            recovery.cancel()
            await node.reembedding.close()
            await node.tiers.past.close()
            node.streams.close()
            services.departures.close()
            left = await node.drain()
            await audit.close()
            if hosts_profiles:
                await _say_goodbye(presence)
            for task in loops:
                task.cancel()
            if left:
                _log.warning(
                    "stopped with branches that are not shipped; their files are kept", branches=left
                )
    user_executor.close()
    node.transfers.close()
    if failure is not None:
        raise failure


def node_embedder(embedder: Embedder, services: Services, settings: Settings) -> NodeEmbedder:
    """Return the embedder with all that stands in front of it.

    The local one does one thing at a time: it gets what it takes in one turn, so that calls do not wait for each other
    until their time is up.
    """
    is_local = settings.embed_provider == "local"
    if not is_local:
        embedder = audited_embedder(embedder, services.clock, settings)
    return NodeEmbedder(
        embedder,
        clock=services.clock,
        randomness=services.randomness,
        metrics=services.metrics,
        timeout_s=settings.embed_timeout_s,
        write_budget_s=EMBED_SHARE * settings.request_timeout_s,
        batch=min(settings.embed_batch, TURN_TEXTS) if is_local else settings.embed_batch,
        concurrency=min(settings.embed_concurrency, LOCAL_CALLS) if is_local else settings.embed_concurrency,
    )


def tier_limits(settings: Settings) -> TierLimits:
    """Return the tiers' bounds: open profiles are limited by descriptors and memory too."""
    nofile, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if nofile >= 0:
        nofile -= config.connections_limit(settings.max_concurrency, nofile)
        nofile -= config.bucket_connections(settings)
        nofile -= EXTRA_DESCRIPTORS * EXTRA_LIMIT
    return TierLimits(
        hot_cap=config.hot_cap(settings.hot_cap, nofile, settings.memory_budget_bytes),
        warm_after_s=settings.warm_after_s,
        cold_after_s=settings.cold_after_s,
        disk_budget_bytes=settings.disk_budget_bytes,
    )


def _set_limits(metrics: Metrics, settings: Settings) -> None:
    # Beyond it a statement fails, not the node.
    apsw.hard_heap_limit(settings.memory_budget_bytes + HEAP_ROOM_BYTES)
    metrics.write_queue_capacity.set(settings.write_queue_depth)
    metrics.unshipped_branch_limit_bytes.set(settings.unshipped_max_bytes)
    metrics.unshipped_age_limit_seconds.set(settings.unshipped_max_age_s)
    metrics.recall_cache_limit_bytes.set(settings.recall_cache_bytes)
    metrics.replicas_limit.set(REPLICAS_LIMIT)
    metrics.replica_subscribers_limit.set(NODE_LIMIT)
