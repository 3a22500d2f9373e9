"""Routes of tokens: mint, list, revoke."""

from typing import Final, cast

from memoturnd.auth.authority import Authority, grant_of, record_of
from memoturnd.core import cursors, names, tokens
from memoturnd.core.principal import Grant
from memoturnd.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnauthorizedError
from memoturnd.http.addresses import named_database, namespace
from memoturnd.http.bodies import decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, PAGE, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.paging import page
from memoturnd.http.shapes import UNSET
from memoturnd.http.shapes import credentials as shapes
from memoturnd.seams.credentials import RevocationKind, TokenRow

_decode_mint: Final = decoder(shapes.Mint)
_decode_revoke: Final = decoder(shapes.Revoke)


@described(takes=shapes.Mint, gives={201: shapes.Minted})
async def mint_for_database(call: Call) -> Answer:
    """Mint a token for one database. Raises DatabaseNotFoundError, InvalidRequestError, ForbiddenError."""
    authority = authority_of(call)
    await call.node.databases.get(named_database(call))
    return await _mint(call, authority, db=call.params["db"])


@described(takes=shapes.Mint, gives={201: shapes.Minted})
async def mint_for_namespace(call: Call) -> Answer:
    """Mint a token for every profile of a namespace, which need not have any. Raises InvalidRequestError, ForbiddenError."""
    return await _mint(call, authority_of(call), ns=namespace(call))


@described(gives={200: shapes.TokenPage}, values=PAGE)
async def list_of_database(call: Call) -> Answer:
    """List the tokens of a database by id, a page at a time; the tokens themselves are not kept."""
    named_database(call)
    return await _list(call, db=call.params["db"])


@described(gives={200: shapes.TokenPage}, values=PAGE)
async def list_of_namespace(call: Call) -> Answer:
    """List the tokens of a namespace by id, a page at a time; those of its databases are listed with them."""
    return await _list(call, ns=namespace(call))


@described(gives={204: NOTHING})
async def revoke_of_database(call: Call) -> Answer:
    """Revoke one token of a database, and all that were minted with it. Raises NotFoundError."""
    named_database(call)
    return await _revoke_one(call, db=call.params["db"])


@described(gives={204: NOTHING})
async def revoke_of_namespace(call: Call) -> Answer:
    """Revoke one token of a namespace, and all that were minted with it. Raises NotFoundError."""
    return await _revoke_one(call, ns=namespace(call))


@described(takes=shapes.Revoke, gives={200: shapes.Revoked}, optional_body=True)
async def revoke_all_of_database(call: Call) -> Answer:
    """Revoke every token of a database that was issued until now, or the one that is shown."""
    named_database(call)
    return await _revoke_all(call, "database", db=call.params["db"])


@described(takes=shapes.Revoke, gives={200: shapes.Revoked}, optional_body=True)
async def revoke_all_of_namespace(call: Call) -> Answer:
    """Revoke every token of a namespace and of its databases that was issued until now, or the one that is shown."""
    return await _revoke_all(call, "namespace", ns=namespace(call))


@described(takes=shapes.Revoke, gives={200: shapes.Revoked}, optional_body=True)
async def revoke_all_of_tenant(call: Call) -> Answer:
    """Revoke every token of the tenant that was issued until now, or the one that is shown."""
    return await _revoke_all(call, "tenant")


def authority_of(call: Call) -> Authority:
    """Return what mints and revokes. Raises InvalidRequestError where authentication is off."""
    authority = call.node.authority
    if authority is None:
        raise InvalidRequestError(
            "authentication is off at this node, so there are no tokens; start it with MEMOTURN_AUTH=on"
        )
    return authority


async def _mint(call: Call, authority: Authority, *, db: str = "", ns: str = "") -> Answer:
    asked = call.decoded(_decode_mint)
    grant = Grant(
        asked.scope,
        db,
        ns,
        branches=_named(asked.branches),
        surfaces=_named(asked.surfaces),
        profiles=_named(asked.profiles),
        limits=asked.limits or {},
    )
    minted = await authority.mint(
        call.principal, grant, expires_in_s=asked.expires_in, subject=asked.subject or ""
    )
    call.tell(resource=f"tokens/{minted.id}")
    body = {
        "token": minted.token,
        "expires_in": minted.lifetime_s,
        "id": minted.id,
        "expires_at": minted.expires_at,
    }
    answer = reply(body, status=201)
    answer.headers.append((b"cache-control", b"no-store"))
    return answer


