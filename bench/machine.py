"""What the figures were taken on, and how quiet it was meanwhile."""

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from bench.stats import duration, percentile

_JIFFY_S = 1 / os.sysconf("SC_CLK_TCK")
_BUSY_FIELDS = (1, 2, 3, 6, 7, 8)
"""user, nice, system, irq, softirq, steal in the first line of /proc/stat."""


def describe(folder: Path) -> list[tuple[str, str]]:
    """Return what the machine is; `folder` is where the databases lay."""
    memory_kib = _field(Path("/proc/meminfo"), "MemTotal").split()[0]
    return [
        ("processor", _field(Path("/proc/cpuinfo"), "model name") or platform.processor()),
        ("cores", str(os.cpu_count())),
        ("memory", f"{int(memory_kib) / 1024**2:.1f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("file system", _file_system(folder)),
        ("python", platform.python_version()),
        ("SQLite", apsw.sqlite_lib_version()),
        ("apsw", apsw.apsw_version()),
        ("commit", _commit()),
    ]


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _file_system(folder: Path) -> str:
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    device, mount, kind = max(
        (m for m in mounts if folder.resolve().is_relative_to(m[1])), key=lambda m: len(m[1])
    )
    return f"{kind} on {device} ({mount})"


def _commit() -> str:
    root = Path(__file__).parent.parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def noise() -> str:
    """Return how evenly this machine runs a fixed piece of work: 256 KiB hashed, 400 times."""
    block = bytes(256 * 1024)
    samples = []
    for _ in range(400):
        start_s = time.perf_counter()
        hashlib.blake2b(block).digest()
        samples.append(time.perf_counter() - start_s)
    return f"p50 {duration(percentile(samples, 0.5))}, p99 {duration(percentile(samples, 0.99))}"


class Busy:
    """The share of the machine's cores that other processes used, from 0 to 1; set when the block ends."""

    def __init__(self) -> None:
        self.others = 0.0

    def __str__(self) -> str:
        return f"other processes used {self.others:.0%} of the cores meanwhile"


@contextmanager
def watched() -> Iterator[Busy]:
    """Measure what other processes take. Own children must have been waited for when the block ends."""
    busy = Busy()
    start_s, all_s, own_s = time.monotonic(), _all_busy_s(), _own_s()
    yield busy
    elapsed_s = time.monotonic() - start_s
    others_s = (_all_busy_s() - all_s) - (_own_s() - own_s)
    busy.others = max(0.0, others_s / (elapsed_s * (os.cpu_count() or 1)))


def _all_busy_s() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[at]) for at in _BUSY_FIELDS) * _JIFFY_S


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def process_cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used, all of its threads."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) * _JIFFY_S
