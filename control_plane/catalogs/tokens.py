"""Tokens that were minted, and what was revoked of them."""

from dataclasses import replace
from typing import Final

import msgspec
import sqlalchemy as sa

from control_plane.catalogs.backend import Part, Session
from control_plane.catalogs.exports import note
from control_plane.schema import NAME, WHOLE, counters, revocations, tokens
from memoturnd.core import names
from memoturnd.seams.credentials import Revocation, TokenRow

TOKEN: Final = "token"  # noqa: S105 - a kind of rows of the export
REVOCATION: Final = "revocation"
REVOKED_FOR_MS: Final = 400 * 86_400_000 + 5000
"""How long a deletion is held against tokens: no token lives longer (memoturnd.core.tokens.LONGEST_LIFETIME_S)."""

_tenant = sa.bindparam("tenant", type_=NAME)
_limit = sa.bindparam("limit", type_=WHOLE)
_id = sa.bindparam("id", type_=NAME)
_now = sa.bindparam("now", type_=WHOLE)
_TOKEN = (
    tokens.c.id,
    tokens.c.tenant,
    tokens.c.db,
    tokens.c.ns,
    tokens.c.issued_at,
    tokens.c.expires_at,
    tokens.c.grant,
)
_REVOCATION = (
    revocations.c.kind,
    revocations.c.tenant,
    revocations.c.subject,
    revocations.c.at,
    revocations.c.expires_at,
    revocations.c.change,
)
_INSERT_TOKEN = sa.insert(tokens).values({c.name: sa.bindparam(c.name, type_=c.type) for c in _TOKEN})
_GET_TOKEN = sa.select(*_TOKEN).where(tokens.c.id == _id, tokens.c.tenant == _tenant)
_LIST_TOKENS = (
    sa.select(*_TOKEN)
    .where(
        tokens.c.tenant == _tenant,
        tokens.c.db == sa.bindparam("db", type_=NAME),
        tokens.c.ns == sa.bindparam("ns", type_=NAME),
        tokens.c.id > sa.bindparam("after", type_=NAME),
    )
    .order_by(tokens.c.id)
    .limit(_limit)
)
_issued = sa.select(sa.func.max(tokens.c.issued_at)).where(tokens.c.tenant == _tenant)
_subject = sa.bindparam("subject", type_=NAME)
_YOUNGEST: Final = {
    "token": _issued.where(tokens.c.id == _subject),
    "tenant": _issued.where(_subject == tokens.c.tenant),
    "database": _issued.where(tokens.c.db == _subject, tokens.c.ns == sa.literal("")),
    "namespace": _issued.where(
        sa.or_(
            sa.and_(tokens.c.db == sa.literal(""), tokens.c.ns == _subject),
            sa.and_(
                tokens.c.db > sa.bindparam("first", type_=NAME), tokens.c.db < sa.bindparam("end", type_=NAME)
            ),
        )
    ),
}
_NEXT_CHANGE = (
    sa.update(counters)
    .where(counters.c.name == sa.literal("revocations"))
    .values(value=counters.c.value + sa.literal_column("1"))
    .returning(counters.c.value)
)
_HOLD_CHANGES = (
    sa.select(counters.c.value).where(counters.c.name == sa.literal("revocations")).with_for_update(read=True)
)
_ADVANCE = (
    sa.update(counters)
    .where(
        counters.c.name == sa.literal("revocations"), counters.c.value < sa.bindparam("above", type_=WHOLE)
    )
    .values(value=sa.bindparam("above", type_=WHOLE))
)
_standing = sa.and_(
    revocations.c.kind == sa.bindparam("kind", type_=NAME),
    revocations.c.tenant == _tenant,
    revocations.c.subject == _subject,
)
_FIND = sa.select(*_REVOCATION).where(_standing)
_RENEW = (
    sa.update(revocations)
    .where(_standing)
    .values(
        at=sa.bindparam("new_at", type_=WHOLE),
        expires_at=sa.bindparam("new_expires_at", type_=WHOLE),
        change=sa.bindparam("new_change", type_=WHOLE),
    )
)
_INSERT_REVOCATION = sa.insert(revocations).values(
    {c.name: sa.bindparam(c.name, type_=c.type) for c in _REVOCATION}
)
_SINCE = (
    sa.select(*_REVOCATION)
    .where(revocations.c.change > sa.bindparam("since", type_=WHOLE))
    .order_by(revocations.c.change)
    .limit(_limit)
)
_OVER_TOKENS = (
    sa.select(tokens.c.id).where(tokens.c.expires_at < _now).order_by(tokens.c.expires_at).limit(_limit)
)
_OVER_REVOCATIONS = (
    sa.select(*_REVOCATION)
    .where(revocations.c.expires_at < _now)
    .order_by(revocations.c.expires_at)
    .limit(_limit)
)
_FORGET_TOKEN = sa.delete(tokens).where(tokens.c.id == _id)
_FORGET_REVOCATION = sa.delete(revocations).where(
    _standing, revocations.c.change == sa.bindparam("change", type_=WHOLE)
)


