"""The audit stream's place in the pipeline: room before the handler runs, an event once the answer is known.

What a request did, to what, by whom and how it ended is said here for every route, from the route's own line and the
request's path; a handler only adds what it alone knows (`Call.tell`). Nothing of a body ever gets into an event.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from memoturnd.audit.log import AuditLog
from memoturnd.audit.ports import AuditRules
from memoturnd.core import audit, names
from memoturnd.core.audit import Actor, Egress, Event, Outcome
from memoturnd.core.principal import Principal
from memoturnd.errors import ForbiddenError, InvalidRequestError, OverloadedError, UnauthorizedError
from memoturnd.http.actions import Act, Weight, act_of
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer, error_reply
from memoturnd.http.gates import TokenBuckets
from memoturnd.http.route import Route
from memoturnd.seams.clock import Clock

DENIED_PER_S: Final = 20
"""Events a second for requests that are not let in: without a valid credential, and with tokens of one namespace or tenant.
Beyond it they are counted and told together."""
_DENIED: Final = frozenset({401, 403})
_FAILED: Final = 400
_UNSTARTED: Final = Answer(499)
"""Stands for the answer of a request that was broken off."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@+-]{1,100}")
_OWN_IDS: Final = re.compile(r"(?:mem|ers|tok|evt)_[0-9a-zA-Z-]{1,64}")
_HIDDEN: Final = frozenset({"key", "id", "session", "sid", "topic_key"})
"""Parts of paths with names of single things, which users choose: events carry their hash."""
_TXID: Final = b"memoturn-txid"


class _Failure(msgspec.Struct):
    code: str = "internal"


_failure = msgspec.json.Decoder(_Failure).decode


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. `namespace` is `_platform` where it is no profile's or namespace's."""

    namespace: str
    profile: str | None = None
    db: str | None = None
    branch: str | None = None


@dataclass(slots=True)
class Entry:
    """A request whose event will be written down; `reserved` is whether room for it is held."""

    auditor: "Auditor"
    call: Call
    act: Act
    target: Target
    reserved: bool
    request_id: bytes = b""

    def note(self, action: str, egress: Egress, outcome: Outcome) -> None:
        """Write down what leaves for a provider of models while the request is handled, or its answer sent."""
        self.auditor.note_egress(self, action, egress, outcome)

    def end(self, answer: Answer | None, request_id: bytes) -> None:
        """Write the event down, before the answer leaves; no answer is a request that was broken off."""
        self.auditor.end(self, answer, request_id)

    def drop(self) -> None:
        """Write nothing down, and give the room back."""
        self.auditor.drop(self)


class Auditor:
    """Writes an event for every request that is audited."""

    def __init__(self, log: AuditLog, rules: AuditRules, clock: Clock) -> None:
        self._log = log
        self._rules = rules
        self._clock = clock
        self._denials = TokenBuckets(DENIED_PER_S, clock)
        self._acts: dict[Route, Act | None] = {}

    async def begin(self, route: Route, call: Call, request_id: bytes) -> Entry | None:
        """Return the entry of a request that may have an event, None for others; hold room where it will have one.

        Raises RetryableError when there is no room: then nothing was done.
        """
        act = self._act(route)
        if act is None:
            return None
        target = target_of(route, call)
        if act.weight is Weight.ADMINISTRATIVE:
            await self._log.reserve()
            return Entry(self, call, act, target, reserved=True, request_id=request_id)
        rule = await self._rules.rule(call.principal.tenant, target.namespace, target.profile)
        if not rule.enabled:
            return None
        if act.weight is Weight.READ and not rule.include_reads:
            return Entry(
                self, call, act, target, reserved=False, request_id=request_id
            )  # only a denial would be written down
        await self._log.reserve()
        return Entry(self, call, act, target, reserved=True, request_id=request_id)

    def end(self, entry: Entry, answer: Answer | None, request_id: bytes) -> None:
        """Write an entry's event down; see Entry.end."""
        denied = answer is not None and answer.status in _DENIED
        try:
            if entry.reserved or denied:
                self._write(entry, answer or _UNSTARTED, request_id)
        finally:
            self.drop(entry)

    def drop(self, entry: Entry) -> None:
        """Give an entry's room back; see Entry.drop."""
        if entry.reserved:
            entry.reserved = False
            self._log.release()

    async def denied(
        self, route: Route, call: Call, error: UnauthorizedError | ForbiddenError, request_id: bytes
    ) -> None:
        """Write down a request that was not let in. Raises RetryableError when there is no room for its event."""
        act = self._act(route)
        if act is None:
            return
        target = target_of(route, call)
        tenant = call.principal.tenant
        if act.weight is not Weight.ADMINISTRATIVE:
            rule = await self._rules.rule(tenant, target.namespace, target.profile)
            if not rule.enabled:
                return
        own = _namespace_of(call.principal)
        try:
            self._denials.take(None if isinstance(error, UnauthorizedError) else (tenant, own))
        except OverloadedError:
            self._log.count_denied()
            return
        known = target.namespace in {own, audit.PLATFORM}
        if not known and not self._log.knows(audit.stream_of(tenant, target.namespace)):
            # Whoever is not let in must not be able to start streams.
            target = Target(audit.PLATFORM, db=target.db or _path_of(target))
        await self._log.reserve()
        try:
            self._write(Entry(self, call, act, target, reserved=True), error_reply(error), request_id)
        finally:
            self._log.release()

    def _act(self, route: Route) -> Act | None:
        try:
            return self._acts[route]
        except KeyError:
            act = self._acts[route] = act_of(route)
            return act

    def _write(self, entry: Entry, answer: Answer, request_id: bytes) -> None:
        tenant, target = entry.call.principal.tenant, entry.target
        stream = audit.stream_of(tenant, target.namespace)
        self._log.append(stream, self._event(entry, answer, request_id))

    def note_egress(self, entry: Entry, action: str, egress: Egress, outcome: Outcome) -> None:
        """Write down what left; see Entry.note."""
        call = entry.call
        event = self._event(entry, Answer(200), entry.request_id)
        told = msgspec.structs.replace(
            event, action=action, outcome=outcome, egress=egress, resource=None, count=None, txid=None
        )
        self._log.append(audit.stream_of(call.principal.tenant, entry.target.namespace), told)

    def _event(self, entry: Entry, answer: Answer, request_id: bytes) -> Event:
        call, target = entry.call, entry.target
        told = call.told or {}
        now_ms = self._clock.now_ms()
        tenant = call.principal.tenant
        return Event(
            v=audit.VERSION,
            id=self._log.next_id(now_ms),
            ts=now_ms,
            node=self._log.node,
            ns=target.namespace,
            tenant=None if tenant == names.DEFAULT_TENANT else tenant,
            db=told.get("db", target.db),
            profile=target.profile,
            branch=told.get("branch", target.branch),
            action=entry.act.action,
            resource=told.get("resource") or resource_of(call),
            outcome=_outcome(answer),
            txid=_txid(answer),
            count=told.get("count"),
            actor=_actor(call),
            error=_error(answer),
            request_id=request_id.decode(),
        )


