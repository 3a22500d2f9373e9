"""Faults one after the other and two at a time, under one long load on several databases, from a seed."""

import asyncio
import os
import random

import pytest

from cluster.failures import FAULTS
from cluster.load import Load

FIRST = ("term", "etcd-leader")
"""What can only be done to a cluster that is whole otherwise."""
ROUNDS = int(os.environ.get("MEMOTURN_TEST_STORM_ROUNDS", "8"))


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_storm_loses_nothing_beyond_the_level(wired_cluster, seed, tmp_path):
    cluster = wired_cluster
    rng = random.Random(seed)
    databases = [f"storm--{seed}-{number}" for number in range(3)]
    urls = [gateway.url for gateway in cluster.gateways]
    path = tmp_path / "history.jsonl"
    struck = []
    async with Load(urls, cluster.token(ns="storm"), databases, seed=seed, clients=12, path=path) as load:
        for _ in range(ROUNDS):
            await load.acknowledged(30, within_s=60)
            names = rng.sample(sorted(FAULTS), rng.choice([1, 1, 2]))
            names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
            for name in names:
                node = rng.choice([node for node in cluster.nodes if node.alive])
                struck.append((name, node.name))
                await asyncio.to_thread(FAULTS[name].strike, cluster, node)
            await asyncio.sleep(rng.uniform(1, 2.5 * cluster.ttl_s))
            await asyncio.to_thread(cluster.recover)
        await load.acknowledged(30, within_s=60)
        await load.stop()
        wrong = await load.verdict(takeovers=2 * ROUNDS)
    assert wrong == [], struck
    assert not {"replicated", "durable"} & load.lost.keys(), struck
