"""Many profiles on a cluster of three nodes, a hundredth of them active: what the others cost, and what it takes when a node dies.

Every figure has a key, by which `docs/scale.md` refers to it (bench/scale_model.py).
"""

import asyncio
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import msgspec
import uvloop

from bench.fleet import Fleet, Member, Watcher, running, total
from bench.machine import process_cpu_s, watched
from bench.nodes import temporary_folder
from bench.scale_clients import CLIENTS_PER_NODE, WRITERS, lookups, provision_all, use_each, write_each
from bench.stats import Table, percentile
from memoturnd.leases.etcd_records import Keys, NodeRecord, OwnerRecord

NODES: Final = 3
KEYED_COLUMNS: Final = ("figure", "value", "unit", "what")
_SETTLE_S: Final = 300.0
_PROVISIONED: Final = "agent-{:06d}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `placements` are owners' keys that are written into etcd for one gateway."""

    profiles: int
    active: int
    placements: int
    rest_s: float
    lookups: int
    requests: int
    ttl_s: int
    quiet_s: float
    """Time after which Postgres has counted what was done: a server process that is idle tells within 10 s."""


class Figures:
    """Figures of one table, each under its key."""

    def __init__(self, title: str) -> None:
        self.table = Table(title, KEYED_COLUMNS)

    def add(self, key: str, value: float, unit: str, what: str) -> None:
        """Add one, with four significant digits or whole."""
        shown = str(round(value)) if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"
        self.table.rows.append([key, shown, unit, what])


