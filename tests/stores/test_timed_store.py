"""Every call ends, and one that moves many bytes gets the time for them."""

import asyncio

import pytest

from memoturnd.errors import StoreUnavailableError
from memoturnd.seams.clock import SystemClock
from memoturnd.stores import timed
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore
from memoturnd.stores.timed import TimedStore


async def test_large_bodies_get_longer(monkeypatch):
    monkeypatch.setattr(timed, "BYTES_PER_S", 1000)
    slow = FaultyStore(MemoryStore(), SystemClock(), [Fault(FaultKind.LATENCY, times=None, latency_s=0.1)])
    store = TimedStore(slow, 0.01)

    await store.put("large", bytes(1000))
    assert await store.get_range("large", 0, 1000) == bytes(1000)
    with pytest.raises(StoreUnavailableError, match=r"took over 0\.02 s for small"):
        await store.put("small", bytes(10))
    with pytest.raises(StoreUnavailableError, match=r"took over 0\.01 s for large"):
        await store.get("large")
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailableError):
            await store.get_range("large", 0, 10)
