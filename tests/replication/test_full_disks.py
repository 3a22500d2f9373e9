"""Nodes without room on their disks: members of a sync set, the successor of an owner, and replicas."""

import pytest
from profiles import everything, put
from small_disk import small_disk
from tail_cluster import Cluster
from test_replicas import cluster_on, until

from memoturnd.core.durability import Durability
from memoturnd.engine import replicas as following
from memoturnd.engine import tails as tailing
from memoturnd.errors import DiskFullError, FencedError, RetryableError

REPLICATED = Durability.REPLICATED
__all__ = ["small_disk"]


@pytest.fixture
async def members(tmp_path, monkeypatch, small_disk):
    """Owner `a`, and `b` and `c` with small disks."""
    monkeypatch.setattr(tailing, "READ_S", 0.3)
    monkeypatch.setattr(tailing, "AGAIN_S", 0.05)
    disks = {name: small_disk(tmp_path / name, size="6m") for name in ("b", "c")}
    async with Cluster(tmp_path) as made:
        await made.start("a", "b", "c")
        await made.nodes["a"].databases.create("p")
        yield made, disks


async def write(cluster, name, key):
    return await (await cluster.profile(name)).write(put(key, "1"), durability=REPLICATED)


async def seen(cluster, name):
    profile = await cluster.profile(name)
    await profile.own()
    return (await profile.read(everything)).value


async def test_member_whose_disk_is_full_is_replaced_by_one_that_has_room(members):
    cluster, disks = members
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    (other,) = {"b", "c"} - {member}
    disks[member].fill()
    cluster.cables["a"].cut = True

    written = await write(cluster, "a", "y")

    assert written.durability is REPLICATED
    assert cluster.members() == {other}
    await cluster.kill("a")
    assert await seen(cluster, other) == {"x": "1", "y": "1"}


async def test_where_no_other_disk_has_room_a_replicated_write_waits_for_object_storage(members):
    cluster, disks = members
    for disk in disks.values():
        disk.fill()

    written = await write(cluster, "a", "x")

    assert written.durability is Durability.DURABLE


async def test_takeover_finds_what_a_member_holds_whose_disk_is_full(members):
    cluster, disks = members
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    (other,) = {"b", "c"} - {member}
    disks[member].fill()
    await cluster.kill("a")

    assert await seen(cluster, other) == {"x": "1"}


async def test_successor_whose_own_disk_is_full_refuses_and_has_everything_once_there_is_room(members):
    cluster, disks = members
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    disks[member].fill()
    await cluster.kill("a")

    for _ in range(2):
        with pytest.raises(DiskFullError):
            await seen(cluster, member)
    disks[member].make_room()
    assert await seen(cluster, member) == {"x": "1"}


async def test_successor_whose_own_disk_is_full_leaves_the_branch_to_others(members):
    cluster, disks = members
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    (other,) = {"b", "c"} - {member}
    disks[member].fill()
    await cluster.kill("a")

    with pytest.raises(DiskFullError):
        await seen(cluster, member)
    await cluster.nodes[member].tiers.sweep()
    assert await seen(cluster, other) == {"x": "1"}


async def test_fence_that_a_full_disk_took_is_kept_through_a_restart(members):
    cluster, disks = members
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    (other,) = {"b", "c"} - {member}
    disks[member].fill()
    cluster.replace("a")
    assert await seen(cluster, other) == {"x": "1"}
    disks[member].make_room()
    await cluster.stop(member)
    await cluster.start(member)

    with pytest.raises(FencedError):
        await write(cluster, "a", "zombie")
    assert await seen(cluster, other) == {"x": "1"}
    cluster.leases["a"].blind = False


@pytest.fixture
async def replica(tmp_path, monkeypatch, small_disk):
    """Owner `a`, and `b`, which reads from a replica on a small disk."""
    monkeypatch.setattr(following, "CONFIRM_S", 0.02)
    monkeypatch.setattr("memoturnd.node.CONFIRM_S", 0.02)
    disk = small_disk(tmp_path / "b", size="6m")
    async with cluster_on(tmp_path) as made:
        yield made, disk


async def test_replica_on_a_full_disk_refuses_reads_clearly_and_follows_again_once_there_is_room(replica):
    cluster, disk = replica
    owner = await cluster.a.profile("x")
    await owner.write(put("k", "0"), durability=Durability.DURABLE)
    assert (await cluster.cached()).value == {"k": "0"}
    await until(lambda: cluster.a._services.subscribers.followers(owner.branch_id) == 1)
    disk.fill()

    for n in range(3):  # the owner waits for no replica
        await owner.write(put("k", f"{n}" * 20_000), durability=Durability.DURABLE)
    await until(lambda: pushes(cluster, "failed") > 0)
    with pytest.raises(RetryableError, match="room"):
        await cluster.cached()
    assert (await owner.read(everything)).value == {"k": "2" * 20_000}

    disk.make_room()
    assert (await cluster.cached()).value == {"k": "2" * 20_000}
    taken = pushes(cluster, "ok")
    await owner.write(put("k", "3"), durability=Durability.DURABLE)
    await until(lambda: pushes(cluster, "ok") > taken)
    assert (await cluster.cached()).value == {"k": "3"}


def pushes(cluster, outcome):
    return cluster.a.metrics.replica_pushes[outcome]._value.get()
