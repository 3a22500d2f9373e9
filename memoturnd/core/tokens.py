"""Tokens as documents: their claims, when those hold, and what a bearer may hand on. Pure.

Claims, as in the wire contract: `db` (empty for namespace tokens), `ns`, `scope`, `exp` and `iat` (unix seconds). Optional besides:
`iat_ms` (the same in milliseconds), `jti`, `aud`, `sub`, `tenant`, `parents` (the ids of the tokens it descends from), `branches`,
`surfaces`, `profiles`, `limits`, `shared_limits` (the `limits` of those it descends from, by id).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from memoturnd.core import names
from memoturnd.core.principal import SCOPES, SURFACES, Grant, Principal, TokenScope
from memoturnd.errors import ForbiddenError, InvalidRequestError, UnauthorizedError

LEEWAY_S: Final = 5
"""How far the clocks of two nodes may be apart."""
LONGEST_LIFETIME_S: Final = 400 * 86400
"""No setting allows tokens a longer life, so a revocation need not be kept for longer."""
DEFAULT_LIFETIME_S: Final = 3600
LIMIT_NAMES: Final = frozenset({"requests_per_s", "writes_per_s"})
"""The rates to which a token can be limited."""
NAMES_LIMIT: Final = 100
"""Most branches or profiles that one token names."""
PARENTS_LIMIT: Final = 8
"""Most tokens in a row each of which was minted with the one before."""
SUBJECT_LENGTH_LIMIT: Final = 128
_HASH_CONTEXT: Final = b"memoturn-audit-actor-v1\0"
_NEXT_STEP: Final = (
    "send `Authorization: Bearer` with a token that this node, or one with its keys, has minted"
)


class Claims(msgspec.Struct, omit_defaults=True):
    """The payload of a token."""

    db: str
    scope: TokenScope
    exp: int
    iat: int
    ns: str | None = None
    iat_ms: int | None = None
    jti: str | None = None
    aud: str | list[str] | None = None
    sub: str | None = None
    tenant: str | None = None
    parents: list[str] | None = None
    branches: list[str] | None = None
    surfaces: list[str] | None = None
    profiles: list[str] | None = None
    limits: dict[str, float] | None = None
    shared_limits: dict[str, dict[str, float]] | None = None


_decoder: Final = msgspec.json.Decoder(Claims)
_encoder: Final = msgspec.json.Encoder(order="deterministic")


def decode(payload: bytes) -> Claims:
    """Return the claims of a token whose signature holds. Raises UnauthorizedError."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnauthorizedError(
            f"the token's claims are not those of a token of Memoturn; {_NEXT_STEP}"
        ) from error


def encode(claims: Claims) -> bytes:
    """Return claims as the payload of a token."""
    return _encoder.encode(claims)


def check_times(claims: Claims, *, now_ms: int, max_lifetime_s: int) -> None:
    """Raise UnauthorizedError unless the token is of now and of no longer life than is allowed."""
    if (claims.exp + LEEWAY_S) * 1000 <= now_ms:
        raise UnauthorizedError("the token has expired; get a new one")
    if claims.iat > now_ms // 1000 + LEEWAY_S:
        raise UnauthorizedError("the token is of the future; set the clock of the node that minted it right")
    if not 0 < claims.exp - claims.iat <= max_lifetime_s:
        raise UnauthorizedError(
            f"the token lives longer than the {max_lifetime_s} s that this node allows; get a shorter one"
        )


def check_audience(claims: Claims, audience: str | None) -> None:
    """Raise UnauthorizedError where the token is meant for somebody else. One that names nobody is for everybody."""
    if claims.aud is None:
        return
    meant = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if audience is None or audience not in meant:
        raise UnauthorizedError("the token is meant for another audience; get one for this node")


def token_hash(token: bytes) -> str:
    """Return what the audit calls a token, from which it cannot be found: 16 hex digits."""
    return hashlib.sha256(_HASH_CONTEXT + token).hexdigest()[:16]


