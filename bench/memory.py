"""Resident memory and descriptors of a node with many profiles known and some of them hot."""

import time
from collections import Counter
from pathlib import Path
from typing import Final

from bench import workload
from bench.machine import watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import Table
from bench.wire import KeptClient, encode

HOT_PROFILE_BYTES: Final = 450 * 1024
HOT_PROFILE_DESCRIPTORS: Final = 6
DIMENSIONS: Final = 256
# More steps than the event loop gives a user statement, so that it runs on the second connection.
_READ_IN_POOL: Final = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) SELECT count(*) FROM c"
)
_SETTLE_S: Final = 30.0


def _status(child: Child) -> dict[str, int]:
    """Return the resident sizes in bytes from /proc."""
    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    return {
        line.partition(":")[0]: int(line.split()[1]) * 1024
        for line in lines
        if line.startswith(("VmRSS", "RssAnon", "RssFile", "RssShmem"))
    }


def _descriptors(child: Child) -> Counter[str]:
    """Return how many descriptors are open per kind of file."""
    folder = Path(f"/proc/{child.pid}/fd")
    kinds: Counter[str] = Counter()
    for entry in folder.iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        kinds[_kind(target)] += 1
    return kinds


def _kind(target: str) -> str:
    """Return which of a profile's files a descriptor is open on."""
    if "/dbs/" not in target:
        return "other"
    return target[-3:] if target.endswith(("-wal", "-shm")) else "database"


def _metric(client: KeptClient, name: str) -> float:
    for line in client.send("GET", "/metrics").decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise RuntimeError(f"GET /metrics has no {name}")


def _settle(client: KeptClient) -> None:
    """Wait until everything is shipped."""
    deadline_s = time.monotonic() + _SETTLE_S
    while _metric(client, "memoturn_unshipped_bytes") > 0:
        if time.monotonic() > deadline_s:
            raise RuntimeError("the node did not ship what it had within the time that this takes")
        time.sleep(0.2)


def _heat(client: KeptClient, names: list[str]) -> None:
    """Make each profile hot: a memory with an embedding, a key, a read on each of its two connections."""
    vectors = workload.embeddings(range(len(names)), DIMENSIONS).tolist()
    read_in_pool = encode({"stmts": [{"q": _READ_IN_POOL}]})
    for i, name in enumerate(names):
        body = encode({"memories": [workload.event(i, vectors[i])]})
        client.send("POST", f"/v1/memory/bench/{name}/memories", body)
        client.send("PUT", f"/v1/db/bench--{name}/kv/s/k", b"v")
        client.send("GET", f"/v1/db/bench--{name}/kv/s/k")
        client.send("POST", f"/v1/db/bench--{name}/sql", read_in_pool)


def measure(*, quick: bool) -> list[Table]:
    """Return the table of memory and descriptors."""
    provisioned, hot = (200, 20) if quick else (10_000, 1_000)
    with temporary_folder() as folder, watched() as busy, child_node(folder, WARM_AFTER_S="3600") as child:
        client = KeptClient(child.host, child.port)
        started = _status(child)
        for i in range(provisioned - hot):
            client.send("POST", "/v1/databases", encode({"name": f"agent-{i}"}))
        # The first profile also pays for what the process needs once.
        _heat(client, ["first"])
        _settle(client)
        before, before_files = _status(child), _descriptors(child)
        _heat(client, [f"p{i}" for i in range(hot)])
        _settle(client)
        after, after_files = _status(child), _descriptors(child)
        counted = int(_metric(client, "memoturn_hot_handles"))
        client.close()
    if counted != hot + 1:
        raise RuntimeError(f"{counted} profiles are hot where {hot + 1} were to be")
    table = _table(started, before, after, hot, provisioned)
    files = (after_files - before_files).items()
    each = sum(count for _, count in files) / hot
    table.rows.append(
        _against("descriptors per hot profile", f"{each:.2f}", f"{HOT_PROFILE_DESCRIPTORS}", each <= 6)
    )
    kinds = ", ".join(f"{kind} {count / hot:.2f}" for kind, count in sorted(files))
    table.notes += [
        f"Descriptors per hot profile by file: {kinds}.",
        (
            "Each hot profile holds one memory with a 256-dim embedding and one key, all shipped, and has both of its "
            "connections open. Provisioned ones are rows of the catalog."
        ),
        f"{busy}.",
    ]
    return [table]


def _against(name: str, value: str, target: str, met: bool) -> list[str]:
    return [name, value, target, "met" if met else "MISSED"]


def _table(
    started: dict[str, int], before: dict[str, int], after: dict[str, int], hot: int, provisioned: int
) -> Table:
    table = Table("Memory of a node", ("what", "value", "target", ""))

    def mib(sizes: dict[str, int]) -> str:
        return f"{sizes['VmRSS'] / 2**20:,.1f} MiB"

    each = (after["VmRSS"] - before["VmRSS"]) / hot
    parts = ", ".join(
        f"{kind} {(after[kind] - before[kind]) / hot / 1024:.0f} KiB"
        for kind in ("RssAnon", "RssFile", "RssShmem")
    )
    table.rows += [
        ["resident at start", mib(started), "-", "-"],
        [f"resident, {provisioned - hot:,} provisioned, 1 hot", mib(before), "-", "-"],
        [f"resident, {provisioned:,} provisioned, {hot + 1:,} hot", mib(after), "-", "-"],
        _against(
            "resident per hot profile",
            f"{each / 1024:.0f} KiB",
            f"{HOT_PROFILE_BYTES // 1024} KiB",
            each <= HOT_PROFILE_BYTES,
        ),
    ]
    table.notes.append(f"Of the memory per hot profile: {parts}.")
    return table
