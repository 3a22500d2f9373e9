"""Who sends a request, as far as the node has proof of it, and what a token opens. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from memoturnd.core import names

Kind = Literal["anonymous", "platform", "token", "internal"]
"""Nobody in particular, while authentication is off; the operator; the bearer of a token; another node."""
TokenScope = Literal["read", "write", "admin"]
SCOPES: Final[tuple[TokenScope, ...]] = ("read", "write", "admin")
"""From the least to the most."""
SURFACES: Final = frozenset({"memory", "documents", "kv", "vectors", "timelines", "turns", "sql", "branches"})
"""The parts of a database to which a token can be limited."""
_NO_LIMITS: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token opens: one database (`db`), or every profile of a namespace (`ns`); the other one is empty.

    `branches`, `surfaces` and `profiles` (of a namespace token) limit it further; None is no limit. `limits` are its rates
    by name, each the most that it may take.
    """

    scope: TokenScope
    db: str = ""
    ns: str = ""
    branches: frozenset[str] | None = None
    surfaces: frozenset[str] | None = None
    profiles: frozenset[str] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)

    def covers(self, db: str) -> bool:
        """Return whether the token is for the database of that (plain, checked) name, all other limits aside."""
        if not self.ns:
            return bool(self.db) and db == self.db
        ns, separator, profile = db.partition(names.PROFILE_SEPARATOR)
        return bool(separator) and ns == self.ns and (self.profiles is None or profile in self.profiles)


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request, and the tenant whose names the request uses.

    All but `kind` and `tenant` is of tokens. `token_id` tells one from another; `token_hash` is what the audit names it by;
    `parents` are the ids of the tokens that it descends from, `shared_limits` their rates by id, each of which counts for all that descend
    from it; `issued_at` and `expires_at` are unix ms; `subject` is what its minter said about its bearer.
    """

    kind: Kind
    tenant: str = names.DEFAULT_TENANT
    grant: Grant | None = None
    token_id: str = ""
    token_hash: str = ""
    parents: tuple[str, ...] = ()
    issued_at: int = 0
    expires_at: int = 0
    subject: str = ""
    shared_limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    _name: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        base = {"anonymous": "", "token": f"subject:{self.subject}" if self.subject else self.token_id}.get(
            self.kind, self.kind
        )
        if self.tenant != names.DEFAULT_TENANT:
            base = f"{self.tenant}{names.TENANT_SEPARATOR}{base}"
        object.__setattr__(self, "_name", base)

    @property
    def name(self) -> str:
        """What tells one sender from another; empty for nobody in particular.

        Tokens with the same subject are one sender, so that a request that is sent again with a newer token is the same one.
        """
        return self._name

    @property
    def scope(self) -> TokenScope | None:
        """The scope of a token, None for whoever has none."""
        return None if self.grant is None else self.grant.scope

    @property
    def db(self) -> str:
        """The database that a token is for, empty without one."""
        return "" if self.grant is None else self.grant.db

    @property
    def ns(self) -> str:
        """The namespace that a token is for, empty without one."""
        return "" if self.grant is None else self.grant.ns

    @property
    def iat(self) -> int:
        """When a token was issued, in unix seconds as its claim has it."""
        return self.issued_at // 1000

    @property
    def limits(self) -> Mapping[str, float]:
        """The rates of a token by name."""
        return _NO_LIMITS if self.grant is None else self.grant.limits

    def may(self, scope: TokenScope) -> bool:
        """Return whether the sender has that scope; whoever bears no token was let in by other means."""
        return self.grant is None or SCOPES.index(self.grant.scope) >= SCOPES.index(scope)

    def may_use(self, surface: str) -> bool:
        """Return whether the sender is not kept from a surface."""
        return self.grant is None or self.grant.surfaces is None or surface in self.grant.surfaces


ANONYMOUS: Final = Principal("anonymous")
