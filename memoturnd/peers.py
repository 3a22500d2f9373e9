"""Nodes as other nodes reach them: over HTTP, with the cluster key, a refusal as the error that was raised there.

Implements memoturnd.seams.peers. Imported where a cluster is configured, because it brings the HTTP client with it.
"""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import aiohttp
import msgspec

from memoturnd import errors
from memoturnd.core.placement import owner_named
from memoturnd.errors import MemoturnError, NotOwnerError, OverloadedError, RetryableError, UpstreamError
from memoturnd.http.admission import INTERNAL_HEADER
from memoturnd.logs import request_id

CONNECT_S: Final = 2.0
MOST_CONNECTIONS: Final = 64
NOT_OWNER: Final = ("Memoturn-Owner-Node", "Memoturn-Owner", "Memoturn-Owner-Epoch")
"""Headers by which a node that does not own a branch says who does: its id, its address, its epoch."""
_TURNED_AWAY: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_OURS: Final = frozenset({MemoturnError.code, "unconfigured"})
"""Codes of failures inside the other node, which are not the asker's own."""


class _Refusal(msgspec.Struct):
    error: str = "no reason given"
    code: str = MemoturnError.code


class HttpPeers:
    """Asks nodes over HTTP. `cluster_key` gives the key to show them."""

    def __init__(self, cluster_key: Callable[[], str]) -> None:
        self._cluster_key = cluster_key
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        address: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        method: str = "POST",
    ) -> bytes:
        """Send `body` to a route of the node at `address`, and return the answer's body; see memoturnd.seams.peers."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_S, timeout_s))
        sent = {**(headers or {}), INTERNAL_HEADER: self._cluster_key()}
        if (asked_by := request_id()) is not None:
            sent["Memoturn-Request-Id"] = asked_by.decode()
        try:
            async with self._session.request(
                method,
                address + path,
                data=body or None,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                told = await answer.read()
                status, shown = answer.status, answer.headers
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RetryableError(
                f"the node at {address} does not answer ({error or type(error).__name__}); try again"
            ) from error
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return told
        raise refusal(address, status, shown, told)


def refusal(address: str, status: int, headers: Mapping[str, str], body: bytes) -> MemoturnError:
    """Return what a node answered as an error of the same class, by its code.

    What went wrong inside it, and what nobody here knows, is UpstreamError.
    """
    try:
        told = msgspec.json.decode(body, type=_Refusal)
    except msgspec.MsgspecError:
        told = _Refusal()
    if status in _TURNED_AWAY:
        return UpstreamError(
            f"the node at {address} does not take our cluster key: give both the same MEMOTURN_CLUSTER_KEY"
        )
    raised = _BY_CODE.get(told.code)
    if raised is None or told.code in _OURS:
        return UpstreamError(f"the node at {address} answered {status}: {told.error}")
    if raised is NotOwnerError:
        return NotOwnerError(told.error, owner_named(*(headers.get(name, "") for name in NOT_OWNER)))
    if issubclass(raised, RetryableError):
        wait = headers.get("Retry-After", "")
        retry_after_s = int(wait) if wait.isascii() and wait.isdigit() else 1
        if issubclass(raised, OverloadedError):
            limit = headers.get("Memoturn-Limit", "")
            return raised(told.error, retry_after_s=retry_after_s, limit=limit)
        return raised(told.error, retry_after_s=retry_after_s)
    return raised(told.error)


def _by_code() -> dict[str, type[MemoturnError]]:
    """Return the most general class of each code."""
    found: dict[str, type[MemoturnError]] = {}
    waiting: list[type[MemoturnError]] = [errors.MemoturnError]
    for cls in waiting:  # grows: the general ones first
        found.setdefault(cls.code, cls)
        waiting += cls.__subclasses__()
    return found


_BY_CODE: Final = _by_code()
