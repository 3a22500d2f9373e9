"""The model of `docs/scale.md`: what so many profiles take, worked out from what was measured. `python -m bench.scale_model` writes its tables.

Each line is a formula over assumptions, figures of the reports under `bench/`, and lines above it; the document shows the
formulas, and a test holds its tables to what this module makes of the reports that are there.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path
from typing import Final

from gateway.placements import PLACEMENTS_LIMIT

ROOT: Final = Path(__file__).parent.parent
DOCUMENT: Final = ROOT / "docs" / "scale.md"
_REPORT: Final = "bench/RESULTS-scale.md"
_BEGIN, _END = "<!-- model: {} -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that is chosen, not measured."""

    name: str
    value: float
    unit: str
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """A figure of another report: in which line and column it stands there."""

    name: str
    report: str
    title: str
    row: tuple[str, ...]
    column: str
    unit: str
    what: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the model. `formula` is Python over the names that are known above it."""

    name: str
    formula: str
    unit: str
    what: str


ASSUMPTIONS: Final = (
    Assumption("all_profiles", 100_000_000, "", "what the model is for"),
    Assumption("active_share", 0.01, "", "open on a node at the same time: one in a hundred, as measured"),
    Assumption("writes_each", 1 / 60, "1/s", "of an active profile: one a minute"),
    Assumption("reads_each", 1 / 10, "1/s", "of an active profile: six a minute"),
    Assumption("active_s", 3600, "s", "that a profile stays active, then another one is instead"),
    Assumption("node_hot_bytes", 4 * 2**30, "bytes", "of memory for open profiles in a node of one core"),
    Assumption("busy_share", 0.5, "", "of a core, of ships or of connections that is planned with"),
    Assumption("compacted_s", 300, "s", "of history that etcd keeps (`--auto-compaction-retention=5m`)"),
    Assumption("etcd_most_bytes", 8e9, "bytes", "that etcd's makers advise at most"),
    Assumption("etcd_most_writes", 10_000, "1/s", "of small keys that three members are planned with; etcd's makers measured more"),
    Assumption("postgres_connections", 16, "", "of one primary that look names up at the same time, each as fast as measured"),
    Assumption("placements_limit", PLACEMENTS_LIMIT, "", "owners that a gateway remembers (`gateway.placements.PLACEMENTS_LIMIT`)"),
    Assumption("stored_gb_usd", 0.023, "USD", "for a GB and month ([prices](costs.md#prices))"),
)  # fmt: skip

FOUND: Final = (
    Found("hot_kib", "bench/RESULTS.md", "Memory of a node", ("resident per hot profile",), "value", "KiB", "resident for a profile with memories, both connections open"),
    Found("hot_descriptors", "bench/RESULTS.md", "Memory of a node", ("descriptors per hot profile",), "value", "", "files open for it"),
    Found("read_cpu_us", "bench/RESULTS.md", "Throughput over HTTP, kept connections", ("kv read", "64", "64"), "node cpu", "us", "processor time of a node for a read"),
    Found("write_cpu_us", "bench/RESULTS.md", "Throughput over HTTP, kept connections", ("kv write", "64", "64"), "node cpu", "us", "for a write"),
    Found("ships_rate", "bench/RESULTS-object-stores.md", "Branches that one node keeps shipped", ("MinIO, obstore", "500"), "ships per second", "1/s", "ships of one node to a bucket"),
    Found("ship_cpu_ms", "bench/RESULTS-object-stores.md", "Branches that one node keeps shipped", ("MinIO, obstore", "500"), "node cpu per ship", "ms", "processor time of a node for a ship"),
    Found("gateway_rate", "bench/RESULTS-gateway.md", "Processor time of the gateway, 16 clients at once", ("GET a key of 100 bytes",), "requests/s and core", "1/s", "requests of a core of a gateway"),
    Found("write_usd", "docs/costs.md", "Requests per 1,000 writes", ("local, one at a time, each shipped alone",), "USD per million writes", "USD", "for a million writes that are shipped alone"),
)  # fmt: skip

LINES: Final[dict[str, tuple[Line, ...]]] = {
    "provisioned": (
        Line("catalog_gb", "all_profiles * catalog_profile_bytes / 1e9", "GB", "the catalog's table of databases with its indexes, in Postgres"),
        Line("export_gb", "all_profiles * export_profile_bytes / 1e9", "GB", "the catalog's export in the bucket, while none was ever written to"),
        Line("provision_hours", "all_profiles / provision_rate / 3600", "hours", "to provision all of them at the rate that was measured"),
        Line("objects_millions", "all_profiles * active_objects / 1e6", "million", "objects in the bucket once each was written to once"),
        Line("bucket_tb", "all_profiles * active_object_bytes / 1e12", "TB", "their bytes"),
        Line("bucket_usd", "bucket_tb * 1000 * stored_gb_usd", "USD/month", "what they cost to keep"),
        Line("owner_keys_idle", "all_profiles * provisioned_owner_keys", "", "keys in etcd for those that nobody writes to"),
    ),
    "active": (
        Line("active_count", "all_profiles * active_share", "", "active profiles"),
        Line("write_rate_all", "active_count * writes_each", "1/s", "writes of all"),
        Line("read_rate_all", "active_count * reads_each", "1/s", "reads of all"),
        Line("hot_gb", "active_count * hot_kib * 1024 / 1e9", "GB", "resident for active profiles, on all nodes"),
        Line("nodes_by_memory", "ceil(active_count * hot_kib * 1024 / node_hot_bytes)", "nodes", "by memory"),
        Line("nodes_by_ships", "ceil(write_rate_all / (ships_rate * busy_share))", "nodes", "by ships, where each write is shipped alone"),
        Line("nodes_by_cpu", "ceil((read_rate_all * read_cpu_us / 1e6 + write_rate_all * (write_cpu_us / 1e6 + ship_cpu_ms / 1e3) + active_count / active_s * takeover_cpu_ms / 1e3) / busy_share)", "nodes", "by processor time, one core each: reads, writes, ships, and becoming active"),
        Line("nodes", "max(nodes_by_memory, nodes_by_ships, nodes_by_cpu)", "nodes", "the most of these"),
        Line("active_per_node", "active_count / nodes", "", "active profiles of a node"),
        Line("descriptors_per_node", "active_per_node * hot_descriptors", "", "files that a node has open"),
        Line("ship_usd", "write_rate_all * 86400 * 30 / 1e6 * write_usd", "USD/month", "requests to the bucket, where each write is shipped alone"),
    ),
    "etcd": (
        Line("etcd_keys", "active_count + nodes", "", "keys in etcd"),
        Line("etcd_gb", "active_count * cache_many_etcd_bytes_each / 1e9", "GB", "etcd's file for them"),
        Line("takes", "active_count / active_s", "1/s", "branches taken, and as many given back"),
        Line("etcd_history_gb", "2 * takes * compacted_s * cache_many_etcd_bytes_each / 1e9", "GB", "more for the history until it is compacted"),
        Line("etcd_writes", "takes * (activate_transactions + 1)", "1/s", "transactions of etcd: taking and giving back"),
        Line("renewals", "nodes * rest_renewals_active / 3", "1/s", "renewals of leases: one lease for each node, whatever it owns"),
        Line("watch_events_rate", "2 * takes", "1/s", "events for each gateway"),
        Line("watch_mb", "watch_events_rate * watch_event_bytes / 1e6", "MB/s", "bytes of the watch for each gateway"),
        Line("watch_all_mb", "watch_mb * gateways", "MB/s", "for all gateways together, which etcd's members share"),
    ),
    "gateway": (
        Line("gateways", "ceil((read_rate_all + write_rate_all) / (gateway_rate * busy_share))", "cores", "gateways, one core each"),
        Line("placement_bytes", "(cache_many_resident - cache_none_resident) * 2**20 / cache_many_placements", "bytes", "of a gateway's memory for a placement"),
        Line("gateway_mb", "cache_none_resident * 2**20 / 1e6 + active_count * placement_bytes / 1e6", "MB", "resident in a gateway"),
        Line("cache_s", "cache_none_ready_after + active_count * (cache_many_ready_after - cache_none_ready_after) / cache_many_placements", "s", "from a gateway's start to its full cache"),
    ),
    "catalog": (
        Line("statements_rate", "read_rate_all * read_statements + write_rate_all * write_statements", "1/s", "lookups in Postgres for requests to active profiles"),
        Line("statements_active", "takes * activate_statements", "1/s", "more for becoming active"),
        Line("statements_idle", "nodes * rest_statements_provisioned / 3", "1/s", "more for what nodes do at rest"),
        Line("statements_all", "statements_rate + statements_active + statements_idle", "1/s", "all of them"),
        Line("connections_busy", "statements_all * lookup_p50_us / 1e6", "", "connections that are busy with them all the time, round trip included"),
    ),
    "failover": (
        Line("takeover_each_rate", "takeover_rate / 2", "1/s", "branches that a node takes over: two did at once"),
        Line("failover_spread_s", "failover_ttl_s + active_per_node / (takeover_each_rate * (nodes - 1))", "s", "until all of a dead node's branches are taken over, were all written to at once, spread over all nodes"),
        Line("failover_one_s", "failover_ttl_s + active_per_node / takeover_each_rate", "s", "were one node to take all of them"),
        Line("failover_transactions", "active_per_node * takeover_transactions", "", "transactions of etcd for it"),
        Line("failover_events", "active_per_node * takeover_events", "", "events for each gateway"),
        Line("handover_s_node", "active_per_node * handover_s / handover_branches", "s", "to stop a node in order"),
    ),
}  # fmt: skip
ORDER: Final = ("provisioned", "active", "gateway", "etcd", "catalog", "failover")

LIMITS: Final = (
    Line("by Postgres", "all_profiles * postgres_connections * busy_share / connections_busy", "profiles", "Look names up in a node's own memory for some seconds, as it does already while the catalog is away; then replicas of Postgres for lookups, then tenants over several catalogs"),
    Line("by what a gateway remembers", "all_profiles * placements_limit / active_count", "profiles", "Nothing breaks: what is not remembered is asked of a node, one hop more. Raise the limit, for so much memory, or give gateways a part of the tenants each"),
    Line("by etcd's file", "all_profiles * etcd_most_bytes / ((etcd_gb + etcd_history_gb) * 1e9)", "profiles", "An etcd of its own for each part of the tenants: leases know nothing of one another"),
    Line("by etcd's writes", "all_profiles * etcd_most_writes / (etcd_writes + renewals)", "profiles", "An etcd of its own for each part of the tenants: leases know nothing of one another"),
    Line("by the watch of a gateway", "all_profiles * 100 / watch_mb", "profiles", "At 100 MB/s each. An etcd for each part of the tenants, of which a gateway follows its own"),
)  # fmt: skip


def figures(root: Path = ROOT) -> dict[str, float]:
    """Return what was measured by name. Raises KeyError naming what a report lacks."""
    report = tables(root / _REPORT)
    known: dict[str, float] = {}
    for rows in report.values():
        if not rows or "figure" not in rows[0]:
            continue
        for row in rows:
            columns = [name for name in row if name not in {"figure", "unit", "what"}]
            for column in columns:
                name = (
                    row["figure"] if columns == ["value"] else f"{row['figure']}_{column.replace(' ', '_')}"
                )
                known[name] = number(row[column])
    for found in FOUND:
        rows = tables(root / found.report)[found.title]
        matching = [row for row in rows if tuple(row.values())[: len(found.row)] == found.row]
        if not matching:
            raise KeyError(f"{found.report} has no line {found.row} under {found.title}")
        known[found.name] = number(matching[0][found.column])
    return known


def tables(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return the lines of a report's tables by heading, each by column."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        drawn = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("|")
        ]
        if drawn:
            found[title] = [dict(zip(drawn[0], cells, strict=True)) for cells in drawn[2:]]
    return found


def number(cell: str) -> float:
    """Return the number that a cell begins with."""
    return float(cell.split(maxsplit=1)[0].replace(",", ""))


def worked_out(measured: Mapping[str, float]) -> dict[str, float]:
    """Return every assumption, figure and line by name."""
    known = dict(measured)
    for assumed in ASSUMPTIONS:
        if assumed.name in known:
            raise ValueError(f"{assumed.name} is there twice")
        known[assumed.name] = assumed.value
    for part in ORDER:
        for line in LINES[part]:
            if line.name in known:
                raise ValueError(f"{line.name} is there twice")
            known[line.name] = _value(line, known)
    return known


def _value(line: Line, known: Mapping[str, float]) -> float:
    code = compile(line.formula, line.name, "eval")
    names = {name: known[name] for name in code.co_names if name not in {"ceil", "max"}}
    return float(eval(code, {"__builtins__": {}, "ceil": ceil, "max": max}, names))


def shown(value: float) -> str:
    """Return a value with three significant digits."""
    if value == 0:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{rounded:,.0f}"


def rendered(measured: Mapping[str, float]) -> dict[str, str]:
    """Return each table of the document, in Markdown."""
    known = worked_out(measured)
    parts = {
        part: _markdown(
            ("line", "is", "unit", "formula", "what"),
            [(line.name, shown(known[line.name]), line.unit, f"`{line.formula}`", line.what) for line in LINES[part]],
        )
        for part in ORDER
    }  # fmt: skip
    parts["assumptions"] = _markdown(
        ("name", "is", "unit", "why"), [(a.name, shown(a.value), a.unit, a.why) for a in ASSUMPTIONS]
    )
    parts["figures"] = _markdown(
        ("name", "is", "unit", "what", "from"),
        [(f.name, shown(known[f.name]), f.unit, f.what, _link(f.report)) for f in FOUND],
    )
    limits = sorted(((_value(line, known), line) for line in LIMITS), key=lambda pair: pair[0])
    parts["limits"] = _markdown(
        ("limit", "reached at so many profiles", "formula", "what is done then"),
        [(line.name, shown(value), f"`{line.formula}`", line.what) for value, line in limits],
    )
    return parts


def _link(report: str) -> str:
    name = report.rpartition("/")[2]
    return f"[{name}]({name if report.startswith('docs/') else f'../{report}'})"


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(text: str, parts: Mapping[str, str]) -> str:
    """Return the document with these tables in their places. Raises ValueError where one has no place."""
    for part, table in parts.items():
        begin = _BEGIN.format(part)
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(_END)
        if not found or not ended:
            raise ValueError(f"{DOCUMENT.name} has no place for {part}: {begin} ... {_END}")
        text = f"{before}{begin}\n\n{table}\n\n{_END}{after}"
    return text


def main() -> int:
    """Write the tables."""
    DOCUMENT.write_text(written(DOCUMENT.read_text(), rendered(figures())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
