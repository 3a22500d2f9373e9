"""`memoturn cluster` and `memoturn placement`."""

from typing import Annotated

import typer

from memoturn.cli.output import Cell
from memoturn.cli.run import Spec, current, single
from memoturn.types import ClusterNode, ClusterPlacement

_PLACEMENTS = ["database", "branch", "node", "epoch", "tier", "txid", "durable", "unshipped", "replicas"]
_NODES = [
    "node",
    "address",
    "load",
    "owned",
    "hot",
    "warm",
    "unshipped",
    "replicas",
    "replica lag",
    "lease left",
    "warm-up",
]


def cluster(
    ctx: typer.Context,
    *,
    placements: Annotated[
        bool, typer.Option("--placements", help="Show who owns what instead of the nodes.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most placements that are shown.")] = 100,
    cursor: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Go on where an earlier page ended.", show_default=False),
    ] = None,
) -> None:
    """Show the nodes of a cluster, or who owns what; a node that does not answer is silent."""
    run = current(ctx)
    found = run.client.cluster(limit=limit, cursor=cursor)
    if placements:
        run.out.rows(
            found, _PLACEMENTS, [_placement(one) for one in found["placements"]], empty="nothing is placed"
        )
        if found["next_cursor"] is not None and not run.out.as_json:
            run.out.note(f"there is more: --cursor {found['next_cursor']}")
    else:
        run.out.rows(found, _NODES, [_node(one) for one in found["nodes"]], empty="no node is there")
        for one in found["nodes"]:
            if one["silent"] and not run.out.as_json:
                run.out.note(f"{one['node_id']} is silent: {one.get('problem', '')}")


def placement(ctx: typer.Context, spec: Spec) -> None:
    """Show which node owns a database's branch, and how far it is there."""
    run = current(ctx)
    found = run.client.placement(spec)
    owner, sync_set, standing = found["owner"], found["sync_set"], found["standing"]
    shown: dict[str, Cell] = {
        "branch": f"{found['database']}@{found['branch']}",
        "branch id": found["branch_id"],
        "node": None if owner is None else owner["node_id"],
        "address": None if owner is None else owner["address"],
        "epoch": None if owner is None else owner["epoch"],
        "replicated to": None
        if sync_set is None
        else ", ".join(one["node_id"] for one in sync_set["members"]),
    }
    if standing is not None:
        shown |= {
            "tier": standing["tier"],
            "txid": standing["txid"],
            "durable txid": standing["durable_txid"],
            "unshipped": _unshipped(standing["unshipped_bytes"], standing["unshipped_ms"]),
            "replicas": standing["replicas"],
        }
    run.out.record(found, shown)
    if not run.out.as_json and owner is None:
        run.out.note("nobody owns it: the next write takes it")
    elif not run.out.as_json and standing is None:
        run.out.note("its owner does not answer")


def _node(one: ClusterNode) -> list[Cell]:
    if one["silent"]:
        return [one["node_id"], one["address"], f"{one['load']:.0%}", *([None] * 7), "silent"]
    state = one["state"]
    left_ms = state["lease_left_ms"]
    return [
        one["node_id"],
        one["address"],
        f"{one['load']:.0%}",
        state["owned"],
        state["tiers"]["hot"],
        state["tiers"]["warm"],
        _unshipped(state["unshipped_bytes"], state["unshipped_ms"]),
        state["replicas"],
        _seconds(state["replica_lag_ms"]),
        "no end" if left_ms is None else _seconds(left_ms),
        state["warm_up"],
    ]


def _placement(one: ClusterPlacement) -> list[Cell]:
    standing = one["standing"]
    return [
        one["database"] if one["tenant"] == "default" else f"{one['tenant']}/{one['database']}",
        one["branch"],
        one["node_id"],
        one["epoch"],
        standing["tier"],
        standing["txid"],
        standing["durable_txid"],
        _unshipped(standing["unshipped_bytes"], standing["unshipped_ms"]),
        standing["replicas"],
    ]


def _unshipped(size_bytes: int, age_ms: int) -> str:
    return "0" if size_bytes == 0 else f"{size_bytes} bytes, {_seconds(age_ms)}"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"


app = single(cluster, "memoturn cluster --placements")
placement_app = single(placement, "memoturn placement app--alice@what-if")
