"""Reads where several nodes share branches: the newest state by its owner or from object storage, or a copy that says its age.

Guards: `read`, `_come_up` and `_compare` in memoturnd.engine.shared_branch, `replace_by` in memoturnd.engine.branch.
"""

import asyncio
import contextlib
import time

import pytest
from profiles import BY_HAND, everything, get, put
from sharing import sharing

from memoturnd.core.consistency import Consistency
from memoturnd.core.durability import Durability
from memoturnd.core.revisions import parse
from memoturnd.engine.consistency import Reading, reading_as
from memoturnd.errors import NotOwnerError, RetryableError, StoreUnavailableError
from memoturnd.seams.leases import LiveNode
from memoturnd.seams.profile import Work


@pytest.fixture
async def two(tmp_path):
    async with sharing(tmp_path, "a", "b", **BY_HAND) as shared:
        await shared.nodes["a"].databases.create("db")
        yield shared


async def profiles(shared):
    return [await node.profile("db") for node in shared.nodes.values()]


async def cached(profile, op=everything, **options):
    with reading_as(Reading(Consistency.CACHED)) as asks:
        seen = await profile.read(op, **options)
    return seen, asks.age_ms


async def closed(profile):
    """Close a branch and give it back, its file kept."""
    assert await profile.close()
    assert await profile.give_back()


async def test_the_newest_state_is_its_owners_to_show(two):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))

    with pytest.raises(NotOwnerError) as told:
        await other.read(get("x"))

    assert told.value.owner.address == "http://a:1"
    assert (await owner.read(get("x"))).value == "1"


async def test_without_an_owner_any_node_shows_what_was_written_last(two):
    first, second = await profiles(two)
    for round_ in range(3):
        for writer, reader in ((first, second), (second, first)):
            await writer.write(put("x", f"{round_}"))
            await closed(writer)
            assert (await reader.read(get("x"))).value == f"{round_}"
            assert two.owner(reader) is None
            await closed(reader)


async def test_a_file_closed_clean_is_not_trusted_when_others_wrote_since(two):
    first, second = await profiles(two)
    await first.write(put("x", "1"))
    await closed(first)
    await second.write(put("x", "2"))
    await closed(second)

    assert first.files.exists()
    assert (await first.read(get("x"))).value == "2"


async def test_an_open_copy_is_brought_up_to_date_while_it_is_read(two):
    owner, other = await profiles(two)
    await owner.write(put("x", "0"))
    await closed(owner)
    seen = []
    ends = asyncio.Event()

    async def read_on(work):
        while not ends.is_set():
            with contextlib.suppress(NotOwnerError):
                seen.append(int((await other.read(get("x"), work=work)).value))
            await asyncio.sleep(0.001)

    readers = [asyncio.create_task(read_on(work)) for work in (Work.POINT, Work.SCAN, Work.OPAQUE) * 2]
    for n in range(1, 30):
        await owner.write(put("x", str(n)))
        await closed(owner)
        told = len(seen)
        while len(seen) < told + 6:  # noqa: ASYNC110 - the readers come one by one
            await asyncio.sleep(0.001)
    ends.set()
    await asyncio.gather(*readers)

    assert seen[-1] == 29
    assert len(set(seen)) > 5


async def test_many_reads_share_a_look_at_the_manifest(two, monkeypatch):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await closed(owner)
    await other.read(get("x"))
    looks = 0
    load = type(other.manifests).load

    async def counted(self, *, fresh=False):
        nonlocal looks
        looks += fresh
        await asyncio.sleep(0.01)
        return await load(self, fresh=fresh)

    monkeypatch.setattr(type(other.manifests), "load", counted)
    await asyncio.gather(*(other.read(get("x")) for _ in range(50)))

    assert 1 <= looks <= 3


async def test_what_others_hold_of_the_last_owner_is_found_by_taking_the_branch(two):
    owner, other = await profiles(two)
    await owner.write(
        put("x", "1"),
    )
    await closed(owner)
    lease = await two.leases["a"].acquire(owner.branch_id)
    await two.leases["a"].record_sync_set(lease, [LiveNode("c", "http://c:1")])
    two.leases["a"].expire()

    await other.read(get("x"))

    assert two.owner(other) == "b"


async def test_a_copy_is_shown_with_its_age(two):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await owner.owned.shipper.ship()
    await owner.write(put("x", "2"))

    seen, age_ms = await cached(other, get("x"))

    assert (seen.value, seen.txid) == ("1", 2)
    assert 0 <= age_ms < 1000
    assert (await cached(owner, get("x")))[1] is None
    assert two.owner(other) == "a"


async def test_a_copy_that_nobody_brings_up_to_date_is_compared_now_and_then(two):
    owner, other = await profiles(two)
    await owner.write(
        put("x", "1"),
    )
    await owner.owned.shipper.ship()
    assert (await cached(other, get("x")))[0].value == "1"
    await owner.write(put("x", "2"))
    await owner.owned.shipper.ship()
    other.seen_s -= 5
    other._compared_s -= 5

    assert (await cached(other, get("x")))[0].value == "2"


async def test_a_copy_is_shown_while_store_and_leases_are_gone(two, monkeypatch):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await owner.owned.shipper.ship()
    await cached(other)
    other.seen_s -= 5
    other._compared_s -= 5
    for leases in two.leases.values():
        leases.down = True
    two.leases["a"].lapse()

    async def fails(*_args, **_options):
        raise StoreUnavailableError("cut off (a test)")

    monkeypatch.setattr(type(two.store), "get", fails)

    seen, age_ms = await cached(other, get("x"))
    assert seen.value == "1"
    assert age_ms >= 5000
    assert (await cached(owner, get("x")))[0].value == "1"
    for profile in (owner, other):
        with pytest.raises(RetryableError):
            await asyncio.wait_for(profile.read(get("x")), 20)


