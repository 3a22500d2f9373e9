"""A lease service that lost its memory: who owned a branch may still act, and nobody knows who holds its commits."""

import pytest
from profiles import everything, put
from tail_cluster import Cluster

from memoturnd.core.durability import Durability
from memoturnd.engine import tails as tailing
from memoturnd.errors import RetryableError
from memoturnd.seams.leases import Lineage

REPLICATED = Durability.REPLICATED
NEVER_S, LONG_AGO_S = 1e12, 0.0


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(tailing, "READ_S", 0.3)
    monkeypatch.setattr(tailing, "AGAIN_S", 0.05)
    async with Cluster(tmp_path) as made:
        await made.start("a", "b", "c")
        remember(made, Lineage("one", LONG_AGO_S))
        await made.nodes["a"].databases.create("p")
        yield made
        for leases in made.leases.values():
            leases.blind = False


def remember(cluster, lineage):
    for leases in cluster.leases.values():
        leases.lineage = lineage


def wipe(cluster, *, settled_s):
    """Empty the lease service; the owners do not know yet."""
    for leases in cluster.leases.values():
        leases.blind = True
    cluster.table.placed.clear()
    cluster.table.sync_sets.clear()
    remember(cluster, Lineage("two", settled_s))


async def write(cluster, name, key, level=Durability.LOCAL):
    return await (await cluster.profile(name)).write(put(key, "1"), durability=level)


async def read(cluster, name):
    return (await (await cluster.profile(name)).read(everything)).value


async def test_nobody_else_takes_a_branch_or_shows_it_as_its_newest_state_while_its_owner_may_act(cluster):
    await write(cluster, "a", "x", Durability.DURABLE)
    await write(cluster, "a", "y")
    wipe(cluster, settled_s=NEVER_S)

    with pytest.raises(RetryableError, match="lost its memory") as refused:
        await write(cluster, "b", "z")
    assert refused.value.retry_after_s > 1
    with pytest.raises(RetryableError, match="lost its memory"):
        await read(cluster, "c")
    assert cluster.table.placed == {}, "its last owner can take it again"
    await write(cluster, "a", "w")  # as it does not know yet
    assert await read(cluster, "a") == {"x": "1", "y": "1", "w": "1"}


async def test_the_last_owner_takes_its_branch_again_at_once(cluster):
    await write(cluster, "a", "x")
    wipe(cluster, settled_s=NEVER_S)
    cluster.leases["a"].blind = False  # it knows

    await write(cluster, "a", "y")

    assert await read(cluster, "a") == {"x": "1", "y": "1"}


async def test_a_branch_that_was_given_back_is_taken_at_once(cluster):
    await write(cluster, "a", "x")
    profile = await cluster.profile("a")
    assert await profile.hand_over()
    wipe(cluster, settled_s=NEVER_S)

    await write(cluster, "b", "y")

    assert await read(cluster, "b") == {"x": "1", "y": "1"}


async def lose_owner_and_memory(cluster):
    """Leave a replicated commit at one member alone, of which nobody knows that it is one; return its name."""
    await write(cluster, "a", "x", Durability.DURABLE)
    cluster.cables["a"].cut = True
    await write(cluster, "a", "y", REPLICATED)
    (member,) = cluster.members()
    await cluster.kill("a")
    wipe(cluster, settled_s=LONG_AGO_S)
    return member


async def test_what_was_replicated_is_found_though_nobody_knows_at_whom(cluster):
    member = await lose_owner_and_memory(cluster)
    other = next(name for name in cluster.nodes if name != member)

    assert await read(cluster, other) == {"x": "1", "y": "1"}
    await write(cluster, other, "z")


async def test_a_takeover_that_is_cut_off_leaves_what_was_replicated_for_the_next(cluster, monkeypatch):
    member = await lose_owner_and_memory(cluster)
    other = next(name for name in cluster.nodes if name != member)

    async def dies(*_, **__):
        raise RetryableError("it dies here")

    with monkeypatch.context() as patch:
        patch.setattr(tailing.Tails, "find", dies)
        with pytest.raises(RetryableError, match="it dies here"):
            await write(cluster, other, "z")  # its epoch and its lineage stand in the manifest
    await cluster.kill(other)
    await cluster.start("d")
    remember(cluster, Lineage("two", LONG_AGO_S))

    assert await read(cluster, "d") == {"x": "1", "y": "1"}
