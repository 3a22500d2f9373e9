"""Databases as SQLite files: a state is saved to one, and one becomes a new database."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from memoturn._async.address import AsyncAddress
from memoturn._async.http import AsyncHttp
from memoturn._async.seam import blocking, opening
from memoturn._core.calls import LINES, Call
from memoturn._core.files import CHUNK_BYTES, Part, Progress, closing, reading
from memoturn._core.paths import path, query_of
from memoturn.errors import InvalidRequestError, ServerError
from memoturn.types import Exported, ImportedDatabase, MemoryImported, ReadOptions, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

IMPORT_TIMEOUT_S: Final = 180.0
"""How long the node may check and store a file that it has received."""


async def save(
    address: AsyncAddress,
    target: "str | os.PathLike[str] | BinaryIO",
    *,
    overwrite: bool,
    progress: Progress | None,
    **options: "Unpack[ReadOptions]",
) -> Exported:
    """Write what is exported at an address to a file, or to one that is open. Raises FileExistsError, OSError."""
    if not isinstance(target, (str, os.PathLike)):
        return await _download(address, target, progress, **options)
    part = Part(Path(target), overwrite=overwrite)
    file = await opening(part.open, lambda _: part.drop())
    try:
        saved = await _download(address, file, progress, **options)
        await blocking(part.keep)
    except BaseException:
        part.drop()
        raise
    return saved


async def _download(
    address: AsyncAddress, file: BinaryIO, progress: Progress | None, **options: "Unpack[ReadOptions]"
) -> Exported:
    digest, size = hashlib.sha256(), 0
    async with address.stream("GET", "export", **options) as download:
        async for chunk in download.chunks():
            await blocking(file.write, chunk)
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


async def send(
    http: AsyncHttp,
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
    with await opening(reading, closing, Path(source)) as file:
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
        answer = await http.send(call)
    return cast("ImportedDatabase", answer.json())


async def send_lines(
    address: AsyncAddress,
    source: "str | os.PathLike[str]",
    *,
    replace: bool,
    progress: Progress | None,
    **options: "Unpack[WriteOptions]",
) -> MemoryImported:
    """Import memory from a file of lines. Raises OSError when it cannot be read."""
    if options.get("timeout_s") is None:
        options["timeout_s"] = IMPORT_TIMEOUT_S
    with await opening(reading, closing, Path(source)) as file:
        size = os.fstat(file.fileno()).st_size
        answer = await address.upload(
            "POST",
            "import",
            opened=lambda: _chunks(file, size, progress),
            headers={"Content-Type": LINES, "Content-Length": str(size)},
            query={"replace": replace},
            **options,
        )
    return cast("MemoryImported", answer.stamped())


async def _chunks(file: BinaryIO, size: int, progress: Progress | None) -> AsyncIterator[bytes]:
    await blocking(file.seek, 0)
    sent = 0
    while sent < size:
        chunk = await blocking(file.read, min(CHUNK_BYTES, size - sent))
        if not chunk:
            return
        yield chunk
        sent += len(chunk)
        if progress is not None:
            progress(sent, size)
