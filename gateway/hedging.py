"""Reads that are sent to a second node when the owner is slow, where the client takes an answer from a replica."""

import asyncio
from collections.abc import Callable

from gateway.addresses import Addressed
from gateway.forwarding import Forwarder, Request, Upstream
from gateway.placements import PlacementCache
from gateway.routing import Router, Target
from memoturnd.core.placement import place
from memoturnd.core.retries import Asked

_FAILED = 400


class Hedge:
    """Sends a read to a second node `after_s` seconds after the first, and takes the answer that comes first."""

    def __init__(
        self,
        router: Router,
        forwarder: Forwarder,
        placements: PlacementCache,
        *,
        after_s: float,
        now_s: Callable[[], float],
        count: Callable[[], None],
    ) -> None:
        self._router = router
        self._forwarder = forwarder
        self._placements = placements
        self._after_s = after_s
        self._now_s = now_s
        self._count = count

    async def route(self, request: Request, asked: Asked, about: Addressed, *, deadline_s: float) -> Upstream:
        """Return the first answer; raises as Router.route does."""
        first = asyncio.ensure_future(self._router.route(request, asked, about.key, deadline_s=deadline_s))
        second: asyncio.Future[Upstream] | None = None
        taken: asyncio.Future[Upstream] | None = None
        try:
            await asyncio.wait([first], timeout=self._after_s)
            if not first.done() and (target := self._other(about)) is not None:
                self._count()
                second = asyncio.ensure_future(
                    self._forwarder.send(
                        target.address,
                        request,
                        forwarded=target.forwarded,
                        timeout_s=deadline_s - self._now_s(),
                    )
                )
                await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
            taken = second if second is not None and not first.done() and _is_good(second) else first
            return await taken
        except BaseException:
            taken = None
            raise
        finally:
            for one in (first, second):
                if one is not None and one is not taken:
                    _let_go(one)

    def _other(self, about: Addressed) -> Target | None:
        if about.key is None:
            return None
        owner = self._placements.owner(about.key)
        avoiding = frozenset[str]() if owner is None else frozenset({owner.node_id})
        node = place(about.key[0], self._placements.nodes.values(), avoiding=avoiding)
        return None if node is None else Target(node.node_id, node.address, forwarded=False)


def takes_a_replicas(about: Addressed, request: Request) -> bool:
    """Return whether a request is a read of a branch that takes a replica's answer, costs no model's, and can be sent twice."""
    consistency = request.headers.get("memoturn-consistency", "")
    return (
        about.reads
        and about.key is not None
        and request.body.is_whole
        and not about.asks_model
        and consistency.strip().lower() == "cached"
    )


def _is_good(done: "asyncio.Future[Upstream]") -> bool:
    return not done.cancelled() and done.exception() is None and done.result().status < _FAILED


def _let_go(one: "asyncio.Future[Upstream]") -> None:
    """Give up a request whose answer nobody takes; the one that was taken is closed by whoever took it."""
    one.add_done_callback(_close)
    one.cancel()


def _close(one: "asyncio.Future[Upstream]") -> None:
    if not one.cancelled() and one.exception() is None:
        one.result().close()