async def test_an_owner_whose_lease_cannot_be_renewed_shows_its_file_while_writes_try_to_have_it_back(two):
    owner, _ = await profiles(two)
    await owner.write(put("x", "1"))
    two.leases["a"].lapse()
    two.leases["a"].down = True

    for _ in range(2):
        with pytest.raises(RetryableError):
            await owner.write(put("x", "2"))
        assert (await cached(owner, get("x")))[0].value == "1"
    owner.seen_s -= 5
    assert (await cached(owner, get("x")))[1] >= 5000
    with pytest.raises(RetryableError):
        await cached(owner, get("x"), min_txid=owner.txid + 1)

    two.leases["a"].down = False
    await owner.write(put("x", "2"))
    assert (await cached(owner, get("x")))[0].value == "2"


async def test_a_floor_above_what_a_former_owner_has_is_the_new_ones_to_show(two):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await owner.owned.shipper.ship()
    two.leases["a"].expire()
    written = await other.write(put("x", "2"))

    with pytest.raises(NotOwnerError) as told:
        await cached(owner, get("x"), min_txid=written.txid)
    assert told.value.owner.node_id == "b"


@pytest.mark.parametrize("silent", ["leases", "owner"])
async def test_a_copy_that_has_never_heard_of_its_owner_is_not_said_to_be_new(two, silent, monkeypatch):
    """What the owner committed, and could not ship before it fell silent, may be as old as its lease and its window."""
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await owner.owned.shipper.ship()
    await owner.write(put("x", "unshipped"))
    two.wires.cut.add("a")
    two.leases["b"].down = silent == "leases"

    load = type(other.manifests).load

    async def slow(self, *, fresh=False):
        await other.services.replicas.confirm()  # as it happens several times a second
        return await load(self, fresh=fresh)

    monkeypatch.setattr(type(other.manifests), "load", slow)
    began_s = time.monotonic()
    seen, age_ms = await cached(other, get("x"))
    assert seen.value == "1"
    assert age_ms >= 1000 * (other.services.ship_limits.unshipped_max_age_s + 10)
    for _ in range(5):
        await cached(other, get("x"))
    assert time.monotonic() - began_s < 1


async def test_a_read_waits_once_for_an_owner_that_does_not_answer(two):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await owner.owned.shipper.ship()
    waited = 0

    async def silent(*_args, **_options):
        nonlocal waited
        waited += 1
        await asyncio.sleep(60)

    two.wires.ask = silent
    await cached(other, get("x"))
    began_s = time.monotonic()
    for _ in range(3):
        other.seen_s -= 5
        other._compared_s -= 5
        replica = other.services.replicas._all[other.branch_id]
        replica.met_s -= 5
        assert (await cached(other, get("x")))[0].value == "1"
    assert waited
    assert time.monotonic() - began_s < 0.4


async def test_a_floor_holds_wherever_it_is_read(two):
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await owner.owned.shipper.ship()
    await cached(other)
    shipped = await owner.write(put("x", "2"))
    await owner.owned.shipper.ship()
    local = await owner.write(put("x", "3"))

    seen, _ = await cached(other, get("x"), min_txid=shipped.txid)
    assert seen.value == "2"
    with pytest.raises(NotOwnerError):
        await cached(other, get("x"), min_txid=local.txid)


async def test_history_that_was_rewritten_elsewhere_is_not_shown_from_an_open_copy(two):
    """Guard: `stands_at` in `_take_newest`."""
    owner, other = await profiles(two)
    await owner.write(put("x", "1"))
    await closed(owner)
    await other.read(get("x"))
    assert other.known is not None
    cursor, hashes = other.known
    hashes = type(hashes)(hashes.to_bytes()[:-8] + bytes(8))
    other.known = cursor, hashes  # as if it were another form of the state

    assert (await other.read(get("x"))).value == "1"
    assert other.known[1].checksum != hashes.checksum


async def test_a_past_state_that_may_not_be_shipped_is_its_owners_to_show(two):
    owner, _ = await profiles(two)
    await owner.write(put("x", "1"))
    past = await two.nodes["b"].past("db", "main", parse("head"))
    with pytest.raises(NotOwnerError):
        await past.read(get("x"))


async def test_a_copy_of_which_nothing_is_known_has_no_age(two, monkeypatch):
    """Found by the simulation: a read answered `internal` for a copy that was let go of a moment after it was compared."""
    owner, other = await profiles(two)
    await owner.write(put("x", "1"), durability=Durability.DURABLE)
    await cached(other)
    other.seen_s = float("-inf")

    seen, age_ms = await cached(other, get("x"))
    assert seen.value == "1"
    assert age_ms is not None

    async def fails(*_args, **_options):
        raise StoreUnavailableError("cut off (a test)")

    other.seen_s = float("-inf")
    for leases in two.leases.values():
        leases.down = True
    monkeypatch.setattr(type(two.store), "get", fails)
    with pytest.raises(StoreUnavailableError):
        await cached(other, get("x"))


async def test_a_copy_restored_from_an_older_manifest_is_not_shown_by_the_age_of_the_file_before(two):
    """Found by the simulation: what the owner had said of the file that went was said of the one in its place."""
    owner, other = await profiles(two)
    await owner.write(put("x", "1"), durability=Durability.DURABLE)
    assert (await cached(other, get("x")))[0].value == "1"
    await owner.write(put("x", "2"), durability=Durability.DURABLE)
    manifest = other.manifests.cached
    await other.let_go()
    other.manifests._current = manifest
    other.seen_s = other._compared_s = other.services.clock.monotonic_s()

    assert (await cached(other, get("x")))[0].value == "2"
