"""The registers of databases (`database.json`) as a node uses them: made at the first write, held a few at a time."""

from collections import OrderedDict

from memoturnd.core.register import Register, RegisteredBranch, finish_import
from memoturnd.engine.services import Services
from memoturnd.errors import CorruptionError, DatabaseNotFoundError
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import MAIN, Database

_REGISTERS_KEPT = 256


class Registers:
    """The `database.json` files that this node has used lately, at most 256."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._files: OrderedDict[str, SwapFile[Register]] = OrderedDict()

    def get(self, uuid: str) -> SwapFile[Register]:
        """Return the register of a database as a compare-and-swap file."""
        file = self._files.get(uuid)
        if file is None:
            file = self._files[uuid] = self._services.register_file(uuid)
            if len(self._files) > _REGISTERS_KEPT:
                self._files.popitem(last=False)
        self._files.move_to_end(uuid)
        return file

    def borrow(self, uuid: str) -> SwapFile[Register]:
        """Return the register without keeping it, for whoever visits many databases once."""
        return self._files.get(uuid) or self._services.register_file(uuid)

    def forget(self, uuid: str) -> None:
        """Drop the register of a deleted database."""
        self._files.pop(uuid, None)

    async def ensure(self, database: Database) -> SwapFile[Register]:
        """Return the register, creating it at the database's first write.

        An import that was cut off when it had its row in the catalog is finished: the rest was there before.
        Raises DatabaseNotFoundError for a database that is being deleted, CorruptionError when the object
        store does not have the register of a database that was written before.
        """
        file = self.get(database.uuid)
        known = await file.load()
        if known is None:
            if database.written:
                raise CorruptionError(
                    f"the object store has no {file.key}, although database {database.name} was written; "
                    "check that MEMOTURN_OBJECT_STORE is the store it was written to"
                )
            await file.create(first_register(database))
            known = await file.load()
        if known is not None and known.state != "live":  # another node may have brought it back
            known = await file.load(fresh=True)
        if known is not None and known.state == "importing":
            known = await file.update(finish_import)
        if known is not None and known.state == "live" and not database.written:
            await self._services.catalog.mark_written(database.uuid)
        if known is None or known.state != "live":
            raise DatabaseNotFoundError(f"database {database.name} is being deleted")
        return file


def first_register(database: Database, *, state: str = "live") -> Register:
    """Return the register of a database as it begins: with main alone."""
    main = RegisteredBranch(id=database.main_branch_id, created_at=database.created_at)
    return Register(
        uuid=database.uuid,
        tenant=database.tenant,
        name=database.name,
        created_at=database.created_at,
        state=state,
        branches={MAIN: main},
    )
