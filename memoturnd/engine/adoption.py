"""A file that is made ready becomes the first state of a new branch: of a new database, or of one that is there.

Snapshot first, then manifest and names, so that whatever ends this half way leaves nothing that can be seen,
or the whole branch. Such a branch shares nothing with others. What is being made is registered before anything
of it is stored, so that the collector finds what was cut off: a new database as `importing`, which becomes live
by a swap. Who swaps first, the import or the collector that gives it up, has decided, however long either takes.
"""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from memoturnd.core import layout, names
from memoturnd.core import manifest as transitions
from memoturnd.core import register as registers
from memoturnd.core.limits import owner_of
from memoturnd.core.manifest import Manifest
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.branching import Branching
from memoturnd.engine.connection import PAGE_SIZE_BYTES
from memoturnd.engine.new_branch import create_manifest, enter
from memoturnd.engine.registers import first_register
from memoturnd.engine.services import Services
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    DatabaseNotFoundError,
    OverloadedError,
    RetryableError,
)
from memoturnd.replication.snapshot import State, write_snapshot
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import COLLECT, MAIN, BranchRow, Chore, Database
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectMissingError


class ReadyFile(NamedTuple):
    """A profile's file with no log, at `txid`, stamped with the wall time `at_ms` (unix ms)."""

    path: Path
    txid: int
    at_ms: int


class Adoption:
    """Makes branches of files."""

    def __init__(self, services: Services, branching: Branching, executor: Executor) -> None:
        self._services = services
        self._branching = branching
        self._executor = executor

    async def refuse_taken(self, db_name: str, branch: str) -> None:
        """Raise what stands against a new branch of that name: AlreadyExistsError, DatabaseNotFoundError."""
        catalog = self._services.catalog
        try:
            database = await catalog.get_database(db_name)
        except DatabaseNotFoundError:
            if branch == MAIN:
                return
            raise
        if branch == MAIN:
            raise AlreadyExistsError(f"database {db_name} already exists: choose another name")
        try:
            await catalog.get_branch(database.uuid, names.branch(branch))
        except BranchNotFoundError:
            return
        raise AlreadyExistsError(f"branch {branch} of {db_name} already exists; choose another name")

    async def as_database(self, db_name: str, file: ReadyFile) -> Database:
        """Store the file as branch main of a new database.

        The catalog's row decides that there is a database: whoever finds it whose import was cut off behind it
        makes the register live. Raises AlreadyExistsError, StoreUnavailableError.
        """
        services, randomness = self._services, self._services.randomness
        tenant, name = names.split_qualified(db_name)
        database = Database(name, randomness.hex(16), randomness.hex(8), file.at_ms, tenant=tenant)
        uuid, branch_id = database.uuid, database.main_branch_id
        caps = await services.accounts.caps(owner_of(database.qualified_name))
        register = await self._begin(database)
        first = await self._stored(uuid, branch_id, MAIN, file, None)
        await services.manifest_file(uuid, branch_id).create(first)
        try:
            await services.catalog.create_database(database, caps)
        except (AlreadyExistsError, OverloadedError):  # it cannot be any more: nobody has seen these objects
            await self._drop(first)
            raise
        if not await self._finish(register, database):
            await services.catalog.forget_database(uuid)
            await self._drop(first)
            raise RetryableError(f"importing {db_name} took so long that it was given up; send it again")
        return database

    async def _begin(self, database: Database) -> SwapFile[Register]:
        """Register a database that is about to be imported; should it be cut off from here on, it goes."""
        services = self._services
        due_ms = services.clock.now_ms() + services.graces.of_database
        await services.catalog.schedule(Chore(COLLECT, database.uuid), due_ms)
        register = services.register_file(database.uuid)
        await register.create(first_register(database, state="importing"))
        return register

    async def _finish(self, register: SwapFile[Register], database: Database) -> bool:
        """Let the database live; False where the collector has given it up."""
        try:
            standing = await register.update(registers.finish_import)
        except ObjectMissingError:
            return False
        if standing.state != "live":
            return False
        await self._services.catalog.mark_written(database.uuid)
        return True

    async def _drop(self, first: Manifest) -> None:
        """Delete what a new database would have been made of, the register last: the collector finds by it what stays."""
        uuid, store = first.db, self._services.store
        keys = [layout.object_key(uuid, ref) for ref in first.snapshots]
        with suppress(RetryableError):
            for key in (*keys, layout.manifest_key(uuid, first.branch_id), layout.register_key(uuid)):
                await store.delete(key)

    async def as_branch(self, db_name: str, name: str, file: ReadyFile, ttl_s: int | None) -> Database:
        """Store the file as a new branch of a database, which deletes itself after `ttl_s`.

        Raises DatabaseNotFoundError, AlreadyExistsError, StoreUnavailableError.
        """
        services = self._services
        database = await services.catalog.get_database(db_name)
        expires_at = None if ttl_s is None else file.at_ms + 1000 * ttl_s
        grace_s = services.graces.unreachable_ms / 1000
        async with self._branching.adding(database, name) as (register, branch_id):
            # Registered before it is stored, as a fork is, so that the collector sees it being made.
            now_ms, started_s = services.clock.now_ms(), services.clock.monotonic_s()
            entry = RegisteredBranch(branch_id, now_ms, MAIN, 0, expires_at, is_new=True)
            await enter(services, register, database.uuid, name, entry)
            first = await self._stored(database.uuid, branch_id, name, file, expires_at)
            await services.catalog.put_branch(
                BranchRow(database.uuid, branch_id, name, MAIN, 0, file.at_ms, expires_at)
            )
            await create_manifest(services, first, started_s=started_s, deadline_s=grace_s)
        return database

    async def _stored(
        self, uuid: str, branch_id: str, name: str, file: ReadyFile, expires_at: int | None
    ) -> Manifest:
        """Put the file into object storage, and return the manifest that names it."""
        refs, _ = await write_snapshot(
            self._services.store,
            self._executor,
            str(file.path),
            State(file.txid, file.at_ms, 0, PAGE_SIZE_BYTES),
            uuid=uuid,
            branch_id=branch_id,
            nonce=bytes.fromhex(self._services.randomness.hex(16)),
        )
        return transitions.replace(
            Manifest(
                db=uuid,
                branch_id=branch_id,
                branch=name,
                created_at=file.at_ms,
                expires_at=expires_at,
                page_size=PAGE_SIZE_BYTES,
            ),
            snapshots=refs,
            head_txid=file.txid,
            head_at=file.at_ms,
            head_checksum=refs[0].after,
            txid_ceiling=file.txid,
        )
