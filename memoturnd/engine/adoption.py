"""A file that is made ready becomes the first state of a new branch: of a new database, or of one that is there.

Snapshot first, then manifest and names, so that whatever ends this half way leaves nothing that can be seen,
or the whole branch. Such a branch shares nothing with others.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from memoturnd.core import layout, names
from memoturnd.core import manifest as transitions
from memoturnd.core.manifest import Manifest
from memoturnd.core.register import RegisteredBranch
from memoturnd.engine.branching import Branching
from memoturnd.engine.connection import PAGE_SIZE_BYTES
from memoturnd.engine.databases import Registers
from memoturnd.engine.new_branch import create_manifest, enter
from memoturnd.engine.services import Services
from memoturnd.errors import AlreadyExistsError, BranchNotFoundError, DatabaseNotFoundError, RetryableError
from memoturnd.replication.snapshot import State, write_snapshot
from memoturnd.seams.catalog import MAIN, BranchRow, Database
from memoturnd.seams.executor import Executor


class ReadyFile(NamedTuple):
    """A profile's file with no log, at `txid`, stamped with the wall time `at_ms` (unix ms)."""

    path: Path
    txid: int
    at_ms: int


class Adoption:
    """Makes branches of files."""

    def __init__(
        self, services: Services, branching: Branching, files: Registers, executor: Executor
    ) -> None:
        self._services = services
        self._branching = branching
        self._registers = files
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
        """Store the file as branch main of a new database. Raises AlreadyExistsError, StoreUnavailableError."""
        services, randomness = self._services, self._services.randomness
        database = Database(db_name, randomness.hex(16), randomness.hex(8), file.at_ms)
        uuid, branch_id = database.uuid, database.main_branch_id
        first = await self._stored(uuid, branch_id, MAIN, file, None)
        await services.manifest_file(uuid, branch_id).create(first)
        await self._registers.ensure(database)
        try:
            await services.catalog.create_database(replace(database, written=True))
        except AlreadyExistsError:  # the name was taken meanwhile: nobody has seen these objects
            self._registers.forget(uuid)
            keys = [layout.object_key(uuid, ref) for ref in first.snapshots]
            for key in (layout.register_key(uuid), layout.manifest_key(uuid, branch_id), *keys):
                with suppress(RetryableError):
                    await services.store.delete(key)
            raise
        return database

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
