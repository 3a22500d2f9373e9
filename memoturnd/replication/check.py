"""Objects read whole and held against their names, a few ranges at a time, whatever their size.

Nothing here raises for damage: it is what these functions are there to find, and they return it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from memoturnd.core import layout, segment
from memoturnd.core.manifest import FORMAT_VERSION, ObjectRef
from memoturnd.core.segment import PAGES_PER_BLOCK, Segment
from memoturnd.core.verification import FindingKind, entry_problem
from memoturnd.errors import CorruptionError
from memoturnd.replication.archive import Stored
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

T = TypeVar("T")
S = TypeVar("S", bound=Stored)
PIECE_BYTES = 4 * 1024 * 1024
"""Bytes of an object that are read and held at once."""
_TRAILER_BYTES = 32


class Damage(NamedTuple):
    """What is wrong with an object."""

    kind: FindingKind
    what: str


MISSING = Damage("missing", "the store does not have it")


class Checked(NamedTuple):
    """An object that was checked: its tables, None where it is damaged."""

    ref: ObjectRef
    tables: Segment | None
    damage: Damage | None


class Checker:
    """Reads and proves objects of one database. `read_bytes` counts what came from the store."""

    def __init__(self, store: ObjectStore, executor: Executor, uuid: str) -> None:
        self.read_bytes = 0
        self._store = store
        self._executor = executor
        self._uuid = uuid
        # One piece of work at a time: the pool is there for those who wait for an answer.
        self._gate = asyncio.Semaphore(1)

    async def document(self, key: str, decode: Callable[[bytes], T]) -> T | Damage:
        """Return a manifest or register. Raises StoreUnavailableError."""
        try:
            data = (await self._store.get(key)).data
        except ObjectMissingError:
            return MISSING
        self.read_bytes += len(data)
        try:
            return decode(data)
        except CorruptionError as error:
            return Damage("damaged", str(error))

    async def listed(self, key: str, name_hash: str, size_bytes: int, kind: type[S]) -> S | Damage:
        """Return the content of a history page or a run. Raises StoreUnavailableError."""
        data = await self._piece(key, 0, size_bytes + 1)
        if isinstance(data, Damage):
            return data
        if len(data) != size_bytes:
            return _length(data, size_bytes)
        if hashlib.sha256(data).hexdigest()[:32] != name_hash:
            return Damage("damaged", "its bytes do not match its name")
        try:
            found = msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Damage("damaged", f"it cannot be read: {error}")
        if found.format > FORMAT_VERSION:
            return Damage("damaged", f"it has format {found.format}, newer than {FORMAT_VERSION}")
        return found

    async def object(self, ref: ObjectRef, page_size: int) -> Checked:
        """Prove a segment or snapshot: length, hash, tables, every block and page, and its entry.

        Raises StoreUnavailableError.
        """
        key = layout.object_key(self._uuid, ref)
        try:
            found = await self._object(key, ref)
        except CorruptionError as error:
            return Checked(ref, None, Damage("damaged", str(error)))
        if isinstance(found, Damage):
            return Checked(ref, None, found)
        problem = entry_problem(ref, found, page_size)
        if problem is not None:
            return Checked(ref, None, Damage("contradiction", problem))
        return Checked(ref, found, None)

    async def _object(self, key: str, ref: ObjectRef) -> Segment | Damage:
        first = await self._piece(key, 0, min(ref.size_bytes + 1, PIECE_BYTES))
        if isinstance(first, Damage):
            return first
        if len(first) != ref.size_bytes and len(first) < PIECE_BYTES:
            return _length(first, ref.size_bytes)
        if len(first) == ref.size_bytes:
            return await self._work(partial(_proven, first, ref.hash))
        if ref.size_bytes < PIECE_BYTES:
            return _length(first, ref.size_bytes)
        return await self._in_pieces(key, ref, first)

    async def _in_pieces(self, key: str, ref: ObjectRef, first: bytes) -> Segment | Damage:
        size_bytes, end = ref.size_bytes, segment.tables_end(first, ref.size_bytes)
        while len(first) < end:
            more = await self._piece(key, len(first), min(PIECE_BYTES, end - len(first)))
            if isinstance(more, Damage) or not more:
                return more if isinstance(more, Damage) else _length(first, size_bytes)
            first += more
        head = first[:end]
        del first
        tables = await self._work(partial(segment.decode_tables, head, size_bytes))
        digest = hashlib.sha256(head)
        async for blocks, stored, at in self._blocks(key, tables):
            if isinstance(stored, Damage):
                return stored
            await self._work(partial(_prove_blocks, tables, digest, blocks, stored, at))
        trailer = await self._piece(key, size_bytes - _TRAILER_BYTES, _TRAILER_BYTES + 1)
        if isinstance(trailer, Damage):
            return trailer
        if len(trailer) != _TRAILER_BYTES:
            return _length(trailer, size_bytes)
        if digest.digest() != trailer or digest.hexdigest()[:32] != ref.hash:
            return Damage("damaged", "its bytes do not match its name")
        return tables

    async def _blocks(self, key: str, tables: Segment) -> AsyncIterator[tuple[range, bytes | Damage, int]]:
        """Yield (numbers of blocks, their bytes, where those lie in the object)."""
        for blocks in _pieces(tables):
            at, length = tables.span(blocks[0], blocks[-1])
            stored = await self._piece(key, at, length)
            if not isinstance(stored, Damage) and len(stored) != length:
                stored = Damage("damaged", f"it ends at byte {at + len(stored)}")
            yield blocks, stored, at

    async def _piece(self, key: str, start: int, length: int) -> bytes | Damage:
        try:
            data = await self._store.get_range(key, start, length)
        except ObjectMissingError:
            return MISSING
        self.read_bytes += len(data)
        return data

    async def _work(self, work: Callable[[], T]) -> T:
        async with self._gate:
            return await self._executor.run(work)


def _length(data: bytes, size_bytes: int) -> Damage:
    found = f"only {len(data)}" if len(data) < size_bytes else "more"
    return Damage("damaged", f"it has {found} bytes, instead of {size_bytes}")


def _proven(data: bytes, name_hash: str) -> Segment:
    """Return the tables of an object in memory, every page of which was looked at. Raises CorruptionError."""
    found = segment.decode(data, name_hash=name_hash)
    for _ in found.numbered_images(range(found.page_count)):
        pass
    return found.without_data()


def _prove_blocks(tables: Segment, digest: "hashlib._Hash", blocks: range, stored: bytes, at: int) -> None:
    digest.update(stored)
    first = blocks[0] * PAGES_PER_BLOCK
    last = min((blocks[-1] + 1) * PAGES_PER_BLOCK, tables.page_count)
    for _ in tables.numbered_images(range(first, last), stored, at):
        pass


def _pieces(tables: Segment) -> Iterator[range]:
    """Yield the blocks of an object in runs of up to PIECE_BYTES, one block at least."""
    count = -(-tables.page_count // PAGES_PER_BLOCK)
    first = 0
    for block in range(count):
        if block > first and tables.span(first, block)[1] > PIECE_BYTES:
            yield range(first, block)
            first = block
    if first < count:
        yield range(first, count)
