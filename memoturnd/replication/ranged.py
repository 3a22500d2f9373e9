"""Reading objects whole or in ranges: the tables first, then what is wanted, a few requests at a time.

An object of which only ranges are read cannot be held against the hash in its name. Its header and tables
are proven by their own sums and must be what the manifest says of it; blocks and pages are proven by the
tables.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from memoturnd.core import layout, segment
from memoturnd.core.manifest import ObjectRef
from memoturnd.core.segment import Segment
from memoturnd.errors import CorruptionError, MemoturnError
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

T = TypeVar("T")
R = TypeVar("R")
PARALLEL_GETS = 8
HEAD_BYTES = 256 * 1024
"""What is read of a large object at first: the tables of one of 64 MiB of pages are shorter."""


@contextmanager
def one_error() -> Iterator[None]:
    """Raise one of the errors that ended a group of tasks: most are of requests that failed for the same reason."""
    try:
        yield
    except* MemoturnError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Run `work` on every item, PARALLEL_GETS at a time; the first error ends the others and is raised."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    with one_error():
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL_GETS):
                group.create_task(worker())


async def each_of(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do the same and return what `work` returned for each item."""
    results: dict[int, R] = {}

    async def one(item: tuple[int, T]) -> None:
        results[item[0]] = await work(item[1])

    await each(enumerate(items), one)
    return [results[number] for number in range(len(items))]


async def fetch(store: ObjectStore, keys: Sequence[str]) -> list[bytes]:
    """Return the bytes of objects, fetched a few at a time.

    Raises CorruptionError naming an object that a manifest names and the store does not have.
    """
    if len(keys) == 1:
        return [await _whole(store, keys[0])]
    return await each_of(keys, lambda key: _whole(store, key))


async def fetch_tables(store: ObjectStore, uuid: str, ref: ObjectRef) -> Segment:
    """Return an object's tables, from its head; a small object is returned whole.

    Raises CorruptionError naming the object, StoreUnavailableError.
    """
    key, size_bytes = layout.object_key(uuid, ref), ref.size_bytes
    if size_bytes <= HEAD_BYTES:
        data = await _whole(store, key)
        with named_damage(key):
            return segment.decode(data, name_hash=ref.hash)
    head = await fetch_range(store, key, 0, HEAD_BYTES)
    with named_damage(key):
        end = segment.tables_end(head, size_bytes)
    if end > len(head):
        head += await fetch_range(store, key, len(head), end - len(head))
    with named_damage(key):
        tables = segment.decode_tables(head, size_bytes)
        _compare(ref, tables)
    return tables


async def fetch_range(store: ObjectStore, key: str, start: int, length: int) -> bytes:
    """Return bytes [start, start+length) of an object. Raises CorruptionError where it has fewer."""
    try:
        data = await store.get_range(key, start, length)
    except ObjectMissingError as error:
        raise _lost(key) from error
    if len(data) != length:
        raise CorruptionError(
            f"object {key} is damaged: bytes {start} to {start + length} were asked for, {len(data)} came"
        )
    return data


@contextmanager
def named_damage(key: str) -> Iterator[None]:
    """Let a CorruptionError inside name the object."""
    try:
        yield
    except CorruptionError as error:
        raise CorruptionError(f"object {key} is damaged: {error}") from error


async def _whole(store: ObjectStore, key: str) -> bytes:
    try:
        return (await store.get(key)).data
    except ObjectMissingError as error:
        raise _lost(key) from error


def _lost(key: str) -> CorruptionError:
    """Return the error for an object that the store does not have."""
    return CorruptionError(f"object {key} is named by a manifest, but the store has lost it")


def _compare(ref: ObjectRef, tables: Segment) -> None:
    """Raise CorruptionError where the tables are not of the object that the manifest means."""
    found = (tables.prev_txid, tables.rounds[-1].txid, tables.epoch)
    if found != (ref.prev, ref.max, ref.epoch) or f"{tables.checksum_after:016x}" != ref.after:
        raise CorruptionError("its tables are of another object than the one that the manifest names")
