"""Databases as SQLite files: a state is saved to one, and one becomes a new database.

A file is written beside its name and renamed when it is whole, so that a name never stands for half a state.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from memoturn._http import Http, path
from memoturn.errors import InvalidRequestError, ServerError
from memoturn.types import At, Exported, ImportedDatabase

Progress = Callable[[int, int], None]
"""Called with the bytes that have moved so far, and those in all."""

CHUNK_BYTES: Final = 256 * 1024
IMPORT_TIMEOUT_S: Final = 180.0
"""How long the node may check and store a file that it has received."""


def save(
    http: Http,
    spec: str,
    target: "str | os.PathLike[str] | BinaryIO",
    *,
    at: At | None,
    overwrite: bool,
    progress: Progress | None,
) -> Exported:
    """Write a state of a branch to a file, or to one that is open. Raises FileExistsError, OSError."""
    if isinstance(target, (str, os.PathLike)):
        with _beside(Path(target), overwrite=overwrite) as file:
            return _download(http, spec, file, at, progress)
    return _download(http, spec, target, at, progress)


def _download(http: Http, spec: str, file: BinaryIO, at: At | None, progress: Progress | None) -> Exported:
    digest, size = hashlib.sha256(), 0
    with http.download(path("v1", "db", spec, "export"), at=at) as download:
        for chunk in download.chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(size, download.size_bytes)
        if size != download.size_bytes:
            raise ServerError(f"the download ended after {size} of {download.size_bytes} bytes")
        return Exported(
            txid=download.txid,
            durable_txid=download.durable_txid,
            size_bytes=size,
            sha256=digest.hexdigest(),
        )


def send(
    http: Http,
    source: "str | os.PathLike[str]",
    name: str,
    *,
    branch: str | None,
    ttl: int | None,
    progress: Progress | None,
) -> ImportedDatabase:
    """Make a new database, or a new branch of one, of a file. Raises OSError when it cannot be read."""
    if branch is None and ttl is not None:
        raise InvalidRequestError("ttl is for a branch", code="invalid_request")
    with Path(source).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        answer = http.upload(
            path("v1", "databases", name, "import"),
            _chunks(file, size, progress),
            size_bytes=size,
            query={"branch": branch, "ttl": ttl},
            wait_s=IMPORT_TIMEOUT_S,
        )
    return cast("ImportedDatabase", answer.json())


def _chunks(file: BinaryIO, size: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    while sent < size and (chunk := file.read(min(CHUNK_BYTES, size - sent))):
        yield chunk
        sent += len(chunk)
        if progress is not None:
            progress(sent, size)


@contextmanager
def _beside(target: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Give a file beside `target`, which takes its name at the end unless the block raises."""
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already")
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
