"""What every implementation of leases does, whichever remembers who owns what."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from etcd_server import fresh_prefix
from lease_support import etcd_leases

from memoturnd.errors import FencedError, NotOwnerError
from memoturnd.leases.files import FileLeases
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.seams.clock import SystemRandomness
from memoturnd.seams.leases import Lease, LiveNode, NodeLeft, Owner, Placed, Placements, SyncSet

IMPLEMENTATIONS = ("local", "files", "etcd")
WITHIN_S = 5.0


class Nodes:
    """Nodes that share one memory of who owns what: `await nodes.join("a")` gives a node's leases, started."""

    def __init__(self, kind, request):
        self._stack = AsyncExitStack()
        match kind:
            case "local":
                table = LeaseTable()
                self._open = lambda node_id, address: local(node_id, address, table)
            case "files":
                folder = request.getfixturevalue("tmp_path")
                self._open = lambda node_id, address: files(node_id, address, folder)
            case "etcd":
                url, prefix = request.getfixturevalue("etcd_url"), fresh_prefix()
                self._open = lambda node_id, address: etcd_leases(url, node_id, address, prefix=prefix)

    async def join(self, node_id):
        return await self._stack.enter_async_context(self._open(node_id, f"http://{node_id}:1"))

    async def leave(self):
        await self._stack.aclose()


@asynccontextmanager
async def local(node_id, address, table):
    leases = LocalLeases(node_id, address, table)
    yield leases
    await leases.close()


@asynccontextmanager
async def files(node_id, address, folder):
    leases = await FileLeases.open(folder, node_id, address, randomness=SystemRandomness())
    yield leases
    await leases.close()


@pytest.fixture(params=IMPLEMENTATIONS)
async def nodes(request):
    nodes = Nodes(request.param, request)
    yield nodes
    await nodes.leave()


@pytest.fixture
async def a(nodes):
    return await nodes.join("a")


@pytest.fixture
async def b(nodes):
    return await nodes.join("b")


