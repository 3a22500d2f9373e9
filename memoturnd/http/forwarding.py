"""A node's own forwarding: a request for a branch that another node owns goes there, and the answer comes back through here.

Only where nodes share branches is this imported: a node alone forwards nothing, and needs no HTTP client.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Receive, Scope

from gateway.forwarding import Body, Forwarder, Request, Upstream, as_sent, body_of, has_body, target_of
from gateway.routing import ATTEMPT_S, STREAMED_S, Key, Router, Target
from memoturnd.core.consistency import Consistency
from memoturnd.core.retries import Asked, Event
from memoturnd.engine.consistency import reading
from memoturnd.errors import NotOwnerError, RetryableError, UnansweredError
from memoturnd.http.addresses import branch_addressed
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer
from memoturnd.http.gates import BodyMemory
from memoturnd.http.ports import HttpSettings, Node
from memoturnd.http.route import Body as BodyKind
from memoturnd.http.route import Kind, Route
from memoturnd.seams.clock import Clock
from memoturnd.seams.leases import Owner

FORWARDED: Final = "Memoturn-Forwarded"
MOST_AT_ONCE: Final = 1024
"""Requests that wait for other nodes at once; more are refused."""
_REPLACED: Final = frozenset({b"content-length", b"memoturn-request-id"})
"""Headers of an answer that the pipeline writes itself."""

Look = Callable[[], Awaitable[Owner | None]]


class _HereError(Exception):
    """No other node owns the branch: the request is this node's to serve."""


class Hop:
    """One request that may have to go elsewhere. `receive` is what its body is received with by whoever serves it in the end."""

    def __init__(
        self,
        forwarding: "Forwarding",
        scope: Scope,
        receive: Receive,
        request_id: bytes,
        memory: BodyMemory,
    ) -> None:
        self.receive = receive
        self._memory = memory
        self._held_bytes = 0
        self._forwarding = forwarding
        self._scope = scope
        self._request_id = request_id
        self._body: Body | None = None

    def close(self) -> None:
        """Count what was kept of the body no longer."""
        self._memory.give(self._held_bytes)
        self._held_bytes = 0

    async def elsewhere(self, route: Route, call: Call) -> Answer | None:
        """Return the owner's answer, None where this node is to serve the request.

        Raises NotOwnerError for a request that was forwarded already, RetryableError, OutcomeUnknownError.
        """
        if (
            route.anywhere
            or route.kind is Kind.OPEN
            or (key := branch_addressed(call, route.template)) is None
        ):
            return None
        if route.kind is Kind.READ and await reading().of(key[0]) is Consistency.CACHED:
            return None
        look = self._forwarding.looking(key)
        owner = await look()
        if owner is None:
            return None
        if call.header(FORWARDED) is not None:
            raise NotOwnerError(f"node {owner.node_id} owns the branch: send the request there", owner)
        return await self._send(route, key, look, owner)

    async def misdirected(self, route: Route, call: Call, error: NotOwnerError) -> Answer | None:
        """Return the answer of the owner that a handler named; None where the handler is to be asked again.

        Raises as `elsewhere` does; RetryableError for a body that is gone.
        """
        if call.header(FORWARDED) is not None or route.kind is Kind.PEER:
            raise error
        if route.body is BodyKind.FILE:
            raise UnansweredError(
                "the branch went to another node while the file came; send it again"
            ) from error
        if self._body is None:
            self._body = Body(call.body)
        self.receive = self._body.replay()
        if error.owner is None:
            await asyncio.sleep(0.05)
            return None
        return await self._send(route, None, _nobody, error.owner)

    async def _send(self, route: Route, key: Key | None, look: Look, owner: Owner) -> Answer | None:
        if self._body is None:
            self._body = await self._forwarding.body(self._scope, self.receive, self._hold)
        try:
            upstream = await self._forwarding.send(
                self._scope, route, self._body, self._request_id, _Lookup(look, owner), key
            )
        except _HereError:
            self.receive = self._body.replay()
            return None
        return self._answer(upstream)

    def _hold(self, size_bytes: int) -> None:
        self._memory.take(size_bytes)
        self._held_bytes += size_bytes

    def _answer(self, upstream: Upstream) -> Answer:
        headers = [header for header in upstream.headers if header[0] not in _REPLACED]
        if upstream.body is None or self._scope["method"] == "HEAD":
            return Answer(upstream.status, headers=headers, stream=upstream)
        upstream.close()
        return Answer(upstream.status, upstream.body, headers)


