"""A gateway: the product's own placement cache and routing, over a network and to nodes that are simulated.

What it sends is a function that the node's process runs; what it gets is the status and the headers with which the
product answers. A node that a gateway picks without knowing an owner says whom it knows instead of forwarding itself.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from gateway.forwarding import LostError, UnconnectedError
from gateway.placements import PlacementCache
from gateway.routing import Router
from memoturnd.core.retries import Asked
from memoturnd.errors import MemoturnError, OutcomeUnknownError, RetryableError, UnansweredError
from memoturnd.http.envelope import UNAPPLIED, error_reply
from memoturnd.node import Node
from memoturnd.seams.catalog import Database
from memoturnd.seams.leases import Change
from simulation.nodes import Shared, SimNode
from simulation.peers import LOST, UNCONNECTED, Lost, Way
from simulation.table import Line

Work = Callable[[SimNode, Node], Awaitable[Any]]
ATTEMPT_S = 4.0
"""How long one attempt of what can be repeated may take."""


@dataclass(slots=True)
class Request:
    """What is sent: `work` is what the node does with it. Bodies are short, and can be sent again."""

    work: Work
    body: Any = field(default_factory=lambda: SimpleNamespace(is_spent=False))


@dataclass(slots=True)
class Upstream:
    """What a node has answered: what the work returned, or the error that it raised."""

    status: int
    headers: dict[bytes, bytes]
    value: Any = None
    error: MemoturnError | None = None

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header."""
        return self.headers.get(name)

    @property
    def is_unapplied(self) -> bool:
        """Return whether it says that nothing was applied."""
        name, value = UNAPPLIED
        return self.headers.get(name) == value

    def close(self) -> None:
        """Nothing is kept."""


class SimGateway:
    """One gateway. Implements gateway.forwarding.Forwarder as its router uses it, and memoturnd.seams.leases.Watching."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.line = Line()
        self._shared = shared
        self._source: random.Random = shared.world.stream(name)
        self._trouble = 0.0
        self._waiting: dict[str, dict[asyncio.Future[Any], None]] = {}
        clock = shared.world.loop.time
        self._cache = PlacementCache(now_s=clock, left=self._left)
        self._router = Router(self, self._cache, now_s=clock, attempt_s=ATTEMPT_S)  # type: ignore[arg-type]

    async def run(self, trouble: float) -> None:
        """Follow the leases until cancelled."""
        self._trouble = trouble
        await self._cache.feed(self)

    def watch(self) -> AsyncIterator[Change]:
        """Tell who owns what."""
        return self._shared.table.watch(self.line)

    async def route(
        self, work: Work, asked: Asked, database: Database, branch: str, budget_s: float
    ) -> Upstream:
        """Return the answer of whoever has it in the end, or what the gateway says itself."""
        now_s = self._shared.world.loop.time()
        try:
            return await self._router.route(  # type: ignore[return-value]
                Request(work),  # type: ignore[arg-type]
                asked,
                (database.qualified_name, branch),
                deadline_s=now_s + budget_s,
            )
        except (RetryableError, OutcomeUnknownError) as error:
            return _refused(error)

    async def send(self, address: str, request: Request, *, forwarded: bool, timeout_s: float) -> Upstream:
        """Send a request to a node. Raises UnconnectedError, LostError, TimeoutError."""
        del forwarded
        reply: asyncio.Future[Any] = self._shared.world.loop.create_future()
        way = Way(self._shared.mesh, self.name, address, self._source, self._trouble / 2)
        way.send("request", lambda node: _answered(request.work, way.target, node), reply)
        waiting = self._waiting.setdefault(address, {})
        waiting[reply] = None
        try:
            async with asyncio.timeout(timeout_s):
                return await reply  # type: ignore[no-any-return]
        except Lost as error:
            if error.kind == UNCONNECTED:
                raise UnconnectedError(f"{address}: {error}") from error
            raise LostError(f"{address}: {error}") from error
        finally:
            waiting.pop(reply)

    def _left(self, address: str) -> None:
        """Give up what waits for a node that is not there any more."""
        for reply in list(self._waiting.get(address, ())):
            if not reply.done():
                reply.set_exception(Lost(LOST, "the node has left"))


async def _answered(work: Work, sim: SimNode, node: Node) -> Upstream:
    try:
        return Upstream(200, {}, await work(sim, node))
    except MemoturnError as error:
        return _refused(error)


def _refused(error: MemoturnError) -> Upstream:
    told = error_reply(error)
    unanswered = isinstance(error, UnansweredError | OutcomeUnknownError)
    assert not unanswered or UNAPPLIED not in told.headers
    return Upstream(told.status, dict(told.headers), error=error)
