"""An object store in a local directory, with true conditional writes between threads and processes.

    {root}/v1/...   the objects, one file each, at the path that is their key
    {root}/.tmp     files being written; what a crashed process left there is removed after an hour
    {root}/.locks   one lock file per shard of the key space

Every change of a key happens under that key's shard lock (flock), as one rename of a file whose bytes are
already on disk. Readers take no lock: a rename shows them the old object or the new one, whole. A write
returns only when the file and its folder are fsynced, and the folders above it that had to be made.

The etag is a hash of the content. Two versions with equal bytes are therefore one version; manifests carry
a random commit id, so that their content never repeats.
"""

import asyncio
import errno
import fcntl
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TypeVar

import xxhash

from memoturnd.disk import sync_folder
from memoturnd.errors import InvalidRequestError, StoreUnavailableError
from memoturnd.seams.clock import Clock, Randomness, SystemClock, SystemRandomness
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.object_store import (
    Blob,
    Committed,
    Lost,
    ObjectInfo,
    ObjectMissingError,
    SwapResult,
    Unknown,
)
from memoturnd.stores.keys import check_key, check_prefix, check_range, is_key

T = TypeVar("T")

LOCK_SHARDS = 64
LIST_PAGE = 1000
MAX_KNOWN_FOLDERS = 10_000
STALE_TEMPORARY_MS = 3_600_000
PUBLISH_ATTEMPTS = 10

_NEXT_STEP = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space or raise the quota",
    errno.EROFS: "mount it writable or choose another MEMOTURN_OBJECT_STORE",
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
}
# What a rename can only answer when it did nothing. Anything else (an I/O error, say) proves neither.
_NOT_RENAMED = frozenset(_NEXT_STEP) | {errno.EISDIR, errno.ENOTDIR, errno.EXDEV, errno.ENAMETOOLONG}


class _Anything(Enum):
    """What must stand at the key, other than a version named by its etag."""

    MAY_STAND = "anything"
    ABSENT = "nothing"


