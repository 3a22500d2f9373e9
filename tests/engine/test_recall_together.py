"""Recalls of one profile at the same time as each other and as writes: each answers exactly the state it names."""

import asyncio
import random

import pytest
from harness import node_on

import memoturnd.engine.branch as branches
from memoturnd.errors import NotFoundError
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import memories, memory_index, recall


def item(n):
    return {"type": "event", "summary": f"refund {n}", "content": n, "embedding": [1.0, n / 1000, 0.5]}


async def found(profile, **body):
    query = {"query": "refund", "embedding": [1, 0, 0.5], "k": 1000, **body}
    seen = await recall.recall(profile, recall.parse_query(query))
    return {hit["id"] for hit in seen.value["memories"]}, seen.txid


@pytest.mark.parametrize("cache", ["0", "20000", "100000000"])
async def test_each_recall_answers_the_state_that_it_names(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(branches, "_INLINE_SCAN_BYTES", 0)  # every scan in the pool, several at once
    monkeypatch.setattr(memory_index, "_WAIT_S", 0.001)
    rng = random.Random(7)
    states, seen = {}, []

    async with node_on(tmp_path, MemoryStore(), RECALL_CACHE_BYTES=cache) as node:
        await node.databases.create("a")
        profile = await node.profile("a")

        async def write():
            there = set()
            for n in range(60):
                if there and rng.random() < 0.3:
                    id_ = rng.choice(sorted(there))
                    txid = (await memories.forget(profile, id_)).txid
                    there = there - {id_}
                else:
                    batch = [item(10 * n + i) for i in range(rng.randint(1, 5))]
                    written = await memories.ingest(profile, memories.parse_items({"memories": batch}))
                    there, txid = there | {result["id"] for result in written.value}, written.txid
                states[txid] = there
                await asyncio.sleep(0.001)

        async def read(fusion):
            seen.extend([await found(profile, fusion=fusion) for _ in range(40)])

        await memories.ingest(profile, memories.parse_items({"memories": [item(-1)]}))
        states[1] = (await found(profile))[0]
        (first,) = states[1]
        await memories.forget(profile, first)
        await asyncio.gather(
            write(), *(read(fusion) for fusion in ("relevance", "reference", "relevance", "relevance"))
        )
        with pytest.raises(NotFoundError):
            await memories.forget(profile, first)
        assert node.memory.size_bytes <= int(cache)
        assert await profile.close()
        assert (node.memory.size_bytes, len(node.memory)) == (0, 0)
        assert (await found(profile))[0] == states[max(states)]

    checked = [(ids, txid) for ids, txid in seen if txid in states]
    assert len(checked) > 100
    for ids, txid in checked:
        assert ids == states[txid]
