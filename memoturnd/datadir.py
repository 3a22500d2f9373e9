"""The node's data directory: one process at a time, and whether what lies there is of this boot."""

import errno
import fcntl
import json
import os
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from memoturnd.errors import ConfigurationError
from memoturnd.seams.clock import Clock, Randomness, SystemClock, SystemRandomness

BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
LOCK_NAME = ".lock"
BOOT_NAME = "boot"
INSTANCE_NAME = "instance"


class DataDirLock:
    """The exclusive hold of a data directory, until `close()` or the end of the process, however it ends."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file: int | None = file

    def fileno(self) -> int:
        """Return the descriptor: a process that inherits it holds the directory as well, until it ends."""
        if self._file is None:
            raise ValueError(f"{self.path} is not held any more")
        return self._file

    def close(self) -> None:
        """Let go of the directory. Safe to repeat."""
        if self._file is not None:
            # The file itself stays: removing it would let two processes lock two files of one name.
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def lock_data_dir(path: Path, *, listen: str = "", clock: Clock | None = None) -> DataDirLock:
    """Make `path` if needed and hold it for this process; `listen` is the address told to whoever comes second.

    Raises ConfigurationError when another process holds it (naming its pid and address), or when the folder
    cannot be made or written. The lock goes with the process, so that a crash leaves nothing to clean up.
    """
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _hold(path, file)
        holder = {"pid": os.getpid(), "listen": listen, "started_at": (clock or SystemClock()).now_ms()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(holder).encode(), 0)
    except OSError as error:
        os.close(file)
        raise _unusable(path, error) from error
    except BaseException:
        os.close(file)
        raise
    return DataDirLock(path, file)


@cache
def boot_id() -> str:
    """Return an id that changes with every boot of the machine, the same for the life of the process.

    Where the system has none it is random per process: then nothing that an earlier process left is taken
    to be of this boot, which costs a restore and risks nothing.
    """
    return read_boot_id(BOOT_ID_PATH)


def read_boot_id(path: Path) -> str:
    """Return the id in the file `path`, or a random one where it has none."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    return text or f"process-{SystemRandomness().hex(16)}"


def last_boot(path: Path) -> str | None:
    """Return the boot under which a node last used the directory, None where none has finished its start."""
    try:
        return (path / BOOT_NAME).read_text()
    except OSError:
        return None


def forget_boot(path: Path) -> None:
    """Leave no boot noted until the start is finished. Raises ConfigurationError when it cannot be written."""
    try:
        (path / BOOT_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error


def note_boot(path: Path, boot: str) -> None:
    """Remember the boot under which the directory is used. Raises ConfigurationError when it cannot be written."""
    try:
        (path / BOOT_NAME).write_text(boot)
    except OSError as error:
        raise _unusable(path, error) from error


def instance_id(path: Path, randomness: Randomness | None = None) -> str:
    """Return the directory's own id, made at its first use: who has it and the lock is the same node as before.

    Raises ConfigurationError when it can neither be read nor written.
    """
    name = path / INSTANCE_NAME
    try:
        if name.exists() and (known := name.read_text(encoding="ascii").strip()):
            return known
        made = (randomness or SystemRandomness()).hex(16)
        fresh = name.with_suffix(".new")
        fresh.write_text(made, encoding="ascii")
        fresh.replace(name)
    except (OSError, UnicodeDecodeError) as error:
        reason = error if isinstance(error, OSError) else OSError(errno.EINVAL, f"{name} is no text")
        raise _unusable(path, reason) from error
    return made


def _hold(path: Path, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigurationError(
            f"the data directory {path} is in use by {_holder(file)}: "
            "stop that process, or give this one another MEMOTURN_DATA_DIR",
        ) from error
    # An old lock file can be writable in a folder that is not.
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _holder(file: int) -> str:
    try:
        facts = json.loads(os.pread(file, 4096, 0))
        address = f", which listens on {facts['listen']}" if facts["listen"] else ""
        return f"process {facts['pid']}{address}"
    except (ValueError, KeyError, TypeError):
        return "another process, which has only just started or is about to end"


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot use the data directory {path}: {error.strerror or error}; make it a folder that this user can "
        "write, or set MEMOTURN_DATA_DIR to one",
    )
