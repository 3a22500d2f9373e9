"""Cold wakes over HTTP: the first read of profiles of several sizes after the node has lost its whole disk."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.buckets import Backing, Backings, backings
from bench.counters import Counters, scrape, settle
from bench.machine import watched
from bench.nodes import Child, temporary_folder
from bench.stats import Row, Table, duration
from bench.wire import KeptClient, encode

KIB: Final = 1024
SIZES: Final = (
    ("100 KB", 100 * KIB, 10),
    ("1 MB", 1024 * KIB, 10),
    ("16 MB", 16384 * KIB, 1),
    ("100 MB", 102400 * KIB, 1),
)
"""Name, bytes of the file, and how many such profiles there are."""
_QUICK_SIZES: Final = (("100 KB", 100 * KIB, 2),)
_ROW_BYTES: Final = 1024
_TEXT_BYTES: Final = 960
"""Text of a row: four of them fill a page of 4 KiB, so that a row takes _ROW_BYTES of the file."""
_EMPTY_BYTES: Final = 80 * KIB
"""What a profile takes without rows."""
_STATEMENT_ROWS: Final = 4096
_COLUMNS: Final = ("object store", "profile", "n", "p50", "longest", "requests", "received", "file")


def _fill(client: KeptClient, name: str, size_bytes: int) -> None:
    """Create a profile whose file has about so many bytes: text in random hex digits, which compresses to about half."""
    database = f"/v1/db/{name}"
    client.send("POST", "/v1/databases", encode({"name": name}))
    client.send("PUT", f"{database}/kv/s/k", b"v")

    def sql(q: str) -> None:
        client.send("POST", f"{database}/sql", encode({"stmts": [{"q": q}]}))

    sql("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    left = max(1, (size_bytes - _EMPTY_BYTES) // _ROW_BYTES)
    while left:
        rows = min(left, _STATEMENT_ROWS)
        sql(
            f"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {rows}) "
            f"INSERT INTO t (v) SELECT hex(randomblob({_TEXT_BYTES // 2})) FROM c"
        )
        left -= rows
    client.send("POST", f"{database}/sync")


def _names(size: str, count: int) -> list[str]:
    return [f"w{size.lower().replace(' ', '')}-{i}" for i in range(count)]


def _wake(child: Child, client: KeptClient, name: str) -> tuple[float, Counters]:
    """Return (seconds, what it asked of the store) of the first read of a profile."""
    before = scrape(child)
    start_s = time.perf_counter()
    client.send("GET", f"/v1/db/{name}/kv/s/k")
    return time.perf_counter() - start_s, scrape(child) - before


def _measure(
    backing: Backing, folder: Path, sizes: Sequence[tuple[str, int, int]], rounds: int
) -> list[list[str]]:
    place = backing.fresh()
    with place.node(folder) as child:
        client = KeptClient(child.host, child.port)
        for size, size_bytes, count in (("first", KIB, 1), *sizes):
            for name in _names(size, count):
                _fill(client, name, size_bytes)
        settle(child)
        client.close()
    seen: dict[str, list[tuple[float, Counters]]] = {size: [] for size, _, _ in sizes}
    for _ in range(rounds):
        shutil.rmtree(folder / "data")
        with place.node(folder) as child:
            client = KeptClient(child.host, child.port)
            _wake(
                child, client, *_names("first", 1)
            )  # pays for what a process needs once, its first connections too
            for size, _, count in sizes:
                seen[size] += [_wake(child, client, name) for name in _names(size, count)]
            client.close()
        files = {size: _file_bytes(folder, size_bytes) for size, size_bytes, _ in sizes}
    return [_line(backing.name, size, samples, files[size]) for size, samples in seen.items()]


def _file_bytes(folder: Path, size_bytes: int) -> int:
    """Return the size of the restored file that is nearest to `size_bytes`."""
    found = (path.stat().st_size for path in (folder / "data").rglob("*.db") if path.name != "registry.db")
    return min(found, key=lambda size: abs(size - size_bytes), default=0)


def _line(store: str, size: str, samples: list[tuple[float, Counters]], file_bytes: int) -> list[str]:
    row = Row.of(size, size, [seconds for seconds, _ in samples])
    spent = [counters for _, counters in samples]
    received = sum(c.value("store_bytes_total", direction="received") for c in spent) / len(spent)
    return [
        store,
        size,
        str(row.n),
        duration(row.p50_s),
        duration(max(seconds for seconds, _ in samples)),
        f"{sum(c.all_requests for c in spent) / len(spent):.1f}",
        f"{received / 1e6:,.2f} MB",
        f"{file_bytes / 1e6:,.2f} MB",
    ]


def measure(*, quick: bool) -> list[Table]:
    """Return the table of cold wakes."""
    sizes, rounds = (_QUICK_SIZES, 1) if quick else (SIZES, 3)
    table = Table("Cold wakes over HTTP on each object store", _COLUMNS)
    with watched() as busy, backings() as stores:
        _all(stores, table, sizes, rounds)
    table.notes = [
        *stores.notes,
        (
            f"In {rounds} rounds the node is stopped, its data directory deleted, and a new process started on the empty "
            "directory, which rebuilds the catalog from the store; then each profile is read once (GET of a key) over "
            "a connection that is open, after one profile that does not count."
        ),
        (
            "Requests and received bytes are what one wake asks of the store; the file is what it leaves on disk. "
            "Profiles are tables of random hex digits, which compress to about half."
        ),
        "The local directory's objects were just written, so they are read from the page cache; MinIO's too.",
        f"{busy}.",
    ]
    return [table]


def _all(stores: Backings, table: Table, sizes: Sequence[tuple[str, int, int]], rounds: int) -> None:
    for backing in stores.all:
        with temporary_folder() as folder:
            table.rows += _measure(backing, folder, sizes, rounds)
