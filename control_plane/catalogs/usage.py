"""What was used, by day, and what is stored."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from control_plane.catalogs.backend import Part, Session
from control_plane.catalogs.owners import OF_OWNER, range_of
from control_plane.schema import NAME, WHOLE, databases, namespace_usage, sizes, usage
from memoturnd.core import names
from memoturnd.core.limits import Owner
from memoturnd.seams.catalog import Size, Totals, UsageDay, Use

COUNTS: Final = ("requests", "reads", "writes", "recalls", "bytes_shipped")
_NO_COUNTS: Final = dict.fromkeys(COUNTS, 0)
_limit = sa.bindparam("limit", type_=WHOLE)
_uuid = sa.bindparam("uuid", type_=NAME)
_tenant = sa.bindparam("tenant", type_=NAME)
_namespace = sa.bindparam("namespace", type_=NAME)
_name = sa.bindparam("name", type_=NAME)
_day = sa.bindparam("day", type_=NAME)
_stored = sa.bindparam("bytes_stored", type_=WHOLE)
_memories = sa.bindparam("memories", type_=WHOLE)
_counts = {name: sa.bindparam(name, type_=WHOLE) for name in COUNTS}
_live = databases.c.deleted_at.is_(None)
# Nobody removes a database that is being counted: its rows would have nothing to belong to.
_FIND = (
    sa.select(databases.c.uuid)
    .where(databases.c.tenant == _tenant, databases.c.name == _name, _live)
    .with_for_update(read=True, key_share=True)
)
_FIND_BY_UUID = (
    sa.select(databases.c.tenant, databases.c.name)
    .where(databases.c.uuid == _uuid, _live)
    .with_for_update(read=True, key_share=True)
)


def _size(column: sa.Column[int]) -> sa.ColumnElement[int]:
    found = sa.select(column).where(sizes.c.db_uuid == _uuid).scalar_subquery()
    return sa.func.coalesce(found, sa.literal_column("0"))


def _last(column: sa.Column[int]) -> sa.ColumnElement[int]:
    """Return what was noted of an owner last, before the day's row was there."""
    of = namespace_usage.alias("known")
    found = (
        sa.select(of.c[column.name])
        .where(of.c.tenant == _tenant, of.c.namespace == _namespace, of.c.day < _day)
        .order_by(of.c.day.desc())
        .limit(sa.literal_column("1"))
        .scalar_subquery()
    )
    return sa.func.coalesce(found, sa.literal_column("0"))


def _adding(table: sa.Table, insert: postgresql.Insert) -> dict[str, sa.ColumnElement[int]]:
    return {name: table.c[name] + insert.excluded[name] for name in COUNTS}


_day_insert = postgresql.insert(usage).values(
    db_uuid=_uuid,
    day=_day,
    bytes_stored=_size(sizes.c.bytes_stored),
    memories=_size(sizes.c.memories),
    **_counts,
)
_ADD = _day_insert.on_conflict_do_update(
    index_elements=["db_uuid", "day"],
    set_={
        **_adding(usage, _day_insert),
        "bytes_stored": _day_insert.excluded.bytes_stored,
        "memories": _day_insert.excluded.memories,
    },
)
_owner_insert = postgresql.insert(namespace_usage).values(
    tenant=_tenant,
    namespace=_namespace,
    day=_day,
    bytes_stored=_last(namespace_usage.c.bytes_stored),
    memories=_last(namespace_usage.c.memories),
    **_counts,
)
_ADD_OWNER = _owner_insert.on_conflict_do_update(
    index_elements=["tenant", "namespace", "day"], set_=_adding(namespace_usage, _owner_insert)
)
_SET_TOTALS = (
    sa.update(namespace_usage)
    .where(
        namespace_usage.c.tenant == _tenant,
        namespace_usage.c.namespace == _namespace,
        namespace_usage.c.day == _day,
    )
    .values(bytes_stored=_stored, memories=_memories)
)
_size_insert = postgresql.insert(sizes).values(
    db_uuid=_uuid, bytes_stored=_stored, memories=sa.func.coalesce(_memories, sa.literal_column("0"))
)
_kept_memories = sa.func.coalesce(_memories, sizes.c.memories)
_GROW = _size_insert.on_conflict_do_update(
    index_elements=["db_uuid"],
    set_={
        "bytes_stored": sizes.c.bytes_stored + _size_insert.excluded.bytes_stored,
        "memories": _kept_memories,
    },
)
_SET = _size_insert.on_conflict_do_update(
    index_elements=["db_uuid"],
    set_={"bytes_stored": _size_insert.excluded.bytes_stored, "memories": _kept_memories},
)
_TOTALS = (
    sa.select(sa.func.count(), sa.func.sum(sizes.c.bytes_stored), sa.func.sum(sizes.c.memories))
    .select_from(databases.outerjoin(sizes, sizes.c.db_uuid == databases.c.uuid))
    .where(OF_OWNER)
)
_between = ("first_day", "last_day")


