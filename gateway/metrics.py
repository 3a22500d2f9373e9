"""The gateway's metrics: one registry of its own. No label takes a name that users choose."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

SHED_REASONS: Final = ("connections", "concurrency", "body_memory")
ENDINGS: Final = ("unavailable", "unanswered", "outcome_unknown", "broken_off", "gone")
_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class GatewayMetrics:
    """Attributes are prometheus_client children, ready to `inc`, `set` or `observe`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.request_seconds = Histogram(
            "memoturn_gateway_request_seconds",
            "Time from a request's headers to the head of its answer, by status class.",
            ("status",),
            registry=self.registry,
            buckets=_BUCKETS_S,
        )
        self.attempts = self._counter("attempts_total", "Requests sent to nodes, each attempt counted.")
        self.hedges = self._counter(
            "hedged_reads_total", "Reads sent to a second node because the owner was slow."
        )
        endings = Counter(
            "memoturn_gateway_failures_total",
            "Requests that no node's answer ended, by how they ended.",
            ("ending",),
            registry=self.registry,
        )
        self.failures = {ending: endings.labels(ending) for ending in ENDINGS}
        sheds = Counter(
            "memoturn_gateway_sheds_total",
            "Requests turned away, by the bound that was reached.",
            ("reason",),
            registry=self.registry,
        )
        self.shed = {reason: sheds.labels(reason) for reason in SHED_REASONS}
        self.connections = self._gauge("connections", "Connections of clients that are open.")
        self.connections_limit = self._gauge("connections_limit", "Most connections of clients open at once.")
        self.in_flight = self._gauge("in_flight_requests", "Requests being forwarded now.")
        self.in_flight_limit = self._gauge("in_flight_limit_requests", "Most requests forwarded at once.")
        self.waiting = self._gauge("waiting_requests", "Requests waiting to be forwarded.")
        self.waiting_limit = self._gauge("waiting_limit_requests", "Most requests that may wait.")
        self.body_bytes = self._gauge("body_bytes", "Bytes of request bodies that are kept to be sent again.")
        self.body_limit_bytes = self._gauge("body_limit_bytes", "Most bytes of request bodies kept at once.")
        self.nodes = self._gauge("nodes", "Nodes that are there.")
        self.open_breakers = self._gauge(
            "open_breakers", "Nodes that are left alone for now, because they failed."
        )
        self.placements = self._gauge("placements", "Branches whose owner is known.")
        self.placements_limit = self._gauge("placements_limit", "Most branches whose owner is known at once.")
        self.changes = self._gauge("watch_changes", "Changes told by the watch since the start.")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"memoturn_gateway_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"memoturn_gateway_{name}", text, registry=self.registry)

    def timer(self, status_class: int) -> Callable[[float], None]:
        """Return the function that records one request's seconds."""
        return self.request_seconds.labels(f"{status_class}xx").observe

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
