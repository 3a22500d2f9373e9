"""Writes a client's file: a copy of the old one beside it, then the new one in one step."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from memoturn.errors import InvalidRequestError

_BYTES_MAX: Final = 16 * 1024 * 1024
_PRIVATE: Final = 0o600
_TRIES: Final = 1000


@dataclass(frozen=True)
class Written:
    """What was done: the file, and the copy of what was there before (None: there was nothing, or nothing changed)."""

    path: Path
    backup: Path | None
    changed: bool


def read(path: Path) -> str:
    """Return a file's text, empty where there is none. Raises InvalidRequestError for what is no text of that kind."""
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise InvalidRequestError(
                f"{path} is over {_BYTES_MAX} bytes; is it the right file?", code="invalid_request"
            )
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{path} is not UTF-8; it is not changed", code="invalid_request"
        ) from error
    except OSError as error:
        raise _failed("read", path, error) from error


def write(path: Path, before: str, after: str) -> Written:
    """Replace a file that held `before` by `after`. Raises InvalidRequestError, also when it was changed meanwhile."""
    path = path.resolve()  # behind a link, the link stays
    if before == after:
        return Written(path, None, changed=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        mode = path.stat().st_mode & 0o777 if existed else _PRIVATE
        with _temporary(path, after, mode) as temporary:
            if read(path) != before:
                raise InvalidRequestError(
                    f"{path} was changed meanwhile; run it again", code="invalid_request"
                )
            backup = _backup(path) if existed else None
            temporary.replace(path)
    except OSError as error:
        raise _failed("written", path, error) from error
    return Written(path, backup, changed=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read. Raises InvalidRequestError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _temporary(path, text, _PRIVATE) as temporary:
            temporary.replace(path)
    except OSError as error:
        raise _failed("written", path, error) from error


def _backup(path: Path) -> Path:
    for number in range(_TRIES):
        backup = path.with_name(f"{path.name}.memoturn-backup{f'-{number}' if number else ''}")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        except FileExistsError:
            continue
        with os.fdopen(handle, "wb") as copy:
            copy.write(path.read_bytes())
        return backup
    raise InvalidRequestError(f"there are {_TRIES} backups of {path}; delete some", code="invalid_request")


@contextmanager
def _temporary(path: Path, text: str, mode: int) -> Iterator[Path]:
    """Write a file beside `path`, which is not there any more behind the block."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _failed(done: str, path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} could not be {done} ({error.strerror or error}); nothing was changed", code="invalid_request"
    )
