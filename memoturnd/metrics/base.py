"""What the metrics of every process have in common: a registry, its names, what is refreshed for a scrape, and the process itself.

Names follow Prometheus: `memoturn_` first, base units last (`_seconds`, `_bytes`), `_total` on counters. A label's values are
those of the program, never a name that users choose, so that the number of series has a bound.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from memoturnd import __version__
from memoturnd.metrics.process import ProcessCollector
from memoturnd.seams.clock import Clock

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The format that every scraper reads: the library's own constant says 1.0.0, whose difference are names that are not used here."""
CACHE_OUTCOMES: Final = ("hit", "miss")
_PIECE_SAMPLES: Final = 200
"""Samples that are written before the event loop runs: about a millisecond."""
_LAG_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class Registry:
    """The metrics of one process. Attributes are prometheus_client children, ready to `inc`, `set` or `observe`."""

    def __init__(self, *, process: str, prefix: str = "memoturn_") -> None:
        """`process` says what runs: node, control, gateway or workers; `prefix` is of the names that are its own."""
        # For the whole process: nobody asks when a counter or histogram was made, and each would have one series more.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._prefix = prefix
        self._before_scrape: list[Callable[[], None]] = []
        self.registry.register(ProcessCollector())
        info = Gauge(
            "memoturn_build_info",
            "1, with the release, the Python that runs it, and what this process is.",
            ("version", "python", "process"),
            registry=self.registry,
        )
        self._built = info.labels(__version__, platform.python_version(), process)
        self._built.set(1)
        self.loop_lag_seconds = Histogram(
            "memoturn_event_loop_lag_seconds",
            "How late a timer on the event loop fired.",
            registry=self.registry,
            buckets=_LAG_BUCKETS_S,
        )

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` at the start of every scrape, for gauges that are cheaper to compute than to keep."""
        self._before_scrape.append(refresh)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format, of the media type `CONTENT_TYPE`."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)

    async def scrape(self) -> bytes:
        """Return what `render` does, and let the event loop run between pieces of it.

        The thousands of series of a node that has served many routes would hold it for tens of milliseconds.
        """
        for refresh in self._before_scrape:
            refresh()
        pieces, since = [], 0
        for family in self.registry.collect():
            for first in range(0, max(1, len(family.samples)), _PIECE_SAMPLES):
                samples = family.samples[first : first + _PIECE_SAMPLES]
                pieces.append(_written(family, samples, has_head=first == 0))
                since += len(samples)
                if since >= _PIECE_SAMPLES:
                    await asyncio.sleep(0)
                    since = 0
        return b"".join(pieces)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._prefix + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(self._prefix + name, text, labels, registry=self.registry, buckets=buckets)

    def _counters(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        """Return a counter for each value of its one label."""
        counter = self._counter(name, text, label)
        return {value: counter.labels(value) for value in values}

    def _gauges(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Gauge]:
        """Return a gauge for each value of its one label."""
        gauge = self._gauge(name, text, label)
        return {value: gauge.labels(value) for value in values}

    def _histograms(
        self, name: str, text: str, buckets: tuple[float, ...], label: str, values: Iterable[str]
    ) -> dict[str, Histogram]:
        """Return a histogram for each value of its one label."""
        histogram = self._histogram(name, text, buckets, label)
        return {value: histogram.labels(value) for value in values}


class _One(Collector):
    """A family alone, for those that take a registry."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        yield self._family


def _written(family: Metric, samples: list[Sample], *, has_head: bool) -> bytes:
    """Return some samples of a family as text, with the two lines about the family in front or without."""
    piece = Metric(family.name, family.documentation, family.type)
    piece.samples = samples
    text = generate_latest(_One(piece))
    return text if has_head else text.split(b"\n", 2)[2]


async def watch_loop_lag(metrics: Registry, clock: Clock, *, interval_s: float = 0.1) -> None:
    """Record for ever how late the event loop wakes a timer; run it as a task of the process and cancel it."""
    while True:
        due = clock.monotonic_s() + interval_s
        await clock.sleep(interval_s)
        metrics.loop_lag_seconds.observe(max(0.0, clock.monotonic_s() - due))