def id_of(claims: Claims, token: bytes) -> str:
    """Return the id by which a token is revoked: its `jti`, or one made of what was signed where it carries none.

    The signature is left out, since it can be written down in several ways, each of which verifies.
    """
    return claims.jti or f"tok_{token_hash(token.rpartition(b'.')[0])}"


def principal_of(claims: Claims, token: bytes) -> Principal:
    """Return the bearer of a token. Raises UnauthorizedError where its claims contradict each other."""
    try:
        tenant = names.DEFAULT_TENANT if claims.tenant is None else names.tenant(claims.tenant)
        ns = names.namespace(claims.ns) if claims.ns else ""
        db = names.database(claims.db) if claims.db else ""
    except InvalidRequestError as error:
        raise UnauthorizedError(f"the token names what cannot exist ({error}); {_NEXT_STEP}") from error
    if bool(ns) == bool(db):
        raise UnauthorizedError(f"a token is for a database or for a namespace; {_NEXT_STEP}")
    grant = Grant(
        claims.scope,
        db,
        ns,
        branches=_set(claims.branches),
        surfaces=_set(claims.surfaces),
        profiles=_set(claims.profiles),
        limits=claims.limits or {},
    )
    return Principal(
        "token",
        tenant,
        grant,
        token_id=id_of(claims, token),
        token_hash=token_hash(token),
        parents=tuple(claims.parents or ()),
        # Without milliseconds the second's beginning, so that a cut-off within that second holds.
        issued_at=claims.iat * 1000 if claims.iat_ms is None else claims.iat_ms,
        expires_at=claims.exp * 1000,
        subject=claims.sub or "",
        shared_limits=claims.shared_limits or {},
    )


def claims_of(bearer: Principal, grant: Grant, *, audience: str | None) -> Claims:
    """Return the claims of a token for `bearer`, who has `grant`."""
    return Claims(
        db=grant.db,
        ns=grant.ns or None,
        scope=grant.scope,
        exp=bearer.expires_at // 1000,
        iat=bearer.issued_at // 1000,
        iat_ms=bearer.issued_at,
        jti=bearer.token_id,
        aud=audience,
        sub=bearer.subject or None,
        tenant=None if bearer.tenant == names.DEFAULT_TENANT else bearer.tenant,
        parents=list(bearer.parents) or None,
        branches=_list(grant.branches),
        surfaces=_list(grant.surfaces),
        profiles=_list(grant.profiles),
        limits=dict(grant.limits) or None,
        shared_limits={above: dict(limits) for above, limits in bearer.shared_limits.items()} or None,
    )


# ---- what a bearer may hand on


def check_grant(grant: Grant) -> Grant:
    """Return a grant that somebody asks for. Raises InvalidRequestError where it is none."""
    if grant.surfaces is not None and (strange := grant.surfaces - SURFACES):
        raise InvalidRequestError(
            f"`surfaces` has {min(strange)[:40]!a}, which is none: take some of {', '.join(sorted(SURFACES))}"
        )
    for field, named, check in (
        ("branches", grant.branches, names.branch),
        ("profiles", grant.profiles, names.profile),
    ):
        if named is not None and len(named) > NAMES_LIMIT:
            raise InvalidRequestError(f"`{field}` takes at most {NAMES_LIMIT} names; mint several tokens")
        for name in named or ():
            check(name)
    for field, named in (
        ("branches", grant.branches),
        ("surfaces", grant.surfaces),
        ("profiles", grant.profiles),
    ):
        if named is not None and not named:
            raise InvalidRequestError(
                f"`{field}` is empty, so the token would open nothing; leave it out, or name some"
            )
    if grant.profiles is not None and not grant.ns:
        raise InvalidRequestError("`profiles` is for tokens of a namespace; this one is for one database")
    for name, limit in grant.limits.items():
        if name not in LIMIT_NAMES:
            raise InvalidRequestError(
                f"`limits` has {name[:40]!a}, which is none: take some of {', '.join(sorted(LIMIT_NAMES))}"
            )
        if not (math.isfinite(limit) and limit > 0):
            raise InvalidRequestError(f"`limits.{name}` takes a number above 0")
    return grant


