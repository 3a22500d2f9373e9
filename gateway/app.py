"""The gateway's application: every request but three of its own goes to the node that it concerns, and the answer comes back as it is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import structlog
from multidict import CIMultiDict
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from gateway.addresses import Addressed, address_of
from gateway.forwarding import (
    Body,
    Forwarder,
    LostError,
    Request,
    Upstream,
    as_sent,
    body_of,
    has_body,
    target_of,
)
from gateway.hedging import Hedge, takes_a_replicas
from gateway.metrics import GatewayMetrics
from gateway.placements import PlacementCache
from gateway.routing import ATTEMPT_S, STREAMED_S, Router
from memoturnd.core.retries import Asked
from memoturnd.errors import (
    MemoturnError,
    NotFoundError,
    OutcomeUnknownError,
    OverloadedError,
    RetryableError,
    UnansweredError,
)
from memoturnd.http.cors import Cors
from memoturnd.http.envelope import TEXT, Answer, error_reply, internal_error_reply, is_internal, reply
from memoturnd.http.gates import BodyMemory, InFlight
from memoturnd.http.protocol import ABORT, GONE
from memoturnd.http.route import METHODS, Route
from memoturnd.http.tree import Tree
from memoturnd.logs import RequestContext, RequestLog, given_or_new_id, request_context
from memoturnd.metrics import CONTENT_TYPE
from memoturnd.seams.clock import Clock, Randomness

SLACK_S: Final = 5.0
"""How much longer than a node's own deadline the gateway waits, so that the node's answer comes first."""
NO_CONTENT: Final = 204
BETWEEN_NODES: Final = b"/internal/"
"""What the paths of routes begin with that are for nodes among themselves."""
_log = structlog.get_logger("gateway")


class Limits(Protocol):
    """The settings that the application reads."""

    @property
    def cors_origins(self) -> tuple[str, ...]:
        """Origins of web pages that may use the API."""
        ...

    @property
    def request_log(self) -> Literal["off", "problems", "all"]:
        """Which requests have a line in the log."""
        ...

    @property
    def slow_request_ms(self) -> int:
        """Milliseconds from which on a request is slow, 0 for never."""
        ...

    @property
    def request_timeout_s(self) -> float:
        """Seconds that a node takes at most for a request."""
        ...

    @property
    def model_timeout_s(self) -> float:
        """Seconds more where it asks a language model."""
        ...

    @property
    def gateway_concurrency(self) -> int:
        """Most requests that wait for nodes at once."""
        ...

    @property
    def gateway_body_bytes(self) -> int:
        """Most bytes of request bodies kept at once."""
        ...

    @property
    def gateway_hedge_ms(self) -> int:
        """Milliseconds after which a read goes to a second node too, 0 for never."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """The metrics that a gateway shows instead of its own, but at the port `but_at`: those of all processes of its machine."""

    gather: Callable[[], Awaitable[bytes]]
    but_at: int


class Gateway:
    """The ASGI application. `placements` says where requests go, and is fed by whoever runs this."""

    def __init__(
        self,
        placements: PlacementCache,
        forwarder: Forwarder,
        limits: Limits,
        *,
        routes: Iterable[Route],
        clock: Clock,
        randomness: Randomness,
        metrics: GatewayMetrics,
        shown: Shown | None = None,
    ) -> None:
        self._shown = shown
        self._placements = placements
        routes = tuple(routes)
        self._tree = Tree(routes)
        self._cors = Cors(limits.cors_origins, routes)
        self._now_s = clock.monotonic_s
        self._randomness = randomness
        self._metrics = metrics
        self._timeout_s = limits.request_timeout_s + SLACK_S
        self._model_timeout_s = limits.model_timeout_s
        self._stall_s = limits.request_timeout_s
        self._slots = InFlight(limits.gateway_concurrency)
        self._bodies = BodyMemory(limits.gateway_body_bytes)
        router = Router(
            forwarder, placements, now_s=self._now_s, attempt_s=ATTEMPT_S, sent=metrics.attempts.inc
        )
        slow = Router(
            forwarder, placements, now_s=self._now_s, attempt_s=STREAMED_S, sent=metrics.attempts.inc
        )
        self._routers = {False: router, True: slow}
        self._hedge = (
            Hedge(
                router,
                forwarder,
                placements,
                after_s=limits.gateway_hedge_ms / 1000,
                now_s=self._now_s,
                count=metrics.hedges.inc,
            )
            if limits.gateway_hedge_ms
            else None
        )
        self._timers: dict[tuple[str, str, int], Callable[[float], None]] = {}
        self._requests = RequestLog(
            limits.request_log, slow_s=limits.slow_request_ms / 1000, now_s=self._now_s, event="forwarded"
        )
        self._show()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises nothing: every failure is an answer, or ends the connection."""
        if scope["type"] != "http":
            return
        own = await self._own(scope)
        if own is not None:
            await self._send(own, scope, send)
            return
        gone: dict[str, Callable[[], object]] = scope.get("extensions", {}).get(GONE, {})
        task = asyncio.current_task()
        left = False

        def leave() -> None:
            nonlocal left
            left = True
            if task is not None:
                task.cancel()

        gone["call"] = leave
        try:
            await self._serve(scope, receive, send)
        except (ClientDisconnect, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not left:
                raise
            if left and task is not None:
                task.uncancel()
            self._metrics.failures["gone"].inc()
        finally:
            gone.pop("call", None)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        about = address_of(self._tree, scope["method"], scope["raw_path"], scope["query_string"], headers)
        context = RequestContext(given_or_new_id(headers, self._randomness))
        context.about = lambda: about.key or (None, None)
        with request_context(context):
            await self._serve_in(context.request_id, about, scope, receive, send)

    async def _serve_in(
        self, request_id: bytes, about: Addressed, scope: Scope, receive: Receive, send: Send
    ) -> None:
        started_s, headers = self._now_s(), scope["headers"]
        kept_bytes = 0

        def hold(size_bytes: int) -> None:
            nonlocal kept_bytes
            self._keep(size_bytes)
            kept_bytes += size_bytes

        try:
            upstream: Upstream | None = None
            try:
                body = (
                    await body_of(receive, wait_s=self._stall_s, hold=hold) if has_body(headers) else Body()
                )
                upstream = await self._forward(scope, about, body, request_id, started_s)
            except Exception as error:
                if isinstance(error, ClientDisconnect):
                    raise
                answer = self._failed(error, request_id)
                answer.headers.append((b"memoturn-request-id", request_id))
                self._observe(about, scope["method"], answer, started_s)
                await self._send(answer, scope, send)
                return
            self._observe(about, scope["method"], upstream, started_s)
            try:
                await self._relay(upstream, scope, receive, send)
            finally:
                upstream.close()
        finally:
            self._bodies.give(kept_bytes)

    async def _forward(
        self,
        scope: Scope,
        about: Addressed,
        body: Body,
        request_id: bytes,
        started_s: float,
    ) -> Upstream:
        request = Request(scope["method"], target_of(scope), self._as_sent(scope, request_id), body)
        anywhere = takes_a_replicas(about, request)
        asked = Asked(about.reads, "idempotency-key" in request.headers, anywhere=anywhere)
        if body.is_whole:
            deadline_s = started_s + self._timeout_s + (self._model_timeout_s if about.asks_model else 0.0)
        else:
            deadline_s = started_s + STREAMED_S
        await self._enter()
        try:
            router = self._routers[about.asks_model or not body.is_whole]
            if self._hedge is not None and anywhere:
                return await self._hedge.route(request, asked, about, deadline_s=deadline_s)
            return await router.route(request, asked, about.key, deadline_s=deadline_s)
        finally:
            self._slots.leave()

    async def _relay(self, upstream: Upstream, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the node's answer to the client; one that breaks off ends the client's connection too."""
        self._cors.stamp(upstream.headers, scope["headers"], scope["path"])
        start: Message = {
            "type": "http.response.start",
            "status": upstream.status,
            "headers": upstream.headers,
        }
        await send(start)
        if upstream.body is not None:
            await send({"type": "http.response.body", "body": upstream.body})
            return
        try:
            async for chunk in upstream.chunks():
                async with asyncio.timeout(self._stall_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (LostError, TimeoutError) as error:
            _log.warning("an answer was broken off", error=str(error) or "the client is too slow")
            self._metrics.failures["broken_off"].inc()
            await _break_off(scope, receive)
            return
        await send({"type": "http.response.body", "body": b""})

    def _keep(self, size_bytes: int) -> None:
        try:
            self._bodies.take(size_bytes)
        except OverloadedError:
            self._metrics.shed["body_memory"].inc()
            raise

    async def _enter(self) -> None:
        try:
            await self._slots.enter()
        except OverloadedError:
            self._metrics.shed["concurrency"].inc()
            raise

    def _failed(self, error: Exception, request_id: bytes) -> Answer:
        if isinstance(error, TimeoutError):
            error = RetryableError(
                "the request's body did not come in time; nothing was sent on, send it again"
            )
        if not isinstance(error, MemoturnError) or is_internal(error):
            _log.error("request_failed", exc_info=error)
            return internal_error_reply(request_id.decode())
        answer = error_reply(error)
        if isinstance(error, UnansweredError):
            self._metrics.failures["unanswered"].inc()
        elif isinstance(error, OutcomeUnknownError):
            self._metrics.failures["outcome_unknown"].inc()
        elif isinstance(error, RetryableError) and not isinstance(error, OverloadedError):
            self._metrics.failures["unavailable"].inc()
        return answer

    def _observe(self, about: Addressed, method: str, answer: Answer | Upstream, started_s: float) -> None:
        seconds, status = self._now_s() - started_s, answer.status
        self._requests.note(
            about.template, method, status, seconds, may_wait=about.may_wait, headers=answer.headers
        )
        method = method if method in METHODS else "other"
        key = (about.template, method, status // 100)
        timer = self._timers.get(key)
        if timer is None:
            timer = self._timers[key] = self._metrics.timer(*key)
        timer(seconds)

    def _as_sent(self, scope: Scope, request_id: bytes) -> CIMultiDict[str]:
        """Return the headers that a node gets: where the page's origin is allowed here, the node need not know of it."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        return as_sent(scope["headers"], request_id, is_seen_to=self._cors.allows(origin, scope["path"]))

    async def _send(self, answer: Answer, scope: Scope, send: Send) -> None:
        if answer.status != NO_CONTENT:
            answer.headers.append((b"content-length", b"%d" % len(answer.body)))
        self._cors.stamp(answer.headers, scope["headers"], scope["path"])
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    # ---- what the gateway answers itself

    async def _own(self, scope: Scope) -> Answer | None:
        """Return the gateway's own answer, None for what is a node's to answer."""
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS":
            return self._cors.preflight(method, dict(scope["headers"]), path)
        if scope["raw_path"].startswith(BETWEEN_NODES):
            return error_reply(NotFoundError("a gateway has no routes between nodes: ask the node itself"))
        if method not in {"GET", "HEAD"}:
            return None
        if path == "/metrics":
            return await self._metrics_page(scope)
        own = _OWN.get(path)
        return None if own is None else own(self)

    async def _metrics_page(self, scope: Scope) -> Answer:
        """Answer with the gateway's metrics, or at the common port of workers with those of all processes."""
        shown = self._shown
        try:
            is_common = shown is not None and scope["server"][1] != shown.but_at
            text = await (shown.gather() if shown is not None and is_common else self._metrics.scrape())
        except RetryableError as error:
            return error_reply(error)
        return Answer(200, text, [(b"content-type", CONTENT_TYPE.encode())])

    def health(self) -> Answer:
        """Answer that the process runs."""
        return Answer(200, b"ok", [TEXT])

    def ready(self) -> Answer:
        """Answer whether requests can be routed: the cluster is known, and a node in it answers."""
        places = self._placements
        if not places.can_route:
            told = (
                f"{len(places.nodes)} nodes are known"
                if places.is_fed
                else "nothing is known of the cluster yet"
            )
            return error_reply(RetryableError(f"not ready: {told}, and none that answers"))
        return reply({"nodes": len(places.nodes), "placements": places.owners})

    def _show(self) -> None:
        metrics, places = self._metrics, self._placements
        metrics.in_flight.set_function(lambda: self._slots.running)
        metrics.in_flight_limit.set(self._slots.limit)
        metrics.waiting.set_function(lambda: self._slots.waiting)
        metrics.waiting_limit.set(self._slots.waiting_limit)
        metrics.body_bytes.set_function(lambda: self._bodies.held_bytes)
        metrics.body_limit_bytes.set(self._bodies.limit_bytes)
        metrics.nodes.set_function(lambda: len(places.nodes))
        metrics.open_breakers.set_function(lambda: places.open_breakers)
        metrics.placements.set_function(lambda: places.owners)
        metrics.placements_limit.set(places.limit)
        places.told = metrics.changes.inc
        places.looked = metrics.looked
        metrics.can_route.set_function(lambda: places.can_route)


_OWN: Final[dict[str, Callable[[Gateway], Answer]]] = {
    "/health": Gateway.health,
    "/ready": Gateway.ready,
}


async def _break_off(scope: Scope, receive: Receive) -> None:
    """End the connection of an answer that cannot be finished, so that nobody takes what came for all of it."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is None:
        raise ClientDisconnect
    scope["extensions"].get(GONE, {}).pop("call", None)
    abort["abort"]()
    while (await receive())["type"] != "http.disconnect":
        pass
