"""Timelines in process: appends through the whole engine, and queries among a million rows.

Each sample starts with what a request's JSON has been decoded to, as in the in-process harness. Ships and
compaction run in the background.
"""

import random
import time
from collections.abc import Callable
from typing import Any, Final

from bench.in_process import Meter
from bench.machine import watched
from bench.nodes import node_here, temporary_folder
from bench.stats import MS, Table, duration
from memoturnd.engine.branch import Branch
from memoturnd.seams.catalog import MAIN
from memoturnd.surfaces import timeline_queries, timeline_terms, timelines

ROWS: Final = 1_000_000
KEYS: Final = 1000
_SEED_BATCH: Final = 10_000
_NAME: Final = "tool-calls"
_START_MS: Final = 1_760_000_000_000
_HOUR_MS: Final = 3_600_000

Body = dict[str, Any]


class _Calls:
    """Tool calls of an agent, about 1.5 s apart, with 95 bytes of data each."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._keys: list[int] = []
        self.at = _START_MS

    def batch(self, count: int, keys: int) -> Body:
        """Return the body of `count` rows; each key comes once before any comes again."""
        return {"rows": [self._row(keys) for _ in range(count)]}

    def _row(self, keys: int) -> Body:
        draw = self._random
        if not self._keys or self._keys[-1] >= keys:
            self._keys = draw.sample(range(keys), keys)
        self.at += draw.randrange(3000)
        data = {
            "tool": "search",
            "ms": draw.randrange(5000),
            "ok": True,
            "tokens": draw.randrange(100_000),
            "q": f"{draw.getrandbits(120):030x}",
        }
        return {"key": f"key-{self._keys.pop()}", "at": self.at, "data": data}


async def _append(profile: Branch, body: Body) -> None:
    await timelines.append(profile, _NAME, timelines.parse_rows(body))


async def _ask(profile: Branch, body: Body) -> Any:
    found = await timeline_queries.query(profile, _NAME, timeline_terms.parse_query(body))
    return found.value


async def _seed(profile: Branch, calls: _Calls, meter: Meter, rows: int) -> str:
    bodies: list[Body] = []
    keys = min(KEYS, rows // 100)

    async def prepare(_i: int) -> None:
        bodies[:] = [calls.batch(_SEED_BATCH, keys)]

    async def append(_i: int) -> None:
        await _append(profile, bodies[0])

    start_s = time.perf_counter()
    batches = rows // _SEED_BATCH
    row = await meter.row(
        "1",
        f"append 10,000 rows of {keys:,} keys, up to {rows:,} rows",
        batches if not meter.quick else 20 * batches,
        append,
        before=prepare,
        target_s=1000 * MS,
    )
    elapsed_s = time.perf_counter() - start_s
    return (
        f"The {rows:,} rows were appended in {duration(elapsed_s)}, making the rows included; at the p50 of row 1 "
        f"that is {_SEED_BATCH / row.p50_s:,.0f} rows per second."
    )


async def _appends(profile: Branch, calls: _Calls, meter: Meter) -> list[str]:
    notes = []
    for key, count, keys in (("2", 1000, 1), ("3", 1000, KEYS), ("4", 1, 1)):
        bodies: list[Body] = []
        pages: list[int] = []

        async def prepare(
            _i: int,
            count: int = count,
            keys: int = keys,
            bodies: list[Body] = bodies,
            pages: list[int] = pages,
        ) -> None:
            bodies[:] = [calls.batch(count, keys)]
            pages.append(-profile.log_frames)

        async def append(_i: int, bodies: list[Body] = bodies, pages: list[int] = pages) -> None:
            await _append(profile, bodies[0])
            pages[-1] += profile.log_frames

        name = f"append {count:,} rows of {keys:,} keys" if count > 1 else "append one row"
        row = await meter.row(
            key, name, 200 if count > 1 else 2000, append, before=prepare, target_s=count / 10_000
        )
        grown = [n for n in pages if n > 0]  # a checkpoint starts the log anew
        notes.append(
            f"Row {key} writes {sum(grown) / len(grown):,.1f} pages to the log per batch, "
            f"{count / row.p50_s:,.0f} rows per second."
        )
    return notes


async def _queries(profile: Branch, calls: _Calls, meter: Meter, rows: int) -> None:
    draw = random.Random(2)
    keys = min(KEYS, rows // 100)

    def some_key() -> str:
        return f"key-{draw.randrange(keys)}"

    def last(hours: int) -> int:
        return calls.at - hours * _HOUR_MS

    day = {"window_ms": _HOUR_MS, "path": "ms"}
    asked: tuple[tuple[str, str, int, float | None, Callable[[], Body]], ...] = (
        ("5", f"newest 100 of a key @{rows:,} rows", 1000, 1 * MS, lambda: {"key": some_key()}),
        ("6", "newest 100 of all keys", 1000, 1 * MS, dict),
        ("7", "newest 100 of 10 keys", 500, None, lambda: {"keys": [some_key() for _ in range(10)]}),
        (
            "8",
            "100 rows of a key in the middle, oldest first",
            500,
            None,
            lambda: {
                "key": some_key(),
                "since": draw.randrange(_START_MS, (_START_MS + calls.at) // 2),
                "order": "asc",
            },
        ),
        (
            "9",
            "newest 100 of a key that a filter finds (one in five)",
            200,
            None,
            lambda: {"key": some_key(), "filter": {"ms": {"$lt": 1000}}},
        ),
        (
            "10",
            "a key's last 30 days by day: count, sum, min, max, average, last",
            200,
            None,
            lambda: {"key": some_key(), "since": last(720), "aggregate": {**day, "window_ms": 24 * _HOUR_MS}},
        ),
        ("11", "the last day of all keys by hour", 100, None, lambda: {"since": last(24), "aggregate": day}),
        (
            "12",
            "the same aggregates over everything",
            3,
            None,
            lambda: {"aggregate": {"path": "ms"}},
        ),
    )
    for key, name, n, target_s, body in asked:

        async def ask(_i: int, body: Callable[[], Body] = body) -> None:
            found = await _ask(profile, body())
            assert found.get("rows") or found.get("windows")

        await meter.row(key, name, n, ask, target_s=target_s)


async def _rows(meter: Meter, rows: int) -> list[str]:
    with temporary_folder() as folder:
        async with node_here(folder, sync="normal") as node:
            await node.databases.create("agent")
            profile = await node.profile("agent")
            calls = _Calls()
            notes = [await _seed(profile, calls, meter, rows)]
            await node.branches.sync("agent", MAIN)
            size_bytes = profile.size_bytes
            notes.append(f"The file then takes {size_bytes / rows:.0f} bytes per row.")
            await _queries(profile, calls, meter, rows)
            notes += await _appends(profile, calls, meter)
    return notes


def measure(run: Callable[..., Any], *, quick: bool) -> list[Table]:
    """Return the table of timelines. `run` runs a coroutine on the event loop to use."""
    meter = Meter(quick)
    with watched() as busy:
        notes = run(_rows(meter, 20_000 if quick else ROWS))
    settings = (
        "In-memory object store, uvloop, one operation at a time; MEMOTURN_SYNC=normal, shipping in the background. "
        "Rows of a timeline have 95 bytes of data; targets are 10,000 rows per second and 1 ms."
    )
    return [Table.of_rows("Timelines in process", meter.rows, [settings, *notes, f"{busy}."])]
