"""The node's metrics: one registry of its own, recorded through attributes that are bound once.

Every bound of the node that can be reached has its current value and its limit here. No label takes a
name that users choose: the series count is fixed by the program.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from memoturnd.seams.clock import Clock

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

SHED_REASONS: Final = (
    "connections",
    "concurrency",
    "limits",
    "control_rate",
    "body_memory",
    "write_queue",
    "unshipped_window",
    "past_states",
    "verifications",
    "feeds",
    "request_timeout",
)
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
COMPACTION_OUTCOMES: Final = ("joined", "snapshot", "rolled", "failed")
PUSH_OUTCOMES: Final = ("ok", "refused", "failed", "skipped")
REPLICA_OUTCOMES: Final = ("pushed", "fetched", "restored", "gap", "dropped")
OPEN_TIERS: Final = ("hot", "warm")
WAKE_TIERS: Final = ("warm", "cold")
DRILL_OUTCOMES: Final = ("ok", "damaged", "skipped", "failed")
PAST_OUTCOMES: Final = ("hit", "shared", "miss")
ERASURE_STEPS: Final = ("requested", "rewritten", "blocked", "completed")
TAIL_OUTCOMES: Final = ("found", "nothing", "lost")
PASS_OUTCOMES: Final = ("done", "stopped", "failed")
EMBED_CALLS: Final = ("ok", "refused", "failed", "shed")
EMBED_TEXTS: Final = ("cached", "embedded", "failed")
AUDIT_OUTCOMES: Final = ("ok", "denied", "error")
MODEL_OUTCOMES: Final = ("ok", "failed", "shed", "gone")
MODEL_SURFACES: Final = ("extract", "ask")
EMBED_SURFACES: Final = ("ingest", "recall")
POLICY_EFFECTS: Final = ("egress", "task_ttl", "retention", "sweep", "reads")
TOKEN_OUTCOMES: Final = ("kept", "verified")
REFUSALS: Final = ("missing", "bad", "forbidden", "revoked", "unknown")

_REQUEST_BUCKETS_S: Final = (
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
    5.0,
    30.0,
)
_COMMIT_BUCKETS_S: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0)
_SHIP_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_MODEL_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)
_LAG_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_SEGMENT_BUCKETS_BYTES: Final = tuple(float(4**power) for power in range(5, 14))
_GROUP_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Every metric of one node. Attributes are prometheus_client children, ready to `inc`, `set` or `observe`."""

    def __init__(self) -> None:
        # For the whole process: nobody asks when a counter or histogram was made, and each would have one series more.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._before_scrape: list[Callable[[], None]] = []
        self._http()
        self._accounts()
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
        self._embedding()
        self._models()
        self._policies()
        self._audit()
        self._credentials()
        self._leases()

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` at the start of every scrape, for gauges that are cheaper to compute than to keep."""
        self._before_scrape.append(refresh)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format, of the media type `CONTENT_TYPE`."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)

    def request_timer(self, route: str, method: str, status_class: str) -> Callable[[float], None]:
        """Return the function that records one request's seconds; `route` is a template, never a path."""
        return self.request_seconds.labels(route, method, status_class).observe

    def _leases(self) -> None:
        self.leases_held = self._gauge("leases_held", "Branches that this node owns.")
        self.lease_age_seconds = self._gauge("lease_age_seconds", "Time that the node's lease has stood.")
        self.lease_left_seconds = self._gauge(
            "lease_left_seconds", "Time until this node must stop writing unless its lease is renewed."
        )
        self.lease_renewals_failed = self._counter(
            "lease_renewals_failed", "Renewals of the node's lease that failed, and are tried again."
        )

    def _http(self) -> None:
        self.request_seconds = Histogram(
            "memoturn_http_request_seconds",
            "Time from a request's headers to its answer, by route template, method and status class.",
            ("route", "method", "status"),
            registry=self.registry,
            buckets=_REQUEST_BUCKETS_S,
        )
        self.in_flight = self._gauge("http_in_flight_requests", "Requests being served now.")
        self.in_flight_limit = self._gauge("http_in_flight_limit_requests", "Most requests served at once.")
        self.feeds = self._gauge("feeds", "Change feeds and long polls that are open now.")
        self.feeds_limit = self._gauge("feeds_limit", "Most change feeds at once.")
        self.waiting = self._gauge("http_waiting_requests", "Requests waiting for a free slot.")
        self.waiting_limit = self._gauge(
            "http_waiting_limit_requests", "Most requests that may wait for a slot."
        )
        self.body_bytes = self._gauge(
            "http_body_bytes", "Bytes of request bodies that are being read or handled."
        )
        self.body_limit_bytes = self._gauge(
            "http_body_limit_bytes", "Most bytes of request bodies at once; more are refused."
        )
        self.connections = self._gauge("http_connections", "Connections that are open.")
        self.connections_limit = self._gauge("http_connections_limit", "Most connections open at once.")
        sheds = self._counter("sheds_total", "Requests turned away, by the bound that was reached.", "reason")
        self.shed = {reason: sheds.labels(reason) for reason in SHED_REASONS}
        self.refusals_held = self._gauge(
            "http_refusals_held", "Refusals for a limit that are held back, to slow down who sends more."
        )
        self.refusals_held_limit = self._gauge(
            "http_refusals_held_limit",
            "Most refusals held back at once; beyond it they are answered at once.",
        )
        self.loop_lag_seconds = self._histogram(
            "event_loop_lag_seconds", "How late a timer on the event loop fired.", _LAG_BUCKETS_S
        )

    def _accounts(self) -> None:
        self.accounts = self._gauge("accounts", "Tenants and namespaces whose quotas are kept in memory.")
        self.accounts_limit = self._gauge("accounts_limit", "Most of these.")
        self.accounts_failed = self._counter(
            "accounts_failed_total", "Reads of quotas that failed, so that what was known last holds on."
        )
        self.usage_waiting = self._gauge(
            "usage_waiting", "Counters of usage that are not in the catalog yet."
        )
        self.usage_waiting_limit = self._gauge(
            "usage_waiting_limit", "Counters beyond which databases are counted for their namespace alone."
        )
        self.usage_failed = self._counter(
            "usage_failed_total", "Flushes of usage that failed, and are tried again."
        )
        self.usage_uncounted = self._counter(
            "usage_uncounted_total", "Requests that found no counter free, even for their tenant."
        )

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
        jobs = self._counter(
            "compactions_total",
            "Compactions: segments joined, snapshots taken, history pages rolled, failures.",
            "outcome",
        )
        self.compactions = {outcome: jobs.labels(outcome) for outcome in COMPACTION_OUTCOMES}
        self.compacted_bytes = self._counter(
            "compacted_bytes_total", "Bytes of segments that were written joined."
        )
        self.manifest_largest_bytes = self._gauge(
            "manifest_largest_bytes", "Size of the largest manifest seen."
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
        self.tail_push_seconds = Histogram(
            "memoturn_tail_push_seconds",
            "Time in which the nodes of a sync set got the commits that waited for level replicated.",
            registry=self.registry,
            buckets=_SHIP_BUCKETS_S,
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
        takeovers = self._counter(
            "tail_takeovers_total", "Takeovers of branches with a sync set, by what it had.", "outcome"
        )
        self.tail_takeovers = {outcome: takeovers.labels(outcome) for outcome in TAIL_OUTCOMES}

    def _replicas(self) -> None:
        pushes = self._counter(
            "replica_pushes_total",
            "Segments for replicas, by outcome: ok, refused, failed, skipped (what waited for a slow one).",
            "outcome",
        )
        self.replica_pushes = {outcome: pushes.labels(outcome) for outcome in PUSH_OUTCOMES}
        self.replica_pushed_bytes = self._counter(
            "replica_pushed_bytes_total", "Bytes of segments that replicas have taken."
        )
        self.replica_subscribers = self._gauge(
            "replica_subscribers", "Nodes that follow branches of this one, counted once for each branch."
        )
        self.replica_subscribers_limit = self._gauge("replica_subscribers_limit", "Most of these.")
        steps = self._counter(
            "replica_steps_total",
            "What befell replicas: pushed or fetched segments applied, restored whole, a gap found, dropped.",
            "outcome",
        )
        self.replica_steps = {outcome: steps.labels(outcome) for outcome in REPLICA_OUTCOMES}
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
            "Requests to the object store by operation; put_if_* are the conditional writes.",
            "operation",
        )
        self.store_requests = {name: requests.labels(name) for name in STORE_OPERATIONS}
        sent = self._counter(
            "store_bytes_total", "Bytes of objects sent to and received from the object store.", "direction"
        )
        self.store_sent_bytes, self.store_received_bytes = sent.labels("sent"), sent.labels("received")

    def _tiers(self) -> None:
        wakes = self._counter("wakes_total", "Branches opened, by the tier that they were in.", "tier")
        self.wakes = {tier: wakes.labels(tier) for tier in WAKE_TIERS}
        self.wake_seconds = self._histogram(
            "wake_seconds", "Time to open a branch that was not hot.", _SHIP_BUCKETS_S
        )
        tiers = Gauge(
            "memoturn_branches", "Branches that this node knows, by tier.", ("tier",), registry=self.registry
        )
        self.branches = {tier: tiers.labels(tier) for tier in OPEN_TIERS}
        self.hot_handles = self._gauge("hot_handles", "Branches with open connections.")
        self.extra_readers = self._gauge(
            "extra_readers", "Readers that branches had open at once, besides one each."
        )
        self.hot_handles_limit = self._gauge("hot_handles_limit", "Most branches with open connections.")
        self.disk_bytes = self._gauge("disk_bytes", "Local disk that branch files take.")
        self.disk_budget_bytes = self._gauge(
            "disk_budget_bytes", "Local disk that branch files and past states may take together."
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
        reads = self._counter(
            "past_reads_total",
            "Reads of past states: the state was here (hit), was being made already (shared), had to be made (miss).",
            "outcome",
        )
        self.past_reads = {outcome: reads.labels(outcome) for outcome in PAST_OUTCOMES}
        self.past_seconds = self._histogram(
            "past_seconds", "Time to make a past state, without the wait for its turn.", _SHIP_BUCKETS_S
        )

    def _maintenance(self) -> None:
        passes = self._counter(
            "maintenance_passes_total",
            "Maintenance passes, by outcome: done, stopped (something is unreadable), failed.",
            "outcome",
        )
        self.maintenance_passes = {outcome: passes.labels(outcome) for outcome in PASS_OUTCOMES}
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
        steps = self._counter(
            "erasures_total",
            "Erasures, by step: requested, rewritten (history), blocked (once for each look), completed.",
            "step",
        )
        self.erasures = {step: steps.labels(step) for step in ERASURE_STEPS}

    def _catalog(self) -> None:
        self.catalog_up = self._gauge("catalog_up", "1 while the catalog answers, 0 while it does not.")
        self.catalog_up.set(1)
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
        drills = self._counter(
            "drill_total", "Restore drills: one state restored and checked, by outcome.", "outcome"
        )
        self.drills = {outcome: drills.labels(outcome) for outcome in DRILL_OUTCOMES}
        self.drill_last_success_seconds = self._gauge(
            "drill_last_success_seconds", "Unix time at which a drill last restored a state, 0 for never."
        )

    def _embedding(self) -> None:
        calls = self._counter(
            "embed_calls_total",
            "Calls of the embedder: ok, refused (these texts), failed, shed (not made: too many, or an outage).",
            "outcome",
        )
        self.embed_calls = {outcome: calls.labels(outcome) for outcome in EMBED_CALLS}
        texts = self._counter("embed_texts_total", "Texts that were to be embedded, by outcome.", "outcome")
        self.embed_texts = {outcome: texts.labels(outcome) for outcome in EMBED_TEXTS}
        self.embed_seconds = self._histogram(
            "embed_seconds", "Time of a call of the embedder that was answered.", _SHIP_BUCKETS_S
        )
        degraded = self._counter(
            "embed_degraded_total",
            "Requests that went on without vectors that the node should have made.",
            "surface",
        )
        self.embed_degraded = {surface: degraded.labels(surface) for surface in EMBED_SURFACES}
        self.embed_outage = self._gauge("embed_outage", "1 while the embedder is left alone after failures.")
        self.embed_waiting = self._gauge("embed_waiting_calls", "Calls that wait for their turn.")
        self.reembed_jobs = self._gauge("reembed_jobs", "Branches that this node embeds again just now.")
        self.embed_cache_bytes = self._gauge("embed_cache_bytes", "Memory of the vectors of texts of late.")
        self.embed_cache_limit_bytes = self._gauge("embed_cache_limit_bytes", "Most memory of these.")

    def _policies(self) -> None:
        self.policy_reads_failed = self._counter(
            "policy_reads_failed_total", "Reads of a namespace's policies that failed, or found them damaged."
        )
        unknown = self._counter(
            "policy_unknown_total",
            "Times that a policy was not known: egress was refused; task_ttl, retention and sweep bounded nothing; reads showed the newest state.",
            "effect",
        )
        self.policy_unknown = {effect: unknown.labels(effect) for effect in POLICY_EFFECTS}
        self.policy_swept = self._counter(
            "policy_swept_memories_total", "Memories that were deleted for their age or number."
        )
        self.policy_cache_bytes = self._gauge("policy_cache_bytes", "Memory of the policies that are kept.")
        self.policy_cache_limit_bytes = self._gauge("policy_cache_limit_bytes", "Most memory of these.")

    def _models(self) -> None:
        requests = self._counter(
            "model_requests_total",
            "Requests that waited for a language model, by surface and outcome.",
            "surface",
            "outcome",
        )
        self.model_requests = {
            (surface, outcome): requests.labels(surface, outcome)
            for surface in MODEL_SURFACES
            for outcome in MODEL_OUTCOMES
        }
        seconds = Histogram(
            "memoturn_model_seconds",
            "Time that a request waited for a language model, all of its calls together.",
            ("surface",),
            registry=self.registry,
            buckets=_MODEL_BUCKETS_S,
        )
        self.model_seconds = {surface: seconds.labels(surface) for surface in MODEL_SURFACES}

    def _audit(self) -> None:
        events = self._counter("audit_events_total", "Audit events taken, by outcome of the act.", "outcome")
        self.audit_events = {outcome: events.labels(outcome) for outcome in AUDIT_OUTCOMES}
        self.audit_objects = self._counter(
            "audit_objects_total", "Objects of audit events that object storage has taken."
        )
        self.audit_flush_failures = self._counter(
            "audit_flush_failures_total",
            "Flushes of a stream's audit events that failed; they are tried again.",
        )
        self.audit_spool_failures = self._counter(
            "audit_spool_failures_total",
            "Audit events that the node's disk did not take, so that they were only in memory until flushed.",
        )
        self.audit_chains_lost = self._counter(
            "audit_chains_lost_total",
            "Chains whose head was not what this node had left: changed, rolled back, or written by a copy of its disk.",
        )
        self.audit_waits = self._counter(
            "audit_waits_total", "Requests that waited for room for their audit event."
        )
        self.audit_refused = self._counter(
            "audit_refused_total", "Requests that were refused, because their audit event had no room."
        )
        self.audit_waiting_events = self._gauge(
            "audit_waiting_events", "Audit events that are not in object storage yet."
        )
        self.audit_lag_seconds = self._gauge("audit_lag_seconds", "Age of the oldest of these.")
        self.audit_spool_bytes = self._gauge("audit_spool_bytes", "Local disk that the audit spool takes.")
        self.audit_spool_limit_bytes = self._gauge(
            "audit_spool_limit_bytes", "Bytes of waiting audit events beyond which audited requests wait."
        )

    def _credentials(self) -> None:
        outcomes = self._counter(
            "tokens_verified_total",
            "Requests with a good token: known from before (kept), or its signature was looked at (verified).",
            "outcome",
        )
        self.tokens_verified = {outcome: outcomes.labels(outcome) for outcome in TOKEN_OUTCOMES}
        refusals = self._counter(
            "credentials_refused_total",
            "Requests refused for their credential, by what was wrong with it.",
            "reason",
        )
        self.credentials_refused = {reason: refusals.labels(reason) for reason in REFUSALS}
        self.verified_tokens = self._gauge("verified_tokens", "Verified tokens that are kept.")
        self.verified_tokens_limit = self._gauge("verified_tokens_limit", "Most verified tokens kept.")
        self.revocations = self._gauge(
            "revocations", "Revocations of tokens that this node holds against them."
        )
        self.revocations_limit = self._gauge(
            "revocations_limit", "Most of them; beyond it the oldest become cut-offs of their tenants."
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"memoturn_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"memoturn_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"memoturn_{name}", text, registry=self.registry, buckets=buckets)


async def watch_loop_lag(metrics: Metrics, clock: Clock, *, interval_s: float = 0.1) -> None:
    """Record for ever how late the event loop wakes a timer; run it as a task of the node and cancel it."""
    while True:
        due = clock.monotonic_s() + interval_s
        await clock.sleep(interval_s)
        metrics.loop_lag_seconds.observe(max(0.0, clock.monotonic_s() - due))