def measure(*, quick: bool, profiles: int = 100_000) -> list[Table]:
    """Return the tables. Raises RuntimeError where etcd or Postgres cannot be had."""
    sizes = (
        Sizes(200, 12, 500, 0.5, 20, 50, 2, 0.1)
        if quick
        else Sizes(profiles, max(NODES, profiles // 100), profiles, 30.0, 1000, 5000, 10, 11.0)
    )
    with temporary_folder() as folder, watched() as busy, running(folder, ttl_s=sizes.ttl_s) as fleet:
        tables = _Run(fleet, sizes).all()
    tables[0].notes += [
        f"{busy}.",
        "All processes share this machine's cores. etcd and Postgres run without fsync, the object store is a folder.",
    ]
    return tables


class _Run:
    """One run: the steps build on each other."""

    def __init__(self, fleet: Fleet, sizes: Sizes) -> None:
        self.fleet = fleet
        self.sizes = sizes
        settings = {"WARM_AFTER_S": "3600", "COLD_AFTER_S": "7200"}
        with ThreadPoolExecutor() as pool:
            gateway = pool.submit(fleet.start_gateway, "g1")
            others = list(pool.map(lambda name: fleet.start_node(name, **settings), ("n1", "n2")))
        # Alone, since how long it takes is measured.
        self.nodes = [*others, fleet.start_node("n3", **settings)]
        self.gateway = gateway.result()
        self.watcher = Watcher(fleet)
        self.names = [_PROVISIONED.format(i) for i in range(sizes.profiles)]
        every = sizes.profiles // sizes.active
        self.active = self.names[::every][: sizes.active]
        self.rest_statements = 0.0
        self.rest = Table("At rest, per second", ("figure", "unit", "what"))

    def all(self) -> list[Table]:
        """Measure everything, in order."""
        empty_start_s = self.nodes[-1].started_s
        self._rest("empty")
        provisioned = self._provision()
        self._rest("provisioned")
        active = self._activate()
        self._rest("active")
        hot = self._use()
        caches = self._caches()
        starts = self._starts(empty_start_s)
        failover = self._failover()
        self.watcher.close()
        return [provisioned, active, self.rest, hot, caches, starts, failover]

    # ---- steps

    def _provision(self) -> Table:
        figures, fleet = Figures("Profiles provisioned"), self.fleet
        before = [node.resident_bytes() for node in self.nodes]
        descriptors = [node.descriptors() for node in self.nodes]
        keys, objects = len(fleet.owner_keys()), fleet.bucket()[0]
        start_s = time.monotonic()
        shares = [self.names[at::NODES] for at in range(NODES)]
        uvloop.run(provision_all(list(zip(self.nodes, shares, strict=True))))
        took_s = time.monotonic() - start_s
        drained_s = self._exported(start_s)
        count = len(self.names)
        fleet.rows("VACUUM (ANALYZE) databases")
        row_bytes = fleet.number("SELECT pg_relation_size('databases')") / count
        all_bytes = fleet.number("SELECT pg_total_relation_size('databases')")
        exported = [path.stat().st_size for path in (fleet.objects / "v1" / "_catalog").rglob("*.json")]
        figures.add("profiles", count, "", f"provisioned through the API of {NODES} nodes")
        figures.add(
            "provision_s", took_s, "s", f"for all of them, {NODES * CLIENTS_PER_NODE} requests at a time"
        )
        figures.add("provision_rate", count / took_s, "1/s", "profiles provisioned")
        figures.add("export_lag_s", max(0.0, drained_s - took_s), "s", "after that, until the export had all")
        figures.add("catalog_row_bytes", row_bytes, "bytes", "of the catalog's table for each profile")
        figures.add("catalog_profile_bytes", all_bytes / count, "bytes", "of the table with its indexes")
        figures.add("export_objects", len(exported), "", "objects of the catalog's export")
        figures.add("export_profile_bytes", sum(exported) / count, "bytes", "of them for each profile")
        grown = fleet.bucket()[0] - objects - len(exported)
        figures.add(
            "provisioned_objects", grown, "", "objects in the bucket besides, for all profiles together"
        )
        figures.add("provisioned_owner_keys", len(fleet.owner_keys()) - keys, "", "keys of owners in etcd")
        grown_bytes = [node.resident_bytes() - was for node, was in zip(self.nodes, before, strict=True)]
        figures.add("node_rss_empty", max(before) / 2**20, "MiB", "resident in a node before, the largest")
        rss = max(node.resident_bytes() for node in self.nodes)
        figures.add("node_rss_provisioned", rss / 2**20, "MiB", "resident in a node after, the largest")
        figures.add("node_provisioned_bytes", max(grown_bytes) / count, "bytes", "of that for each profile")
        opened = max(node.descriptors() - was for node, was in zip(self.nodes, descriptors, strict=True))
        figures.add("provisioned_descriptors", opened, "", "files that a node has open more than before")
        lookups_s = asyncio.run(lookups(fleet.catalog_url, self.names, self.sizes.lookups))
        figures.add(
            "lookup_p50_us", percentile(lookups_s, 0.5) * 1e6, "us", "a lookup by name in Postgres, p50"
        )
        figures.add("lookup_p99_us", percentile(lookups_s, 0.99) * 1e6, "us", "p99")
        return figures.table

    def _exported(self, start_s: float) -> float:
        """Wait until the export has all, and return the seconds since the start."""
        deadline_s = time.monotonic() + _SETTLE_S
        waiting = "SELECT (SELECT count(*) FROM exports) + (SELECT count(*) FROM databases WHERE NOT queued AND NOT written)"
        while self.fleet.number(waiting):
            if time.monotonic() > deadline_s:
                raise RuntimeError("the catalog was not exported within the time that this takes")
            time.sleep(0.2)
        return time.monotonic() - start_s

    def _activate(self) -> Table:
        figures, fleet, count = Figures("Profiles active"), self.fleet, len(self.active)
        etcd, before_keys = fleet.etcd_counters(), len(fleet.owner_keys())
        rss = sum(node.resident_bytes() for node in self.nodes)
        descriptors = sum(node.descriptors() for node in self.nodes)
        objects, size_bytes = fleet.bucket()
        (committed, at_s), requests = self._committed(), self._requests()
        events, watched_bytes = self.watcher.events, self.watcher.size_bytes
        start_s = time.monotonic()
        uvloop.run(write_each(self.gateway, self.active, "first", WRITERS))
        took_s = time.monotonic() - start_s
        self._settle()
        after = fleet.etcd_counters()
        pairs = fleet.owner_keys()
        figures.add("active", count, "", f"profiles written to once, through a gateway, {WRITERS} at a time")
        figures.add("activate_rate", count / took_s, "1/s", "profiles that became active")
        figures.add("owner_keys", len(pairs) - before_keys, "", "keys of owners more in etcd")
        each = sum(len(key) + len(value) for key, value in pairs) / max(1, len(pairs))
        figures.add("owner_key_bytes", each, "bytes", "of one with its value")
        grown = (fleet.bucket()[0] - objects) / count
        figures.add(
            "watch_events", (self.watcher.events - events) / count, "", "events of the watch for each"
        )
        told = (self.watcher.size_bytes - watched_bytes) / max(1, self.watcher.events - events)
        figures.add("watch_event_bytes", told, "bytes", "of an event, for each who watches")
        sent = _between(etcd, after, "grpc_server_handled_total", 'grpc_method="Txn"')
        figures.add("activate_transactions", sent / count, "", "transactions of etcd for each")
        figures.add(
            "activate_requests", (self._requests() - requests) / count, "", "requests to the object store"
        )
        figures.add(
            "activate_statements", self._statements(committed, at_s) / count, "", "transactions of Postgres"
        )
        figures.add("active_objects", grown, "", "objects in the bucket for each")
        figures.add(
            "active_object_bytes", (fleet.bucket()[1] - size_bytes) / count, "bytes", "of them together"
        )
        active_bytes = (sum(node.resident_bytes() for node in self.nodes) - rss) / count
        figures.add("active_rss_bytes", active_bytes, "bytes", "resident in its node for each")
        opened = (sum(node.descriptors() for node in self.nodes) - descriptors) / count
        figures.add("active_descriptors", opened, "", "files open for each")
        largest = max(node.resident_bytes() for node in self.nodes)
        figures.add("node_rss_active", largest / 2**20, "MiB", "resident in a node, the largest")
        figures.add("gateway_rss", self.gateway.resident_bytes() / 2**20, "MiB", "resident in the gateway")
        size = total(after, "etcd_mvcc_db_total_size_in_bytes") - total(
            etcd, "etcd_mvcc_db_total_size_in_bytes"
        )
        figures.add("etcd_grown_bytes", size, "bytes", "by which etcd's file grew")
        return figures.table

    def _use(self) -> Table:
        """Read and write what is active, in turn, and count what each request asks of etcd, Postgres and the bucket."""
        figures = Figures("Requests to active profiles")
        for key, method, what in (("read", "GET", "reads of a key"), ("write", "PUT", "writes of a key")):
            etcd, requests = self.fleet.etcd_counters(), self._requests()
            committed, at_s = self._committed()
            start_s = time.monotonic()
            uvloop.run(use_each(self.gateway, self.active, method, self.sizes.requests))
            took_s, count = time.monotonic() - start_s, self.sizes.requests
            self._settle()
            time.sleep(1.0)  # statistics of Postgres come a moment later
            after = self.fleet.etcd_counters()
            asked = _between(etcd, after, "grpc_server_handled_total", 'grpc_service="etcdserverpb.KV"')
            figures.add(
                f"{key}_rate", count / took_s, "1/s", f"{what} through a gateway, {WRITERS} at a time"
            )
            figures.add(
                f"{key}_statements",
                self._statements(committed, at_s) / count,
                "",
                "transactions of Postgres for each",
            )
            figures.add(f"{key}_etcd", asked / count, "", "calls of etcd for each")
            figures.add(
                f"{key}_requests",
                (self._requests() - requests) / count,
                "",
                "requests to the object store for each",
            )
        figures.table.notes.append("Without the transactions of Postgres that nodes make at rest.")
        return figures.table

    def _rest(self, state: str) -> None:
        """Measure what happens while nobody asks anything; add it as a column."""
        time.sleep(self.sizes.quiet_s)
        begun = self._at_rest()
        start_s = time.monotonic()
        time.sleep(self.sizes.rest_s)
        ended, took_s = self._at_rest(), time.monotonic() - start_s
        table = self.rest
        table.columns = (*table.columns[:-2], f"{state}", *table.columns[-2:])
        rows = [
            ("rest_node_cpu", "ms", f"processor time of a node, mean of {NODES}"),
            ("rest_gateway_cpu", "ms", "processor time of the gateway"),
            ("rest_requests", "1", f"requests of {NODES} nodes to the object store"),
            ("rest_statements", "1", f"transactions of {NODES} nodes in Postgres"),
            ("rest_renewals", "1", f"renewals of leases, of {NODES} nodes"),
            ("rest_transactions", "1", "transactions of etcd"),
            ("rest_events", "1", "events of the watch"),
            ("rest_watch_bytes", "bytes", "of the watch, for each who watches"),
        ]
        for at, (key, unit, what) in enumerate(rows):
            value = f"{(ended[at] - begun[at]) / took_s:.3g}"
            if len(table.rows) <= at:
                table.rows.append([key, unit, what])
            table.rows[at] = [*table.rows[at][:-2], value, unit, what]
        self.rest_statements = (ended[3] - begun[3]) / took_s
        if not table.notes:
            table.notes.append(
                f"Over {self.sizes.rest_s:g} s each: before anything was provisioned, with {self.sizes.profiles:,} profiles "
                f"provisioned, and with {len(self.active):,} of them active, all shipped."
            )

    def _at_rest(self) -> tuple[float, ...]:
        etcd = self.fleet.etcd_counters()
        return (
            1000 * sum(process_cpu_s(node.pid) for node in self.nodes) / NODES,
            1000 * process_cpu_s(self.gateway.pid),
            self._requests(),
            self._committed()[0],
            total(etcd, "grpc_server_handled_total", 'grpc_method="LeaseKeepAlive"'),
            total(etcd, "grpc_server_handled_total", 'grpc_method="Txn"'),
            self.watcher.events,
            self.watcher.size_bytes,
        )

    def _caches(self) -> Table:
        """A new gateway for as many placements: none, those of the active, and those of a cluster of its own in etcd."""
        table = Table(
            "A gateway's cache",
            ("figure", "placements", "ready after", "resident", "processor time", "etcd bytes each"),
        )
        self._cache(table, "none", 0, self._bulk("/none/", 0))
        self._cache(table, "active", len(self.active), self.fleet.prefix)
        many, size_bytes = self.sizes.placements, self._etcd_bytes()
        prefix = self._bulk("/many/", many)
        grown_bytes = self._etcd_bytes() - size_bytes
        self._cache(table, "many", many, prefix, grown_bytes / many)
        for prefix in ("/none/", "/many/"):
            self.fleet.delete_all(prefix)
        table.notes += [
            "From the start of the process to a good answer of GET /ready, s, whose cache is full then; MiB; s.",
            "etcd was given the keys of the last line in bulk; they are as long as a node's own. Its file grew by so many bytes for each.",
        ]
        return table

    def _cache(self, table: Table, key: str, placements: int, prefix: str, each_bytes: float = 0.0) -> None:
        gateway = self.fleet.start_gateway(f"gateway-{key}", prefix)
        known = total(gateway.counters(), "memoturn_gateway_placements")
        if known != placements:
            raise RuntimeError(f"the gateway is ready with {known:.0f} placements of {placements}")
        used_s, mib = process_cpu_s(gateway.pid), gateway.resident_bytes() / 2**20
        cells = [
            f"cache_{key}",
            str(placements),
            f"{gateway.started_s:.3g}",
            f"{mib:.4g}",
            f"{used_s:.3g}",
            f"{each_bytes:.0f}",
        ]
        table.rows.append(cells)
        gateway.stop()

    def _etcd_bytes(self) -> float:
        return total(self.fleet.etcd_counters(), "etcd_mvcc_db_total_size_in_use_in_bytes")

    def _bulk(self, prefix: str, count: int) -> str:
        """Write a node and so many owners below a prefix of their own."""
        keys, address = Keys(prefix), f"http://{self.nodes[0].host}:{self.nodes[0].port}"
        pairs = [(keys.node("n1"), msgspec.json.encode(NodeRecord(address, "bench")))]
        for i in range(count):
            record = OwnerRecord("n1", address, f"default/{_PROVISIONED.format(i)}", "main")
            pairs.append((keys.owner(f"{i:032x}"), msgspec.json.encode(record)))
        self.fleet.put_all(pairs)
        return prefix

    def _starts(self, empty_start_s: float) -> Table:
        figures = Figures("A node's start")
        figures.add("start_empty_s", empty_start_s, "s", "of a new node, with nothing provisioned")
        fresh = self.fleet.start_node("n4")
        figures.add("start_provisioned_s", fresh.started_s, "s", "of a new node, with all provisioned")
        figures.add("start_rss", fresh.resident_bytes() / 2**20, "MiB", "resident in it then")
        figures.add("stop_s", fresh.stop(), "s", "to stop it")
        return figures.table

    def _failover(self) -> Table:
        """Kill the node that owns most, and write to all that it owned at once."""
        figures, fleet = Figures("A node dies"), self.fleet
        owned: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for _, value in fleet.owner_keys():
            record = msgspec.json.decode(value, type=OwnerRecord)
            owned.get(record.node_id, []).append(record.database.rpartition("/")[2])
        victim = max(self.nodes, key=lambda node: len(owned[node.name]))
        names = owned[victim.name]
        left = [node for node in self.nodes if node is not victim]
        etcd, events = fleet.etcd_counters(), self.watcher.events
        requests = sum(_store_requests(node) for node in left)
        cpu_s = sum(process_cpu_s(node.pid) for node in left)
        victim.process.send_signal(signal.SIGKILL)
        start_s = time.monotonic()
        victim.process.wait()
        ended_s = sorted(
            at_s - start_s for at_s in uvloop.run(write_each(self.gateway, names, "again", len(names)))
        )
        cpu_s = sum(process_cpu_s(node.pid) for node in left) - cpu_s
        sent = _between(etcd, fleet.etcd_counters(), "grpc_server_handled_total", 'grpc_method="Txn"')
        figures.add(
            "failover_branches",
            len(names),
            "",
            "active branches of a node that is killed, all written to at once",
        )
        figures.add("failover_ttl_s", self.sizes.ttl_s, "s", "MEMOTURN_LEASE_TTL_S")
        figures.add("failover_first_s", ended_s[0], "s", "from the kill to the first acknowledged write")
        figures.add("failover_median_s", percentile(ended_s, 0.5), "s", "to half of them")
        figures.add("failover_all_s", ended_s[-1], "s", "to all of them")
        rate = len(names) / max(0.001, ended_s[-1] - ended_s[0])
        figures.add("takeover_rate", rate, "1/s", f"branches taken over between, by {len(left)} nodes")
        figures.add(
            "takeover_cpu_ms", 1000 * cpu_s / len(names), "ms", "processor time of those nodes for each"
        )
        figures.add("takeover_transactions", sent / len(names), "", "transactions of etcd for each")
        asked = sum(_store_requests(node) for node in left) - requests
        figures.add("takeover_requests", asked / len(names), "", "requests to the object store for each")
        figures.add(
            "takeover_events", (self.watcher.events - events) / len(names), "", "events of the watch for each"
        )
        stopping = left[0]
        held = total(stopping.counters(), "memoturn_leases_held")
        figures.add("handover_branches", held, "", "active branches of a node that is stopped in order")
        figures.add("handover_s", stopping.stop(), "s", "until it has given all of them back and ended")
        return figures.table

    # ---- what is counted

    def _committed(self) -> tuple[float, float]:
        """Return how many transactions Postgres has counted, and the second of it."""
        asked = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return self.fleet.number(asked), time.monotonic()

    def _statements(self, committed: float, at_s: float) -> float:
        """Return the transactions since then, without what nodes do at rest."""
        time.sleep(self.sizes.quiet_s)
        now, now_s = self._committed()
        return max(0.0, now - committed - self.rest_statements * (now_s - at_s))

    def _requests(self) -> float:
        return sum(_store_requests(node) for node in self.nodes)

    def _settle(self) -> None:
        """Wait until everything is shipped."""
        deadline_s = time.monotonic() + _SETTLE_S
        while any(total(node.counters(), "memoturn_unshipped_bytes") for node in self.nodes):
            if time.monotonic() > deadline_s:
                raise RuntimeError("the nodes did not ship what they had within the time that this takes")
            time.sleep(0.2)


def _store_requests(node: Member) -> float:
    return total(node.counters(), "memoturn_store_requests_total")


def _between(before: dict[str, float], after: dict[str, float], name: str, *parts: str) -> float:
    return total(after, name, *parts) - total(before, name, *parts)
