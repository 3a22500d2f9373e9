"""Clients of the node, one for each session or credential, over one pool of connections.

What a client has seen and written of a branch, it sees again: positions belong to a session, or for requests without a
session to their credential, and no other one learns of them.
"""

from collections import OrderedDict
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from memoturn import AsyncMemoturn
from memoturn.mcp.places import Place, default_place
from memoturn.mcp.sessions import owner_of
from memoturn.mcp.settings import Settings

_CONNECTIONS_MAX: Final = 200
TOKENS_MAX: Final = 1000
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0, pool=10.0)


@dataclass(frozen=True)
class Upstream:
    """Who asks the node: a client with one credential, and the place that its calls mean."""

    client: AsyncMemoturn
    place: Place


class Upstreams:
    """Makes upstreams, and keeps those of credentials that come without a session, the last 1000 of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        limits = httpx.Limits(max_connections=_CONNECTIONS_MAX, max_keepalive_connections=_CONNECTIONS_MAX)
        # One jar would send what a proxy before the node told one credential along with all the others.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._http = httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, cookies=no_cookies)
        self._stateless: OrderedDict[bytes, Upstream] = OrderedDict()

    def open(self, token: str | None) -> Upstream:
        """Return a new upstream with that credential, which knows of no position."""
        client = AsyncMemoturn(
            self._settings.url,
            token=token,
            source=self._settings.source,
            http_client=self._http,
            deadline_s=self._settings.call_timeout_s,
        )
        return Upstream(client, default_place(self._settings, token))

    def of_token(self, token: str | None) -> Upstream:
        """Return the upstream of a credential."""
        owner = owner_of(token)
        upstream = self._stateless.get(owner)
        if upstream is None:
            upstream = self._stateless[owner] = self.open(token)
        self._stateless.move_to_end(owner)
        while len(self._stateless) > TOKENS_MAX:
            self._stateless.popitem(last=False)
        return upstream

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
