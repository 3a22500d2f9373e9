"""The failure table: each fault under load, what clients saw of it and for how long, and what was lost.

    make failures                      every fault with the default lease, as a table for docs/operations/failures.md
    make failures FAULTS="kill stop-etcd"

A fault strikes the owner of the database that the load is on, three seconds into the load, and is undone after a while. The
times are those of clients behind two gateways.
"""

# ruff: noqa: T201 - a command prints

import argparse
import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy import Mode

from cluster.harness import SERVICES, Cluster, Process, running_cluster
from cluster.load import CACHED, LEVELS, READER, Load, Outage

TTL_S = 10
WARM_S = 3.0
"""How long the load runs before a fault."""
UNSHIPPED_S = 1.5
SETTLE_S = 2.0
"""How long it goes on after everything is mended."""


def nothing(cluster: Cluster, owner: Process) -> None:
    """Leave it to `Cluster.recover`."""


def cut(target: str) -> Callable[[Cluster, Process], None]:
    """Return the fault that cuts the owner from a service."""
    return lambda cluster, owner: cluster.cut(owner.name, target)


def cut_from_gateways(cluster: Cluster, owner: Process) -> None:
    for gateway in cluster.gateways:
        cluster.cut(gateway.name, owner.name)


def cut_from_nodes(cluster: Cluster, owner: Process) -> None:
    for node in cluster.nodes:
        if node is not owner:
            cluster.cut(owner.name, node.name)
            cluster.cut(node.name, owner.name)


def kill_leader(cluster: Cluster, _: Process) -> None:
    cluster.etcd.leader().kill()


def stop_etcd(cluster: Cluster, _: Process) -> None:
    for member in cluster.etcd.members:
        member.kill()


def wipe_etcd(cluster: Cluster, _: Process) -> None:
    cluster.etcd.wipe()


def cut_bucket(cluster: Cluster, _: Process) -> None:
    for node in cluster.nodes:
        cluster.cut(node.name, "bucket")


def cut_catalog(cluster: Cluster, _: Process) -> None:
    for node in cluster.nodes:
        cluster.cut(node.name, "catalog", Mode.REFUSE)


def kill_unshipped(cluster: Cluster, owner: Process) -> None:
    """Let the owner collect commits that object storage does not have, then kill it."""
    cluster.cut(owner.name, "bucket")
    time.sleep(UNSHIPPED_S)
    owner.kill()


