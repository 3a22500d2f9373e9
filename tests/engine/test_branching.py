"""Forks that meet."""

import asyncio

from harness import node_on

from memoturnd.engine.branching import BranchCreated
from memoturnd.errors import AlreadyExistsError
from memoturnd.seams.clock import SystemClock
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


async def test_of_forks_with_one_name_exactly_one_is_made(tmp_path):
    slow = [Fault(FaultKind.LATENCY, {"put_if_match", "put_if_absent"}, times=None, latency_s=0.005)]
    async with node_on(tmp_path, FaultyStore(MemoryStore(), SystemClock(), slow)) as node:
        await node.databases.create("a")

        made = await asyncio.gather(
            *(node.branches.create("a", "f") for _ in range(4)), return_exceptions=True
        )

        assert sum(isinstance(m, BranchCreated) for m in made) == 1
        assert sum(isinstance(m, AlreadyExistsError) for m in made) == 3
        assert [row.name for row in await node.branches.list("a")] == ["f"]
        assert (await (await node.profile("a", "f")).read(lambda conn, _: 1)).value == 1


async def test_forks_with_other_names_do_not_hinder_each_other(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        await node.databases.create("a")

        made = await asyncio.gather(*(node.branches.create("a", f"f{i}") for i in range(20)))

        assert {m.branch for m in made} == {f"f{i}" for i in range(20)}
        assert len(await node.branches.list("a")) == 20
