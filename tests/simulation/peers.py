"""The way between two nodes: what one asks of another's internal routes, through a network that loses and delays.

A request goes to the handler that the product's table of routes has for it, and an error comes back as HttpPeers would
raise it. Between two processes there may be a cut; a process that is paused takes requests and answers none.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memoturnd.core.tails import BRANCH_ID_HEADER, READ_PATH
from memoturnd.errors import MemoturnError, RetryableError
from memoturnd.http.call import Call
from memoturnd.http.envelope import error_reply
from memoturnd.http.route import Scope
from memoturnd.http.routes import ROUTES
from memoturnd.peers import refusal
from simulation.loop import Process
from simulation.table import address_of
from simulation.world import World

if TYPE_CHECKING:
    from memoturnd.node import Node
    from simulation.nodes import SimNode

_ROUTES = [(route.template.split("/"), route.handler) for route in ROUTES if route.scope is Scope.INTERNAL]
_HANG = 0.3
"""Share of lost requests and replies of which the asker hears nothing at all."""
LOST = "lost"
UNCONNECTED = "unconnected"


@dataclass(slots=True)
class Mesh:
    """Every node, and which pairs of them do not hear each other now."""

    world: World
    nodes: "dict[str, SimNode]" = field(default_factory=dict)
    cuts: set[frozenset[str]] = field(default_factory=set)
    read: list[tuple[str, str, str]] = field(default_factory=list)
    """(process that asked, branch id, node that answered) for each tail that a takeover got an answer about."""

    def is_cut(self, one: str, other: str) -> bool:
        """Return whether two nodes (or a gateway and a node) do not hear each other."""
        return frozenset((one, other)) in self.cuts

    def at(self, address: str) -> "SimNode":
        """Return the node at an address."""
        return next(node for name, node in self.nodes.items() if address_of(name) == address)


class SimPeers:
    """The other nodes, for one process life. Implements memoturnd.seams.peers."""

    def __init__(self, mesh: Mesh, process: Process, trouble: Any, source: random.Random) -> None:
        self._mesh = mesh
        self._process = process
        self._name = process.name.partition("/")[0]
        self._weather = trouble
        self._source = source

    async def ask(
        self,
        address: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> bytes:
        self._process.check_alive()
        reply: asyncio.Future[bytes] = self._mesh.world.loop.create_future()
        way = Way(self._mesh, self._name, address, self._source, self._weather.trouble / 2)
        sent = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
        way.send(path, lambda node: _handled(address, node, path, sent, body), reply)
        asked = (self._process.name, (headers or {}).get(BRANCH_ID_HEADER, ""), way.target.name)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await reply
        except TimeoutError as error:
            raise RetryableError(f"the node at {address} does not answer; try again") from error
        except Lost as error:
            raise RetryableError(f"the node at {address} does not answer ({error}); try again") from error
        except MemoturnError:
            if path == READ_PATH:
                self._mesh.read.append(asked)
            raise
        if path == READ_PATH:
            self._mesh.read.append(asked)
        return answer


class Lost(Exception):  # noqa: N818 - what came of it, and no error of its own
    """No answer came: nothing was sent, or nobody knows."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Way:
    """One request and its answer, on their way."""

    def __init__(self, mesh: Mesh, name: str, address: str, source: random.Random, trouble: float) -> None:
        self.target = mesh.at(address)
        self._mesh = mesh
        self._name = name
        self._address = address
        self._fate = "fine"
        if source.random() < trouble:
            self._fate = source.choice(["lost request", "lost reply", "slow"])
        self._hangs = source.random() < _HANG
        self._there_s = 0.0003 + source.expovariate(500.0)
        self._back_s = 0.0003 + source.expovariate(500.0)
        if self._fate == "slow":
            self._there_s += source.uniform(0.1, 4.0)

    def send(
        self, what: str, work: "Callable[[Node], Coroutine[Any, Any, Any]]", reply: "asyncio.Future[Any]"
    ) -> None:
        """Let it set out; `reply` gets the answer, what the node raised, or Lost."""
        if self._fate != "fine":
            self._mesh.world.note(self._name, "fault", self._fate, self.target.name, what)
        self._later(self._there_s, self._arrive, work, reply)

    def _later(self, after_s: float, call: Any, *args: Any) -> None:
        self._mesh.world.loop.call_later(after_s, call, *args, context=Context())  # of the network's own

    def _lost(self, reply: "asyncio.Future[Any]", why: str) -> None:
        if not self._hangs:
            self._later(self._back_s, _settle, reply, Lost(LOST, why))

    def _arrive(
        self, work: "Callable[[Node], Coroutine[Any, Any, Any]]", reply: "asyncio.Future[Any]"
    ) -> None:
        target = self.target
        if self._fate == "lost request" or self._mesh.is_cut(self._name, target.name):
            self._lost(reply, "lost request")
            return
        if not target.serves or target.process is None or target.node is None:
            self._later(self._back_s, _settle, reply, Lost(UNCONNECTED, "nobody listens"))
            return
        task = target.begin(work(target.node))
        task.add_done_callback(lambda done: self._depart(done, reply), context=Context())

    def _depart(self, done: "asyncio.Task[Any]", reply: "asyncio.Future[Any]") -> None:
        lost = self._fate == "lost reply" or self._mesh.is_cut(self._name, self.target.name)
        if done.cancelled() or lost:
            self._lost(reply, "lost reply")
            return
        self._later(self._back_s, _settle, reply, done.exception() or done.result())


async def _handled(address: str, node: "Node", path: str, headers: dict[bytes, bytes], body: bytes) -> bytes:
    """Return what a route of the node answers. Raises what HttpPeers makes of its refusal."""
    handler, params = _route(path)
    call = Call(node, params, headers, b"")
    call.body = body
    try:
        answer = await handler(call)
    except MemoturnError as error:
        told = error_reply(error)
        shown = {name.decode().title(): value.decode() for name, value in told.headers}
        raise refusal(address, told.status, shown, told.body) from None
    return answer.body


def _route(path: str) -> tuple[Any, dict[str, str]]:
    parts = path.split("/")
    for template, handler in _ROUTES:
        pairs = list(zip(template, parts, strict=False))
        if len(template) == len(parts) and all(name == part or name.startswith("{") for name, part in pairs):
            return handler, {name[1:-1]: part for name, part in pairs if name != part}
    raise LookupError(path)


def _settle(reply: "asyncio.Future[Any]", outcome: Any) -> None:
    if reply.done():
        return
    if isinstance(outcome, BaseException):
        reply.set_exception(outcome)
    else:
        reply.set_result(outcome)