class LocalStore:
    """Objects as files under `root`, which is made by the first write.

    `threads` bounds the blocking calls at once. Beyond the protocol's errors, a key that is also the folder
    of other keys (`a` beside `a/b`) raises InvalidRequestError, since a path cannot be both.
    """

    def __init__(
        self,
        root: Path,
        *,
        threads: int = 8,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        self._root = root.absolute()
        self._locks = self._root / ".locks"
        self._temporaries = self._root / ".tmp"
        self._clock = clock or SystemClock()
        self._randomness = randomness or SystemRandomness()
        self._executor = PoolExecutor(threads, name="objects")
        self._closed = False
        self._swept = threading.Lock()  # held for good by the first write, which sweeps once
        self._known: set[Path] = set()

    async def get(self, key: str) -> Blob:
        """Return the whole object. Raises ObjectMissingError, StoreUnavailableError, InvalidRequestError."""
        check_key(key)
        data = await self._run("read", key, lambda: self._read(key))
        return Blob(data, _etag(data))

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), fewer only where the object ends. Raises ObjectMissingError."""
        check_key(key)
        check_range(key, start, length)
        return await self._run("read", key, lambda: self._read(key, start, length))

    async def put(self, key: str, data: bytes) -> None:
        """Write an object; on return it survives power loss. Raises StoreUnavailableError."""
        check_key(key)
        match await self._run("write", key, lambda: self._publish(key, data, _Anything.MAY_STAND)):
            case Unknown(cause):
                raise StoreUnavailableError(cause)

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object; Lost when the key exists.

        Unknown only when the file is in place but its folder could not be fsynced; a failure before that
        raises StoreUnavailableError, and nothing happened.
        """
        check_key(key)
        return await self._run("create", key, lambda: self._publish(key, data, _Anything.ABSENT))

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`; Lost when another stands. Raises ObjectMissingError.

        Unknown and StoreUnavailableError as for put_if_absent.
        """
        check_key(key)
        return await self._run("replace", key, lambda: self._publish(key, data, etag))

    async def delete(self, key: str) -> None:
        """Remove the object and the folders that it leaves empty; no error when it is already gone."""
        check_key(key)
        await self._run("delete", key, lambda: self._remove(key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order, a thousand per thread hop."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        rows = self._walk(folder, prefix)
        page_rows = LIST_PAGE
        while page_rows == LIST_PAGE:
            page = await self._run("list", folder, lambda: list(islice(rows, LIST_PAGE)))
            for row in page:
                yield row
            page_rows = len(page)

    async def close(self) -> None:
        """Wait for running calls and end the threads; later calls raise StoreUnavailableError."""
        self._closed = True
        await asyncio.to_thread(self._executor.close)

    async def _run(self, action: str, key: str, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreUnavailableError(
                f"cannot {action} {key!r}: the object store in {self._root} is closed"
            )
        try:
            return await self._executor.run(work)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise InvalidRequestError(
                f"cannot {action} {key!r} in {self._root}: a key there is also the folder of other keys; "
                "use another key",
            ) from error
        except OSError as error:
            raise StoreUnavailableError(_explain(action, self._path(key), error)) from error

    # Everything below runs on a thread of the pool.

    def _path(self, key: str) -> Path:
        return self._root / key

    def _read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            file = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectMissingError(f"no object {key!r} in {self._root}") from error
        try:
            status = os.fstat(file)
            if stat.S_ISDIR(status.st_mode):
                raise ObjectMissingError(f"no object {key!r} in {self._root}")
            end = status.st_size if length is None else min(start + length, status.st_size)
            return _read_exactly(file, start, end)
        finally:
            os.close(file)

    def _stands(self, key: str, expected: str | _Anything) -> bool:
        """Return whether what is at `key` meets the condition. Raises ObjectMissingError for an etag."""
        match expected:
            case _Anything.MAY_STAND:
                return True
            case _Anything.ABSENT:
                try:
                    return not stat.S_ISREG(self._path(key).stat().st_mode)
                except (FileNotFoundError, NotADirectoryError):
                    return True
            case etag:
                return _etag(self._read(key)) == etag

    def _publish(self, key: str, data: bytes, expected: str | _Anything) -> SwapResult:
        self._sweep_once()
        if not self._stands(key, expected):
            return Lost()  # before paying for the write; decided again under the lock
        for _ in range(PUBLISH_ATTEMPTS):
            try:
                return self._try_publish(key, data, expected)
            except FileNotFoundError:
                # A delete just pruned a folder that this write was about to use, or somebody removed it.
                self._known.clear()
        raise StoreUnavailableError(
            f"cannot write {self._path(key)}: its folder keeps disappearing; find out what removes it",
        )

    def _try_publish(self, key: str, data: bytes, expected: str | _Anything) -> SwapResult:
        target = self._path(key)
        self._make_folder(target.parent)
        self._temporaries.mkdir(mode=0o700, exist_ok=True)
        temporary = self._temporaries / self._randomness.hex(16)
        try:
            _write_file(temporary, data)
            with self._locked(key):
                if not self._stands(key, expected):
                    return Lost()
                try:
                    temporary.replace(target)
                except OSError as error:
                    if error.errno in _NOT_RENAMED or isinstance(error, FileNotFoundError):
                        raise
                    return Unknown(_explain("write", target, error))
        finally:
            with suppress(OSError):
                temporary.unlink()
        try:
            sync_folder(target.parent)
        except FileNotFoundError:
            pass  # deleted again by somebody else, folder and all: this write did happen
        except OSError as error:
            return Unknown(_explain("fsync the folder of", target, error))
        return Committed(_etag(data))

    def _remove(self, key: str) -> None:
        target = self._path(key)
        if not target.parent.is_dir():
            return
        try:
            with self._locked(key):
                target.unlink()
            sync_folder(target.parent)
        except (FileNotFoundError, IsADirectoryError):
            return
        for folder in target.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except OSError:
                return  # not empty
            self._known.discard(folder)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        shard = xxhash.xxh32_intdigest(key.encode()) % LOCK_SHARDS
        self._locks.mkdir(mode=0o700, exist_ok=True)
        file = os.open(self._locks / f"{shard:02d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and those above it, each one durable in its parent."""
        ours = folder == self._root or self._root in folder.parents
        if folder in self._known or (not ours and folder.is_dir()):
            return
        self._make_folder(folder.parent)
        try:
            folder.mkdir(mode=0o700)
            made = True
        except FileExistsError:
            made = False
        # Below the root also when it existed: whoever made it may not have come to the fsync yet.
        if made or (ours and folder != self._root):
            sync_folder(folder.parent)
        if len(self._known) >= MAX_KNOWN_FOLDERS:
            self._known.clear()
        self._known.add(folder)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            entries = list(os.scandir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return
        # "a/x" sorts after "a-b" and before "ab", so a folder takes part in the order with its slash.
        named = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries)
        for name, entry in named:
            key = f"{folder}/{name}" if folder else name
            if not is_key(key.rstrip("/")):
                continue
            if key.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key[:-1], prefix)
            elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    yield ObjectInfo(key, status.st_size, status.st_mtime_ns // 1_000_000)

    def _sweep_once(self) -> None:
        """Remove what crashed processes left half written, once per store and only when surely abandoned."""
        if not self._swept.acquire(blocking=False):
            return
        oldest_ms = self._clock.now_ms() - STALE_TEMPORARY_MS
        with suppress(FileNotFoundError):
            for path in self._temporaries.iterdir():
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime_ns // 1_000_000 < oldest_ms:
                        path.unlink()


def _etag(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def _explain(action: str, path: Path, error: OSError) -> str:
    next_step = _NEXT_STEP.get(error.errno or 0, "check that disk and the system's log")
    return f"cannot {action} {path}: {error.strerror or error}; {next_step}, then try again"


def _read_exactly(file: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(file, end - start, start)):
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_file(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    finally:
        os.close(file)
