"""The limits of tenants, namespaces and tokens: asked of each request once it is known who sends it, before its body is read.

A refused request costs little, and a client that sends the next one as soon as it is refused is slowed down: beyond a few
refusals a second those of one tenant, namespace or token are answered late. How many are held so is bounded.
"""

import math
from collections import OrderedDict
from typing import Final, NamedTuple

from memoturnd.core import names
from memoturnd.core.limits import Bucket, Owner
from memoturnd.engine.accounts import Account, Accounts
from memoturnd.engine.metering import Meter
from memoturnd.errors import OverloadedError
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer
from memoturnd.http.route import Body, Kind, Route, Scope
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock

TOKENS_KEPT: Final = 20_000
"""Tokens with rates of their own that are counted at once; the one that was unused longest begins anew."""
REFUSALS_PER_S: Final = 20.0
"""Refusals of one tenant, namespace or token that are answered in a second; more of them are held back."""
LONGEST_HOLD_S: Final = 1.0
"""How late a refusal is answered at most, which is the least that `Retry-After` says."""
HELD_AT_ONCE: Final = 2048
"""Refusals that are held back at once; beyond it they are answered at once."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
"""Its multiples, without their whole parts, lie evenly between 0 and 1."""
_NEVER_S: Final = 60
"""What `Retry-After` says where a rate is 0."""
_MOST_RETRY_S: Final = 3600
_RECALLS: Final = ("/recall", "/ask")
_ADDS_MEMORIES: Final = ("/memories", "/extract", "/import")
_TAKES_AWAY: Final = ("/delete", "/forget", "/sync")
_SERVED: Final = frozenset({409, 412, 422})
"""Answers to requests that count as usage besides those below 400."""
_BAD_REQUEST: Final = 400
_WROTE: Final = b"memoturn-durability"


class Target(NamedTuple):
    """What a request is about: `owner` is a namespace or a tenant, `database` a plain name; empty for none."""

    owner: Owner
    database: str = ""
    is_main: bool = False


class _Token:
    """The rates of one token."""

    __slots__ = ("next_refusal_s", "requests", "shown", "writes")

    def __init__(self, shown: str, now_s: float) -> None:
        self.shown = shown
        self.next_refusal_s = 0.0
        self.requests = Bucket(now_s)
        self.writes = Bucket(now_s)


class Limiter:
    """Admits requests within the limits, and counts what was served."""

    def __init__(self, accounts: Accounts, meter: Meter, clock: Clock, metrics: Metrics) -> None:
        self._accounts = accounts
        self._meter = meter
        self._clock = clock
        self._metrics = metrics
        self._tokens: OrderedDict[str, _Token] = OrderedDict()
        self._held = 0
        self._spread = 0.0
        metrics.refusals_held.set_function(lambda: self._held)
        metrics.refusals_held_limit.set(HELD_AT_ONCE)

    async def admit(self, route: Route, call: Call) -> Target:
        """Return what the request is about. Raises OverloadedError where a limit is reached, and counts nothing then.

        The operator's administration is not limited: who sets quotas has to be able to.
        """
        target = _target(call)
        principal = call.principal
        writes = route.kind is Kind.WRITE and not (
            route.scope is Scope.READ and principal.kind == "token" and principal.scope == "read"
        )
        takers: list[tuple[Account | _Token, float | None, float | None]] = []
        if principal.kind == "token" and principal.limits:
            for token_id, limits in (
                (principal.token_id, principal.limits),
                *principal.shared_limits.items(),
            ):
                token = self._token(token_id)
                takers.append((token, limits.get("requests_per_s"), limits.get("writes_per_s")))
        if route.kind is not Kind.CONTROL or principal.kind == "token":
            owner = target.owner
            for one in (owner, Owner(owner.tenant)) if owner.namespace else (owner,):
                account = self._accounts.known(one) or await self._accounts.get(one)
                takers.append((account, account.quotas.requests_per_s, account.quotas.writes_per_s))
                if writes and account.is_counted and not _takes_away(route):
                    await self._check_room(account, route)
        await self._take(takers, writes=writes)
        return target

    def served(self, route: Route, call: Call, target: Target, answer: Answer) -> None:
        """Count a request that was answered."""
        if answer.status >= _BAD_REQUEST and answer.status not in _SERVED:
            return
        if route.kind is Kind.CONTROL:
            if route.body is Body.FILE:  # a database that was imported
                self._meter.changed(call.qualified(target.database))
            return
        wrote = any(name == _WROTE for name, _ in answer.headers)
        self._meter.served(
            target.owner, target.database, wrote=wrote, recalled=route.template.endswith(_RECALLS)
        )
        if wrote and target.database:
            if target.is_main:
                self._meter.changed(call.qualified(target.database))
            self._accounts.grew(target.owner, len(call.body), call.memories_added)

    def _token(self, token_id: str) -> _Token:
        token = self._tokens.get(token_id)
        if token is None:
            token = self._tokens[token_id] = _Token(f"token {token_id}", self._clock.monotonic_s())
            if len(self._tokens) > TOKENS_KEPT:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end(token_id)
        return token

    async def _check_room(self, account: Account, route: Route) -> None:
        try:
            account.check_room(for_memories=route.template.endswith(_ADDS_MEMORIES))
        except OverloadedError:
            await self._hold(account)
            raise

    async def _take(
        self, takers: list[tuple[Account | _Token, float | None, float | None]], *, writes: bool
    ) -> None:
        """Take of every bucket, or of none."""
        now_s = self._clock.monotonic_s()
        taken: list[Bucket] = []
        for taker, requests_per_s, writes_per_s in takers:
            if requests_per_s is not None:
                wait_s = taker.requests.wait_s(requests_per_s, now_s)
                if wait_s:
                    await self._refuse(taker, "requests_per_s", requests_per_s, wait_s)
                taken.append(taker.requests)
            if writes and writes_per_s is not None:
                wait_s = taker.writes.wait_s(writes_per_s, now_s)
                if wait_s:
                    await self._refuse(taker, "writes_per_s", writes_per_s, wait_s)
                taken.append(taker.writes)
        for bucket in taken:
            bucket.take()

    async def _refuse(self, taker: Account | _Token, limit: str, rate: float, wait_s: float) -> None:
        await self._hold(taker)
        what = limit.removesuffix("_per_s")
        raise OverloadedError(
            f"{taker.shown} is limited to {rate:g} {what} per second at this node; send it again later",
            retry_after_s=_NEVER_S if math.isinf(wait_s) else min(_MOST_RETRY_S, math.ceil(wait_s)),
            limit=limit,
        )

    async def _hold(self, taker: Account | _Token) -> None:
        """Let a refusal wait, where there were many of the same one in the last second."""
        self._metrics.shed["limits"].inc()
        now_s = self._clock.monotonic_s()
        next_s = max(taker.next_refusal_s, now_s - LONGEST_HOLD_S)
        taker.next_refusal_s = min(next_s + 1 / REFUSALS_PER_S, now_s + LONGEST_HOLD_S)
        if next_s <= now_s or self._held >= HELD_AT_ONCE:
            return
        self._held += 1
        # Those that would wait longest are spread over half of that, so that they do not all come again at once.
        self._spread = (self._spread + _GOLDEN) % 1
        try:
            await self._clock.sleep(min(next_s - now_s, LONGEST_HOLD_S * (1 - self._spread / 2)))
        finally:
            self._held -= 1


def _target(call: Call) -> Target:
    """Return what a request is about, as far as its path says so; names that are not valid belong to the tenant."""
    params, tenant = call.params, call.principal.tenant
    spec = params.get("db")
    if spec is not None:
        name, _, branch = spec.partition("@")
        branch = params.get("branch") or branch
        namespace = names.namespace_of(name)
    elif "ns" in params:
        namespace = names.namespace_of(params["ns"] + names.PROFILE_SEPARATOR)
        profile = params.get("profile")
        name = f"{namespace}{names.PROFILE_SEPARATOR}{profile}" if profile and namespace else ""
        branch = call.branch if profile else ""
    else:
        return Target(Owner(tenant))
    return Target(Owner(tenant, namespace), name, branch in {"", names.MAIN_BRANCH})


def _takes_away(route: Route) -> bool:
    """Return whether a request may come although there is no room left: what deletes makes some."""
    return route.method == "DELETE" or route.template.endswith(_TAKES_AWAY)
