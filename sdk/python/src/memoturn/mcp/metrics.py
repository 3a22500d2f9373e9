"""What the server counts, for Prometheus. Labels are names of tools and fixed words, never what a client or a node sent."""

import asyncio
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from memoturn import __version__
from memoturn.errors import BY_CODE
from memoturn.mcp.answers import NEXT_STEPS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES: Final = frozenset({"ok", "cancelled", *BY_CODE, *NEXT_STEPS})
"""Of tool calls. A code that a node has and this client does not know is `other`."""
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_LAG_INTERVAL_S: Final = 0.1


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # no series for when each one began
        self.registry = CollectorRegistry()
        self._of_the_process()
        self._tool_calls = Counter(
            "memoturn_mcp_calls_total",
            "Tool calls by outcome: ok, the code of an error, other for one that is not known, or cancelled.",
            ["tool", "outcome"],
            registry=self.registry,
        )
        self._tool_seconds = Histogram(
            "memoturn_mcp_call_seconds",
            "How long a tool call took.",
            ["tool"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.calls_in_flight = Gauge(
            "memoturn_mcp_calls_in_flight", "Tool calls that are under way.", registry=self.registry
        )
        self.sessions = Gauge(
            "memoturn_mcp_sessions", "Sessions that are open over HTTP.", registry=self.registry
        )
        self.sessions_limit = Gauge(
            "memoturn_mcp_sessions_limit", "Most sessions that are open at once.", registry=self.registry
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

    def _of_the_process(self) -> None:
        """Show what every process of Memoturn shows, under the same names."""
        ProcessCollector(registry=self.registry)
        Gauge(
            "memoturn_build_info",
            "1, with the release, the Python that runs it, and what this process is.",
            ("version", "python", "process"),
            registry=self.registry,
        ).labels(__version__, platform.python_version(), "mcp").set(1)
        self._loop_lag_seconds = Histogram(
            "memoturn_event_loop_lag_seconds",
            "How late a timer on the event loop fired.",
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )

    async def watch_loop_lag(self) -> None:
        """Record for ever how late the event loop wakes a timer; run it as a task and cancel it."""
        while True:
            due_s = time.monotonic() + _LAG_INTERVAL_S
            await asyncio.sleep(_LAG_INTERVAL_S)
            self._loop_lag_seconds.observe(max(0.0, time.monotonic() - due_s))

    def called(self, tool: str, outcome: str, seconds: float | None = None) -> None:
        """Count a call of `tool`, which took so many seconds, or was not made."""
        self._tool_calls.labels(tool, outcome if outcome in OUTCOMES else "other").inc()
        if seconds is not None:
            self._tool_seconds.labels(tool).observe(seconds)

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
