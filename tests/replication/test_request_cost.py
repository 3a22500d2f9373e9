"""What shipping costs in requests: one segment and one swap a round, compaction rides along, idleness is free."""

import asyncio

from harness import node_on
from profiles import BY_HAND, put

from memoturnd.core import compaction
from memoturnd.core.durability import Durability
from memoturnd.stores.memory import MemoryStore

METHODS = ("get", "get_range", "put", "put_if_absent", "put_if_match", "delete")


class Counting(MemoryStore):
    """Counts requests by method and kind of object."""

    def __init__(self):
        super().__init__()
        self.counts = {}
        self.keys = []

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if name not in METHODS:
            return method

        async def counted(key, *args):
            kind = next(
                (k for k in ("segments", "snapshots", "pages") if f"/{k}/" in key), key.rpartition("/")[2]
            )
            self.counts[name, kind] = self.counts.get((name, kind), 0) + 1
            return await method(key, *args)

        return counted

    def since(self):
        """Return the counts since the last call."""
        counts, self.counts = self.counts, {}
        return counts


async def settled(branch):
    shipper = branch.owned.shipper
    while (job := shipper.compactor.running) is not None:
        await asyncio.wait([job])


async def test_round_costs_one_segment_and_one_swap(tmp_path):
    store = Counting()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        await node.databases.create("p")
        branch = await node.profile("p")
        await branch.write(put("k", "first"), durability=Durability.DURABLE)
        store.since()

        for n in range(compaction.JOIN_SEGMENTS - 2):
            await branch.write(put("k", str(n)), durability=Durability.DURABLE)
            assert store.since() == {("put", "segments"): 1, ("put_if_match", "manifest.json"): 1}


async def test_rounds_that_meet_share_one_segment_and_one_swap(tmp_path):
    store = Counting()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        await node.databases.create("p")
        branch = await node.profile("p")
        await branch.write(put("k", "first"), durability=Durability.DURABLE)
        store.since()

        await asyncio.gather(
            *(branch.write(put(f"k{n}", "v"), durability=Durability.DURABLE) for n in range(64))
        )

        counts = store.since()
        assert counts["put_if_match", "manifest.json"] <= 2
        assert counts["put", "segments"] <= 2


async def test_compaction_adds_no_swap_and_few_objects(tmp_path):
    store = Counting()
    rounds = 300
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        await node.databases.create("p")
        branch = await node.profile("p")
        await branch.write(put("k", "first"), durability=Durability.DURABLE)
        store.since()

        for n in range(rounds):
            await branch.write(put(f"k{n % 50}", str(n)), durability=Durability.DURABLE)
            await settled(branch)

        counts = store.since()
        assert counts["put_if_match", "manifest.json"] == rounds
        extra = sum(count for (method, _), count in counts.items() if method == "put") - rounds
        assert 0 < extra < rounds / 3
        gets = sum(count for (method, _), count in counts.items() if method.startswith("get"))
        assert gets == 0, "what was put lately is joined without being read back"


async def test_idle_branches_cost_nothing(tmp_path):
    store = Counting()
    async with node_on(tmp_path / "node", store, WARM_AFTER_S="3600", COLD_AFTER_S="7200") as node:
        for n in range(20):
            await node.databases.create(f"p{n}")
            branch = await node.profile(f"p{n}")
            await branch.write(put("k", "v"), durability=Durability.DURABLE)
        await node.catalog_export.export()
        store.since()

        await asyncio.sleep(2.5)

        assert store.since() == {}
