"""Tells every other node which branches this one has deleted, so that none keeps a file of what is gone.

Nobody waits for it: whoever is asked for a deleted branch finds out from the catalog and the manifest, told or not.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from memoturnd.core import replica_wire as wire
from memoturnd.engine.errands import Errands
from memoturnd.errors import MemoturnError
from memoturnd.replication import few_at_once
from memoturnd.replication.compactor import Tasks
from memoturnd.seams.leases import Leases, LiveNode
from memoturnd.seams.peers import JSON, Peers

WAITING_LIMIT: Final = 65_536
"""Branches that wait to be told of; further ones are not: their files go with disuse."""
TELL_S: Final = 5.0
_log = structlog.get_logger(__name__)


class Departures:
    """What this node has deleted and others may not know yet."""

    def __init__(self, leases: Leases, peers: Peers | None, spawn: Tasks, *, node_id: str) -> None:
        self._leases = leases
        self._peers = peers
        self._node_id = node_id
        self._errands = Errands(spawn)
        self._waiting: list[str] = []
        self._is_telling = False

    def note(self, branch_ids: Iterable[str]) -> None:
        """Tell of branches that are deleted by now, soon."""
        if self._peers is None or not self._leases.is_shared:
            return
        self._waiting += list(branch_ids)[: WAITING_LIMIT - len(self._waiting)]
        if not self._is_telling:
            self._is_telling = True
            self._errands.start("telling of what was deleted", self._tell())

    def close(self) -> None:
        """Tell nobody any more."""
        self._errands.close()

    async def _tell(self) -> None:
        try:
            while self._waiting:
                several, self._waiting = (
                    self._waiting[: wire.CONFIRMED_LIMIT],
                    self._waiting[wire.CONFIRMED_LIMIT :],
                )
                nodes = [n for n in await self._leases.live_nodes() if n.node_id != self._node_id]
                await self._tell_all(nodes, several)
        finally:
            self._is_telling = False

    async def _tell_all(self, nodes: Sequence[LiveNode], branch_ids: list[str]) -> None:
        body = wire.encode(wire.Changed(branch_ids, gone=True))

        async def tell(node: LiveNode) -> None:
            try:
                if self._peers is not None:
                    async with asyncio.timeout(TELL_S):
                        await self._peers.ask(
                            node.address, wire.CHANGED, body=body, headers=JSON, timeout_s=TELL_S
                        )
            except (MemoturnError, TimeoutError) as error:
                _log.info("not told of what was deleted", node=node.node_id, error=str(error))

        await few_at_once.together(nodes, tell)
