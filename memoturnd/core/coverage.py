"""What a credential opens: the decision about a sender and what a request reaches for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Protocol

from memoturnd.core import names
from memoturnd.core.principal import SURFACES, Principal, TokenScope
from memoturnd.errors import ForbiddenError


class Scope(Enum):
    """The credential that a route takes where authentication is on; `READ`, `WRITE` and `ADMIN` are the scopes of tokens."""

    NONE = "none"
    PLATFORM = "platform"
    NAMESPACE = "namespace"
    """A token of the namespace, of any scope."""
    NAMESPACE_ADMIN = "namespace_admin"
    """The platform key, or an admin token of the namespace."""
    INTERNAL = "internal"
    """The cluster key."""
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Reach:
    """What a route touches within a database: its `surfaces`, and with `whole` more than the branches that its path names."""

    surfaces: frozenset[str]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What a request names: a database by its plain name, a namespace, branches. Empty where it names none."""

    db: str = ""
    ns: str = ""
    branches: frozenset[str] = frozenset()


class Asked(Protocol):
    """A request, as far as its address does not stand in the path."""

    @property
    def branch(self) -> str:
        """The branch that a memory route is asked for."""
        ...


KeyKind = Literal["platform", "internal"]
_EVERYTHING: Final = Reach(SURFACES, whole=True)
_MEMORY: Final = "/v1/memory/{ns}/{profile}"
_DB: Final = "/v1/db/{db}"
_AUDIT: Final = "/v1/namespaces/{ns}/audit"
_EXACT: Final[Mapping[str, Reach]] = {
    f"{_MEMORY}/policy": _EVERYTHING,  # it bounds all that the profile holds, on every branch
    f"{_MEMORY}/export": Reach(frozenset({"memory", "turns"})),
    f"{_MEMORY}/import": Reach(frozenset({"memory", "turns"})),
    f"{_MEMORY}/reembed": Reach(frozenset({"memory", "turns"})),
    f"{_MEMORY}/models": Reach(frozenset({"memory", "turns"})),
    f"{_MEMORY}/models/{{name}}": Reach(frozenset({"memory", "turns"})),
    f"{_MEMORY}/changes": Reach(frozenset()),  # a token sees its own surfaces there
    f"{_DB}/changes": Reach(frozenset()),
    f"{_DB}/sync": Reach(frozenset()),
    f"{_DB}/export": Reach(SURFACES),
    f"{_DB}/branches": Reach(frozenset({"branches"}), whole=True),
    f"{_DB}/restore-points": Reach(frozenset({"branches"})),
}
_BELOW: Final[tuple[tuple[str, Reach], ...]] = (
    *(
        (f"{_MEMORY}/{part}", Reach(frozenset({"memory"})))
        for part in ("memories", "recall", "ask", "extract")
    ),
    *((f"{_MEMORY}/{part}", Reach(frozenset({"memory"}))) for part in ("topics", "sessions")),
    # A token mints, sees and revokes what opens no more than itself, whatever limits it.
    ("/v1/databases/{db}/tokens", Reach(frozenset())),
    ("/v1/namespaces/{ns}/tokens", Reach(frozenset())),
    (f"{_DB}/branches", Reach(frozenset({"branches"}))),
    (f"{_DB}/docs", Reach(frozenset({"documents"}))),
    (f"{_DB}/kv", Reach(frozenset({"kv"}))),
    (f"{_DB}/vectors", Reach(frozenset({"vectors"}))),
    (f"{_DB}/timelines", Reach(frozenset({"timelines"}))),
    (f"{_DB}/memory", Reach(frozenset({"turns"}))),
    (f"{_DB}/sql", Reach(frozenset({"sql"}))),
)


def reach_of(template: str) -> Reach:
    """Return what a route touches. One that is not known touches everything, so that no limited token opens it."""
    exact = _EXACT.get(template)
    if exact is not None:
        return exact
    for prefix, reach in _BELOW:
        if template == prefix or template.startswith(f"{prefix}/"):
            return reach
    return _EVERYTHING