def _days(table: sa.Table, *where: sa.ColumnElement[bool]) -> sa.Select[tuple[object, ...]]:
    columns = [table.c[name] for name in UsageDay._fields]
    first, last = (sa.bindparam(name, type_=NAME) for name in _between)
    return (
        sa.select(*columns)
        .where(*where, table.c.day >= first, table.c.day <= last)
        .order_by(table.c.day)
        .limit(_limit)
    )


def _prune(table: sa.Table) -> sa.Delete:
    key = sa.tuple_(*table.primary_key.columns)
    old = sa.select(*table.primary_key.columns).where(table.c.day < _day).limit(_limit)
    return sa.delete(table).where(key.in_(old))


_OF_DATABASE = _days(usage, usage.c.db_uuid == _uuid)
_OF_OWNER = _days(
    namespace_usage, namespace_usage.c.tenant == _tenant, namespace_usage.c.namespace == _namespace
)
_PRUNE: Final = (_prune(usage), _prune(namespace_usage))


class Usage(Part):
    """The counts of days, and the sizes of databases."""

    async def totals_of(self, owner: Owner) -> Totals:
        """Return how many databases a namespace, or a tenant, has, and what they take up."""
        [(count, size_bytes, memories)] = await self._backend.rows(_TOTALS, **range_of(owner))
        return Totals(count, int(size_bytes or 0), int(memories or 0))

    async def add_usage(self, uses: Sequence[Use]) -> None:
        """Add to what is known of days, all or nothing. What is of no database that exists counts for its namespace alone."""
        together: dict[tuple[Owner, str], dict[str, int]] = defaultdict(lambda: dict(_NO_COUNTS))
        async with self._backend.transaction() as session:
            found: list[tuple[str, Use]] = []
            for use in uses:
                total = together[use.owner, use.day]
                for name, count in _counts_of(use).items():
                    total[name] += count
                if use.database:
                    rows = await session.rows(_FIND, tenant=use.owner.tenant, name=use.database)
                    found += [(uuid, use) for (uuid,) in rows]
            # Everybody changes rows in the same order, so that nobody waits for one who waits for him.
            for uuid, use in sorted(found):
                await session.run(_ADD, uuid=uuid, day=use.day, **_counts_of(use))
            await _add_together(session, together)

    async def add_sizes(self, changes: Sequence[Size]) -> None:
        """Note what databases have shipped and store, all or nothing; those that do not exist any more are left out."""
        together: dict[tuple[Owner, str], dict[str, int]] = defaultdict(lambda: dict(_NO_COUNTS))
        async with self._backend.transaction() as session:
            for size in sorted(changes):
                for tenant, name in await session.rows(_FIND_BY_UUID, uuid=size.db_uuid):
                    await session.run(
                        _SET if size.is_whole else _GROW,
                        uuid=size.db_uuid,
                        bytes_stored=size.bytes_stored,
                        memories=size.memories,
                    )
                    counts = _NO_COUNTS | {"bytes_shipped": size.bytes_shipped}
                    await session.run(_ADD, uuid=size.db_uuid, day=size.day, **counts)
                    owner = Owner(tenant, names.namespace_of(name))
                    together[owner, size.day]["bytes_shipped"] += size.bytes_shipped
            await _add_together(session, together)

    async def put_totals(self, owner: Owner, day: str, totals: Totals) -> None:
        """Note what the databases of an owner take up on a day of which something is known."""
        await self._backend.run(
            _SET_TOTALS,
            tenant=owner.tenant,
            namespace=owner.namespace,
            day=day,
            bytes_stored=totals.bytes_stored,
            memories=totals.memories,
        )

    async def usage_of_database(self, db_uuid: str, first: str, last: str, *, limit: int) -> list[UsageDay]:
        """Return the days from `first` to `last` on which something was counted, in order."""
        rows = await self._backend.rows(
            _OF_DATABASE, uuid=db_uuid, first_day=first, last_day=last, limit=limit
        )
        return [UsageDay(*row) for row in rows]

    async def usage_of(self, owner: Owner, first: str, last: str, *, limit: int) -> list[UsageDay]:
        """Return the days of a namespace in the same way; with none those of databases that are no profiles."""
        rows = await self._backend.rows(
            _OF_OWNER,
            tenant=owner.tenant,
            namespace=owner.namespace,
            first_day=first,
            last_day=last,
            limit=limit,
        )
        return [UsageDay(*row) for row in rows]

    async def prune_usage(self, before: str, *, limit: int) -> int:
        """Delete up to `limit` rows of days before `before` of each kind, and return how many."""
        return sum([await self._backend.run(statement, day=before, limit=limit) for statement in _PRUNE])


def _counts_of(use: Use) -> dict[str, int]:
    return _NO_COUNTS | {name: getattr(use, name) for name in ("requests", "reads", "writes", "recalls")}


async def _add_together(session: Session, together: dict[tuple[Owner, str], dict[str, int]]) -> None:
    for (owner, day), counts in sorted(together.items()):
        await session.run(_ADD_OWNER, tenant=owner.tenant, namespace=owner.namespace, day=day, **counts)