def narrowed(minter: Principal, asked: Grant) -> Grant:
    """Return the grant of a token that `minter` asks for: what it leaves open is limited as the minter is.

    The operator may mint any. Raises ForbiddenError where the token would open more than its minter's.
    """
    if minter.kind == "platform":
        return asked
    if minter.grant is None:
        raise ForbiddenError("only the platform key and tokens mint tokens")
    own = minter.grant
    inherited = replace(
        asked,
        branches=own.branches if asked.branches is None else asked.branches,
        surfaces=own.surfaces if asked.surfaces is None else asked.surfaces,
        profiles=own.profiles if asked.profiles is None and asked.ns else asked.profiles,
        limits={**own.limits, **asked.limits},
    )
    wider = wider_than(own, inherited)
    if wider:
        raise ForbiddenError(
            f"the token would open more than the one it is minted with: {wider}; ask for less"
        )
    if len(minter.parents) >= PARENTS_LIMIT:
        raise ForbiddenError(
            f"{PARENTS_LIMIT} tokens were minted with one another already; mint it with an earlier one"
        )
    return inherited


def wider_than(own: Grant, other: Grant, *, but_limits: bool = False) -> str:
    """Return the first thing in which `other` opens more than `own`, empty where there is none.

    With `but_limits` its rates are left aside: what it opens, and not how often.
    """
    if own.ns:
        inside = other.ns == own.ns if other.ns else own.covers(other.db)
    else:
        inside = not other.ns and other.db == own.db
    if not inside:
        return "another namespace or database"
    if SCOPES.index(other.scope) > SCOPES.index(own.scope):
        return "a greater scope"
    for what, outer, inner in (
        ("branches", own.branches, other.branches),
        ("surfaces", own.surfaces, other.surfaces),
        ("profiles", own.profiles if other.ns else None, other.profiles),
    ):
        if outer is not None and (inner is None or not inner <= outer):
            return what
    for name, most in own.limits.items():
        if not but_limits and other.limits.get(name, math.inf) > most:
            return f"the limit {name}"
    return ""


def grant_to_json(grant: Grant) -> dict[str, object]:
    """Return what a listing and a record say of a grant: the limits that it has."""
    shown: dict[str, object] = {"scope": grant.scope}
    for name, value in (
        ("branches", grant.branches),
        ("surfaces", grant.surfaces),
        ("profiles", grant.profiles),
    ):
        if value is not None:
            shown[name] = sorted(value)
    if grant.limits:
        shown["limits"] = dict(grant.limits)
    return shown


def shared_limits(minter: Principal) -> Mapping[str, Mapping[str, float]]:
    """Return the rates that a token shares which `minter` mints: its minter's, and those that this one shares itself."""
    own = {minter.token_id: minter.limits} if minter.kind == "token" and minter.limits else {}
    return {**minter.shared_limits, **own}


def lifetime_s(minter: Principal, asked_s: int | None, *, now_ms: int, max_lifetime_s: int) -> int:
    """Return how long a token may live that `minter` asks for; without saying so, an hour, or as long as it lives itself.

    Raises InvalidRequestError, ForbiddenError.
    """
    if asked_s is None:
        asked_s = min(DEFAULT_LIFETIME_S, max_lifetime_s)
        if minter.kind == "token":
            asked_s = max(1, min(asked_s, minter.expires_at // 1000 - now_ms // 1000))
    if asked_s > max_lifetime_s:
        raise InvalidRequestError(
            f"`expires_in` is over the {max_lifetime_s} s of MEMOTURN_TOKEN_MAX_LIFETIME_S; ask for less"
        )
    if minter.kind == "token" and now_ms // 1000 + asked_s > minter.expires_at // 1000:
        raise ForbiddenError(
            "the token would outlive the one it is minted with; ask for a shorter `expires_in`"
        )
    return asked_s


def _set(values: Iterable[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def _list(values: frozenset[str] | None) -> list[str] | None:
    return None if values is None else sorted(values)