async def _list(call: Call, *, db: str = "", ns: str = "") -> Answer:
    authority = authority_of(call)
    asked = page(call, cursors.Name)
    rows = await authority.records.list_tokens(
        tenant=call.principal.tenant, db=db, ns=ns, after=asked.after or "", limit=asked.rows
    )
    # A token that is limited itself sees what it could have minted, so a page may be short.
    shown = [_shown(authority, row) for row in rows if not _beyond(call, row)]
    return reply({"tokens": shown, "next_cursor": asked.cursor(rows, lambda row: row.id)})


async def _revoke_one(call: Call, *, db: str = "", ns: str = "") -> Answer:
    authority, token_id = authority_of(call), call.params["id"]
    row = await authority.records.get_token(call.principal.tenant, token_id)
    if row is None or (row.db, row.ns) != (db, ns):
        raise NotFoundError("no such token here; list the tokens, or show it whole to POST .../tokens/revoke")
    _require_less(call, grant_of(row))
    await authority.revoke_token(row.tenant, row.id, authority.longest_until(row.expires_at))
    return Answer(204)


async def _revoke_all(call: Call, kind: RevocationKind, *, db: str = "", ns: str = "") -> Answer:
    authority, tenant = authority_of(call), call.principal.tenant
    asked = call.decoded(_decode_revoke) if call.body else shapes.Revoke()
    if asked.token is not UNSET:
        return await _revoke_shown(call, authority, asked.token, db=db, ns=ns)
    own = call.principal.grant
    if own is not None:
        _require_less(call, Grant("admin", db, ns))
    revocation = await authority.revoke_all(kind, tenant, db or ns or tenant)
    return reply({"revoked_until": revocation.at})


async def _revoke_shown(call: Call, authority: Authority, token: str, *, db: str, ns: str) -> Answer:
    try:
        bearer = authority.verifier.bearer_of(token.encode())
    except (UnauthorizedError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"`token` is not one that opens anything: {error}") from error
    grant = cast("Grant", bearer.grant)
    inside = (not ns and not db) or (grant.db == db if db else ns in {grant.ns, _namespace_of(grant.db)})
    if bearer.tenant != call.principal.tenant or not inside:
        raise NotFoundError("`token` is of another tenant, database or namespace; revoke it there")
    _require_less(call, grant)
    revocation = await authority.revoke_token(
        bearer.tenant, bearer.token_id, authority.longest_until(bearer.expires_at)
    )
    return reply({"id": bearer.token_id, "revoked_until": revocation.at})


def _beyond(call: Call, row: TokenRow) -> bool:
    own = call.principal.grant
    return own is not None and bool(tokens.wider_than(own, grant_of(row), but_limits=True))


def _require_less(call: Call, grant: Grant) -> None:
    """Raise ForbiddenError where a token would revoke one that opens more than itself."""
    own = call.principal.grant
    if own is not None and (wider := tokens.wider_than(own, grant, but_limits=True)):
        raise ForbiddenError(
            f"what would be revoked opens more than your token: {wider}; ask whoever has a greater one"
        )


def _shown(authority: Authority, row: TokenRow) -> dict[str, object]:
    record = record_of(row)
    shown: dict[str, object] = {
        "id": row.id,
        "db": row.db,
        "ns": row.ns,
        "issued_at": row.issued_at,
        "expires_at": row.expires_at,
        "revoked": authority.is_revoked(row),
        "minted_by": record.minted_by,
        **tokens.grant_to_json(grant_of(row)),
    }
    if record.subject:
        shown["subject"] = record.subject
    return shown


def _named(values: list[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def _namespace_of(db: str) -> str:
    ns, separator, _ = db.partition(names.PROFILE_SEPARATOR)
    return ns if separator else ""
