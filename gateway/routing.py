"""One request on its way to whoever is to have it: sent, and sent again by the rules, until there is an answer or no time is left."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from gateway.forwarding import Forwarder, LostError, Request, UnconnectedError, Upstream
from memoturnd.core.placement import owner_named
from memoturnd.core.retries import Act, Asked, Event, Outcome, attempt_s, decide
from memoturnd.errors import OutcomeUnknownError, RetryableError, UnansweredError
from memoturnd.seams.leases import Owner

ATTEMPT_S: Final = 10.0
"""Longest time that one attempt of a request waits for its answer, where the request can be repeated and asks no model."""
STREAMED_S: Final = 3600.0
"""Longest time to the answer of a request whose body is too long to be kept."""
POLL_S: Final = 0.5
"""How often it is asked whether an owner that has not answered yet is one still."""
MISDIRECTED: Final = 421
_log = structlog.get_logger(__name__)

Key = tuple[str, str]
"""A branch as requests name it: the database's qualified name, and the branch's."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. With `forwarded` that node may not forward it again."""

    node_id: str
    address: str
    forwarded: bool = True


class Where(Protocol):
    """Knows who is to have a request."""

    async def target(self, key: Key | None, failed: frozenset[str]) -> Target | None:
        """Return where to send it, None where there is nobody; `failed` are nodes that this request could not reach."""
        ...

    def polled(self, target: Target) -> Callable[[], Awaitable[bool]] | None:
        """Return what tells whether an answer can still be expected from there, None where connections that have no end are cut."""
        ...

    def learned(self, key: Key | None, owner: Owner) -> None:
        """Take note of an owner that a node named."""
        ...

    async def changed(self, key: Key | None, wait_s: float) -> None:
        """Wait until something is known that was not, or for `wait_s`."""
        ...

    def saw(self, target: Target, event: Event) -> None:
        """Take note of what became of an attempt."""
        ...


class Router:
    """Sends requests by the rules. `attempt_s` bounds one attempt of a request that can be repeated."""

    def __init__(
        self,
        forwarder: Forwarder,
        where: Where,
        *,
        now_s: Callable[[], float],
        attempt_s: float,
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        self._forwarder = forwarder
        self._where = where
        self._now_s = now_s
        self._attempt_s = attempt_s
        self._sent = sent

    async def route(self, request: Request, asked: Asked, key: Key | None, *, deadline_s: float) -> Upstream:
        """Return the answer; `deadline_s` is a reading of the clock.

        Raises RetryableError where it was surely not applied (then with `Memoturn-Applied: false`) or does no harm when it is
        sent again, OutcomeUnknownError, and ClientDisconnect.
        """
        attempts, hint, failed, lost = 0, None, frozenset[str](), False
        reason, detail = "no node is there", ""
        while True:
            target = hint or await self._where.target(key, failed)
            hint, upstream = None, None
            outcome = Outcome(Event.UNCONNECTED)
            if target is not None:
                left_s = deadline_s - self._now_s()
                timeout_s = attempt_s(asked, attempts=attempts, longest_s=self._attempt_s, left_s=left_s)
                self._sent()
                try:
                    upstream = await self._attempt(target, request, max(0.001, timeout_s))
                except UnconnectedError as error:
                    reason, detail = f"node {target.node_id} cannot be connected to", str(error)
                    failed |= {target.node_id}
                except (LostError, TimeoutError) as error:
                    reason, detail = (
                        f"node {target.node_id} did not answer",
                        str(error) or "no answer in time",
                    )
                    failed |= {target.node_id}
                    outcome = Outcome(Event.LOST)
                else:
                    outcome, hint = self._seen(upstream, key)
                    reason, detail = f"node {target.node_id} answered {upstream.status}", ""
                    if (
                        outcome.unapplied
                        and hint is None
                        and (key is None or asked.anywhere or upstream.status == MISDIRECTED)
                    ):  # it stops, or gives the branch away: another one may take it
                        failed |= {target.node_id}
                self._where.saw(target, outcome.event)
                if request.body.is_spent and asked.replayable:
                    asked = dataclasses.replace(asked, replayable=False)
            elif failed:
                failed = frozenset()  # all of them again
            attempts += 1
            step = decide(asked, outcome, attempts=attempts, left_s=deadline_s - self._now_s(), lost=lost)
            lost = lost or outcome.event is Event.LOST
            if step.act is Act.ANSWER and upstream is not None:
                return upstream
            if upstream is not None:
                upstream.close()
            if step.act is not Act.HINT:
                hint = None
            if step.act is Act.AGAIN:
                await self._where.changed(key, step.wait_s)
            elif step.act is not Act.HINT:
                _log.info("a request is given up", reason=reason, detail=detail)  # which clients do not see
                raise _given_up(step.act, reason)

    async def _attempt(self, target: Target, request: Request, timeout_s: float) -> Upstream:
        sending = self._forwarder.send(
            target.address, request, forwarded=target.forwarded, timeout_s=timeout_s
        )
        still = self._where.polled(target)
        if still is None:
            return await sending
        task = asyncio.ensure_future(sending)
        try:
            while not (await asyncio.wait([task], timeout=POLL_S))[0] and await still():
                pass
        except BaseException:
            _give_up(task)
            raise
        if task.done():
            return task.result()
        _give_up(task)
        raise LostError(f"{target.address} owns the branch no more, and has not answered")

    def _seen(self, upstream: Upstream, key: Key | None) -> tuple[Outcome, Target | None]:
        if upstream.status < MISDIRECTED:
            return Outcome(Event.ANSWERED, upstream.status), None
        unapplied = upstream.header(b"memoturn-applied") == b"false"
        owner = owner_in(upstream) if upstream.status == MISDIRECTED else None
        if owner is None:
            return Outcome(Event.ANSWERED, upstream.status, unapplied), None
        self._where.learned(key, owner)
        return Outcome(Event.ANSWERED, upstream.status, unapplied, hinted=True), Target(
            owner.node_id, owner.address
        )


def _give_up(task: "asyncio.Future[Upstream]") -> None:
    def close(done: "asyncio.Future[Upstream]") -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().close()

    task.add_done_callback(close)
    task.cancel()


def owner_in(upstream: Upstream) -> Owner | None:
    """Return the owner that an answer names, None where it names none."""
    names = (b"memoturn-owner-node", b"memoturn-owner", b"memoturn-owner-epoch")
    return owner_named(*((upstream.header(name) or b"").decode("latin-1") for name in names))


def _given_up(act: Act, reason: str) -> RetryableError | OutcomeUnknownError:
    if act is Act.UNKNOWN:
        return OutcomeUnknownError(
            f"the write was sent, and no answer came ({reason}): it may have been applied; read, then decide. Writes with an "
            "Idempotency-Key are repeated safely"
        )
    if act is Act.UNANSWERED:
        return UnansweredError(f"no answer came in time ({reason}); send it again")
    return RetryableError(
        f"no node could take the request in time ({reason}); nothing was applied, send it again"
    )
