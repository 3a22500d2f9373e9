"""What the server counts, for Prometheus. Labels are names of tools and fixed words, never what a client sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # no series for when each one began
        self.registry = CollectorRegistry()
        self.tool_calls = Counter(
            "memoturn_mcp_tool_calls_total",
            "Tool calls by outcome: ok, the code of an error, or cancelled.",
            ["tool", "outcome"],
            registry=self.registry,
        )
        self.tool_seconds = Histogram(
            "memoturn_mcp_tool_call_seconds",
            "How long a tool call took.",
            ["tool"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.calls_in_flight = Gauge(
            "memoturn_mcp_tool_calls_in_flight", "Tool calls that are under way.", registry=self.registry
        )
        self.sessions = Gauge(
            "memoturn_mcp_sessions", "Sessions that are open over HTTP.", registry=self.registry
        )
        self.sessions_opened = Counter(
            "memoturn_mcp_sessions_opened_total", "Sessions that were opened.", registry=self.registry
        )
        self.sessions_ended = Counter(
            "memoturn_mcp_sessions_ended_total",
            "Sessions that ended: closed by the client, idle, displaced by newer ones, or stopped.",
            ["reason"],
            registry=self.registry,
        )
        self.refused = Counter(
            "memoturn_mcp_requests_refused_total",
            "HTTP requests that were turned away, by status.",
            ["status"],
            registry=self.registry,
        )

        self.running = 0

    @contextmanager
    def running_call(self) -> Iterator[None]:
        """Count a call as under way."""
        self.running += 1
        self.calls_in_flight.set(self.running)
        try:
            yield
        finally:
            self.running -= 1
            self.calls_in_flight.set(self.running)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
