"""The HTTP table and durable writes of one node on each object store, in the same run: what a bucket costs."""

import os
from typing import Final

from bench.buckets import Backing, backings
from bench.counters import settle
from bench.load import Load, Outcome, Running, Stream, create
from bench.machine import process_cpu_s, watched
from bench.nodes import Child, temporary_folder
from bench.over_http import rows
from bench.stats import MS, Row, Table, duration
from bench.wire import FreshClient

WRITERS: Final = (1, 16, 64)
_PUBLISHED_P99_S: Final = {
    "provision database": 3.43 * MS,
    "hot SQL write": 2.83 * MS,
    "hot KV write": 3.53 * MS,
    "hot KV read": 2.94 * MS,
    "branch create": 3.69 * MS,
    "write + segment ship": 8.67 * MS,
    "memory ingest (typed fact)": 7.53 * MS,
    "hybrid recall @1k memories": 5.97 * MS,
}
_DURABLE_COLUMNS: Final = (
    "object store",
    "profiles",
    "writers",
    "per second",
    "p50",
    "p99",
    "ships per write",
    "uploads per write",
    "requests per write",
    "node cpu per write",
    "refused",
)


def _durable(child: Child, backing: Backing, *, quick: bool) -> list[list[str]]:
    """Return the lines of durable writes: every number of writers on one profile, and each on one of its own."""
    seconds = 0.1 if quick else 2.0
    # A profile takes part in one line only, so that none starts with the history of another one's writes.
    cells = [(1, writers) for writers in WRITERS] + [(writers, writers) for writers in WRITERS[1:]]
    lines = []
    for profiles, writers in cells[1::2] if quick else cells:
        names = [f"d{profiles}-{writers}-{i}" for i in range(profiles)]
        create(child, names)
        before, cpu_s = settle(child), process_cpu_s(child.pid)
        stream = Stream("durable write", writers, names)
        [seen] = Running(Load(child.host, child.port, [stream], seconds)).outcomes()
        used_s = process_cpu_s(child.pid) - cpu_s
        spent = settle(child) - before
        sent = max(1, seen.sent)
        lines.append(
            [
                backing.name,
                str(profiles),
                str(writers),
                *_speed(seen),
                f"{spent.value('ships_total', outcome='committed') / sent:.3f}",
                f"{spent.requests('put') / sent:.3f}",
                f"{spent.all_requests / sent:.3f}",
                duration(used_s / sent),
                str(seen.refused),
            ]
        )
    return lines


def _speed(seen: Outcome) -> list[str]:
    return [f"{seen.count / seen.seconds:,.0f}", duration(seen.p50_s), duration(seen.p99_s)]


def _http_table(measured: dict[str, list[Row]]) -> Table:
    """Return one line per operation, with every store's figures and their ratios."""
    local, *buckets = measured
    columns = ["operation", "n", "published p50", "p99", local, "p99", "/published"]
    for name in buckets:
        columns += [name, "p99", "/published", "/local"]
    table = Table("Over HTTP on each object store, a connection per request", columns)
    for at, base in enumerate(measured[local]):
        cells = [
            base.name,
            str(base.n),
            duration(base.published_s),
            duration(_PUBLISHED_P99_S.get(base.name)),
        ]
        cells += [duration(base.p50_s), duration(base.p99_s), base.ratio]
        for name in buckets:
            row = measured[name][at]
            cells += [duration(row.p50_s), duration(row.p99_s), row.ratio, f"{row.p50_s / base.p50_s:.2f}"]
        table.rows.append(cells)
    return table


def measure(*, quick: bool) -> list[Table]:
    """Return the table of the HTTP rows on each store, and that of durable writes."""
    measured: dict[str, list[Row]] = {}
    durable = Table("Durable writes on each object store", _DURABLE_COLUMNS)
    with watched() as busy, backings() as stores:
        for number, backing in enumerate(stores.all):
            place = backing.fresh()
            with (
                temporary_folder() as folder,
                place.node(folder) as child,
            ):
                run = f"{os.getpid()}s{number}"
                measured[backing.name] = rows(FreshClient(child.host, child.port), run, quick=quick)
                durable.rows += _durable(child, backing, quick=quick)
    http = _http_table(measured)
    http.notes = [
        *stores.notes,
        (
            "The columns named after a store are p50. One node process per store, one after the other, with the "
            "settings of the HTTP table; the local directory fsyncs file and folder per object. /published is our p50 "
            "over the original's, which had MinIO too; /local is over the local directory's of this run."
        ),
        "Each rewind is to head~1, so that it brings back the state before the last commit.",
    ]
    durable.notes = [
        *stores.notes,
        (
            "A ship is the upload of a segment and a conditional write of the manifest, which writers that wait at the "
            "same time share. Uploads are the PUTs of segments and of what compaction writes; requests are all of "
            "them, with the GETs of compaction."
        ),
        "The writers, the node and MinIO share this machine's cores.",
        f"{busy}.",
    ]
    return [http, durable]