def target_of(route: Route, call: Call) -> Target:
    """Return what a request is about, by its path; names that are not valid are nobody's."""
    params = call.params
    try:
        if "db" in params:
            name, branch = names.parse_spec(params["db"])
            branch = params.get("branch", branch)
            namespace, separator, profile = name.partition(names.PROFILE_SEPARATOR)
            if separator:
                return Target(namespace, profile, branch=_told(branch))
            return Target(audit.PLATFORM, db=name, branch=_told(branch))
        if "profile" in params:
            return Target(
                names.namespace(params["ns"]), names.profile(params["profile"]), branch=_told(call.branch)
            )
        if "ns" in params and params["ns"] != audit.PLATFORM:
            return Target(names.namespace(params["ns"]))
    except InvalidRequestError:
        pass
    del route
    return Target(audit.PLATFORM)


def resource_of(call: Call) -> str | None:
    """Return the path below the profile with the names of single things hidden, None where it names nothing."""
    parts = call.operation.partition(" ")[2].split("/")[1:]
    at = {"memory": 4, "tenants": 1}.get(parts[1], 3)
    shown, named = [], False
    for part in parts[at:]:
        if not part.startswith("{"):
            shown.append(part)
            continue
        named = True
        name = part[1:-1]
        value = call.params.get(name, "")
        plain = _OWN_IDS.fullmatch(value) if name in _HIDDEN else _PLAIN.fullmatch(value)
        shown.append(value if plain else audit.hidden(value))
    return "/".join(shown) if named else None


def _told(branch: str) -> str | None:
    return (
        None if branch == names.MAIN_BRANCH else branch if _PLAIN.fullmatch(branch) else audit.hidden(branch)
    )


def _namespace_of(sender: Principal) -> str:
    return sender.ns or names.namespace_of(sender.db)


def _path_of(target: Target) -> str:
    return (
        f"{target.namespace}{names.PROFILE_SEPARATOR}{target.profile}" if target.profile else target.namespace
    )


def _outcome(answer: Answer) -> Outcome:
    if answer.status in _DENIED:
        return "denied"
    return "ok" if answer.status < _FAILED else "error"


def _error(answer: Answer) -> str | None:
    if answer.status < _FAILED:
        return None
    if answer is _UNSTARTED:
        return "cancelled"
    try:
        return _failure(answer.body).code
    except msgspec.MsgspecError:
        return "internal"


def _txid(answer: Answer) -> int | None:
    for name, value in answer.headers:
        if name == _TXID:
            return int(value)
    return None


def _actor(call: Call) -> Actor:
    actor = audit.actor_of(call.principal)
    presented = call.header("authorization")
    if actor.kind == "anonymous" and presented is not None:
        token = presented.partition(" ")[2].strip()
        return Actor("token", token_hash=audit.token_hash(token.encode("latin-1"))) if token else actor
    return actor
