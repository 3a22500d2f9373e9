"""Work that is due at some time, and who is at it."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from control_plane.catalogs.backend import Lesser, Part
from control_plane.schema import NAME, WHOLE, chores
from memoturnd.seams.catalog import Chore, ClaimedChore

DOUBTED_ATTEMPTS = 3
"""A chore that was claimed more often than this without an end waits until its claim runs out."""
_due = sa.bindparam("due", type_=WHOLE)
_this = (
    chores.c.kind == sa.bindparam("chore_kind", type_=NAME),
    chores.c.db_uuid == sa.bindparam("uuid", type_=NAME),
    chores.c.branch_id == sa.bindparam("branch", type_=NAME),
)
_ours = (*_this, chores.c.due_at == sa.bindparam("until", type_=WHOLE), chores.c.claimed)
# The clause is the same in both databases, and Postgres' form of it compiles for both.
_insert = postgresql.insert(chores).values(
    kind=sa.bindparam("chore_kind"),
    db_uuid=sa.bindparam("uuid"),
    branch_id=sa.bindparam("branch"),
    due_at=_due,
)
_SCHEDULE = _insert.on_conflict_do_update(
    index_elements=["kind", "db_uuid", "branch_id"],
    set_={
        "due_at": sa.case(
            (chores.c.claimed == sa.true(), chores.c.due_at), else_=Lesser(chores.c.due_at, _due)
        ),
        "again_at": sa.case(
            (chores.c.claimed == sa.true(), Lesser(sa.func.coalesce(chores.c.again_at, _due), _due))
        ),
    },
)
_DUE = (
    sa.select(chores.c.kind, chores.c.db_uuid, chores.c.branch_id, chores.c.due_at, chores.c.attempts)
    .where(chores.c.due_at <= sa.bindparam("now", type_=WHOLE))
    .order_by(chores.c.due_at)
    .limit(sa.bindparam("limit", type_=WHOLE))
)
_LOCK_DUE = _DUE.with_for_update(skip_locked=True)
_CLAIM = (
    sa.update(chores)
    .where(*_this)
    .values(
        due_at=sa.bindparam("until", type_=WHOLE),
        claimed=sa.true(),
        attempts=chores.c.attempts + sa.literal_column("1"),
    )
)
_LOCK_OURS = sa.select(chores.c.again_at).where(*_ours).with_for_update()
_DELETE = sa.delete(chores).where(*_ours)
_RELEASE = (
    sa.update(chores)
    .where(*_ours)
    .values(
        due_at=sa.bindparam("next", type_=WHOLE),
        claimed=sa.false(),
        again_at=sa.null(),
        attempts=sa.bindparam("tried", type_=WHOLE),
    )
)
# A chore that was under way at the end of several processes may be what ends them: its claim runs out first.
_RELEASE_ALL = (
    sa.update(chores)
    .where(chores.c.claimed, chores.c.attempts <= sa.literal_column(str(DOUBTED_ATTEMPTS)))
    .values(
        due_at=Lesser(chores.c.due_at, sa.bindparam("now", type_=WHOLE)),
        claimed=sa.false(),
        again_at=sa.null(),
    )
)


class Chores(Part):
    """A claimed chore keeps the end of its claim in `due_at`, and what it is scheduled for meanwhile in `again_at`."""

    async def schedule(self, chore: Chore, due_ms: int) -> None:
        """Let the chore be due at `due_ms`, or earlier where it is already; one under way is due again then."""
        await self._backend.run(
            _SCHEDULE, chore_kind=chore.kind, uuid=chore.db_uuid, branch=chore.branch_id, due=due_ms
        )

    async def claim_due(self, now_ms: int, *, until_ms: int, limit: int = 10) -> list[ClaimedChore]:
        """Take what is due at `now_ms`, oldest first, by index. Nobody else gets it before `until_ms`.

        What another node is just claiming is passed over.
        """
        limit = max(0, limit)
        if not await self._backend.rows(_DUE, now=now_ms, limit=min(limit, 1)):
            return []  # the usual answer, which neither writes nor locks
        claimed: list[ClaimedChore] = []
        async with self._backend.transaction() as session:
            for kind, uuid, branch_id, due_at, attempts in await session.rows(
                _LOCK_DUE, now=now_ms, limit=limit
            ):
                await session.run(_CLAIM, chore_kind=kind, uuid=uuid, branch=branch_id, until=until_ms)
                chore = Chore(kind, uuid, branch_id)
                claimed.append(ClaimedChore(chore, due_at, until_ms, attempts + 1))
        return claimed

    async def finish(self, claimed: ClaimedChore, *, next_ms: int | None, failed: bool = False) -> None:
        """End a claim: the chore is due at `next_ms` again, or when it was scheduled meanwhile, else never."""
        chore = claimed.chore
        ours: dict[str, object] = {
            "chore_kind": chore.kind,
            "uuid": chore.db_uuid,
            "branch": chore.branch_id,
            "until": claimed.until,
        }
        async with self._backend.transaction() as session:
            rows = await session.rows(_LOCK_OURS, **ours)
            if not rows:
                return
            wanted = [at for at in (rows[0][0], next_ms) if at is not None]
            if wanted:
                tried = claimed.attempts if failed else 0
                await session.run(_RELEASE, **ours, next=min(wanted), tried=tried)
            else:
                await session.run(_DELETE, **ours)

    async def release_claims(self, now_ms: int) -> None:
        """Let what was under way be due now: whoever claimed it is gone. For a catalog that only one node uses.

        What was claimed several times without an end stays until its claim runs out, since it may be what ends the node.
        """
        await self._backend.run(_RELEASE_ALL, now=now_ms)