def check(sender: Principal, need: Scope, reach: Reach, target: Target) -> None:
    """Raise ForbiddenError unless the sender's credential opens what the request reaches for."""
    if need is Scope.NONE:
        return
    if need in {Scope.PLATFORM, Scope.INTERNAL}:
        if sender.kind != need.value:
            raise ForbiddenError(
                f"this route takes the {need.value.replace('internal', 'cluster')} key, and nothing else"
            )
        return
    if sender.kind == "internal" and need is not Scope.NAMESPACE_ADMIN:
        return
    if need is Scope.NAMESPACE_ADMIN and sender.kind == "platform":
        return
    if sender.kind != "token" or sender.grant is None:
        raise ForbiddenError(f"this route does not take the {_shown(sender)}; mint a token, and send that")
    if need is Scope.NAMESPACE:
        _check_listing(sender, target)
    elif need is Scope.NAMESPACE_ADMIN:
        _check_administration(sender, reach, target)
    else:
        _check_data(sender, TOKEN_SCOPES[need], reach, target)


TOKEN_SCOPES: Final[Mapping[Scope, TokenScope]] = {
    Scope.READ: "read",
    Scope.WRITE: "write",
    Scope.ADMIN: "admin",
}
_ASK: Final = "ask for one that does"


def _check_listing(sender: Principal, target: Target) -> None:
    grant = sender.grant
    if grant is None or not grant.ns or grant.ns != target.ns:
        raise ForbiddenError(f"the token does not cover the namespace; {_ASK}")
    if grant.profiles is not None:
        raise ForbiddenError(
            "the token is limited to some profiles, and the list shows all; ask for one that is not"
        )


def _check_administration(sender: Principal, reach: Reach, target: Target) -> None:
    grant = sender.grant
    inside = (
        grant is not None and grant.ns and (grant.covers(target.db) if target.db else grant.ns == target.ns)
    )
    if not inside:
        raise ForbiddenError(f"the token does not cover the namespace; {_ASK}")
    if not sender.may("admin"):
        raise ForbiddenError("the token's scope is below admin; ask for one of a namespace with it")
    limited = grant is not None and (grant.branches, grant.surfaces, grant.profiles) != (None, None, None)
    if reach.whole and limited:
        raise ForbiddenError(
            "the token is limited, and this is about the whole namespace; ask for one that is not"
        )


def _check_data(sender: Principal, scope: TokenScope, reach: Reach, target: Target) -> None:
    grant = sender.grant
    if grant is None or not target.db or not grant.covers(target.db):
        raise ForbiddenError(f"the token does not cover this database; {_ASK}")
    if not sender.may(scope):
        raise ForbiddenError(f"the token's scope is {grant.scope}, and this takes {scope}; {_ASK}")
    if grant.surfaces is not None and not reach.surfaces <= grant.surfaces:
        missing = min(reach.surfaces - grant.surfaces)
        raise ForbiddenError(f"the token is not for {missing}; {_ASK}")
    if grant.branches is None:
        return
    if reach.whole:
        raise ForbiddenError(
            "the token is limited to some branches, and this is about all; ask for one that is not"
        )
    if not target.branches <= grant.branches:
        raise ForbiddenError(f"the token does not cover this branch; {_ASK}")


def target_of(params: Mapping[str, str], template: str, asked: Asked) -> Target:
    """Return what a request names, by the path's parts. Raises InvalidRequestError."""
    if template.startswith(_AUDIT) and params["ns"] == names.PLATFORM_STREAM:
        return Target(ns=names.PLATFORM_STREAM)  # which no token is ever for
    if template.startswith("/v1/namespaces/{ns}") or template == "/v1/memory/{ns}":
        return Target(ns=names.namespace(params["ns"]))
    if "profile" in params:
        name = names.profile_database(params["ns"], params["profile"])
        return Target(name, params["ns"], frozenset({asked.branch}))
    if template.startswith(_DB):
        name, named = names.parse_spec(params["db"])
        also = {names.branch(params["branch"])} if "branch" in params else set()
        return Target(name, branches=frozenset({named, *also}))
    if "db" in params:
        return Target(names.database(params["db"]))
    return Target()


def _shown(sender: Principal) -> str:
    return {"platform": "platform key", "internal": "cluster key"}.get(sender.kind, "credential")
