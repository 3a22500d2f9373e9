"""Requests as they come: gates, quotas, credentials, audit."""

from typing import Final

from memoturnd.metrics.base import Registry

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
AUDIT_OUTCOMES: Final = ("ok", "denied", "error")
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


class ServingMetrics(Registry):
    """Requests as they come: gates, quotas, credentials, audit."""

    def _measure_serving(self) -> None:
        self._http()
        self._accounts()
        self._credentials()
        self._audit()

    def _http(self) -> None:
        self.request_seconds = self._histogram(
            "http_request_seconds",
            "Time from a request's headers to its answer, by route template, method and status class.",
            _REQUEST_BUCKETS_S,
            "route",
            "method",
            "status",
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
        self.shed = self._counters(
            "sheds_total", "Requests turned away, by the bound that was reached.", "reason", SHED_REASONS
        )
        self.refusals_held = self._gauge(
            "http_refusals_held", "Refusals for a limit that are held back, to slow down who sends more."
        )
        self.refusals_held_limit = self._gauge(
            "http_refusals_held_limit",
            "Most refusals held back at once; beyond it they are answered at once.",
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

    def _credentials(self) -> None:
        self.tokens_verified = self._counters(
            "tokens_verified_total",
            "Requests with a good token: known from before (kept), or its signature was looked at (verified).",
            "outcome",
            TOKEN_OUTCOMES,
        )
        self.credentials_refused = self._counters(
            "credentials_refused_total",
            "Requests refused for their credential, by what was wrong with it.",
            "reason",
            REFUSALS,
        )
        self.verified_tokens = self._gauge("verified_tokens", "Verified tokens that are kept.")
        self.verified_tokens_limit = self._gauge("verified_tokens_limit", "Most verified tokens kept.")
        self.revocations = self._gauge(
            "revocations", "Revocations of tokens that this node holds against them."
        )
        self.revocations_limit = self._gauge(
            "revocations_limit", "Most of them; beyond it the oldest become cut-offs of their tenants."
        )

    def _audit(self) -> None:
        self.audit_events = self._counters(
            "audit_events_total", "Audit events taken, by outcome of the act.", "outcome", AUDIT_OUTCOMES
        )
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
