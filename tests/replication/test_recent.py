"""Segments that were put lately are joined from memory, within a bound; everything else from the store."""

import pytest

from memoturnd.errors import CorruptionError
from memoturnd.replication.recent import RECENT_SEGMENT_BYTES, RecentSegments
from memoturnd.stores.memory import MemoryStore


async def held(*sizes, most_bytes):
    """Return (store, recent) where objects 0, 1, ... of these sizes were put and kept, and what the store has is other."""
    store = MemoryStore()
    recent = RecentSegments(store, most_bytes=most_bytes)
    for number, size in enumerate(sizes):
        await store.put(str(number), b"stored")
        recent.keep(str(number), b"k" * size)
    return store, recent


async def test_what_was_put_lately_is_not_read_back():
    store, recent = await held(3, 4, most_bytes=100)
    await store.put("other", b"theirs")

    assert await recent.fetch(["1", "other", "0"]) == [b"kkkk", b"theirs", b"kkk"]


async def test_oldest_make_room_and_are_read_from_the_store():
    _, recent = await held(40, 40, 40, most_bytes=100)

    assert await recent.fetch(["0", "1", "2"]) == [b"stored", b"k" * 40, b"k" * 40]


async def test_what_was_joined_is_forgotten_and_leaves_its_room():
    _, recent = await held(40, 40, most_bytes=100)

    recent.drop(["0", "unknown"])
    recent.keep("2", b"n" * 60)

    assert await recent.fetch(["0", "1", "2"]) == [b"stored", b"k" * 40, b"n" * 60]


async def test_same_segment_put_twice_counts_once():
    _, recent = await held(40, most_bytes=100)

    for _ in range(5):
        recent.keep("0", b"k" * 40)
    recent.keep("1", b"n" * 60)

    assert (await recent.fetch(["0"])) == [b"k" * 40]


async def test_large_segment_is_not_kept():
    _, recent = await held(RECENT_SEGMENT_BYTES, RECENT_SEGMENT_BYTES + 1, most_bytes=1 << 20)

    assert [len(data) for data in await recent.fetch(["0", "1"])] == [RECENT_SEGMENT_BYTES, len(b"stored")]


async def test_lost_segment_is_named():
    _, recent = await held(most_bytes=100)

    with pytest.raises(CorruptionError, match="gone"):
        await recent.fetch(["gone"])
