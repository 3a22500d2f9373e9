"""Requests with an Idempotency-Key that belong to no profile."""

import sqlalchemy as sa

from control_plane.catalogs.backend import Part, TakenError
from control_plane.schema import BYTES, NAME, WHOLE, requests
from memoturnd.errors import RetryableError
from memoturnd.seams.catalog import KnownRequest, RequestKey

_this = (
    requests.c.scope == sa.bindparam("of_scope", type_=NAME),
    requests.c.route == sa.bindparam("of_route", type_=NAME),
    requests.c.principal == sa.bindparam("of_principal", type_=NAME),
    requests.c.key == sa.bindparam("of_key", type_=NAME),
)
_FIND = sa.select(requests.c.digest, requests.c.facts, requests.c.answer).where(
    *_this, requests.c.at >= sa.bindparam("since", type_=WHOLE)
)
_FORGET = sa.delete(requests).where(*_this)
_BEGIN = (
    sa.insert(requests)
    .values(
        scope=sa.bindparam("of_scope"),
        route=sa.bindparam("of_route"),
        principal=sa.bindparam("of_principal"),
        key=sa.bindparam("of_key"),
        digest=sa.bindparam("hash", type_=BYTES),
        at=sa.bindparam("now", type_=WHOLE),
        facts=sa.bindparam("known", type_=BYTES),
    )
    .returning(requests.c.seq)
)
_DROP_OLD = sa.delete(requests).where(requests.c.seq <= sa.bindparam("last", type_=WHOLE))
_FINISH = sa.update(requests).where(*_this).values(answer=sa.bindparam("given", type_=BYTES))


class Requests(Part):
    """Which requests began, what was known then, and what they were answered."""

    async def find_request(self, key: RequestKey, since_ms: int) -> KnownRequest | None:
        """Return a request that began at or after `since_ms`, None where there is none."""
        for row in await self._backend.rows(_FIND, **_of(key), since=since_ms):
            return KnownRequest(*row)
        return None

    async def begin_request(
        self, key: RequestKey, digest: bytes, facts: bytes, at_ms: int, *, keep: int
    ) -> None:
        """Note that a request begins, in place of an older one of its key; the newest `keep` are kept.

        Raises RetryableError when it begins elsewhere at the same time.
        """
        try:
            async with self._backend.transaction() as session:
                await session.run(_FORGET, **_of(key))
                ((seq,),) = await session.rows(_BEGIN, **_of(key), hash=digest, known=facts, now=at_ms)
                await session.run(_DROP_OLD, last=seq - keep)
        except TakenError as error:
            raise RetryableError(
                "a request with this Idempotency-Key has just begun elsewhere; send it again"
            ) from error

    async def finish_request(self, key: RequestKey, answer: bytes) -> None:
        """Keep the answer of a request that began."""
        await self._backend.run(_FINISH, **_of(key), given=answer)

    async def forget_request(self, key: RequestKey) -> None:
        """Let go of a request that has changed nothing."""
        await self._backend.run(_FORGET, **_of(key))


def _of(key: RequestKey) -> dict[str, object]:
    scope, route, principal, name = key
    return {"of_scope": scope, "of_route": route, "of_principal": principal, "of_key": name}
