"""What is committed, shipped, kept on disk and in memory, tidied up, and asked of the services behind."""

from typing import Final

from memoturnd.metrics.base import CACHE_OUTCOMES, Registry

SHIP_OUTCOMES: Final = ("committed", "lost", "failed")
STORE_OPERATIONS: Final = (
    "get",
    "get_range",
    "put",
    "put_if_absent",
    "put_if_match",
    "delete",
    "list",
)
STORE_OUTCOMES: Final = ("ok", "missing", "lost", "unknown", "failed")
COMPACTION_OUTCOMES: Final = ("joined", "snapshot", "rolled", "failed")
PUSH_OUTCOMES: Final = ("ok", "refused", "failed", "skipped")
REPLICA_OUTCOMES: Final = ("pushed", "fetched", "restored", "gap", "dropped")
OPEN_TIERS: Final = ("hot", "warm")
WAKE_TIERS: Final = ("warm", "cold", "unsettled", "empty")
RECALL_CHANNELS: Final = ("topic", "keyword", "vector")
DRILL_OUTCOMES: Final = ("ok", "damaged", "skipped", "failed")
PAST_OUTCOMES: Final = ("hit", "shared", "miss")
ERASURE_STEPS: Final = ("requested", "rewritten", "blocked", "completed")
TAIL_OUTCOMES: Final = ("found", "nothing", "lost")
PASS_OUTCOMES: Final = ("done", "stopped", "failed")
_COMMIT_BUCKETS_S: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0)
_STORE_BUCKETS_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
    30.0,
)
_CHANNEL_BUCKETS_S: Final = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    0.5,
    2.5,
)
_CATALOG_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)
_SHIP_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_SEGMENT_BUCKETS_BYTES: Final = tuple(float(4**power) for power in range(5, 14))
_GROUP_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)


