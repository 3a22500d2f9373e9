"""Commits that other nodes hold before object storage does, and takeovers that find them again."""

import asyncio
from types import SimpleNamespace

import pytest
from profiles import everything, put
from tail_cluster import Cluster

from memoturnd.core import segment
from memoturnd.core.durability import Durability
from memoturnd.core.pages import PageHashes
from memoturnd.core.tails import PUSH_PATH
from memoturnd.engine import tails as tailing
from memoturnd.engine import takeover
from memoturnd.engine.idempotency import Once
from memoturnd.errors import FencedError, MemoturnError, NotDurableError, StoreUnavailableError
from memoturnd.http.once import OnceProfile
from memoturnd.replication.tail_stream import TailStream
from memoturnd.seams.leases import LiveNode

REPLICATED = Durability.REPLICATED


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(tailing, "READ_S", 0.3)
    monkeypatch.setattr(tailing, "AGAIN_S", 0.05)
    async with Cluster(tmp_path) as made:
        await made.start("a", "b", "c")
        await made.nodes["a"].databases.create("p")
        yield made


async def write(cluster, name, key, value="1", level=REPLICATED):
    return await (await cluster.profile(name)).write(put(key, value), durability=level)


async def seen(cluster, name):
    profile = await cluster.profile(name)
    await profile.own()
    return (await profile.read(everything)).value


async def test_replicated_write_survives_the_owner_and_its_disk_while_the_bucket_is_down(cluster):
    await write(cluster, "a", "first", level=Durability.DURABLE)
    cluster.cables["a"].cut = True  # from here on nothing of the owner's gets to the bucket
    written = [await write(cluster, "a", f"k{n}") for n in range(5)]
    assert {w.durability for w in written} == {REPLICATED}
    (member,) = cluster.members()

    await cluster.kill("a")

    other = next(name for name in cluster.nodes if name != member)
    assert await seen(cluster, other) == {"first": "1", **{f"k{n}": "1" for n in range(5)}}
    after = await write(cluster, other, "after", level=Durability.DURABLE)
    assert after.txid > written[-1].txid + 60_000  # the owner may have used more than was found


async def test_member_itself_takes_over(cluster):
    cluster.cables["a"].cut = True
    with pytest.raises(MemoturnError):
        await write(cluster, "a", "x")  # the branch's first write needs the bucket
    cluster.cables["a"].cut = False
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    await cluster.kill("a")

    assert await seen(cluster, member) == {"x": "1"}


async def test_all_that_follows_on_a_found_tail_is_found_by_the_next_takeover(cluster):
    await write(cluster, "a", "x", "a")
    await cluster.kill("a")
    assert (await write(cluster, "b", "y", "b")).durability is REPLICATED  # behind the found ones in one log
    await (await cluster.profile("b")).owned.shipper.ship()
    assert (await cluster.profile("b")).owned.shipper.surprises == 0
    await write(cluster, "b", "y", "b2")
    await cluster.start("a")
    await cluster.kill("b")

    assert await seen(cluster, "a") == {"x": "a", "y": "b2"}
    assert await seen_in_store(cluster, "a") == {"x": "a", "y": "b2"}


async def seen_in_store(cluster, name):
    """Return what object storage has, once all is shipped."""
    profile = await cluster.profile(name)
    await profile.owned.shipper.ship()
    assert profile.owned.shipper.surprises == 0
    assert await profile.close()
    await profile.evict()
    return (await profile.read(everything)).value


