"""Where signing keys and other secrets come from: the environment, a file that is read again, the object store."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final, Protocol

from memoturnd.auth.keys import new_key, written
from memoturnd.errors import ConfigurationError, ConflictError, StoreUnavailableError
from memoturnd.seams.object_store import Committed, ObjectMissingError, ObjectStore

KEYS_OBJECT: Final = "v1/_auth/auth.pkcs8"
"""Where MEMOTURN_PERSIST_AUTH_KEY keeps the keys of all nodes."""
KEYS_FILE: Final = "auth.pkcs8"
_SECRET_BYTES_LIMIT: Final = 64 * 1024
_OF_FILES_S: Final = 2.0
_OF_STORE_S: Final = 20.0


class KeySource(Protocol):
    """Has the text that `memoturnd.auth.keys.parse_keys` reads. `shown` names it in messages, `managed` is whether the node may rotate."""

    @property
    def refresh_s(self) -> float:
        """How often it is read again."""
        ...

    @property
    def shown(self) -> str:
        """What it is called."""
        ...

    @property
    def managed(self) -> bool:
        """Whether `write` may change it."""
        ...

    async def read(self) -> str:
        """Return the text. Raises ConfigurationError, StoreUnavailableError."""
        ...

    async def write(self, text: str, *, instead_of: str) -> None:
        """Replace `instead_of`. Raises ConflictError where something else stands there, StoreUnavailableError."""
        ...


class _OperatorsKeys:
    """Keys that the operator gives, and the node only reads."""

    shown: str
    refresh_s = _OF_FILES_S
    managed = False

    async def write(self, text: str, *, instead_of: str) -> None:
        """Raise ConflictError."""
        del text, instead_of
        raise ConflictError(f"the keys come from {self.shown}; rotate them there")


class FixedKeys(_OperatorsKeys):
    """Keys from the environment, which change with a restart only."""

    shown = "MEMOTURN_AUTH_KEY"

    def __init__(self, text: str) -> None:
        self._text = text

    async def read(self) -> str:
        """Return the text."""
        return self._text


class KeysInFile(_OperatorsKeys):
    """Keys in a file of the operator's (MEMOTURN_AUTH_KEY_FILE)."""

    def __init__(self, path: Path) -> None:
        self.shown = f"MEMOTURN_AUTH_KEY_FILE={path}"
        self._path = path

    async def read(self) -> str:
        """Return the text. Raises ConfigurationError."""
        return await asyncio.to_thread(read_secret_file, self._path, self.shown)


class OwnKeys:
    """Keys that the node makes and keeps in its data directory, readable by nobody else."""

    managed = True
    refresh_s = _OF_FILES_S

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / KEYS_FILE
        self.shown = str(self._path)
        self._lock = asyncio.Lock()

    def exists(self) -> bool:
        """Return whether there are keys already."""
        return self._path.exists()

    async def read(self) -> str:
        """Return the text; a first key is made where there is no file. Raises ConfigurationError."""
        async with self._lock:
            return await asyncio.to_thread(self._read)

    async def write(self, text: str, *, instead_of: str) -> None:
        """Replace the file. Raises ConflictError, ConfigurationError."""
        async with self._lock:
            await asyncio.to_thread(self._write, text, instead_of)

    def _read(self) -> str:
        if not self._path.exists():
            with contextlib.suppress(FileExistsError):
                _create(self._path, written([new_key()]))
        return read_secret_file(self._path, self.shown)

    def _write(self, text: str, instead_of: str) -> None:
        if read_secret_file(self._path, self.shown) != instead_of:
            raise ConflictError(f"{self.shown} has changed meanwhile; look at the keys, then try again")
        beside = self._path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        _create(beside, text)
        beside.replace(self._path)
        _sync_folder(self._path.parent)


class StoredKeys:
    """Keys in the object store, which all nodes with MEMOTURN_PERSIST_AUTH_KEY share."""

    shown = KEYS_OBJECT
    managed = True
    refresh_s = _OF_STORE_S

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self) -> str:
        """Return the text; the first node makes a key, and the others take it. Raises StoreUnavailableError."""
        try:
            return (await self._store.get(KEYS_OBJECT)).data.decode()
        except ObjectMissingError:
            await self._store.put_if_absent(KEYS_OBJECT, written([new_key()]).encode())
            return (await self._store.get(KEYS_OBJECT)).data.decode()

    async def write(self, text: str, *, instead_of: str) -> None:
        """Replace the object. Raises ConflictError, StoreUnavailableError."""
        standing = await self._store.get(KEYS_OBJECT)
        if standing.data.decode() != instead_of:
            raise ConflictError("another node has changed the keys meanwhile; look at them, then try again")
        result = await self._store.put_if_match(KEYS_OBJECT, text.encode(), standing.etag)
        if not isinstance(result, Committed) and (await self._store.get(KEYS_OBJECT)).data.decode() != text:
            raise StoreUnavailableError("the keys could not be replaced; look at them, then try again")


def read_secret_file(path: Path, shown: str) -> str:
    """Return what a file with a secret holds. Raises ConfigurationError, which shows none of it."""
    try:
        with path.open("rb") as file:
            data = file.read(_SECRET_BYTES_LIMIT + 1)
        text = data.decode("ascii")
    except OSError as error:
        raise ConfigurationError(f"{shown} cannot be read: {error.strerror or 'unknown error'}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{shown} holds what is not ASCII text") from None
    if len(data) > _SECRET_BYTES_LIMIT:
        raise ConfigurationError(f"{shown} is over {_SECRET_BYTES_LIMIT} bytes; it should hold secrets alone")
    return text


def _create(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