class StoringMetrics(Registry):
    """What is committed, shipped, kept on disk and in memory, tidied up, and asked of the services behind."""

    def _measure_storing(self) -> None:
        self._commits()
        self._shipping()
        self._tails()
        self._replicas()
        self._store()
        self._tiers()
        self._past()
        self._maintenance()
        self._catalog()
        self._drills()
        self._leases()

    def _commits(self) -> None:
        self.commit_rounds = self._counter(
            "commit_rounds_total", "Commit rounds, each one txid of one branch."
        )
        self.commit_group_requests = self._histogram(
            "commit_group_requests", "Requests that shared one commit round.", _GROUP_BUCKETS
        )
        self.commit_seconds = self._histogram(
            "commit_seconds", "Time of one commit round, from BEGIN to the end of COMMIT.", _COMMIT_BUCKETS_S
        )
        self.write_queue_depth = self._gauge(
            "write_queue_depth", "Writes waiting in the deepest branch queue."
        )
        self.write_queue_capacity = self._gauge("write_queue_capacity", "Most writes that one branch queues.")
        self.txid_ceiling_waits = self._counter(
            "txid_ceiling_waits_total", "Commit rounds that waited for the manifest's txid ceiling to rise."
        )

    def _shipping(self) -> None:
        self.unshipped_bytes = self._gauge("unshipped_bytes", "Committed bytes not yet in object storage.")
        self.unshipped_branch_bytes = self._gauge(
            "unshipped_branch_bytes", "Unshipped bytes of the branch that has most of them."
        )
        self.unshipped_branch_limit_bytes = self._gauge(
            "unshipped_branch_limit_bytes", "Unshipped bytes of one branch beyond which its writes wait."
        )
        self.unshipped_age_seconds = self._gauge(
            "unshipped_age_seconds", "Age of the oldest unshipped commit."
        )
        self.unshipped_age_limit_seconds = self._gauge(
            "unshipped_age_limit_seconds", "Age of an unshipped commit beyond which its branch's writes wait."
        )
        ships = self._counter(
            "ships_total",
            "Attempts to ship a branch, by outcome: committed, lost (fenced), failed.",
            "outcome",
        )
        self.ship_committed, self.ship_lost, self.ship_failed = (
            ships.labels(outcome) for outcome in SHIP_OUTCOMES
        )
        self.ship_surprises = self._counter(
            "ship_surprises_total", "Logs that did not prove their rounds, so that a whole state was shipped."
        )
        self.ship_seconds = self._histogram(
            "ship_seconds",
            "Time of one ship, from reading the WAL to the manifest's compare-and-swap.",
            _SHIP_BUCKETS_S,
        )
        self.segment_bytes = self._histogram(
            "segment_bytes", "Stored size of shipped segments.", _SEGMENT_BUCKETS_BYTES
        )
        self.compactions = self._counters(
            "compactions_total",
            "Compactions: segments joined, snapshots taken, history pages rolled, failures.",
            "outcome",
            COMPACTION_OUTCOMES,
        )
        self.compacted_bytes = self._counter(
            "compacted_bytes_total", "Bytes of segments that were written joined."
        )
        self.manifest_bytes = self._histogram(
            "manifest_bytes", "Size of the manifests that were written.", _SEGMENT_BUCKETS_BYTES
        )
        self.leases_lapsed = self._counter(
            "leases_lapsed_total", "Open branches whose lease ended before it was given back."
        )
        self.recovered_branches = self._counter(
            "recovered_branches_total",
            "Local tails kept as a branch of their own because the manifest had moved on.",
        )

    def _tails(self) -> None:
        self.tails = self._gauge("tails", "Branches of other nodes whose commits this one holds.")
        self.tail_bytes = self._gauge(
            "tail_bytes", "Bytes on disk of other nodes' commits; part of the disk budget."
        )
        self.tail_push_seconds = self._histogram(
            "tail_push_seconds",
            "Time in which the nodes of a sync set got the commits that waited for level replicated.",
            _SHIP_BUCKETS_S,
        )
        self.tail_push_failures = self._counter(
            "tail_push_failures_total", "Pushes that a node of a sync set did not take."
        )
        self.tail_fallbacks = self._counter(
            "tail_fallbacks_total", "Writes at level replicated that waited for object storage instead."
        )
        self.sync_set_changes = self._counter("sync_set_changes_total", "Sync sets that lost a node.")
        self.tails_refused = self._counter(
            "tails_refused_total", "Pushes refused here, of owners that were replaced."
        )
        self.tails_stranded = self._counter(
            "tails_stranded_total", "Pieces held here that their branch went on without."
        )
        self.tails_contradicted = self._counter(
            "tails_contradicted_total",
            "Commits held by other nodes that a takeover found not to follow on the head.",
        )
        self.tail_rounds_found = self._counter(
            "tail_rounds_found_total", "Txids that takeovers brought back from other nodes."
        )
        self.tail_takeovers = self._counters(
            "tail_takeovers_total",
            "Takeovers of branches with a sync set, by what it had.",
            "outcome",
            TAIL_OUTCOMES,
        )

    def _replicas(self) -> None:
        self.replica_pushes = self._counters(
            "replica_pushes_total",
            "Segments for replicas, by outcome: ok, refused, failed, skipped (what waited for a slow one).",
            "outcome",
            PUSH_OUTCOMES,
        )
        self.replica_pushed_bytes = self._counter(
            "replica_pushed_bytes_total", "Bytes of segments that replicas have taken."
        )
        self.replica_subscribers = self._gauge(
            "replica_subscribers", "Nodes that follow branches of this one, counted once for each branch."
        )
        self.replica_subscribers_limit = self._gauge("replica_subscribers_limit", "Most of these.")
        self.replica_steps = self._counters(
            "replica_steps_total",
            "What befell replicas: pushed or fetched segments applied, restored whole, a gap found, dropped.",
            "outcome",
            REPLICA_OUTCOMES,
        )
        self.replicas = self._gauge("replicas", "Branches of other nodes that this one keeps up to date.")
        self.replicas_limit = self._gauge("replicas_limit", "Most of these.")
        self.replica_age_seconds = self._histogram(
            "replica_age_seconds",
            "Age of replicas, each looked at several times a second: since their owner last confirmed all of it.",
            _SHIP_BUCKETS_S,
        )
        self.replica_oldest_age_seconds = self._gauge(
            "replica_oldest_age_seconds", "Age of the replica that is behind most."
        )
        self.replica_apply_seconds = self._histogram(
            "replica_apply_seconds", "Time to bring a replica up to date by segments.", _SHIP_BUCKETS_S
        )

    def _store(self) -> None:
        requests = self._counter(
            "store_requests_total",
            "Requests to the object store by operation and outcome; put_if_* are the conditional writes.",
            "operation",
            "outcome",
        )
        self.store_requests = {
            (name, outcome): requests.labels(name, outcome)
            for name in STORE_OPERATIONS
            for outcome in STORE_OUTCOMES
        }
        self.store_seconds = self._histograms(
            "store_request_seconds",
            "Time of a request to the object store by operation, however it ended; of a listing, to its end.",
            _STORE_BUCKETS_S,
            "operation",
            STORE_OPERATIONS,
        )
        sent = self._counter(
            "store_bytes_total", "Bytes of objects sent to and received from the object store.", "direction"
        )
        self.store_sent_bytes, self.store_received_bytes = sent.labels("sent"), sent.labels("received")

    def _tiers(self) -> None:
        self.wakes = self._counters(
            "wakes_total", "Branches opened, by the tier that they were in.", "tier", WAKE_TIERS
        )
        self.wake_seconds = self._histograms(
            "wake_seconds",
            "Time to open a branch, by the tier that it was in.",
            _SHIP_BUCKETS_S,
            "tier",
            WAKE_TIERS,
        )
        self.branches = self._gauges(
            "branches", "Branches with a file on this node, by tier.", "tier", OPEN_TIERS
        )
        self.hot_handles = self._gauge("hot_handles", "Branches with open connections.")
        self.extra_readers = self._gauge(
            "extra_readers", "Readers that branches had open at once, besides one each."
        )
        self.hot_handles_limit = self._gauge("hot_handles_limit", "Most branches with open connections.")
        self.disk_bytes = self._gauge("disk_bytes", "Local disk that branch files take.")
        self.disk_budget_bytes = self._gauge(
            "disk_budget_bytes", "Local disk that branch files and past states may take together."
        )

        self.recall_cache_reads = self._counters(
            "recall_cache_reads_total",
            "Recalls and searches whose arrays were kept as they were needed (hit), or had to be brought up to date or made (miss).",
            "outcome",
            CACHE_OUTCOMES,
        )
        self.recall_channels = self._histograms(
            "recall_seconds",
            "Time that a recall spent on one channel: topic, keyword, vector.",
            _CHANNEL_BUCKETS_S,
            "channel",
            RECALL_CHANNELS,
        )
        self.recall_cache_bytes = self._gauge(
            "recall_cache_bytes",
            "Memory that the arrays of profiles recalled and collections searched lately take.",
        )
        self.recall_cache_limit_bytes = self._gauge(
            "recall_cache_limit_bytes", "Most memory for those arrays."
        )
        self.recall_cache_profiles = self._gauge(
            "recall_cache_profiles",
            "Profiles whose memories are kept as arrays, and collections of vectors that are.",
        )
        self.recall_cache_evictions = self._counter(
            "recall_cache_evictions_total",
            "Profiles and collections whose arrays had to go for those of others.",
        )

    def _past(self) -> None:
        self.past_states = self._gauge("past_states", "Past states on the local disk, ready to be read.")
        self.past_making = self._gauge("past_states_making", "Past states being made, or waiting for it.")
        self.past_bytes = self._gauge("past_bytes", "Local disk that past states take.")
        self.past_reads = self._counters(
            "past_reads_total",
            "Reads of past states: the state was here (hit), was being made already (shared), had to be made (miss).",
            "outcome",
            PAST_OUTCOMES,
        )
        self.past_seconds = self._histogram(
            "past_seconds", "Time to make a past state, without the wait for its turn.", _SHIP_BUCKETS_S
        )

    def _maintenance(self) -> None:
        self.maintenance_passes = self._counters(
            "maintenance_passes_total",
            "Maintenance passes, by outcome: done, stopped (something is unreadable), failed.",
            "outcome",
            PASS_OUTCOMES,
        )
        self.maintenance_stopped = self._gauge(
            "maintenance_stopped",
            "Databases and branches whose last pass here stopped at something unreadable.",
        )
        self.maintenance_late_seconds = self._gauge(
            "maintenance_late_seconds", "How long the chore that was taken last had been due."
        )
        self.maintenance_last_success = self._gauge(
            "maintenance_last_success_timestamp_seconds", "When a pass last ended well, in unix seconds."
        )
        self.garbage_listed = self._counter("garbage_listed_keys_total", "Keys that the collector listed.")
        self.garbage_objects = self._counter("garbage_objects_total", "Objects that the collector deleted.")
        self.garbage_bytes = self._counter("garbage_bytes_total", "Bytes of the objects that it deleted.")
        self.branches_purged = self._counter(
            "branches_purged_total", "Deleted branches that were let go after their grace."
        )
        self.databases_purged = self._counter(
            "databases_purged_total", "Deleted databases whose objects were deleted after their grace."
        )
        self.erasures = self._counters(
            "erasures_total",
            "Erasures, by step: requested, rewritten (history), blocked (once for each look), completed.",
            "step",
            ERASURE_STEPS,
        )

    def _catalog(self) -> None:
        self.catalog_up = self._gauge("catalog_up", "1 while the catalog answers, 0 while it does not.")
        self.catalog_up.set(1)
        self.catalog_seconds = self._histogram(
            "catalog_call_seconds",
            "Time of a call of the catalog in Postgres, the wait for a connection included.",
            _CATALOG_BUCKETS_S,
        )
        self.catalog_failures = self._counter(
            "catalog_failures_total", "Calls of the catalog in Postgres that got no answer."
        )
        self.catalog_remembered = self._counter(
            "catalog_remembered_total",
            "Lookups of databases and branches that were answered from memory, as the catalog did not answer.",
        )
        self.catalog_known_rows = self._gauge(
            "catalog_known_rows",
            "Databases and branches that are remembered for when the catalog does not answer.",
        )
        self.catalog_known_limit_rows = self._gauge(
            "catalog_known_limit_rows",
            "Most databases and branches that are remembered; 0 where it is a file.",
        )

    def _drills(self) -> None:
        self.drills = self._counters(
            "drill_total",
            "Restore drills: one state restored and checked, by outcome.",
            "outcome",
            DRILL_OUTCOMES,
        )
        self.drill_last_success_seconds = self._gauge(
            "drill_last_success_timestamp_seconds",
            "Unix time at which a drill last restored a state, 0 for never.",
        )

    def _leases(self) -> None:
        self.leases_held = self._gauge("leases_held", "Branches that this node owns.")
        self.lease_age_seconds = self._gauge("lease_age_seconds", "Time that the node's lease has stood.")
        self.lease_left_seconds = self._gauge(
            "lease_left_seconds", "Time until this node must stop writing unless its lease is renewed."
        )
        self.lease_renewal_seconds = self._histogram(
            "lease_renewal_seconds",
            "Time of a renewal of the node's lease that came about.",
            _CATALOG_BUCKETS_S,
        )
        self.lease_renewals_failed = self._counter(
            "lease_renewals_failed_total", "Renewals of the node's lease that failed, and are tried again."
        )
