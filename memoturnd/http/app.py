"""The application: one Starlette router in front of the route table, and what every request passes through.

In order: find the route, turn away web pages of other origins, ask who it is, send on what another node owns (where nodes share branches), ask whether he is within his limits, hold room for its audit event, pass the gates (control rate, slot), read the body within its limit, run the handler
under the request's deadline, turn whatever it raised into the error envelope, write the event down, send, measure. Files that come or go
(memoturnd.http.streaming) have a pace to keep instead of the deadline.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import structlog
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from memoturnd.audit.egress import noted_by
from memoturnd.core.consistency import Consistency
from memoturnd.core.limits import Owner
from memoturnd.engine.consistency import Reading, reading_as
from memoturnd.errors import (
    CorruptionError,
    ForbiddenError,
    InvalidRequestError,
    MemoturnError,
    MethodNotAllowedError,
    NotFoundError,
    NotOwnerError,
    OverloadedError,
    RequestTimeoutError,
    RetryableError,
    UnauthorizedError,
    invariant,
)
from memoturnd.http.addresses import about
from memoturnd.http.admission import Admission
from memoturnd.http.auditing import Auditor, Entry
from memoturnd.http.browsers import Browsers
from memoturnd.http.call import Call, headers_of
from memoturnd.http.cors import Cors
from memoturnd.http.envelope import (
    REPLAYED,
    UNAPPLIED,
    Answer,
    error_reply,
    from_copy,
    internal_error_reply,
    is_internal,
)
from memoturnd.http.gates import BodyMemory, InFlight, TokenBuckets
from memoturnd.http.limits import Limiter, Target
from memoturnd.http.past import PastNode
from memoturnd.http.ports import HttpSettings, Node
from memoturnd.http.protocol import ABORT
from memoturnd.http.route import METHODS, Body, Kind, Route
from memoturnd.http.route import Scope as RouteScope
from memoturnd.http.routes import ROUTES
from memoturnd.http.streaming import Pace, send_chunks
from memoturnd.http.tree import Tree
from memoturnd.logs import RequestContext, RequestLog, given_or_new_id, request_context
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock, Randomness, SystemClock, SystemRandomness
from memoturnd.seams.object_store import ObjectMissingError

if TYPE_CHECKING:
    from memoturnd.http.forwarding import Forwarding

SMALL_BODY_BYTES: Final = 1 << 20
"""Largest body of a route that carries no data to store."""
BODIES_OF_MEMORY: Final = 4
"""Request bodies together take one part in this many of the memory budget, and one whole body at least."""

_UNGATED: Final = frozenset({Kind.OPEN, Kind.PEER})
_BODILESS: Final = frozenset({204, 304})
"""Statuses of answers that have no body, and so no length of one."""
_PARTS: Final = ("/branches", "/erasures", "/reembed")
"""In the templates of routes that change more than one branch by one commit."""
MOST_MOVES: Final = 8
"""Times that a request follows its branch from node to node before it is given up."""
_UNMATCHED: Final = "unmatched"
_NOWHERE: Final[tuple[dict[str, Route], dict[str, str]]] = ({}, {})
_log = structlog.get_logger("memoturnd.http")


def create_app(
    node: Node,
    settings: HttpSettings,
    *,
    lifespan: Lifespan[Any] | None = None,
    clock: Clock | None = None,
    randomness: Randomness | None = None,
    routes: Iterable[Route] = ROUTES,
    admission: Admission | None = None,
    auditor: Auditor | None = None,
    forwarding: "Forwarding | None" = None,
) -> ASGIApp:
    """Build the ASGI application that serves `node`, to whom it admits unless `admission` says otherwise.

    Without `auditor` it is unaudited; without `forwarding` no other node owns branches.
    """
    api = Api(
        node,
        settings,
        clock or SystemClock(),
        randomness or SystemRandomness(),
        routes,
        admission or node.admission,
        auditor,
        forwarding,
    )
    return Router([api], redirect_slashes=False, lifespan=lifespan)


class Api(BaseRoute):
    """The one Starlette route: takes every HTTP request, whatever its path."""

    def __init__(
        self,
        node: Node,
        settings: HttpSettings,
        clock: Clock,
        randomness: Randomness,
        routes: Iterable[Route],
        admission: Admission,
        auditor: Auditor | None,
        forwarding: "Forwarding | None",
    ) -> None:
        self._node = node
        self._forwarding = forwarding
        self._auditor = auditor
        self._admission = admission
        self._clock = clock
        self._randomness = randomness
        routes = tuple(routes)
        self._tree = Tree(routes)
        self._timeout_s = settings.request_timeout_s
        self._model_timeout_s = settings.model_timeout_s
        self._limits_bytes = {
            Body.SMALL: min(SMALL_BODY_BYTES, settings.max_body_bytes),
            Body.LARGE: settings.max_body_bytes,
            Body.RAW: settings.max_body_bytes,
            Body.FILE: settings.max_import_bytes,
        }
        self._cors = Cors(settings.cors_origins, routes)
        self._browsers = Browsers(loopback_only=settings.loopback_only, cors=self._cors)
        self._control = TokenBuckets(settings.control_rate, clock)
        self._slots = InFlight(settings.max_concurrency)
        self._limiter = Limiter(node.accounts, node.meter, clock, node.metrics)
        self._bodies = BodyMemory(
            max(settings.max_body_bytes, settings.memory_budget_bytes // BODIES_OF_MEMORY)
        )
        self._shed = node.metrics.shed
        self._timers = _Timers(node.metrics)
        self._requests = RequestLog(
            settings.request_log, slow_s=settings.slow_request_ms / 1000, now_s=clock.monotonic_s
        )
        _show(self._slots, self._bodies, node.metrics)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take every HTTP request."""
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises nothing: every failure is an answer."""
        context = RequestContext(given_or_new_id(scope["headers"], self._randomness))
        with request_context(context):
            await self._serve_in(context, scope, receive, send)

    async def _serve_in(self, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        started_s, request_id = self._clock.monotonic_s(), context.request_id
        trail = _Trail(context)
        try:
            template, answer = await self._answer(scope, receive, request_id, trail)
            trail.end(answer, request_id)
            answer.headers.append((b"memoturn-request-id", request_id))
            self._cors.stamp(answer.headers, scope["headers"], scope["path"])
            await self._send(answer, scope, receive, send)
        except ClientDisconnect:
            return
        finally:
            trail.end(None, request_id)
            trail.noting.close()
        seconds = self._clock.monotonic_s() - started_s
        self._timers.observe(template, scope["method"], answer.status, seconds)
        self._requests.note(
            template,
            scope["method"],
            answer.status,
            seconds,
            may_wait=trail.may_wait or answer.stream is not None,
            headers=answer.headers,
        )

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: bytes, trail: "_Trail"
    ) -> tuple[str, Answer]:
        template, route = _UNMATCHED, None
        try:
            by_method, params = (
                self._tree.find(scope.get("raw_path") or quote(scope["path"]).encode()) or _NOWHERE
            )
            if by_method:
                template = next(iter(by_method.values())).template
            route = by_method.get("GET" if scope["method"] == "HEAD" else scope["method"])
            headers = headers_of(scope["headers"])
            any_host = route is not None and route.kind is Kind.OPEN
            self._browsers.check(headers, scope["path"], any_host=any_host)
            if route is None:
                if (preflight := self._cors.preflight(scope["method"], headers, scope["path"])) is not None:
                    return template, preflight
                await self._admission.admit_unknown(Call(self._node, {}, headers, b""))
                return template, _no_route(scope["method"], by_method)
            template = route.template
            call = Call(self._node, params, headers, scope["query_string"], operation=route.operation)
            trail.context.about = partial(about, route, call)
            trail.may_wait = route.may_wait
            await self._admit(route, call, request_id)
            if route.kind is not Kind.READ:
                return template, await self._answered(route, call, scope, receive, request_id, trail)
            with reading_as(Reading(call.consistency, self._reads)) as reading:
                answer = await self._answered(route, call, scope, receive, request_id, trail)
            return template, from_copy(answer, reading.age_ms)
        except MemoturnError as error:
            if is_internal(error):
                return template, self._internal(error, template, request_id)
            return template, _refusal(error, route)
        except ClientDisconnect:
            raise
        except asyncio.CancelledError as error:
            # What the handler waited for was cancelled, not this request: still the node's failure.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return template, self._internal(error, template, request_id)
        except Exception as error:  # noqa: BLE001 - the border of the program: recorded, and answered with 500
            return template, self._internal(error, template, request_id)

    async def _answered(
        self, route: Route, call: Call, scope: Scope, receive: Receive, request_id: bytes, trail: "_Trail"
    ) -> Answer:
        if self._forwarding is None:
            return await self._serve(route, call, receive, request_id, trail)
        return await self._serve_or_forward(route, call, scope, receive, request_id, trail)

    async def _serve_or_forward(
        self, route: Route, call: Call, scope: Scope, receive: Receive, request_id: bytes, trail: "_Trail"
    ) -> Answer:
        """Let the owner of the branch answer, which is this node where no other one is."""
        invariant(self._forwarding is not None, "only a node among others forwards")
        hop = cast("Forwarding", self._forwarding).hop(scope, receive, request_id, self._bodies)
        with closing(hop):
            for _ in range(MOST_MOVES):
                answer = await hop.elsewhere(route, call)
                if answer is not None:
                    return answer
                try:
                    return await self._serve(route, call, hop.receive, request_id, trail)
                except NotOwnerError as error:
                    trail.drop()
                    answer = await hop.misdirected(route, call, error)
                    if answer is not None:
                        return answer
        raise RetryableError(
            "the branch went from node to node meanwhile; nothing was applied, send it again"
        )

    async def _serve(
        self, route: Route, call: Call, receive: Receive, request_id: bytes, trail: "_Trail"
    ) -> Answer:
        target = None if route.kind in _UNGATED else await self._limiter.admit(route, call)
        if self._auditor is not None:
            trail.begin(await self._auditor.begin(route, call, request_id))
        if target is not None:
            _look_back(route, call)
        return await self._pass_gates(route, call, receive, target)

    async def _reads(self, database: str) -> Consistency:
        return await self._node.policies.reads(database)

    async def _admit(self, route: Route, call: Call, request_id: bytes) -> None:
        try:
            call.principal = await self._admission.admit(route, call)
        except (UnauthorizedError, ForbiddenError) as error:
            if self._auditor is not None:
                await self._auditor.denied(route, call, error, request_id)
            raise

    async def _pass_gates(self, route: Route, call: Call, receive: Receive, target: Target | None) -> Answer:
        if target is None:
            return await self._within_deadline(route, call, receive, slot_of=None)
        answer = await self._pass_limited(route, call, receive, target)
        self._limiter.served(route, call, target, answer)
        return answer

    async def _pass_limited(self, route: Route, call: Call, receive: Receive, target: Target) -> Answer:
        if route.kind is Kind.CONTROL:
            try:
                # The operator's requests are counted apart, so that no token keeps him from revoking it.
                self._control.take(target.owner if call.principal.kind == "token" else None)
            except OverloadedError:
                self._shed["control_rate"].inc()
                raise
        if route.body is Body.FILE:
            call.take_file(receive, self._limits_bytes[Body.FILE], Pace(self._clock, self._timeout_s))
            return _replayed(call, await route.handler(call))
        # A slot of this node must not wait for a slot of another one that waits for this one's.
        slot_of = None if route.scope is RouteScope.INTERNAL else target.owner
        return await self._within_deadline(route, call, receive, slot_of=slot_of)

    async def _within_deadline(
        self, route: Route, call: Call, receive: Receive, *, slot_of: Owner | None
    ) -> Answer:
        timeout_s = self._timeout_s + (self._model_timeout_s if route.asks_model else 0)
        try:
            async with asyncio.timeout(timeout_s) as timer:
                if slot_of is None:
                    return await self._handled(route, call, receive)
                return await self._in_slot(route, call, receive, slot_of)
        except TimeoutError as error:
            if not timer.expired():
                raise
            self._shed["request_timeout"].inc()
            raise RequestTimeoutError(
                f"the request ran past {timeout_s:g} s; a write that was already queued still applies, "
                "so read before sending it again"
            ) from error

    async def _in_slot(self, route: Route, call: Call, receive: Receive, owner: Owner) -> Answer:
        try:
            await self._slots.enter(owner)
        except OverloadedError:
            self._shed["concurrency"].inc()
            raise
        try:
            return await self._handled(route, call, receive)
        finally:
            self._slots.leave(owner)

    async def _handled(self, route: Route, call: Call, receive: Receive) -> Answer:
        try:
            if route.body is not Body.NONE:
                await self._read(route.body, call, receive)
            return _replayed(call, await route.handler(call))
        finally:
            self._bodies.give(call.held_bytes)

    async def _read(self, body: Body, call: Call, receive: Receive) -> None:
        if body is not Body.RAW:
            call.require_json()
        try:
            await call.read_body(receive, self._limits_bytes[body], self._bodies)
        except OverloadedError:
            self._shed["body_memory"].inc()
            raise

    def _internal(self, error: BaseException, template: str, request_id: bytes) -> Answer:
        shown = request_id.decode()
        _log.error("request_failed", route=template, exc_info=error)
        if isinstance(error, CorruptionError | ObjectMissingError):
            return error_reply(error)  # whoever runs the node has to know which object it is
        return internal_error_reply(shown)

    async def _send(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        headers, with_body = answer.headers, scope["method"] != "HEAD"
        size_bytes = answer.size_bytes
        if answer.status not in _BODILESS and size_bytes is not None:
            headers.append((b"content-length", b"%d" % size_bytes))
        start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
        if answer.stream is None or not with_body:
            if answer.stream is not None:
                answer.stream.close()
            await send(start)
            await send({"type": "http.response.body", "body": answer.body if with_body else b""})
            return
        try:
            await send(start)
            if await send_chunks(answer.stream, receive, send, Pace(self._clock, self._timeout_s)):
                return
        except Exception as error:  # noqa: BLE001 - the status is sent: all that is left is to break off
            _log.error("download_failed", exc_info=error)
        finally:
            answer.stream.close()
        await _break_off(scope, receive)


@dataclass(slots=True)
class _Trail:
    """What a request leaves behind, however it ends."""

    context: RequestContext
    may_wait: bool = False
    entry: Entry | None = None
    noting: ExitStack = field(default_factory=ExitStack)

    def begin(self, entry: Entry | None) -> None:
        """Take the entry of the request, which is also told what leaves for models until the answer is sent."""
        self.entry = entry
        if entry is not None:
            self.noting.enter_context(noted_by(entry.note))

    def drop(self) -> None:
        """Write nothing down: the node that serves the request does."""
        if self.entry is not None:
            self.entry.drop()
        self.entry = None

    def end(self, answer: Answer | None, request_id: bytes) -> None:
        """Write down the request's event, once, where it has one."""
        if self.entry is not None:
            entry, self.entry = self.entry, None
            entry.end(answer, request_id)