class Tokens(Part):
    """Records of tokens (memoturnd.seams.credentials)."""

    async def put_token(self, row: TokenRow) -> None:
        """Record a token."""
        async with self._backend.transaction() as session:
            # A revocation that is under way comes first, or sees the token: none passes it by.
            await session.rows(_HOLD_CHANGES)
            await session.run(
                _INSERT_TOKEN,
                id=row.id,
                tenant=row.tenant,
                db=row.db,
                ns=row.ns,
                issued_at=row.issued_at,
                expires_at=row.expires_at,
                grant=row.grant,
            )
            await note(session, TOKEN, row.id, msgspec.json.encode(row))

    async def get_token(self, tenant: str, token_id: str) -> TokenRow | None:
        """Return the record of a token, None where there is none."""
        for row in await self._backend.rows(_GET_TOKEN, tenant=tenant, id=token_id):
            return TokenRow(*row)
        return None

    async def list_tokens(
        self, *, tenant: str, db: str = "", ns: str = "", after: str = "", limit: int = 1000
    ) -> list[TokenRow]:
        """Return up to `limit` of the tokens of a database or of a namespace, by id, above `after`."""
        rows = await self._backend.rows(
            _LIST_TOKENS, tenant=tenant, db=db, ns=ns, after=after, limit=max(0, limit)
        )
        return [TokenRow(*row) for row in rows]

    async def revoke(self, revocation: Revocation) -> Revocation:
        """Enter a revocation, and return it with its change number; see Credentials.revoke."""
        async with self._backend.transaction() as session:
            return await enter(session, revocation)

    async def revocations_since(self, change: int, *, limit: int = 1000) -> list[Revocation]:
        """Return up to `limit` revocations above a change number, in order; none of a lower number appears later."""
        rows = await self._backend.rows(_SINCE, since=change, limit=max(0, limit))
        return [Revocation(*row) for row in rows]

    async def forget_expired_tokens(self, now_ms: int, *, limit: int = 1000) -> int:
        """Remove up to `limit` tokens and as many revocations that are over, and return how many."""
        async with self._backend.transaction() as session:
            over = [row[0] for row in await session.rows(_OVER_TOKENS, now=now_ms, limit=limit)]
            for token_id in over:
                await session.run(_FORGET_TOKEN, id=token_id)
                await note(session, TOKEN, token_id, None)
            past = [
                Revocation(*row) for row in await session.rows(_OVER_REVOCATIONS, now=now_ms, limit=limit)
            ]
            for one in past:
                await session.run(
                    _FORGET_REVOCATION,
                    kind=one.kind,
                    tenant=one.tenant,
                    subject=one.subject,
                    change=one.change,
                )
                await note(session, REVOCATION, identity(one), None)
        return len(over) + len(past)


async def enter(session: Session, new: Revocation, *, is_exported: bool = False) -> Revocation:
    """Enter a revocation within a transaction of somebody else's; the export is told unless it has it."""
    # First, because whoever has the number has its row until the end: revocations come into sight in their order.
    ((change,),) = await session.rows(_NEXT_CHANGE)
    at = max(new.at, await _youngest(session, new))
    key = {"kind": new.kind, "tenant": new.tenant, "subject": new.subject}
    standing = [Revocation(*row) for row in await session.rows(_FIND, **key)]
    if standing:
        at = max(at, standing[0].at)
        entered = replace(new, at=at, expires_at=max(new.expires_at, standing[0].expires_at), change=change)
        await session.run(_RENEW, **key, new_at=at, new_expires_at=entered.expires_at, new_change=change)
    else:
        entered = replace(new, at=at, change=change)
        await session.run(_INSERT_REVOCATION, **key, at=at, expires_at=new.expires_at, change=change)
    if not is_exported:
        await note(session, REVOCATION, identity(entered), msgspec.json.encode(entered))
    return entered


async def bury(session: Session, tenant: str, name: str, at_ms: int) -> None:
    """Enter, within the transaction that deletes it, that no token from before opens a database of that name again."""
    await enter(session, Revocation("tombstone", tenant, name, at_ms, at_ms + REVOKED_FOR_MS))


async def restore(session: Session, known: Revocation, *, is_dry: bool) -> bool:
    """Enter a revocation that the export has, and return whether it was news; with `is_dry` it is only looked for.

    One that stands may be an earlier one of the same. Numbers go on above those of the lost catalog, for nodes that were given them.
    """
    key = {"kind": known.kind, "tenant": known.tenant, "subject": known.subject}
    for row in await session.rows(_FIND, **key):
        standing = Revocation(*row)
        if standing.at >= known.at and standing.expires_at >= known.expires_at:
            return False
    if not is_dry:
        await session.run(_ADVANCE, above=known.change)
        await enter(session, known, is_exported=True)
    return True


async def bury_tenant(session: Session, tenant: str, at_ms: int) -> None:
    """Enter, within the transaction that deletes it, that no token from before opens a tenant of that name again."""
    await enter(session, Revocation("tenant", tenant, tenant, at_ms, at_ms + REVOKED_FOR_MS))


def identity(revocation: Revocation) -> str:
    """Return what the export calls a revocation."""
    return f"{revocation.kind}/{revocation.tenant}/{revocation.subject}"


async def _youngest(session: Session, new: Revocation) -> int:
    statement = _YOUNGEST.get(new.kind)
    if statement is None:
        return 0
    ends = {}
    if new.kind == "namespace":
        first = f"{new.subject}{names.PROFILE_SEPARATOR}"
        ends = {"first": first, "end": f"{first}\U0010ffff"}
    ((newest,),) = await session.rows(statement, tenant=new.tenant, subject=new.subject, **ends)
    return newest or 0
