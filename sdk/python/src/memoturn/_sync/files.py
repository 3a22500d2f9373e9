# Made of _async/files.py by scripts/unasync: change that one.
"""Databases as SQLite files: a state is saved to one, and one becomes a new database."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from memoturn._core.calls import LINES, Call
from memoturn._core.files import CHUNK_BYTES, Part, Progress, closing, reading
from memoturn._core.paths import path, query_of
from memoturn._sync.address import Address
from memoturn._sync.http import Http
from memoturn._sync.seam import blocking, opening
from memoturn.errors import InvalidRequestError, ServerError
from memoturn.types import Exported, ImportedDatabase, MemoryImported, ReadOptions, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

IMPORT_TIMEOUT_S: Final = 180.0
"""How long the node may check and store a file that it has received."""


def save(
    address: Address,
    target: "str | os.PathLike[str] | BinaryIO",
    *,
    overwrite: bool,
    progress: Progress | None,
    **options: "Unpack[ReadOptions]",
) -> Exported:
    """Write what is exported at an address to a file, or to one that is open. Raises FileExistsError, OSError."""
    if not isinstance(target, (str, os.PathLike)):
        return _download(address, target, progress, **options)
    part = Part(Path(target), overwrite=overwrite)
    file = opening(part.open, lambda _: part.drop())
    try:
        saved = _download(address, file, progress, **options)
        blocking(part.keep)
    except BaseException:
        part.drop()
        raise
    return saved


def _download(
    address: Address, file: BinaryIO, progress: Progress | None, **options: "Unpack[ReadOptions]"
) -> Exported:
    digest, size = hashlib.sha256(), 0
    with address.stream("GET", "export", **options) as download:
        for chunk in download.chunks():
            blocking(file.write, chunk)
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
    with opening(reading, closing, Path(source)) as file:
        size = os.fstat(file.fileno()).st_size
        call = Call(
            "PUT",
            path("v1", "databases", name, "import"),
            query=query_of({"branch": branch, "ttl": ttl}),
            headers={"Content-Type": "application/vnd.sqlite3", "Content-Length": str(size)},
            control=True,
            timeout_s=IMPORT_TIMEOUT_S,
            is_write=True,
            repeatable="unapplied",  # an import takes no key
            opened=lambda: _chunks(file, size, progress),
        )
        answer = http.send(call)
    return cast("ImportedDatabase", answer.json())


def send_lines(
    address: Address,
    source: "str | os.PathLike[str]",
    *,
    replace: bool,
    progress: Progress | None,
    **options: "Unpack[WriteOptions]",
) -> MemoryImported:
    """Import memory from a file of lines. Raises OSError when it cannot be read."""
    if options.get("timeout_s") is None:
        options["timeout_s"] = IMPORT_TIMEOUT_S
    with opening(reading, closing, Path(source)) as file:
        size = os.fstat(file.fileno()).st_size
        answer = address.upload(
            "POST",
            "import",
            opened=lambda: _chunks(file, size, progress),
            headers={"Content-Type": LINES, "Content-Length": str(size)},
            query={"replace": replace},
            **options,
        )
    return cast("MemoryImported", answer.stamped())


def _chunks(file: BinaryIO, size: int, progress: Progress | None) -> Iterator[bytes]:
    blocking(file.seek, 0)
    sent = 0
    while sent < size:
        chunk = blocking(file.read, min(CHUNK_BYTES, size - sent))
        if not chunk:
            return
        yield chunk
        sent += len(chunk)
        if progress is not None:
            progress(sent, size)
