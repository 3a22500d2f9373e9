"""A gateway's metrics: what clients wait for, what becomes of requests, and what is known of the cluster."""

from collections.abc import Callable
from typing import Final

from memoturnd.metrics.base import CACHE_OUTCOMES, Registry

SHED_REASONS: Final = ("connections", "concurrency", "body_memory")
ENDINGS: Final = ("unavailable", "unanswered", "outcome_unknown", "broken_off", "gone")
_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class GatewayMetrics(Registry):
    """Every metric of one gateway."""

    def __init__(self) -> None:
        super().__init__(process="gateway", prefix="memoturn_gateway_")
        self.request_seconds = self._histogram(
            "request_seconds",
            "Time from a request's headers to the head of its answer, by route template, method and status class.",
            _BUCKETS_S,
            "route",
            "method",
            "status",
        )
        self.attempts = self._counter("attempts_total", "Requests sent to nodes, each attempt counted.")
        self.hedges = self._counter(
            "hedged_reads_total", "Reads sent to a second node because the owner was slow."
        )
        self.failures = self._counters(
            "failures_total", "Requests that no node's answer ended, by how they ended.", "ending", ENDINGS
        )
        self.shed = self._counters(
            "sheds_total", "Requests turned away, by the bound that was reached.", "reason", SHED_REASONS
        )
        self.connections = self._gauge("connections", "Connections of clients that are open.")
        self.connections_limit = self._gauge("connections_limit", "Most connections of clients open at once.")
        self.in_flight = self._gauge("in_flight_requests", "Requests being forwarded now.")
        self.in_flight_limit = self._gauge("in_flight_limit_requests", "Most requests forwarded at once.")
        self.waiting = self._gauge("waiting_requests", "Requests waiting to be forwarded.")
        self.waiting_limit = self._gauge("waiting_limit_requests", "Most requests that may wait.")
        self.body_bytes = self._gauge("body_bytes", "Bytes of request bodies that are kept to be sent again.")
        self.body_limit_bytes = self._gauge("body_limit_bytes", "Most bytes of request bodies kept at once.")
        self._of_the_cluster()

    def _of_the_cluster(self) -> None:
        self.nodes = self._gauge("nodes", "Nodes that are there.")
        self.can_route = self._gauge("can_route", "1 while the cluster is known and a node in it answers.")
        self.open_breakers = self._gauge(
            "open_breakers", "Nodes that are left alone for now, because they failed."
        )
        self.placements = self._gauge("placements", "Branches whose owner is known.")
        self.placements_limit = self._gauge("placements_limit", "Most branches whose owner is known at once.")
        self.placement_reads = self._counters(
            "placement_reads_total",
            "Looks for a branch's owner: it was known (hit), or a node was chosen that finds it (miss).",
            "outcome",
            CACHE_OUTCOMES,
        )
        self.changes = self._counter("watch_changes_total", "Changes told by the watch on the leases.")

    def looked(self, hit: bool) -> None:
        """Count a look for a branch's owner."""
        self.placement_reads["hit" if hit else "miss"].inc()

    def timer(self, route: str, method: str, status_class: int) -> Callable[[float], None]:
        """Return the function that records one request's seconds; `route` is a template, never a path."""
        return self.request_seconds.labels(route, method, f"{status_class}xx").observe
