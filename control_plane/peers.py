"""The data-plane nodes, as the control plane reaches them: by the addresses that they leave in the catalog."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
import structlog

from memoturnd.engine.presence import ALIVE_S
from memoturnd.errors import (
    ConflictError,
    DatabaseNotFoundError,
    MemoturnError,
    RetryableError,
    UpstreamError,
)
from memoturnd.http.admission import INTERNAL_HEADER, TENANT_HEADER
from memoturnd.seams.catalog import Catalog, Database, NodeRow
from memoturnd.seams.clock import Clock

CONNECT_S: Final = 2.0
MOST_NODES: Final = 16
"""Nodes that are asked for one thing, one after the other, before it is given up."""
MOST_CONNECTIONS: Final = 32
_log = structlog.get_logger(__name__)


class _Refusal(msgspec.Struct):
    error: str = "no reason given"
    code: str = "internal"


class Peers:
    """Asks nodes for what only they can do. `cluster_key` gives the key to show them; `timeout_s` bounds one request."""

    def __init__(
        self, catalog: Catalog, clock: Clock, *, cluster_key: Callable[[], str], timeout_s: float
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._cluster_key = cluster_key
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_S),
            connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

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
        headers = {INTERNAL_HEADER: self._cluster_key(), TENANT_HEADER: database.tenant}
        try:
            async with self._session.delete(node.address + path, headers=headers) as answer:
                if answer.status == HTTPStatus.NO_CONTENT:
                    return
                told = _told(await answer.read())
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RetryableError(
                f"node {node.id} at {node.address} does not answer ({error or type(error).__name__}); try again"
            ) from error
        raise _error(node, answer.status, told)


def _told(body: bytes) -> _Refusal:
    try:
        return msgspec.json.decode(body, type=_Refusal)
    except msgspec.MsgspecError:
        return _Refusal()


def _error(node: NodeRow, status: int, told: _Refusal) -> MemoturnError:
    if told.code == DatabaseNotFoundError.code:
        return DatabaseNotFoundError(told.error)
    if status == HTTPStatus.CONFLICT:
        return ConflictError(told.error)
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT}:
        return RetryableError(told.error)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return UpstreamError(
            f"node {node.id} at {node.address} does not take our cluster key: give both the same MEMOTURN_CLUSTER_KEY"
        )
    return UpstreamError(f"node {node.id} at {node.address} answered {status}: {told.error}")
