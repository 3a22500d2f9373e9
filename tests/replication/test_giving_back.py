"""Giving a branch back: only what is shipped, and only what is this node's."""

import pytest
from harness import node_on
from profiles import BY_HAND, Cable, everything, killed, manifest_of, put

from memoturnd.core.durability import Durability
from memoturnd.errors import RetryableError
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.stores.memory import MemoryStore


@pytest.fixture
def store():
    return MemoryStore()


async def refuses(self, branch_id, **names):
    raise RetryableError("the lease service does not answer")


async def test_stop_before_recovery_gives_nothing_back(tmp_path, store, monkeypatch):
    """Guard: `_may_hold_more` in memoturnd.engine.branch.Branch.give_back."""
    async with killed(tmp_path / "n", store, tmp_path / "disk", **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "durable"), durability=Durability.DURABLE)
        await profile.write(put("x", "local"))
    with monkeypatch.context() as patch:
        patch.setattr(LocalLeases, "acquire", refuses)
        async with node_on(tmp_path / "disk", store, **BY_HAND) as node:
            before = await manifest_of(store, profile)
        assert (await manifest_of(store, profile)).txid_ceiling == before.txid_ceiling > before.head_txid

    async with node_on(tmp_path / "other", store, **BY_HAND) as other:
        theirs = await (await other.profile("a")).write(put("x", "theirs"), durability=Durability.DURABLE)
        assert theirs.txid > before.txid_ceiling
    async with node_on(tmp_path / "disk", store, **BY_HAND) as node:
        await (await node.profile("a")).own()
        (kept,) = await node.branches.list("a")
        assert (await (await node.profile("a", kept.name)).read(everything)).value == {"x": "local"}


async def test_node_that_lost_a_branch_leaves_the_lease_to_its_new_owner(tmp_path, store):
    """Guard: memoturnd.engine.takeover.give_back releases the lease that this node took."""
    table = LeaseTable()
    first, second = (LocalLeases(name, f"http://{name}:1", table) for name in ("first", "second"))
    async with node_on(tmp_path / "first", store, leases=first, **BY_HAND) as loser:
        await loser.databases.create("a")
        profile = await loser.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        assert await profile.close()
        table.placed.clear()  # its lease expired

        async with node_on(tmp_path / "second", store, leases=second, **BY_HAND) as owner:
            await (await owner.profile("a")).write(put("x", "2"))
            assert await loser.tiers.evict(profile)
            assert table.owner(profile.ref.branch_id).node_id == "second"


async def test_own_lease_is_given_back(tmp_path, store):
    table = LeaseTable()
    async with node_on(
        tmp_path / "n", store, leases=LocalLeases("n", "http://n:1", table), **BY_HAND
    ) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        assert table.owner(profile.ref.branch_id).node_id == "n"

        assert await node.tiers.evict(profile)

        assert table.placed == {}


async def test_node_that_cannot_take_a_branch_leaves_it_to_others(tmp_path, store):
    table, cable = LeaseTable(), Cable(store)
    first, second = (LocalLeases(name, f"http://{name}:1", table) for name in ("first", "second"))
    async with (
        node_on(tmp_path / "first", cable, leases=first, **BY_HAND) as failing,
        node_on(tmp_path / "second", store, leases=second, **BY_HAND) as other,
    ):
        await other.databases.create("a")
        await (await other.profile("a")).write(put("x", "1"), durability=Durability.DURABLE)
        assert await other.tiers.evict(await other.profile("a"))
        await copy_databases(other, failing)
        cable.cut = True
        with pytest.raises(RetryableError):
            await (await failing.profile("a")).write(put("x", "2"))
        await failing.tiers.sweep()

        await (await other.profile("a")).write(put("x", "3"))


async def copy_databases(source, target):
    """Let one node's catalog know what another's does."""
    await target._services.catalog.create_database(await source._services.catalog.get_database("a"))