async def test_dead_member_is_replaced_and_the_new_one_has_everything(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    cluster.cut.add(member)
    written = await write(cluster, "a", "y")
    assert written.durability is REPLICATED
    (other,) = cluster.members()
    assert other != member

    await cluster.kill(member)
    await cluster.kill("a")

    assert await seen(cluster, other) == {"x": "1", "y": "1"}


async def test_takeover_says_that_nobody_answers(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    await cluster.kill(member)
    await cluster.kill("a")
    (left,) = cluster.nodes

    assert await seen(cluster, left) == {}
    assert lost(cluster, left) == 1


def lost(cluster, name):
    return cluster.nodes[name].metrics.tail_takeovers["lost"]._value.get()


async def test_member_that_lost_its_disk_is_not_taken_for_one_that_holds_nothing(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    await cluster.kill(member)
    await cluster.start(member)
    await cluster.kill("a")

    assert await seen(cluster, member) == {}
    assert lost(cluster, member) == 1


async def test_owner_that_was_replaced_gets_no_acknowledgement(cluster):
    await write(cluster, "a", "x", "a")
    (member,) = cluster.members()
    cluster.replace("a")
    other = next(name for name in ("b", "c") if name != member)
    assert await seen(cluster, other) == {"x": "a"}

    with pytest.raises(FencedError):
        await write(cluster, "a", "z", "zombie")
    assert await seen(cluster, other) == {"x": "a"}


async def test_owner_that_was_replaced_gets_none_either_once_all_was_given_back(cluster):
    await write(cluster, "a", "x", "a")
    (member,) = cluster.members()
    cluster.replace("a")
    other = next(name for name in ("b", "c") if name != member)
    await seen(cluster, other)
    profile = await cluster.profile(other)
    assert await profile.close()
    assert await profile.evict()
    assert len(cluster.nodes[member].tails.store) == 0  # the member remembers nobody

    with pytest.raises(FencedError):
        await write(cluster, "a", "z", "zombie")
    assert await seen(cluster, other) == {"x": "a"}


async def test_replicated_is_not_acknowledged_where_a_takeover_could_not_ask_and_the_lease_has_ended(cluster):
    await write(cluster, "a", "x", "a")
    (member,) = cluster.members()
    other = next(name for name in ("b", "c") if name != member)

    async def pause_of_the_owner(path, name):
        cluster.before = None
        assert (path, name) == (PUSH_PATH, member)
        cluster.replace("a")
        cluster.leases["a"].blind = False  # it looks at its clock when it goes on
        cluster.cut.add(member)
        assert await seen(cluster, other) == {}
        cluster.cut.discard(member)  # and so takes what the old owner sends

    cluster.before = pause_of_the_owner
    with pytest.raises((FencedError, NotDurableError)):
        await write(cluster, "a", "z", "zombie")
    assert await seen(cluster, other) == {}


async def test_member_that_came_back_at_another_address_is_found(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    other = next(name for name in ("b", "c") if name != member)
    cluster.cut.add(member)
    cluster.nodes["moved"] = cluster.nodes[member]
    cluster.table.nodes[member] = LiveNode(member, "http://moved")
    await cluster.kill("a")

    try:
        assert await seen(cluster, other) == {"x": "1"}
        assert lost(cluster, other) == 0
    finally:
        del cluster.nodes["moved"]


async def test_what_a_takeover_could_not_read_outlives_its_giving_back(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    other = next(name for name in ("b", "c") if name != member)
    await cluster.kill("a")
    cluster.cut.add(member)
    assert await seen(cluster, other) == {}
    cluster.cut.clear()

    profile = await cluster.profile(other)
    assert await profile.close()
    assert await profile.evict()

    (held,) = cluster.nodes[member].tails.store.held()
    assert held.is_stranded


async def test_giving_back_waits_for_a_dead_member_once(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    cluster.cut.add(member)
    for level in (REPLICATED, Durability.DURABLE):  # another member is recorded
        await write(cluster, "a", "y", level=level)
    cluster.asked.clear()
    profile = await cluster.profile("a")
    cluster.cut.update(cluster.nodes)
    lease, epoch = profile.lease, profile.owned.epoch
    tails = cluster.nodes["a"].tails
    recorded = tails._recorded[lease.branch_id]
    for _ in range(3):
        tails._recorded[lease.branch_id] = recorded
        await tails.release(lease, epoch)
    assert len(cluster.asked) == 1


async def test_pieces_leave_a_member_that_could_not_be_told_though_it_is_still_recorded(cluster, monkeypatch):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    cluster.cut.add(member)
    await (await cluster.profile("a")).owned.shipper.ship()
    await cluster.nodes["a"].tell_tails()
    cluster.cut.clear()
    await cluster.nodes["a"].tell_tails()
    tails = cluster.nodes[member].tails
    assert tails.store.size_bytes > 0
    monkeypatch.setattr(tailing, "LEFTOVER_S", -1.0)

    await tails.sweep()

    assert cluster.members() == {member}
    assert (len(tails.store), tails.store.size_bytes) == (1, 0)  # it goes on to know whom it has answered


async def test_rewritten_history_leaves_a_member_at_once_and_what_has_not_landed_stays(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    node, profile = cluster.nodes[member], await cluster.profile("a")
    uuid = profile.ref.database.uuid
    await node.tiers.let_go(uuid)
    assert node.tails.store.size_bytes > 0

    await profile.owned.shipper.ship()
    await node.tiers.let_go("another")
    assert node.tails.store.size_bytes > 0
    await node.tiers.let_go(uuid)

    assert (len(node.tails.store), node.tails.store.size_bytes) == (1, 0)
    assert (await write(cluster, "a", "y")).durability is REPLICATED


async def test_writes_that_go_on_do_not_hold_up_those_that_wait(cluster):
    await write(cluster, "a", "first", level=Durability.DURABLE)
    cluster.cables["a"].cut = True
    profile = await cluster.profile("a")
    pushes = []

    async def another(path, _):
        if path == PUSH_PATH and len(pushes) < 50:
            pushes.append(path)
            await profile.write(put(f"n{len(pushes)}", "1"))

    cluster.before = another
    for key in ("while it begins", "while it goes on"):
        async with asyncio.timeout(5):
            assert (await write(cluster, "a", key)).durability is REPLICATED
    assert len(pushes) < 10


async def test_what_is_sent_follows_on_the_state_that_stands_when_it_is_read(cluster):
    await write(cluster, "a", "x")
    profile = await cluster.profile("a")
    owned = profile.owned
    stream, pushed = owned.tail, []
    await owned.shipper.ship()

    async def push(_nodes, _push, data):
        pushed.append(segment.decode(data))

    async with profile.gate:
        await owned.writer.commit(put("y", "1"))
        stream._links = SimpleNamespace(push=push)
        sending = asyncio.ensure_future(stream._send(stream._nodes))
        await asyncio.sleep(0)
        rewritten = PageHashes()  # as after an erasure: the same txid, other pages
        owned.capture.restart_at(owned.capture.cursor.txid, rewritten)
    await sending

    assert [piece.checksum_before for piece in pushed] == [rewritten.checksum]


async def test_stream_reads_nothing_more_once_its_branch_was_closed(cluster):
    await write(cluster, "a", "x")
    profile = await cluster.profile("a")
    cursor = profile.owned.tail._cursor

    async def close(path, _):
        cluster.before = None
        assert path == PUSH_PATH
        await profile.write(put("more", "1"))
        await profile.owned.shipper.compactor.stop()
        profile.fenced(FencedError("a test"))
        await profile._leave_fenced_state()

    cluster.before = close
    with pytest.raises(MemoturnError):
        await write(cluster, "a", "y")
    assert cursor._fd == -1


async def test_fault_while_a_fenced_tail_is_seen_to_does_not_end_the_node(cluster, monkeypatch):
    await write(cluster, "a", "x")
    profile = await cluster.profile("a")
    failed = asyncio.Event()

    async def take_up():
        failed.set()
        raise OSError("a disk that fails")

    with monkeypatch.context() as patch:
        patch.setattr(profile, "take_up", take_up)
        profile.fenced(FencedError("a test"))
        await failed.wait()
        await asyncio.sleep(0)
    assert (await write(cluster, "a", "y")).durability is REPLICATED


async def test_fault_while_a_branch_is_recovered_does_not_end_the_node(cluster, monkeypatch):
    profile = await cluster.profile("a")

    async def own():
        raise OSError("a disk that fails")

    with monkeypatch.context() as patch:
        patch.setattr(profile, "own", own)
        await cluster.nodes["a"].recover([profile])
    assert (await write(cluster, "a", "x")).durability is REPLICATED


async def test_fence_is_kept_through_a_restart_of_the_member(cluster):
    await write(cluster, "a", "x", "a")
    (member,) = cluster.members()
    cluster.replace("a")
    other = next(name for name in ("b", "c") if name != member)
    await seen(cluster, other)
    await cluster.kill(member, disk_too=False)
    await cluster.start(member)

    stream = (await cluster.profile("a")).owned.tail
    store = cluster.nodes[member].tails.store
    assert store.held()
    with pytest.raises(FencedError):
        await write(cluster, "a", "z", "zombie")
    assert stream.replicated_txid < (await cluster.profile("a")).txid


async def test_without_another_node_a_replicated_write_waits_for_object_storage(cluster):
    await cluster.kill("b")
    await cluster.kill("c")
    written = await write(cluster, "a", "x")
    assert written.durability is Durability.DURABLE
    assert not cluster.table.sync_sets


async def test_nothing_is_left_when_the_branch_is_given_back(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    profile = await cluster.profile("a")
    assert len(cluster.nodes[member].tails.store) == 1

    assert await profile.close()
    assert await profile.evict()

    assert not cluster.table.sync_sets
    store = cluster.nodes[member].tails.store
    assert (len(store), store.size_bytes) == (0, 0)
    assert list((cluster.folder / member / "tails").iterdir()) == []


async def test_members_let_go_of_what_is_durable(cluster):
    await write(cluster, "a", "x")
    (member,) = cluster.members()
    store = cluster.nodes[member].tails.store
    assert store.size_bytes > 0
    await (await cluster.profile("a")).owned.shipper.ship()

    await cluster.nodes["a"].tell_tails()

    assert (len(store), store.size_bytes) == (1, 0)
    await write(cluster, "a", "y")
    assert store.size_bytes > 0


async def test_stream_goes_on_through_checkpoints_and_ships_between(cluster, monkeypatch):
    values, begun, begin = {}, [], TailStream._begin
    monkeypatch.setattr(TailStream, "_begin", lambda self: begun.append(1) or begin(self))
    for n in range(12):
        values[f"r{n}"] = str(n)
        assert (await write(cluster, "a", f"r{n}", str(n))).durability is REPLICATED
        values[f"l{n}"] = "x" * 3000
        await write(cluster, "a", f"l{n}", "x" * 3000, Durability.LOCAL)
        profile = await cluster.profile("a")
        if n % 3 == 0:
            await profile.owned.shipper.ship()
        if n % 4 == 0:
            await profile.owned.shipper.snapshot()  # a checkpoint: the log starts anew
    values["end"] = "1"
    assert (await write(cluster, "a", "end")).durability is REPLICATED
    await profile.owned.shipper.snapshot()  # with the stream at the head
    values["last"] = "1"
    assert (await write(cluster, "a", "last")).durability is REPLICATED
    assert profile.owned.shipper.surprises == 0
    assert len(begun) == 1
    cluster.cables["a"].cut = True
    await cluster.kill("a")

    assert await seen(cluster, "b") == values


async def test_fault_in_the_stream_costs_the_level_and_not_the_node(cluster, monkeypatch):
    await write(cluster, "a", "x")
    with monkeypatch.context() as patch:
        patch.setattr(TailStream, "_encoded", None)
        assert (await write(cluster, "a", "y")).durability is Durability.DURABLE
    assert (await write(cluster, "a", "z")).durability is REPLICATED


async def test_writes_at_the_same_time_share_a_push(cluster):
    await write(cluster, "a", "x")
    cluster.asked.clear()
    written = await asyncio.gather(*(write(cluster, "a", f"k{n}") for n in range(200)))
    assert {w.durability for w in written} == {REPLICATED}
    assert len(cluster.asked) < 20


async def test_a_write_that_is_sent_again_says_the_level_that_it_has(cluster):
    """Found by the simulation: the answer to a repeated write said `local` of what the members held."""
    await write(cluster, "a", "first", level=Durability.DURABLE)
    cluster.cables["a"].cut = True
    levels = []
    for _ in range(2):
        once = Once("PUT /", "somebody", "key", b"digest")
        profile = OnceProfile(await cluster.profile("a"), once)
        levels.append((await profile.write(put("x", "1"), durability=REPLICATED)).durability)

    assert once.replayed
    assert levels == [REPLICATED, REPLICATED]


async def test_a_stop_behind_a_takeover_that_was_cut_off_leaves_the_set_to_the_next_one(cluster, monkeypatch):
    await write(cluster, "a", "x", level=Durability.DURABLE)
    cluster.cables["a"].cut = True
    await write(cluster, "a", "y")
    (member,) = cluster.members()
    await cluster.kill("a")
    other, third = sorted(cluster.nodes, key=lambda name: name == member)

    async def fails(*_):
        raise StoreUnavailableError("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(takeover, "restore_head", fails)
        with pytest.raises(StoreUnavailableError):
            await write(cluster, other, "z")
    await cluster.stop(other)

    assert cluster.members() == {member}
    assert await seen(cluster, third) == {"x": "1", "y": "1"}
