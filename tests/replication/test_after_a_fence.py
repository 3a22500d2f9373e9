"""What was in the chain before another node took the branch: it is answered as it is, and kept once."""

import asyncio

import pytest
from harness import node_on
from profiles import BY_HAND, everything, killed, manifest_of, put

from memoturnd.core import compaction
from memoturnd.core.durability import Durability
from memoturnd.errors import CorruptionError, FencedError, NotDurableError, StoreUnavailableError
from memoturnd.replication import swap
from memoturnd.replication.archive import Archive
from memoturnd.seams.object_store import Unknown
from memoturnd.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.0005)


class CutBehindASwap:
    """A way to a store that breaks when a manifest has landed, before the answer is back."""

    def __init__(self, inner):
        self.inner = inner
        self.breaks = False
        self.broken = asyncio.Event()

    def __getattr__(self, name):
        if self.broken.is_set():
            raise StoreUnavailableError("the cable is pulled")
        return getattr(self.inner, name)

    async def put_if_match(self, key, data, etag):
        if self.broken.is_set():
            raise StoreUnavailableError("the cable is pulled")
        result = await self.inner.put_if_match(key, data, etag)
        if self.breaks and key.endswith("manifest.json"):
            self.broken.set()
            return Unknown("the answer was lost")
        return result

    def mend(self):
        self.breaks = False
        self.broken.clear()


async def fenced_behind_a_landed_swap(tmp_path, *, more=()):
    """Write durably on a node that hears nothing of its swap, let another node go on, and return the outcomes.

    Besides those of the write and of `more` writes behind it, the state that the other node has.
    """
    bucket = MemoryStore()
    cable = CutBehindASwap(bucket)
    async with node_on(tmp_path / "first", cable, **BY_HAND) as first:
        await first.databases.create("a")
        profile = await first.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        cable.breaks = True
        writes = [asyncio.create_task(profile.write(put("x", "2"), durability=Durability.DURABLE))]
        await cable.broken.wait()
        writes += [
            asyncio.create_task(profile.write(put("x", value), durability=Durability.DURABLE))
            for value in more
        ]
        async with node_on(tmp_path / "second", bucket, **BY_HAND) as second:
            theirs = await second.profile("a")
            await theirs.write(put("y", "3"), durability=Durability.DURABLE)
            cable.mend()
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            return (*outcomes, (await theirs.read(everything)).value)


async def test_write_that_landed_before_another_node_took_the_branch_is_answered_as_durable(tmp_path):
    """Guard: memoturnd.replication.shipper.Shipper._answer_what_landed."""
    written, state = await fenced_behind_a_landed_swap(tmp_path)

    assert written.durable
    assert state == {"x": "2", "y": "3"}


async def test_write_that_did_not_land_is_still_fenced(tmp_path):
    written, behind, state = await fenced_behind_a_landed_swap(tmp_path, more=["4"])

    assert written.durable
    assert isinstance(behind, FencedError)
    assert state == {"x": "2", "y": "3"}


async def test_nobody_is_told_to_repeat_a_write_that_may_have_landed(tmp_path, monkeypatch):
    async def unreadable(*_args):
        raise CorruptionError("a history page is damaged")

    monkeypatch.setattr(Archive, "holds", unreadable)

    outcome, state = await fenced_behind_a_landed_swap(tmp_path)

    assert isinstance(outcome, NotDurableError)
    assert "do not repeat the write" in str(outcome)
    assert state == {"x": "2", "y": "3"}


async def test_file_whose_txid_is_in_a_history_page_is_not_kept_as_another_branch(tmp_path, monkeypatch):
    """Guard: memoturnd.engine.takeover._reaching."""
    store = MemoryStore()
    async with killed(tmp_path / "n", store, tmp_path / "disk", **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
    monkeypatch.setattr(compaction, "JOIN_SEGMENTS", 2)
    monkeypatch.setattr(compaction, "PAGE_ENTRIES", 2)
    monkeypatch.setattr(compaction, "choose_join", lambda _current: None)
    async with node_on(tmp_path / "other", store, **BY_HAND) as other:
        theirs = await other.profile("a")
        for number in range(100):
            last = f"theirs {number}"
            await theirs.write(put("x", last), durability=Durability.DURABLE)
            standing = await manifest_of(store, theirs)
            if standing.pages:
                break
            await asyncio.sleep(0.01)
    assert standing.pages
    assert not any(ref.min <= 2 <= ref.max for ref in standing.objects)

    async with node_on(tmp_path / "disk", store, **BY_HAND) as node:
        profile = await node.profile("a")
        await profile.own()
        assert (await profile.read(everything)).value == {"x": last}
        assert await node.branches.list("a") == []