class _Timers:
    """The latency histogram's children, bound when a route first answers with a class of statuses."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._bound: dict[tuple[str, str, int], Callable[[float], None]] = {}

    def observe(self, template: str, method: str, status: int, seconds: float) -> None:
        key = (template, method, status // 100)
        bound = self._bound.get(key)
        if bound is None:
            known = method if method in METHODS else "other"
            bound = self._metrics.request_timer(template, known, f"{status // 100}xx")
            if known == method:
                self._bound[key] = bound
        bound(seconds)


def _refusal(error: MemoturnError, route: Route | None) -> Answer:
    """Answer with an error; that nothing was applied is said of what is applied whole or not at all."""
    answer = error_reply(error)
    if route is not None and _is_in_parts(route) and UNAPPLIED in answer.headers:
        answer.headers.remove(UNAPPLIED)
    return answer


def _is_in_parts(route: Route) -> bool:
    """Return whether a request may have had an effect although it failed: it has several, or one in object storage that may land later."""
    return (
        route.body is Body.FILE
        or route.kind is Kind.CONTROL
        or any(part in route.template for part in _PARTS)
    )


def _replayed(call: Call, answer: Answer) -> Answer:
    """Say so where an earlier request had the answer; return it."""
    if call.once is not None and call.once.replayed:
        answer.headers.append(REPLAYED)
    return answer


def _look_back(route: Route, call: Call) -> None:
    """Let a read that asks for a past state find it behind the node. Raises InvalidRequestError on other routes."""
    at = call.at
    if at is None:
        return
    if not route.takes_at:
        raise InvalidRequestError(
            f"{route.method} {route.template} takes no Memoturn-At and no `at`: only reads of what a branch holds do"
        )
    call.node = PastNode(call.node, at, call.principal.token_id)


def _no_route(method: str, by_method: Mapping[str, Route]) -> Answer:
    if not by_method:
        return error_reply(
            NotFoundError("nothing is served at this path; check it against the API reference")
        )
    allowed = ", ".join(sorted({*by_method, "HEAD"} if "GET" in by_method else by_method))
    answer = error_reply(MethodNotAllowedError(f"this path does not take {method[:16]}; it takes {allowed}"))
    answer.headers.append((b"allow", allowed.encode()))
    return answer


async def _break_off(scope: Scope, receive: Receive) -> None:
    """End the connection of an answer that cannot be finished, so that nobody takes what came for all of it."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is None:
        raise ClientDisconnect
    abort["abort"]()
    while (await receive())["type"] != "http.disconnect":
        pass


def _show(slots: InFlight, bodies: BodyMemory, metrics: Metrics) -> None:
    metrics.in_flight.set_function(lambda: slots.running)
    metrics.in_flight_limit.set(slots.limit)
    metrics.waiting.set_function(lambda: slots.waiting)
    metrics.waiting_limit.set(slots.waiting_limit)
    metrics.body_bytes.set_function(lambda: bodies.held_bytes)
    metrics.body_limit_bytes.set(bodies.limit_bytes)
