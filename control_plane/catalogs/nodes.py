"""The data-plane nodes that said lately that they are there."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from control_plane.catalogs.backend import Part
from control_plane.schema import NAME, WHOLE, nodes
from memoturnd.seams.catalog import NodeRow

_insert = postgresql.insert(nodes).values({c.name: sa.bindparam(c.name, type_=c.type) for c in nodes.c})
_SEEN = _insert.on_conflict_do_update(
    index_elements=["id"],
    set_={c.name: _insert.excluded[c.name] for c in nodes.c if not c.primary_key},
)
_LIST = (
    sa.select(nodes.c.id, nodes.c.address, nodes.c.version, nodes.c.started_at, nodes.c.seen_at)
    .where(nodes.c.seen_at >= sa.bindparam("since", type_=WHOLE))
    .order_by(nodes.c.id)
    .limit(sa.bindparam("limit", type_=WHOLE))
)
_FORGET = sa.delete(nodes).where(nodes.c.id == sa.bindparam("node", type_=NAME))
_FORGET_SILENT = sa.delete(nodes).where(nodes.c.seen_at < sa.bindparam("since", type_=WHOLE))


class Nodes(Part):
    """Who is there."""

    async def put_node(self, node: NodeRow) -> None:
        """Note that a node is there."""
        await self._backend.run(
            _SEEN,
            id=node.id,
            address=node.address,
            version=node.version,
            started_at=node.started_at,
            seen_at=node.seen_at,
        )

    async def list_nodes(self, since_ms: int, *, limit: int = 1000) -> list[NodeRow]:
        """Return the nodes that were there at or after `since_ms`, by id."""
        rows = await self._backend.rows(_LIST, since=since_ms, limit=max(0, limit))
        return [NodeRow(*row) for row in rows]

    async def forget_node(self, node_id: str) -> None:
        """Remove a node that stops; no error when it is not there."""
        await self._backend.run(_FORGET, node=node_id)

    async def forget_silent_nodes(self, since_ms: int) -> int:
        """Remove the nodes that were last there before `since_ms`, and return how many."""
        return await self._backend.run(_FORGET_SILENT, since=since_ms)