@dataclass(frozen=True, slots=True)
class Fault:
    """`ttls` and `more_s`: how long it lasts, in lease times and seconds. `takeovers`: how often it may take a branch away
    from an owner whose disk has more than the bucket and the sync set.
    """

    name: str
    title: str
    strike: Callable[[Cluster, Process], object]
    ttls: float
    more_s: float = 2.0
    takeovers: int = 0
    interrupts: bool = True
    """Whether writes may wait for a lease to end."""
    wired: bool = False
    """Whether it cuts nodes and gateways from one another."""


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "the owner is killed (`kill -9`)", lambda _, owner: owner.kill(), 1, takeovers=1),
        Fault(
            "kill-unshipped",
            f"the owner is cut off from the bucket, and killed {UNSHIPPED_S:g} s later",
            kill_unshipped,
            1,
            2 + UNSHIPPED_S,
            takeovers=1,
        ),
        Fault(
            "pause", "the owner is paused past its lease", lambda _, owner: owner.pause(), 1, 4, takeovers=1
        ),
        Fault(
            "term", "the owner is stopped (SIGTERM)", lambda _, owner: owner.stop(), 0, 2, interrupts=False
        ),
        Fault("cut-etcd", "the owner is cut off from etcd", cut("etcd"), 1, 4, takeovers=1),
        Fault("cut-bucket", "the owner is cut off from the bucket", cut("bucket"), 0, 6),
        Fault("cut-gateways", "the owner is cut off from the gateways", cut_from_gateways, 0, 5, wired=True),
        Fault("cut-nodes", "the owner is cut off from the other nodes", cut_from_nodes, 0, 5, wired=True),
        Fault(
            "isolate",
            "the owner is cut off from everything",
            lambda cluster, owner: cluster.isolate(owner.name, services=SERVICES),
            1,
            4,
            takeovers=1,
            wired=True,
        ),
        Fault("etcd-leader", "etcd's leader is killed", kill_leader, 0, 4, interrupts=False),
        Fault("stop-etcd", "etcd is stopped", stop_etcd, 1, 4, takeovers=1),
        Fault("wipe-etcd", "etcd is emptied (data and revisions)", wipe_etcd, 1, 3),
        Fault("stop-bucket", "the bucket does not answer", cut_bucket, 0, 6),
        Fault("stop-catalog", "the catalog does not answer", cut_catalog, 0, 5, interrupts=False),
        Fault(
            "kill-gateway",
            "a gateway is killed",
            lambda cluster, _: cluster.gateways[0].kill(),
            0,
            2,
            interrupts=False,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one fault did. `wrong` is what the checkers found, and is empty."""

    fault: Fault
    lasted_s: float
    outages: dict[str, Outage]
    """By level of writes, and of reads as `read` and `cached`."""
    lost: Counter[str]
    wrong: list[str]
    operations: Counter[str]
    owner: str
    new_owner: str


async def strike(
    cluster: Cluster,
    fault: Fault,
    database: str,
    *,
    ttl_s: float,
    warm_s: float = WARM_S,
    seed: int = 0,
) -> Outcome:
    """Do one fault under load, undo it, and look at everything."""
    urls = [gateway.url for gateway in cluster.gateways] or [node.url for node in cluster.nodes]
    path = cluster.folder / f"history-{fault.name}-{database}.jsonl"
    async with Load(
        urls, cluster.token(ns=database.partition("--")[0]), [database], seed=seed, path=path
    ) as load:
        await asyncio.sleep(warm_s)
        await load.acknowledged(20)
        owner = cluster.owner_node(database)
        began_s = time.monotonic()
        await asyncio.to_thread(fault.strike, cluster, owner)
        await asyncio.sleep(max(0.0, fault.ttls * ttl_s + fault.more_s - (time.monotonic() - began_s)))
        lasted_s = time.monotonic() - began_s
        found = await asyncio.to_thread(cluster.owner, database) if fault.name != "stop-etcd" else None
        await asyncio.to_thread(cluster.recover)
        await load.acknowledged(10, within_s=ttl_s * 2 + 20)
        await asyncio.sleep(min(SETTLE_S, warm_s))
        await load.stop()
        outages = {level: load.outage(began_s, level=level) for level in LEVELS}
        outages["read"] = load.outage(began_s, kinds=("read", "recall", "books"), level=READER)
        outages["cached"] = load.outage(began_s, kinds=(CACHED,), level=CACHED)
        wrong = await load.verdict(takeovers=fault.takeovers)
        return Outcome(
            fault,
            lasted_s,
            outages,
            load.lost,
            wrong,
            Counter(operation.outcome for operation in load.history.operations),
            owner.name,
            found[0] if found else "",
        )


# ---- the table


def row(outcome: Outcome) -> str:
    """Return a line of the table."""
    refused: Counter[str] = Counter()
    for outage in outcome.outages.values():
        refused += outage.errors
    said = ", ".join(f"{name} ({count})" for name, count in refused.most_common(4)) or "nothing"
    gaps = " | ".join(f"{outcome.outages[level].gap_s:.1f}" for level in (*LEVELS, "read", "cached"))
    lost = ", ".join(f"{count} {level}" for level, count in outcome.lost.items()) or "nothing"
    return f"| {outcome.fault.title}, for {outcome.lasted_s:.0f} s | {gaps} | {said} | {lost} |"


async def measure(cluster: Cluster, names: Sequence[str], ttl_s: float) -> list[Outcome]:
    """Do these faults one after the other, each on a database of its own."""
    outcomes = []
    for number, name in enumerate(names):
        outcome = await strike(cluster, FAULTS[name], f"fault--{name}-{number}", ttl_s=ttl_s, seed=number)
        outcomes.append(outcome)
        print(row(outcome), flush=True)
        for wrong in outcome.wrong[:5]:
            print(f"    WRONG: {wrong}", flush=True)
    return outcomes


def main() -> int:
    """Measure, print the table, and return 1 if a checker found anything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="*", metavar="fault", help=" ".join(FAULTS))
    parser.add_argument("--ttl", type=int, default=TTL_S, help="seconds of a lease")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the cluster would stay behind
    unknown = set(asked.faults) - FAULTS.keys()
    if unknown:
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, lease {asked.ttl} s"
    )
    print("| fault | local | replicated | durable | reads | cached reads | answers that were errors | lost |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    outcomes: list[Outcome] = []
    for wired in (False, True):
        names = [name for name in asked.faults or FAULTS if FAULTS[name].wired is wired]
        if not names:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="memoturn-failures-") as folder,
            running_cluster(Path(folder), members=3, ttl_s=asked.ttl, wired=wired) as cluster,
        ):
            outcomes += asyncio.run(measure(cluster, names, asked.ttl))
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
