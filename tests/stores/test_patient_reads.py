"""Reads that are made again while a store does not answer, and no more often than they should be."""

import pytest

from memoturnd.errors import StoreRefusedError, StoreUnavailableError
from memoturnd.stores.memory import MemoryStore
from memoturnd.stores.repeat import READ_ATTEMPTS, PatientReads


class Clock:
    def __init__(self):
        self.slept_s = []

    async def sleep(self, seconds):
        self.slept_s.append(seconds)


class Troubled(MemoryStore):
    """Fails the next reads with the errors in `troubles`; a listing after its first key."""

    def __init__(self):
        super().__init__()
        self.troubles = []

    async def get(self, key):
        if self.troubles:
            raise self.troubles.pop()
        return await super().get(key)

    async def list(self, prefix):
        async for info in super().list(prefix):
            yield info
            if self.troubles:
                raise self.troubles.pop()


@pytest.fixture
async def stores():
    inner, clock = Troubled(), Clock()
    for key in ("a/1", "a/2", "a/3"):
        await inner.put(key, key.encode())
    return inner, PatientReads(inner, clock), clock


async def test_a_read_is_made_again_with_growing_pauses(stores):
    inner, patient, clock = stores
    inner.troubles = [StoreUnavailableError("gone")] * (READ_ATTEMPTS - 1)
    assert (await patient.get("a/1")).data == b"a/1"
    assert clock.slept_s == sorted(clock.slept_s)
    assert len(clock.slept_s) == READ_ATTEMPTS - 1


async def test_a_store_that_stays_away_is_given_up(stores):
    inner, patient, _ = stores
    inner.troubles = [StoreUnavailableError("gone")] * (READ_ATTEMPTS + 1)
    with pytest.raises(StoreUnavailableError):
        await patient.get("a/1")
    assert len(inner.troubles) == 1


async def test_a_refusal_is_final(stores):
    inner, patient, clock = stores
    inner.troubles = [StoreRefusedError("wrong key")]
    with pytest.raises(StoreRefusedError):
        await patient.get("a/1")
    assert clock.slept_s == []


async def test_a_listing_goes_on_behind_the_last_key(stores):
    inner, patient, _ = stores
    inner.troubles = [StoreUnavailableError("gone")] * 2
    assert [info.key async for info in patient.list("a/")] == ["a/1", "a/2", "a/3"]