async def upcoming(changes, wanted):
    """Return the next change that `wanted` takes."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            change = await anext(changes)
            if wanted(change):
                return change


async def test_nodes_share_what_they_own(a):
    assert a.is_shared


async def test_acquired_branch_has_an_owner_with_its_address(a, b):
    lease = await a.acquire("branch")

    assert (lease.branch_id, lease.node_id) == ("branch", "a")
    assert await b.owner_of("branch") == Owner("a", "http://a:1", lease.epoch)
    assert await b.owner_of("another") is None


async def test_branch_of_another_node_is_refused_naming_the_owner(a, b):
    lease = await a.acquire("branch")

    with pytest.raises(NotOwnerError, match="a at http://a:1") as refused:
        await b.acquire("branch")

    assert refused.value.owner == Owner("a", "http://a:1", lease.epoch)


async def test_of_many_that_race_for_a_branch_one_gets_it(nodes):
    racers = [await nodes.join(f"n{number}") for number in range(20)]

    for turn in range(3):
        outcomes = await asyncio.gather(
            *(racer.acquire(f"branch{turn}") for racer in racers), return_exceptions=True
        )

        won = [one for one in outcomes if isinstance(one, Lease)]
        assert len(won) == 1
        assert all(isinstance(one, (Lease, NotOwnerError)) for one in outcomes)
        assert (await racers[0].owner_of(f"branch{turn}")).node_id == won[0].node_id


async def test_epoch_grows_with_every_grant(a, b):
    first = await a.acquire("branch")
    again = await a.acquire("branch")
    await a.release(again)
    other = await b.acquire("branch")

    assert 0 < first.epoch < again.epoch < other.epoch


async def test_only_the_last_lease_of_a_branch_is_held(a, b):
    first = await a.acquire("branch")
    assert a.holds(first)
    assert not b.holds(first)

    again = await a.acquire("branch")
    assert a.holds(again)
    assert not a.holds(first)

    await a.release(again)
    assert not a.holds(again)


async def test_stale_lease_releases_nothing(a):
    stale = await a.acquire("branch")
    current = await a.acquire("branch")

    await a.release(stale)
    assert (await a.owner_of("branch")).epoch == current.epoch
    assert a.holds(current)

    await a.release(current)
    await a.release(current)
    assert await a.owner_of("branch") is None


async def test_late_release_spares_the_next_owner(a, b):
    lease = await a.acquire("branch")
    await a.release(lease)
    current = await b.acquire("branch")

    await a.release(lease)

    assert await a.owner_of("branch") == Owner("b", "http://b:1", current.epoch)


async def test_close_gives_back_only_what_the_node_holds(a, b):
    await a.acquire("one")
    await b.acquire("two")

    await a.close()

    assert await b.owner_of("one") is None
    assert (await b.owner_of("two")).node_id == "b"
    assert [node.node_id for node in await b.live_nodes()] == ["b"]


async def test_nodes_that_are_there_are_listed_with_their_addresses(a, b):
    assert sorted(await a.live_nodes(), key=lambda node: node.node_id) == [
        LiveNode("a", "http://a:1"),
        LiveNode("b", "http://b:1"),
    ]


async def test_sync_set_is_recorded_under_the_epoch_of_its_owner(a, b):
    assert await a.sync_set("branch") is None
    lease, members = await a.acquire("branch"), (LiveNode("b", "http://b:1"), LiveNode("c", "http://c:1"))

    await a.record_sync_set(lease, members)

    assert await b.sync_set("branch") == SyncSet(lease.epoch, members)


async def test_sync_set_outlives_its_owner_until_the_next_one_replaces_it(a, b):
    lease, members = await a.acquire("branch"), (LiveNode("b", "http://b:1"),)
    await a.record_sync_set(lease, members)
    await a.close()

    assert await b.sync_set("branch") == SyncSet(lease.epoch, members)
    current = await b.acquire("branch")
    assert await b.sync_set("branch") == SyncSet(lease.epoch, members)

    await b.record_sync_set(current, ())
    assert await b.sync_set("branch") is None


async def test_stale_owner_records_no_sync_set(a, b):
    stale = await a.acquire("branch")
    await a.release(stale)
    current = await b.acquire("branch")
    await b.record_sync_set(current, (LiveNode("a", "http://a:1"),))

    for members in ((LiveNode("c", "http://c:1"),), ()):
        with pytest.raises(FencedError):
            await a.record_sync_set(stale, members)

    assert await a.sync_set("branch") == SyncSet(current.epoch, (LiveNode("a", "http://a:1"),))


async def test_watch_tells_everything_first_and_then_what_changes(nodes, a):
    lease = await a.acquire("one", database="acme--app--user", branch="main")
    changes = a.watch()
    try:
        first = await upcoming(changes, lambda _: True)
        assert first == Placements(
            (Placed("one", "acme--app--user", "main", Owner("a", "http://a:1", lease.epoch)),),
            (LiveNode("a", "http://a:1"),),
        )

        b = await nodes.join("b")
        assert await upcoming(changes, lambda change: isinstance(change, LiveNode)) == LiveNode(
            "b", "http://b:1"
        )
        other = await b.acquire("two", database="acme--app--other", branch="draft")
        assert await upcoming(changes, lambda change: isinstance(change, Placed)) == Placed(
            "two", "acme--app--other", "draft", Owner("b", "http://b:1", other.epoch)
        )
        await a.release(lease)
        assert await upcoming(changes, lambda change: isinstance(change, Placed)) == Placed(
            "one", "acme--app--user", "main", None
        )
        await b.close()
        gone = [await upcoming(changes, lambda _: True) for _ in range(2)]
        assert NodeLeft("b") in gone
        assert Placed("two", "acme--app--other", "draft", None) in gone
    finally:
        await changes.aclose()


async def test_several_watch_at_once(a, b):
    watching = [a.watch(), b.watch()]
    try:
        for changes in watching:
            assert isinstance(await upcoming(changes, lambda _: True), Placements)
        lease = await a.acquire("branch", database="acme--app--user", branch="main")
        for changes in watching:
            told = await upcoming(changes, lambda change: isinstance(change, Placed))
            assert told.owner.epoch == lease.epoch
    finally:
        for changes in watching:
            await changes.aclose()
