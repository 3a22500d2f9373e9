"""The data-plane nodes, as the control plane reaches them: by the addresses that they leave in the catalog."""

from typing import Final
from urllib.parse import quote

import structlog

from memoturnd.engine.presence import ALIVE_S
from memoturnd.errors import ConflictError, MemoturnError, RetryableError
from memoturnd.http.admission import TENANT_HEADER
from memoturnd.peers import HttpPeers
from memoturnd.seams.catalog import Catalog, Database, NodeRow
from memoturnd.seams.clock import Clock

MOST_NODES: Final = 16
"""Nodes that are asked for one thing, one after the other, before it is given up."""
_log = structlog.get_logger(__name__)


class Peers:
    """Asks nodes for what only they can do. `timeout_s` bounds one request."""

    def __init__(self, catalog: Catalog, clock: Clock, http: HttpPeers, *, timeout_s: float) -> None:
        self._catalog = catalog
        self._clock = clock
        self._http = http
        self._timeout_s = timeout_s

    async def delete_database(self, database: Database) -> None:
        """Let a node delete a database: it ships what it has of it, and lets go of its files. May be repeated.

        The nodes are asked one after the other until one does it: one that another has a branch of says so.
        Raises DatabaseNotFoundError, RetryableError when no node does it.
        """
        nodes = await self._catalog.list_nodes(self._clock.now_ms() - round(1000 * ALIVE_S), limit=MOST_NODES)
        refusal: MemoturnError = RetryableError(
            f"no data-plane node has said within {ALIVE_S:g} s that it is there: start one, and try again"
        )
        for node in nodes:
            try:
                await self._delete_on(node, database)
            except (RetryableError, ConflictError) as error:
                _log.warning("a node did not delete a database", node=node.id, error=str(error))
                refusal = error
            else:
                return
        raise refusal

    async def _delete_on(self, node: NodeRow, database: Database) -> None:
        path = f"/internal/databases/{quote(database.name, safe='')}/{database.uuid}"
        headers = {TENANT_HEADER: database.tenant}
        await self._http.ask(node.address, path, headers=headers, timeout_s=self._timeout_s, method="DELETE")
