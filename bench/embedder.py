"""The local embedder: how fast it is, what it weighs, and what the node's event loop feels of it."""

import asyncio
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.machine import process_cpu_s, watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import Table, duration, percentile
from bench.wire import KeptClient, encode
from memoturnd.embedders.files import find_files
from memoturnd.embedders.local import LocalEmbedder
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.embedder import Kind

_COLUMNS: Final = ("what", "figure")
_SENTENCES: Final = (
    "The user prefers short answers in the morning",
    "Ana moved to Lisbon last March and works at the harbour",
    "The weekly report is due on Friday before noon",
    "They talked for an hour about the trip to the mountains and the new tent",
    "The build broke because a test waited for a port that was taken",
)


def _texts(first: int, count: int) -> list[str]:
    """Sentences of 8 to 20 words, each once."""
    return [f"{_SENTENCES[n % len(_SENTENCES)]}, case {n}" for n in range(first, first + count)]


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def _alone(count: int) -> list[list[str]]:
    """Return the lines of the embedder without a node in front."""
    folder = find_files()
    if folder is None:
        return []
    embedder = LocalEmbedder(folder, clock=SystemClock())
    started_s = time.monotonic()
    await embedder.start()
    load_s = time.monotonic() - started_s
    try:
        await embedder.embed(_texts(0, 8), kind=Kind.DOCUMENT)
        started_s = time.monotonic()
        for text in _texts(1000, count):
            await embedder.embed([text], kind=Kind.QUERY)
        one_s = (time.monotonic() - started_s) / count
        pid = embedder.pid or 0
        started_s, spent_s = time.monotonic(), process_cpu_s(pid)
        await embedder.embed(_texts(2000, count), kind=Kind.DOCUMENT)
        batch_s = (time.monotonic() - started_s) / count
        cpu_s = (process_cpu_s(pid) - spent_s) / count
        resident = _resident_mib(pid)
    finally:
        await embedder.close()
    return [
        ["worker ready, digests checked", duration(load_s)],
        ["one text at a time", f"{1 / one_s:.0f} texts/s ({duration(one_s)} each)"],
        [f"{count} texts at once", f"{1 / batch_s:.0f} texts/s"],
        ["processor time of each of these", duration(cpu_s)],
        ["worker's resident memory", f"{resident:.0f} MiB"],
    ]


def _ingest(client: KeptClient, texts: list[str]) -> None:
    memories = [{"type": "event", "summary": text} for text in texts]
    client.send("POST", "/v1/memory/bench/p/memories", encode({"memories": memories}))


def _timed(work: Callable[[], object]) -> float:
    started_s = time.monotonic()
    work()
    return time.monotonic() - started_s


def _over_http(child: Child, count: int) -> tuple[list[list[str]], list[tuple[str, float, float]]]:
    """Return lines, and the phases (name, start, end) in which the loop's lag is looked at."""
    client = KeptClient(child.host, child.port)
    _ingest(client, _texts(0, 8))
    phases = []
    start_s = time.monotonic()
    time.sleep(min(2.0, count / 100))
    phases.append(("nothing", start_s, time.monotonic()))
    start_s = time.monotonic()
    for first in range(0, count, 100):
        _ingest(client, _texts(10_000 + first, min(100, count)))
    phases.append((f"ingest of {count} texts in batches of 100", start_s, time.monotonic()))
    singles = [_timed(lambda n=n: _ingest(client, _texts(20_000 + n, 1))) for n in range(count // 5)]  # type: ignore[misc]
    queries = [
        _timed(
            lambda n=n: client.send(  # type: ignore[misc]
                "POST", "/v1/memory/bench/p/recall", encode({"query": f"what about case {n}?"})
            )
        )
        for n in range(count // 5)
    ]
    client.close()
    _, start_s, end_s = phases[1]
    return [
        [phases[1][0], f"{count / (end_s - start_s):.0f} texts/s"],
        ["ingest of one, p50", duration(percentile(singles, 0.5))],
        ["recall by a new query, p50", duration(percentile(queries, 0.5))],
    ], phases


def measure(*, quick: bool) -> list[Table]:
    """Return the table of the local embedder; without its model the table is empty."""
    count = 20 if quick else 500
    table = Table("The local embedder", _COLUMNS)
    if find_files() is None:
        table.notes = ["The model is not installed: `make setup` installs it."]
        return [table]
    with temporary_folder() as folder, watched() as busy:
        table.rows = asyncio.run(_alone(count))
        path = folder / "lags"
        with child_node(folder, module=("bench.lag_node", str(path)), EMBED_PROVIDER="local") as child:
            lines, phases = _over_http(child, count)
        seen = array("d")
        seen.frombytes(path.read_bytes())
    table.rows += lines
    for name, start_s, end_s in phases:
        lags = [lag for at_s, lag in zip(seen[::2], seen[1::2], strict=True) if start_s <= at_s <= end_s] or [
            0.0
        ]
        shown = " / ".join(duration(percentile(lags, share)) for share in (0.5, 0.99))
        table.rows.append(
            [f"event-loop lag during {name}, p50 / p99 / max", f"{shown} / {duration(max(lags))}"]
        )
    table.notes = [
        "Texts are sentences of 8 to 20 words, each sent once. The worker runs at niceness 10, on half of the cores.",
        "Lag is how late a 1 ms timer on the node's own loop fires.",
        f"{busy}.",
    ]
    return [table]
