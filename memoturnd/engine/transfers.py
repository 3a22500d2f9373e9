"""States that leave as plain SQLite files, and SQLite files that become databases.

Both work on copies in a folder of their own: an exported state is restored there from object storage, an
imported file is received, checked and made ready there (memoturnd.engine.incoming). Neither is ever the
live file of a branch. A database that is imported begins as one snapshot, which is in object storage before
anybody can see the database.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from memoturnd.core.manifest import Manifest
from memoturnd.core.revisions import Revision
from memoturnd.engine import incoming, schema
from memoturnd.engine.adoption import Adoption, ReadyFile
from memoturnd.engine.branch import Branch
from memoturnd.engine.branching import Branching
from memoturnd.engine.connection import open_connection
from memoturnd.engine.files import refused
from memoturnd.engine.services import Services
from memoturnd.errors import (
    OverloadedError,
    PreconditionFailedError,
)
from memoturnd.replication.restore import restore
from memoturnd.seams.catalog import MAIN, Database
from memoturnd.seams.executor import PoolExecutor

AT_ONCE: Final = 4
"""Exports and imports under way on a node: each takes disk, and an import memory too."""
CHECK_S: Final = 60.0
"""Longest time for checking an imported file and writing it anew."""
_CHUNK_BYTES: Final = 256 * 1024


class Spool:
    """A file that has no name any more: it is gone once it is closed, or the process ends."""

    def __init__(self, file: BinaryIO, done: Callable[[], None]) -> None:
        self.file = file
        self._done: Callable[[], None] | None = done

    @property
    def size_bytes(self) -> int:
        """How much was written to it."""
        return os.fstat(self.file.fileno()).st_size

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file from its beginning, read on a thread."""
        self.file.seek(0)
        while chunk := await asyncio.to_thread(self.file.read, _CHUNK_BYTES):
            yield chunk

    async def receive(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Write what comes to the file, on a thread; return a hash of it. Raises DiskFullError."""
        digest = hashlib.blake2b(digest_size=16)
        try:
            async for chunk in chunks:
                digest.update(chunk)
                await asyncio.to_thread(self.file.write, chunk)
            self.file.flush()
        except OSError as error:
            raise refused(Path("a file that is received"), error) from error
        return digest.digest()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()
        if self._done is not None:
            self._done()
            self._done = None


class ExportedFile(Spool):
    """A state as a SQLite file."""

    def __init__(self, file: BinaryIO, done: Callable[[], None], *, txid: int, durable_txid: int) -> None:
        super().__init__(file, done)
        self.txid = txid
        self.durable_txid = durable_txid


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file became; `txid` is that of its first state."""

    database: Database
    txid: int


class Transfers:
    """Exports and imports of one node."""

    def __init__(self, services: Services, branching: Branching) -> None:
        self._services = services
        self._branching = branching
        self._executor = PoolExecutor(AT_ONCE, "transfers")
        self._adoption = Adoption(services, branching, self._executor)
        self._folder = services.branches_folder.parent / "transfers"
        self._running = 0

    def sweep(self) -> None:
        """Remove what a process that was killed left half-done. Nothing in it was acknowledged."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Wait for work that runs on a thread."""
        self._executor.close()

    def spool(self) -> Spool:
        """Return an empty file, which takes a place until it is closed. Raises OverloadedError, DiskFullError."""
        self._enter()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = cast("BinaryIO", tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - whoever gets it closes it
        except OSError as error:
            self._leave()
            raise refused(self._folder, error) from error
        return Spool(file, self._leave)

    # ---- export

    async def export(
        self, db_name: str, branch: str, at: Revision | None, *, min_txid: int = 0
    ) -> ExportedFile:
        """Return the state of a branch at a revision, its head when `at` is None, as a plain SQLite file.

        Whoever gets it closes it. Raises DatabaseNotFoundError, BranchNotFoundError, ConflictError for a state
        that cannot be restored, PreconditionFailedError for one below `min_txid`, OverloadedError, and what
        restoring raises.
        """
        self._enter()
        folder: Path | None = None
        try:
            found, current, txid = await self._branching.state(db_name, branch, at)
            _refuse_below(txid, min_txid)
            folder = self._make_folder()
            file = await self._materialised(folder / "state.db", found, current, txid)
        except BaseException:
            self._leave()
            raise
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        return ExportedFile(file, self._leave, txid=txid, durable_txid=current.head_txid)

    async def _materialised(self, path: Path, branch: Branch, current: Manifest, txid: int) -> BinaryIO:
        """Return the state as an open file; what it lies in may be removed then."""
        services = self._services

        async def restore_from(known: Manifest) -> None:
            reaching = await services.archive.reaching(known, txid)
            await restore(services.store, reaching, txid, path, executor=self._executor, fsync=False)

        if txid == 0:
            _make_empty(path)
        else:
            await branch.manifests.with_newest(current, restore_from)
        try:
            incoming.forget_log(path)
            return path.open("rb")
        except OSError as error:
            raise refused(path, error) from error

    # ---- import

    async def take(
        self, db_name: str, file: AsyncIterator[bytes], *, branch: str = MAIN, ttl_s: int | None = None
    ) -> Imported:
        """Make a new database of a SQLite file, or a new branch of one; it is durable when this returns.

        A branch other than main may delete itself after `ttl_s`. Raises AlreadyExistsError, DatabaseNotFoundError, InvalidRequestError for a file that is not a sound database or holds what no
        profile may, RequestTimeoutError, OverloadedError, DiskFullError, StoreUnavailableError.
        """
        services = self._services
        self._enter()
        try:
            await self._adoption.refuse_taken(db_name, branch)
            folder = self._make_folder()
            try:
                received, ready = folder / "received.db", folder / "ready.db"
                await _receive(received, file)
                now_ms = services.clock.now_ms()
                stop_s = services.clock.monotonic_s() + CHECK_S
                txid = await self._executor.run(
                    lambda: incoming.prepare(
                        received, ready, now_ms=now_ms, expired=lambda: services.clock.monotonic_s() > stop_s
                    )
                )
                made = ReadyFile(ready, txid, now_ms)
                if branch == MAIN:
                    return Imported(await self._adoption.as_database(db_name, made), txid)
                return Imported(await self._adoption.as_branch(db_name, branch, made, ttl_s), txid)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            self._leave()

    # ---- places

    def _enter(self) -> None:
        if self._running >= AT_ONCE:
            raise OverloadedError(
                f"{self._running} exports and imports are under way on this node; send it again later",
                retry_after_s=5,
            )
        self._running += 1

    def _leave(self) -> None:
        self._running -= 1

    def _make_folder(self) -> Path:
        folder = self._folder / self._services.randomness.hex(8)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise refused(folder, error) from error
        return folder


def _refuse_below(txid: int, min_txid: int) -> None:
    if txid < min_txid:
        raise PreconditionFailedError(
            f"that state is txid {txid}, which is below {min_txid}: ask for a later one"
        )


async def _receive(path: Path, file: AsyncIterator[bytes]) -> None:
    """Write what comes to a new file, on a thread. Raises DiskFullError, and what `file` raises."""
    try:
        with path.open("xb") as target:
            async for chunk in file:
                await asyncio.to_thread(target.write, chunk)
    except OSError as error:
        raise refused(path, error) from error


def _make_empty(path: Path) -> None:
    """Make the file of a profile without any data."""
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=64)
    try:
        schema.create_as_commit(conn, txid=0, at_ms=0, epoch=0)
        incoming.empty_log(conn)
    finally:
        conn.close()