class _Lookup:
    """The owner that is known, then whoever is found. Implements gateway.routing.Where."""

    def __init__(self, look: Look, first: Owner) -> None:
        self._look = look
        self._first: Owner | None = first

    async def target(self, key: Key | None, failed: frozenset[str]) -> Target | None:
        """Return the owner. Raises _HereError where there is none but this node."""
        del key, failed
        owner, self._first = self._first or await self._look(), None
        if owner is None:
            raise _HereError
        return Target(owner.node_id, owner.address)

    def polled(self, target: Target) -> Callable[[], Awaitable[bool]] | None:
        """Return what asks the lease service whether the node owns the branch still, None where the branch is not known."""
        if self._look is _nobody:
            return None

        async def still() -> bool:
            try:
                owner = await self._look()
            except RetryableError:
                return True  # nobody can say otherwise
            return owner is not None and owner.node_id == target.node_id

        return still

    def learned(self, key: Key | None, owner: Owner) -> None:
        """Do nothing: the lease service is asked each time."""

    async def changed(self, key: Key | None, wait_s: float) -> None:
        """Wait."""
        del key
        await asyncio.sleep(wait_s)

    def saw(self, target: Target, event: Event) -> None:
        """Do nothing."""


class Forwarding:
    """Sends requests to the nodes that own what they are about."""

    def __init__(self, node: Node, settings: HttpSettings, clock: Clock) -> None:
        self._node = node
        self._timeout_s = settings.request_timeout_s
        self._model_timeout_s = settings.model_timeout_s
        self._now_s = clock.monotonic_s
        self._forwarder = Forwarder(now_s=self._now_s)
        self._waiting = 0

    def hop(self, scope: Scope, receive: Receive, request_id: bytes, memory: BodyMemory) -> Hop:
        """Return a request that may have to go elsewhere, what is kept of its body to be taken of `memory`; pair with `close`."""
        return Hop(self, scope, receive, request_id, memory)

    def looking(self, key: Key) -> Look:
        """Return what finds the other node that owns a branch."""
        return lambda: self._node.owner_elsewhere(*key)

    async def body(self, scope: Scope, receive: Receive, hold: Callable[[int], None]) -> Body:
        """Return a request's body. Raises ClientDisconnect, RetryableError where it does not come, and what `hold` raises."""
        if not has_body(scope["headers"]):
            return Body()
        try:
            return await body_of(receive, wait_s=self._timeout_s, hold=hold)
        except TimeoutError as error:
            raise RetryableError(
                "the body did not come in time; nothing was changed, send it again"
            ) from error

    async def send(
        self, scope: Scope, route: Route, body: Body, request_id: bytes, where: _Lookup, key: Key | None
    ) -> Upstream:
        """Return the owner's answer. Raises RetryableError, OutcomeUnknownError, _HereError."""
        if self._waiting >= MOST_AT_ONCE:
            raise RetryableError(
                f"{MOST_AT_ONCE} requests wait for other nodes, which is the bound; try again"
            )
        headers = as_sent(scope["headers"], request_id, is_seen_to=True)
        request = Request(scope["method"], target_of(scope), headers, body)
        asked = Asked(
            route.kind is Kind.READ or scope["method"] in {"GET", "HEAD"},
            "idempotency-key" in request.headers,
        )
        timeout_s = self._timeout_s + (self._model_timeout_s if route.asks_model else 0.0)
        attempt_s = STREAMED_S if route.asks_model or not body.is_whole else ATTEMPT_S
        router = Router(self._forwarder, where, now_s=self._now_s, attempt_s=attempt_s)
        self._waiting += 1
        try:
            deadline_s = self._now_s() + (timeout_s if body.is_whole else STREAMED_S)
            return await router.route(request, asked, key, deadline_s=deadline_s)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Close the connections."""
        await self._forwarder.close()


async def _nobody() -> Owner | None:
    return None
