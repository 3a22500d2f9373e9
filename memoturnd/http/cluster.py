"""Routes about the cluster: for the operator, with the platform key, and between nodes, with the cluster key."""

from memoturnd.clustering import BranchPlacement, Placed, Seen
from memoturnd.core import cursors
from memoturnd.core.cluster_wire import Ask, Status
from memoturnd.http.addresses import database_of
from memoturnd.http.bodies import decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import PAGE, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.paging import page
from memoturnd.http.shapes import UNSET
from memoturnd.http.shapes import cluster as shapes

DEFAULT_LIMIT = 100
_decode_ask = decoder(Ask)


@described(takes=Ask, gives={200: Status})
async def status(call: Call) -> Answer:
    """Say how this node is, and which branches it owns, a page at a time."""
    return reply(call.node.cluster.status(call.decoded(_decode_ask)))


@described(gives={200: shapes.ClusterOverview}, values=PAGE)
async def overview(call: Call) -> Answer:
    """Show every node, and who owns what, a page at a time. A node that does not answer in time is listed as silent."""
    asked = page(call, cursors.Name, default=DEFAULT_LIMIT)
    seen, placed = await call.node.cluster.overview(asked.after or "", asked.rows)
    nodes, placements = [_node(one) for one in seen], [_placement(one) for one in placed]
    cursor = asked.cursor(placed, lambda one: one.placement.branch_id)
    return reply(shapes.ClusterOverview(nodes, placements, cursor))


@described(gives={200: shapes.DatabasePlacement})
async def placement(call: Call) -> Answer:
    """Show where a database's branch is. Raises DatabaseNotFoundError, BranchNotFoundError."""
    name, branch = database_of(call)
    return reply(_of_database(name, await call.node.cluster.placement(name, branch)))


def _node(seen: Seen) -> shapes.ClusterNode:
    node, silent = seen.node, seen.status is None
    return shapes.ClusterNode(
        node.node_id,
        node.address,
        node.load,
        silent,
        state=UNSET if seen.status is None else seen.status.state,
        problem=seen.problem if silent else UNSET,
    )


def _placement(placed: Placed) -> shapes.ClusterPlacement:
    one = placed.placement
    return shapes.ClusterPlacement(
        one.branch_id, one.database, one.tenant, one.branch, placed.node.node_id, one.epoch, one.standing
    )


def _of_database(name: str, found: BranchPlacement) -> shapes.DatabasePlacement:
    owner, sync_set = found.owner, found.sync_set
    return shapes.DatabasePlacement(
        name,
        found.branch,
        found.branch_id,
        None if owner is None else shapes.PlacementOwner(owner.node_id, owner.address, owner.epoch),
        None
        if sync_set is None
        else shapes.PlacementSyncSet(
            sync_set.epoch, [shapes.Member(one.node_id, one.address) for one in sync_set.members]
        ),
        found.standing,
    )
