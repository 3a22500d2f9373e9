"""A node's entry in the catalog: where it is reached, and that it is still there."""

from contextlib import suppress

from memoturnd import __version__
from memoturnd.errors import DiskFullError
from memoturnd.seams.catalog import Catalog, NodeRow
from memoturnd.seams.clock import Clock

BEAT_S = 5.0
ALIVE_S = 4 * BEAT_S
"""A node that said nothing for so long is not asked for anything."""
FORGET_S = 24 * 3600.0
"""Nodes that did not say goodbye are forgotten after so long."""


class Presence:
    """Says again and again that the node is there."""

    def __init__(self, catalog: Catalog, clock: Clock, *, node_id: str, address: str) -> None:
        self._catalog = catalog
        self._clock = clock
        self._node = NodeRow(node_id, address, __version__, clock.now_ms(), 0)

    async def beat(self) -> None:
        """Note that the node is there, and forget nodes that are long gone. Raises RetryableError."""
        now_ms = self._clock.now_ms()
        await self._catalog.put_node(self._node._replace(seen_at=now_ms))
        await self._catalog.forget_silent_nodes(now_ms - round(1000 * FORGET_S))

    async def announce(self) -> None:
        """Note that the node starts. On a full disk a later beat does: what is there can be served. Raises RetryableError."""
        with suppress(DiskFullError):
            await self.beat()

    async def leave(self) -> None:
        """Take the entry back. Raises RetryableError."""
        await self._catalog.forget_node(self._node.id)
