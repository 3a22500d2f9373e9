"""What a catalog that was lost gets back: rows that are entered as they were, without telling the export of them again."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from control_plane.catalogs.backend import DanglingError, Part, TakenError
from control_plane.catalogs.exports import DATABASE, TENANT
from control_plane.catalogs.quotas import KIND as QUOTAS
from control_plane.catalogs.quotas import NUMBER
from control_plane.catalogs.tokens import REVOCATION, TOKEN
from control_plane.catalogs.tokens import restore as restore_revocation
from control_plane.schema import NAME, WHOLE, databases, exports, quotas, tenants, tokens
from memoturnd.core.limits import Quotas
from memoturnd.errors import AlreadyExistsError, NotFoundError
from memoturnd.seams.catalog import Database
from memoturnd.seams.credentials import Revocation, TokenRow


class Restore(NamedTuple):
    """How one kind of what is exported is entered: found and inserted by the values that its id and decoded body give.

    `number`, where changes of the kind are numbered, draws the next number.
    """

    find: sa.Select[Any]
    insert: sa.Executable
    values: Callable[[str, Any], Mapping[str, Any]]
    number: sa.UpdateBase | None = None


class Advanced(GenericFunction[Any]):
    """Lets the numbers of `exports` go on above a value; SQLite learns that from a row that had it."""

    name = "advanced"
    inherit_cache = True


@compiles(Advanced, "sqlite")
def _advanced_in_sqlite(element: Advanced, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(Advanced, "postgresql")
def _advanced_in_postgres(element: Advanced, compiler: SQLCompiler, **options: Any) -> str:
    sequence = "pg_get_serial_sequence('exports', 'change')"
    above = compiler.process(element.clauses, **options)
    return f"setval({sequence}, greatest(nextval({sequence}), {above}))"


_above = sa.bindparam("above", type_=WHOLE)
_ADVANCE = sa.select(Advanced(_above))
_STAND_IN = sa.insert(exports).values(change=_above, kind=sa.literal_column("''"), id=sa.literal_column("''"))
_REMOVE = sa.delete(exports).where(exports.c.change == _above)
_RESTORE_DATABASE = sa.insert(databases).values(
    uuid=sa.bindparam("uuid"),
    tenant=sa.bindparam("tenant"),
    name=sa.bindparam("name"),
    main_branch_id=sa.bindparam("main_branch_id"),
    created_at=sa.bindparam("created_at"),
    written=sa.true(),
    queued=sa.true(),
    deleted_at=sa.bindparam("deleted_at", type_=WHOLE),
    settings=sa.bindparam("settings"),
)
_RESTORE_TENANT = (
    postgresql.insert(tenants)
    .values(name=sa.bindparam("name", type_=NAME), created_at=sa.bindparam("created_at", type_=WHOLE))
    .on_conflict_do_nothing()
)
_FIND_TENANT = sa.select(tenants.c.name).where(tenants.c.name == sa.bindparam("name", type_=NAME))


def _insert(table: sa.Table) -> sa.Executable:
    values = {column.name: sa.bindparam(column.name, type_=column.type) for column in table.c}
    return postgresql.insert(table).values(values).on_conflict_do_nothing()


def _token(_id: str, body: Any) -> Mapping[str, Any]:
    row = msgspec.convert(body, TokenRow)
    return {name: getattr(row, name) for name in TokenRow.__dataclass_fields__}


def _quotas(id_: str, body: Any) -> Mapping[str, Any]:
    tenant, _, namespace = id_.partition("/")
    return {"tenant": tenant, "namespace": namespace, **asdict(msgspec.convert(body, Quotas))}


RESTORES: Final[dict[str, Restore]] = {
    TENANT: Restore(
        _FIND_TENANT, _RESTORE_TENANT, lambda id_, body: {"name": id_, "created_at": body["created_at"]}
    ),
    TOKEN: Restore(
        sa.select(tokens.c.id).where(tokens.c.id == sa.bindparam("id", type_=NAME)), _insert(tokens), _token
    ),
    QUOTAS: Restore(
        sa.select(quotas.c.change).where(
            quotas.c.tenant == sa.bindparam("tenant", type_=NAME),
            quotas.c.namespace == sa.bindparam("namespace", type_=NAME),
        ),
        _insert(quotas),
        _quotas,
        NUMBER,
    ),
}


class Rebuilding(Part):
    """What `memoturnd.engine.rebuild` needs of a catalog besides what everybody does."""

    @property
    def exported_kinds(self) -> tuple[str, ...]:
        """Return every kind of thing that is exported; of databases those that were never written."""
        return (DATABASE, *RESTORES, REVOCATION)

    async def advance_changes(self, above: int) -> None:
        """Let the changes from here on have numbers above this one, which the export has seen."""
        if above <= 0:
            return
        try:
            async with self._backend.transaction() as session:
                await session.rows(_ADVANCE, above=above)
                await session.run(_STAND_IN, above=above)
                await session.run(_REMOVE, above=above)
        except TakenError:
            return  # a change has the number, so they are above it already

    async def restore_database(self, database: Database) -> None:
        """Enter a written database, live or deleted, as its register has it.

        Raises AlreadyExistsError (name or uuid), NotFoundError for a missing tenant.
        """
        try:
            await self._backend.run(
                _RESTORE_DATABASE,
                uuid=database.uuid,
                tenant=database.tenant,
                name=database.name,
                main_branch_id=database.main_branch_id,
                created_at=database.created_at,
                deleted_at=database.deleted_at,
                settings=database.settings,
            )
        except TakenError as error:
            raise AlreadyExistsError(f"database {database.qualified_name} already exists") from error
        except DanglingError as error:
            raise NotFoundError(f"no tenant {database.tenant}: create it first") from error

    async def restore_exported(self, kind: str, id_: str, body: bytes, *, is_dry: bool = False) -> bool:
        """Enter what the export has of a kind where it is absent, and return whether it was.

        With `is_dry` it is only looked for. Raises ValidationError (msgspec) or KeyError for a body that is none.
        """
        if kind == REVOCATION:
            known = msgspec.json.decode(body, type=Revocation)
            async with self._backend.transaction() as session:
                return await restore_revocation(session, known, is_dry=is_dry)
        restore = RESTORES[kind]
        values = dict(restore.values(id_, msgspec.json.decode(body)))
        keys = {name: values[name] for name in restore.find.compile().params}
        async with self._backend.transaction() as session:
            if await session.rows(restore.find, **keys):
                return False
            if not is_dry:
                if restore.number is not None:
                    ((values["change"],),) = await session.rows(restore.number)
                await session.run(restore.insert, **values)
        return True
