"""What the system says of this process, under the names that every Prometheus client gives it.

Not prometheus_client's own collector: that one lists every open descriptor, of which a node has hundreds of thousands, on the
event loop, and fails where their number is unlimited.
"""

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SELF: Final = Path("/proc/self")


class ProcessCollector(Collector):
    """Collects at each scrape. Where there is no /proc, processor time and the limit of descriptors alone."""

    def __init__(self) -> None:
        self._started_s = _started_s()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the process."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "process_cpu_seconds_total",
            "Processor time of the process, user and system.",
            value=used.ru_utime + used.ru_stime,
        )
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = float("inf") if soft == resource.RLIM_INFINITY else soft
        yield GaugeMetricFamily("process_max_fds", "Most descriptors that it may have open.", value=limit)
        with suppress(OSError):
            yield GaugeMetricFamily("process_open_fds", "Descriptors that it has open.", value=_open_fds())
        with suppress(OSError):
            pages = (_SELF / "statm").read_text().split()
            size_bytes = os.sysconf("SC_PAGESIZE")
            for name, text, count in (
                ("virtual", "Virtual memory of the process.", pages[0]),
                ("resident", "Memory of the process that is in RAM.", pages[1]),
            ):
                yield GaugeMetricFamily(f"process_{name}_memory_bytes", text, value=int(count) * size_bytes)
        if self._started_s is not None:
            yield GaugeMetricFamily(
                "process_start_time_seconds",
                "When the process began, in unix seconds.",
                value=self._started_s,
            )


def _open_fds() -> int:
    """Return how many descriptors are open: since Linux 6.2 the folder's size says so, without being listed."""
    folder = _SELF / "fd"
    return folder.stat().st_size or sum(1 for _ in folder.iterdir())


def _started_s() -> float | None:
    with suppress(OSError):
        ticks = int((_SELF / "stat").read_text().rpartition(")")[2].split()[19])
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("btime "):
                return int(line.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return None
