"""Somebody keeps a copy by the change feed alone, while nodes are killed, lose their disks and follow one another."""

import random
import shutil

import pytest
from harness import node_on
from profiles import BY_HAND, killed

from memoturnd.errors import ChangesGoneError
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import feed, kv
from memoturnd.surfaces.feed import Wanted

LIVES = 8


class Copy:
    """A copy of the keys of a namespace, and where in the feed it stands."""

    def __init__(self, *, durable):
        self.values = {}
        self.since = 0
        self.told = []
        self.resets = 0
        self._durable = durable

    async def follow(self, profile, limit):
        """Take one page; return whether more follow."""
        wanted = Wanted(frozenset({"kv"}), self._durable, limit)
        try:
            page = (await feed.read(profile, self.since, wanted)).value
        except ChangesGoneError:
            await self.reset(profile, wanted)
            return True
        for round_ in page.rounds:
            assert round_["txid"] > self.since
            self.since = round_["txid"]
            self.told.append(round_["txid"])
            assert "all" not in round_
            for entry in round_["changes"]:
                for key in (*entry.get("put", ()), *entry.get("deleted", ())):
                    await self._look(profile, key)
        self.since = page.next_since
        return page.more

    async def reset(self, profile, wanted):
        self.resets += 1
        self.told.clear()
        self.since = (await feed.read(profile, None, wanted)).value.next_since
        self.values = await values_of(profile)

    async def _look(self, profile, key):
        found = (await profile.read(lambda conn, now_ms: kv.find_entry(conn, now_ms, "ns", key))).value
        if found is None:
            self.values.pop(key, None)
        else:
            self.values[key] = found.value


async def values_of(profile):
    seen = await profile.read(lambda conn, _: conn.execute("SELECT k, v FROM __memoturn_kv").fetchall())
    return dict(seen.value)


async def live(profile, copies, rng, committed, life):
    """Write, ship now and then, and let the copies follow at their own pace."""
    for n in range(rng.randrange(5, 40)):
        key, value = f"k{rng.randrange(12)}", f"{life}-{n}".encode()
        if rng.random() < 0.2:
            written = await kv.delete(profile, "ns", key)
            if written.value:
                committed.append(written.txid)
        else:
            committed.append((await kv.put(profile, "ns", key, value)).txid)
        if rng.random() < 0.1:
            await profile.owned.shipper.ship()
        for copy in copies:
            if rng.random() < 0.3:
                await copy.follow(profile, rng.randrange(1, 9))


@pytest.mark.parametrize("seed", range(6))
async def test_feeds_lose_and_repeat_nothing_over_kills_and_owners(tmp_path, seed):
    rng = random.Random(seed)
    store = MemoryStore()
    copies = [Copy(durable=False), Copy(durable=True)]
    committed, disk, lost = [], tmp_path / "first", 0
    async with node_on(disk, store, **BY_HAND) as node:
        await node.databases.create("a")
        committed.append((await kv.put(await node.profile("a"), "ns", "k0", b"begin")).txid)
    for life in range(LIVES):
        end = rng.choice(["stops", "is killed", "loses its disk"])
        kept = tmp_path / f"life-{life}"
        if end == "stops":
            async with node_on(disk, store, **BY_HAND) as node:
                await live(await node.profile("a"), copies, rng, committed, life)
            continue
        async with killed(disk, store, kept, **BY_HAND) as node:
            profile = await node.profile("a")
            await live(profile, copies, rng, committed, life)
            durable_txid = profile.durable_txid
        shutil.rmtree(disk)
        disk = kept
        if end == "loses its disk":
            lost += 1
            committed = [txid for txid in committed if txid <= durable_txid]
            disk = tmp_path / f"new-{life}"

    async with node_on(disk, store, **BY_HAND) as node:
        profile = await node.profile("a")
        committed.append((await kv.put(profile, "ns", "last", b"end")).txid)
        await profile.owned.shipper.ship()
        for copy in copies:
            while await copy.follow(profile, 7):
                pass
        # What the durable copy looked up may have been ahead of what it was told, and lost since.
        assert copies[0].values == await values_of(profile)
        for copy in copies:
            assert copy.told == committed[len(committed) - len(copy.told) :]
        assert copies[0].resets <= lost
        assert copies[1].resets == 0
        assert copies[1].told == committed
