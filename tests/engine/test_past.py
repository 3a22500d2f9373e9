"""Past states: what they show, how they are shared, bounded and removed, and what faults leave behind."""

import asyncio
import random
import shutil
import time
from collections import Counter

import apsw
import pytest
from harness import node_on
from profiles import BY_HAND, everything, get, killed, put

from memoturnd.core import revisions
from memoturnd.engine import schema
from memoturnd.engine.past import IDLE_READERS, MADE_AT_ONCE, MADE_WAITING
from memoturnd.errors import (
    BranchNotFoundError,
    ConflictError,
    CorruptionError,
    DiskFullError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionFailedError,
    RequestTimeoutError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import kv


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


async def at(node, revision, *, branch="main", db="a"):
    return await node.past(db, branch, revisions.parse(str(revision)))


async def state(node, revision, *, branch="main"):
    return (await (await at(node, revision, branch=branch)).read(everything)).value


async def with_values(node, count=3, *, db="a"):
    """Write the key x once per commit, durably, and return the txids."""
    await node.databases.create(db)
    profile = await node.profile(db)
    return [(await profile.write(put("x", str(n)), durable=True)).txid for n in range(count)]


def files(tmp_path):
    """All that is there of past states, folders that hold nothing included."""
    return [path for path in (tmp_path / "past").rglob("*") if path.is_file() or not any(path.iterdir())]


def slow_gets(latency_s):
    return Fault(FaultKind.LATENCY, {"get"}, times=None, latency_s=latency_s)


# ---- what is shown


async def test_every_commit_is_shown_as_it_was_by_txid_and_by_count(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 5)

        for back, txid in enumerate(reversed(txids)):
            expected = {"x": str(4 - back)}
            seen = await (await at(node, txid)).read(everything)
            assert (seen.value, seen.txid, seen.durable_txid) == (expected, txid, txids[-1])
            assert await state(node, f"head~{back}") == expected
        assert (await (await node.profile("a")).read(everything)).value == {"x": "4"}


async def test_commits_that_are_not_shipped_yet_are_shipped_to_be_looked_at(tmp_path, store):
    async with node_on(tmp_path, store, **BY_HAND) as node:
        await with_values(node, 1)
        profile = await node.profile("a")
        txids = [(await profile.write(put("x", value))).txid for value in "ab"]

        assert await state(node, "head~1") == {"x": "a"}
        assert profile.durable_txid == txids[-1]
        await profile.write(put("x", "c"))
        assert await state(node, txids[1]) == {"x": "b"}
        assert profile.durable_txid == txids[-1], "what is durable already needs no ship"
        assert await state(node, profile.txid) == {"x": "c"}
        await profile.write(put("x", "d"))
        assert await state(node, revisions.rfc3339(profile.at_ms)) == {"x": "d"}


async def test_state_of_a_txid_never_changes_whatever_the_branch_does(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        before = [await state(node, txid) for txid in txids]

        await node.branches.rewind("a", "main", str(txids[0]))
        await (await node.profile("a")).write(put("x", "after"), durable=True)

        assert [await state(node, txid) for txid in txids] == before
        assert await state(node, "head~1") == {"x": "0"}


async def test_branch_that_was_never_written_is_empty_at_its_head_and_at_any_time(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        await node.databases.create("a")
        store.counts.clear()

        for revision in ("head", "0", "1790000000000"):
            seen = await (await at(node, revision)).read(everything)
            assert (seen.value, seen.txid) == ({}, 0)
        count = lambda conn, _now_ms: conn.execute("SELECT count(*) FROM sqlite_schema", can_cache=False).get  # noqa: E731
        assert (await (await at(node, "head")).read(count, work=Work.USER)).value > 0
        with pytest.raises(ConflictError):
            await state(node, 1)
        assert (store.counts["put"], store.counts["put_if_absent"], files(tmp_path)) == (0, 0, [])


async def test_fork_shows_its_parents_past_below_the_fork_point(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 4)
        await node.branches.create("a", "f", at=str(txids[2]))
        fork = await node.profile("a", "f")
        mine = (await fork.write(put("x", "mine"), durable=True)).txid

        assert await state(node, txids[0], branch="f") == {"x": "0"}
        assert await state(node, "head~1", branch="f") == {"x": "2"}
        assert await state(node, mine, branch="f") == {"x": "mine"}
        if mine != txids[3]:
            with pytest.raises(ConflictError, match=f"txid {txids[2]} below it"):
                await state(node, txids[3], branch="f")
        assert await state(node, txids[3]) == {"x": "3"}


async def test_what_expires_does_so_by_the_clock_of_the_state(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 1)
        profile = await node.profile("a")

        seen_ms = await (await at(node, txids[0])).read(lambda _conn, now_ms: now_ms)

        assert seen_ms.value == profile.at_ms
        assert (await profile.read(lambda _conn, now_ms: now_ms)).value >= seen_ms.value


async def test_key_that_has_expired_since_is_shown_in_its_time(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 1)
        profile = await node.profile("a")
        written = await kv.put(profile, "n", "k", b"v", ttl_s=1)
        await profile.write(put("x", "later"))
        await asyncio.sleep(1.05)
        later = (await profile.write(put("x", "expired"))).txid

        assert (await kv.get(await at(node, written.txid), "n", "k")).value == b"v"
        assert (await kv.keys(await at(node, written.txid + 1), "n")).value == ["k"]
        for past in (profile, await at(node, later), await at(node, txids[0])):
            with pytest.raises(NotFoundError):
                await kv.get(past, "n", "k")


async def test_history_replaced_under_a_node_that_only_reads_is_looked_up_again(tmp_path, store):
    async with node_on(tmp_path / "owner", store) as owner:
        txids = await with_values(owner, 3)
        mine = await owner.profile("a")
        async with node_on(tmp_path / "reader", store) as reader:  # knows the database from the store
            profile = await reader.profile("a")
            assert await state(reader, "head") == {"x": "2"}
            known = profile.manifests.cached
            for n in range(40):
                await mine.write(put("x", f"{n}"), durable=True)
            while (job := mine.owned.shipper.compactor.running) is not None:
                await asyncio.wait([job])
                await mine.owned.shipper.ship()
            kept = {ref.key_name for ref in (await mine.manifests.load()).objects}
            gone = [ref for ref in known.segments if ref.key_name not in kept]
            for ref in gone:
                await store.delete(f"v1/{known.db}/branches/{ref.branch}/segments/{ref.key_name}")

            assert gone
            assert profile.manifests.cached is known
            assert await state(reader, txids[0]) == {"x": "0"}


async def test_read_floor_above_the_state_is_refused_at_once(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        past = await at(node, txids[0])

        assert (await past.read(get("x"), min_txid=txids[0])).value == "0"
        async with asyncio.timeout(1):
            with pytest.raises(PreconditionFailedError, match=f"txid {txids[0]} "):
                await past.read(get("x"), min_txid=txids[1])


async def test_past_state_cannot_be_written(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        past = await at(node, txids[0])

        with pytest.raises(InvalidRequestError, match="fork"):
            await past.write(put("x", "no"))
        for work in (Work.POINT, Work.USER):
            with pytest.raises(apsw.ReadOnlyError):
                await past.read(
                    lambda conn, _: conn.execute("DELETE FROM __memoturn_kv", can_cache=False).get, work=work
                )
        assert await state(node, txids[0]) == {"x": "0"}


async def test_past_of_a_branch_that_another_node_owns_takes_no_lease(tmp_path, store):
    async with node_on(tmp_path / "owner", store, **BY_HAND) as owner:
        txids = await with_values(owner, 3)
        await (await owner.profile("a")).write(put("x", "not shipped"))
        async with node_on(tmp_path / "other", store, **BY_HAND) as other:
            epoch = (await owner.profile("a")).owned.shipper.epoch

            profile = await other.profile("a")
            assert await state(other, txids[0]) == {"x": "0"}
            assert await state(other, "head") == {"x": "2"}
            store.counts.clear()
            assert await state(other, txids[1]) == {"x": "1"}
            assert store.counts["get"] == 1, (
                "the commit: what the manifest says of an old txid does not change"
            )
            assert profile.owned is None

            assert (await other.profile("a")).owned is None
        assert (await (await owner.profile("a")).write(put("x", "4"), durable=True)).durable
        assert (await owner.profile("a")).owned.shipper.epoch == epoch


async def test_commits_left_behind_by_a_kill_are_shipped_to_be_looked_at(tmp_path, store):
    async with killed(tmp_path / "n", store, tmp_path / "killed", **BY_HAND) as node:
        txids = await with_values(node, 2)
        tail = (await (await node.profile("a")).write(put("x", "tail"))).txid

    store.faults.append(Fault(FaultKind.LATENCY, {"put_if_match"}, times=None, latency_s=0.1))
    async with node_on(tmp_path / "killed", store, **BY_HAND) as node:  # its recovery is still under way
        assert await state(node, tail) == {"x": "tail"}
        assert await state(node, txids[0]) == {"x": "0"}
        store.faults.clear()


async def test_reads_go_on_while_the_branch_goes_cold(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        profile = await node.profile("a")
        past = await at(node, txids[0])
        assert (await past.read(get("x"))).value == "0"

        reads = [asyncio.create_task(past.read(get("x"))) for _ in range(20)]
        assert await node.tiers.evict(profile)
        assert [(await read).value for read in reads] == ["0"] * 20
        assert not profile.hot
        assert await state(node, txids[1]) == {"x": "1"}
        assert not profile.hot, "reading the past opens nothing"


# ---- sharing


async def test_requests_for_one_state_share_its_making(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        store.faults.append(slow_gets(0.02))
        store.counts.clear()

        values = await asyncio.gather(*(state(node, txids[0]) for _ in range(50)))

        assert values == [{"x": "0"}] * 50
        assert store.counts["get"] == 1
        outcomes = {name: node.metrics.past_reads[name]._value.get() for name in ("hit", "shared", "miss")}
        assert outcomes == {"hit": 0, "shared": 49, "miss": 1}
        await state(node, txids[0])
        assert node.metrics.past_reads["hit"]._value.get() == 1
        assert len(files(tmp_path)) == 1


async def test_state_that_is_here_is_read_without_the_store(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        assert await state(node, txids[0]) == {"x": "0"}
        store.faults.append(Fault(FaultKind.LOST_REQUEST, {"get"}, times=None))

        assert await state(node, txids[0]) == {"x": "0"}
        with pytest.raises(StoreUnavailableError):
            await state(node, txids[1])


async def test_state_begins_with_the_nearest_one_below_that_is_here(tmp_path, store):
    async with node_on(tmp_path, store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        values = [f"{n}" * 5000 for n in range(12)] + [
            "0",
            "1",
            "2",
        ]  # the last ones are too few to be joined
        txids = [(await profile.write(put("x", value), durable=True)).txid for value in values]
        await state(node, txids[11])
        store.counts.clear()

        assert await state(node, txids[-1]) == {"x": "2"}
        assert store.counts["get"] + store.counts["get_range"] == 3, "the three commits above it"
        assert await state(node, txids[-2]) == {"x": "1"}
        past = node.tiers.past
        assert all(s.users == 0 for s in past._states.values())
        await past.drop_oldest()
        assert {at for _, at in past._states} == {txids[-1], txids[-2]}, "what was begun with it stays whole"
        assert await state(node, txids[-1]) == {"x": "2"}


async def test_too_many_states_of_one_profile_are_turned_away_and_others_are_not(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 50)
        other = await with_values(node, 2, db="b")
        store.faults.append(slow_gets(0.05))
        running = []

        async def watch():
            while True:
                running.append(sum(s.begun and not s.made for s in node.tiers.past._states.values()))
                await asyncio.sleep(0.005)

        watcher = asyncio.create_task(watch())
        outcomes = await asyncio.gather(
            *(state(node, txid) for txid in txids), (await at(node, other[0], db="b")).read(get("x")),
            return_exceptions=True,
        )  # fmt: skip
        watcher.cancel()

        refused = [o for o in outcomes if isinstance(o, OverloadedError)]
        assert len(refused) == 50 - MADE_AT_ONCE - MADE_WAITING
        assert all(
            o == {"x": str(n)} for n, o in enumerate(outcomes[:-1]) if not isinstance(o, OverloadedError)
        )
        assert outcomes[-1].value == "0"
        assert max(running) <= MADE_AT_ONCE + 1, "two of this profile, one of the other"
        assert node.metrics.shed["past_states"]._value.get() == len(refused)
        assert await state(node, txids[49]) == {"x": "49"}, "the places are free again"
        assert not node.tiers.past._admission._held


async def test_who_leaves_does_not_take_the_making_from_the_others(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        store.faults.append(slow_gets(0.1))
        first = asyncio.create_task(state(node, txids[0]))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(state(node, txids[0]))
        await asyncio.sleep(0.02)

        first.cancel()

        assert await second == {"x": "0"}
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_state_that_nobody_waits_for_any_more_is_finished_once_begun_and_else_never_made(
    tmp_path, store
):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 5)
        store.faults.append(slow_gets(0.1))
        reads = [asyncio.create_task(state(node, txid)) for txid in txids]
        await asyncio.sleep(0.05)

        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

        assert node.tiers.past.counts == (0, MADE_AT_ONCE)
        await asyncio.sleep(0.3)
        assert node.tiers.past.counts == (MADE_AT_ONCE, 0)
        assert len(files(tmp_path)) == MADE_AT_ONCE
        assert not node.tiers.past._admission._held


async def test_connections_to_past_states_are_bounded(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2 * IDLE_READERS)
        for txid in txids:
            await state(node, txid)

        open_ = [c for c in apsw.connections() if "/past/" in c.filename]
        assert len(open_) == IDLE_READERS
    assert not [c for c in apsw.connections() if "/past/" in c.filename]


async def test_endless_statement_of_a_user_stops_at_its_deadline_while_others_read(tmp_path, store):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with node_on(tmp_path, store, REQUEST_TIMEOUT="1") as node:
        txids = await with_values(node, 2)
        past = await at(node, txids[0])
        long = [
            asyncio.create_task(
                past.read(lambda conn, _: conn.execute(endless, can_cache=False).get, work=Work.USER)
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0.05)

        async with asyncio.timeout(0.8):
            assert (await past.read(get("x"), work=Work.SCAN)).value == "0"
        for outcome in await asyncio.gather(*long, return_exceptions=True):
            assert isinstance(outcome, RequestTimeoutError)


# ---- room


async def test_past_states_and_profiles_share_the_disk_budget_oldest_first(tmp_path, store):
    async with node_on(tmp_path, store, DISK_BUDGET_BYTES=str(1 << 20)) as node:
        txids = await with_values(node, 30)
        for txid in txids:
            assert await state(node, txid)
        past = node.tiers.past
        limit = (1 << 20) - node.tiers.counts[2]

        assert 0 < past.size_bytes <= limit
        assert past.size_bytes == sum(path.stat().st_size for path in files(tmp_path))
        kept = {txid for _, txid in past._states}
        assert kept == set(txids[-len(kept) :]), "the least recently used went"


async def test_state_in_use_stays_whatever_the_budget(tmp_path, store):
    async with node_on(tmp_path, store, DISK_BUDGET_BYTES=str(1 << 20)) as node:
        txids = await with_values(node, 3)
        past, branch = node.tiers.past, await node.profile("a")
        past._room_bytes = lambda: 1  # as a budget of one byte would leave
        current = await branch.manifests.load()
        async with past.hold(branch, txids[0], current) as held:
            for txid in txids[1:]:
                assert await state(node, txid)
            await past._trim()
            assert await past.read(held, get("x"), Work.POINT) == "0"
            assert (await past.read(held, get("x"), Work.USER)) == "0"
        await past._trim()

        assert (past.counts, past.size_bytes, files(tmp_path)) == ((0, 0), 0, [])
        values = await asyncio.gather(*(state(node, txids[0]) for _ in range(50)))
        assert values == [{"x": "0"}] * 50


async def test_sweep_removes_what_was_unused_long_and_what_the_disk_has_no_room_for(tmp_path, store):
    async with node_on(tmp_path, store, WARM_AFTER_S="0.01", COLD_AFTER_S="0.2") as node:
        txids = await with_values(node, 3)
        for txid in txids:
            await state(node, txid)
        await asyncio.sleep(0.25)
        await state(node, txids[2])

        await node.tiers.sweep()

        assert {txid for _, txid in node.tiers.past._states} == {txids[2]}
        assert len(files(tmp_path)) == 1


async def test_disk_over_its_budget_loses_the_longest_unused_of_profiles_and_past_states(tmp_path, store):
    async with node_on(tmp_path, store, WARM_AFTER_S="0.01") as node:
        txids = await with_values(node, 2)
        await with_values(node, 1, db="b")
        await state(node, txids[0])
        a = await node.profile("a")
        await asyncio.sleep(0.02)
        await node.tiers.sweep()  # both are warm now, after the past state's last use
        assert node.tiers.counts[:2] == (0, 2)
        await state(node, txids[1])
        sizes = node.tiers.counts[2] + node.tiers.past.size_bytes
        object.__setattr__(node.tiers.limits, "disk_budget_bytes", sizes - 1)

        await node.tiers.sweep()

        assert {txid for _, txid in node.tiers.past._states} == {txids[1]}
        assert a.files.exists()
        object.__setattr__(node.tiers.limits, "disk_budget_bytes", node.tiers.past.size_bytes)
        await node.tiers.sweep()
        assert (a.files.exists(), {txid for _, txid in node.tiers.past._states}) == (False, {txids[1]})


# ---- faults


async def test_start_removes_what_an_earlier_process_left_half_made(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        await state(node, txids[0])
        shutil.copytree(tmp_path / "past", tmp_path / "copy")
    assert not (tmp_path / "past").exists(), "a clean stop leaves nothing"
    shutil.move(tmp_path / "copy", tmp_path / "past")
    (tmp_path / "past" / "x-1-ffff").mkdir()
    (tmp_path / "past" / "x-1-ffff" / "state.db.restoring").write_bytes(b"half")

    async with node_on(tmp_path, store) as node:
        assert not files(tmp_path)
        assert await state(node, txids[0]) == {"x": "0"}


async def test_stop_ends_what_is_being_made_and_tells_who_waits(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 4)
        store.faults.append(slow_gets(5))
        reads = [asyncio.create_task(state(node, txid)) for txid in txids]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await node.tiers.past.close()
            outcomes = await asyncio.gather(*reads, return_exceptions=True)
        store.faults.clear()

    assert [type(o) for o in outcomes] == [RetryableError] * 4
    assert not files(tmp_path)


async def test_damaged_object_is_named_and_nothing_is_kept(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        key = min([info.key async for info in store.list("v1/") if "/segments/" in info.key])
        whole = (await store.get(key)).data
        await store.put(key, whole[:-40] + bytes(40))

        for _ in range(2):
            with pytest.raises(CorruptionError, match=key.rsplit("/", 1)[1]):
                await state(node, txids[0])
        assert (node.tiers.past.counts, files(tmp_path)) == ((0, 0), [])

        await store.put(key, whole)
        assert await state(node, txids[0]) == {"x": "0"}


async def test_full_disk_says_so_and_leaves_nothing(tmp_path, store, monkeypatch):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        (tmp_path / "past").write_bytes(b"in the way")

        with pytest.raises(DiskFullError, match="past"):
            await state(node, txids[0])
        (tmp_path / "past").unlink()
        assert await state(node, txids[0]) == {"x": "0"}
        assert not node.tiers.past._admission._held


async def test_deleted_branch_takes_its_past_along(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        await node.branches.create("a", "f")
        fork, held = await at(node, txids[0], branch="f"), asyncio.Event()
        assert (await fork.read(get("x"))).value == "0"
        assert await state(node, txids[0]) == {"x": "0"}
        branch = await node.profile("a", "f")
        async with node.tiers.past.hold(branch, txids[0], None) as in_use:
            held.set()
            await node.branches.delete("a", "f")
            with pytest.raises(BranchNotFoundError):
                await node.tiers.past.read(in_use, get("x"), Work.POINT)

        assert [branch_id for branch_id, _ in node.tiers.past._states] == [
            (await node.profile("a")).ref.branch_id
        ]
        assert len(files(tmp_path)) == 1
        with pytest.raises(BranchNotFoundError):
            await fork.read(get("x"))
        await node.databases.delete("a")
        assert (node.tiers.past.counts, node.tiers.past.size_bytes, files(tmp_path)) == ((0, 0), 0, [])


async def test_branch_deleted_while_its_past_is_made_is_not_found(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        await node.branches.create("a", "f")
        store.faults.append(slow_gets(0.2))
        reads = [asyncio.create_task(state(node, txid, branch="f")) for txid in txids]
        await asyncio.sleep(0.3)
        store.faults.clear()
        await node.branches.delete("a", "f")

        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert all(isinstance(o, BranchNotFoundError | dict) for o in outcomes), outcomes
        assert any(isinstance(o, BranchNotFoundError) for o in outcomes)
        assert (node.tiers.past.counts, files(tmp_path)) == ((0, 0), [])


async def test_file_that_is_damaged_on_the_disk_is_made_anew(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        assert await state(node, txids[0]) == {"x": "0"}
        (path,) = files(tmp_path)
        node.tiers.past._readers.close(next(iter(node.tiers.past._states.values())))
        path.write_bytes(b"not a database" * 1000)

        with pytest.raises(RetryableError, match="made anew"):
            await state(node, txids[0])
        assert await state(node, txids[0]) == {"x": "0"}
        assert len(files(tmp_path)) == 1


async def test_older_schema_is_migrated_in_the_copy_and_a_newer_one_refused(tmp_path, store, monkeypatch):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        monkeypatch.setattr(schema, "SCHEMA_VERSION", 2)
        monkeypatch.setitem(
            schema.migrate.__kwdefaults__, "migrations",
            (lambda conn: conn.execute("CREATE TABLE __memoturn_new(a)", can_cache=False),),
        )  # fmt: skip
        tables = lambda conn, _: conn.execute("SELECT count(*) FROM __memoturn_new", can_cache=False).get  # noqa: E731

        seen = await (await at(node, txids[0])).read(tables)
        assert (seen.value, seen.txid, await state(node, txids[0])) == (0, txids[0], {"x": "0"})

        monkeypatch.setattr(schema, "SCHEMA_VERSION", 0)
        with pytest.raises(ConflictError, match="upgrade the node"):
            await state(node, txids[1])
        assert len(files(tmp_path)) == 1


async def test_objects_replaced_under_a_read_are_looked_up_again(tmp_path, store):
    async with node_on(tmp_path, store, **BY_HAND) as node:
        txids = await with_values(node, 2)
        branch = await node.profile("a")
        stale = await branch.manifests.load()
        (gone,) = [ref for ref in stale.segments if ref.max == txids[1]]
        await branch.owned.shipper.snapshot()
        await store.delete(f"v1/{stale.db}/branches/{gone.branch}/segments/{gone.key_name}")

        async with node.tiers.past.hold(branch, txids[1], stale) as held:
            assert await node.tiers.past.read(held, get("x"), Work.POINT) == "1"


async def test_whatever_happens_at_once_every_answer_is_right_and_nothing_leaks(tmp_path, store):
    chance = random.Random(11)
    async with node_on(tmp_path, store) as node:
        first, *_ = await with_values(node, 5)
        profile, past = await node.profile("a"), node.tiers.past
        values = {first + n: {"x": str(n)} for n in range(5)}
        store.faults.append(Fault(FaultKind.LATENCY, {"get", "get_range"}, times=None, latency_s=0.002))
        until_s = time.monotonic() + 3
        served = Counter()

        async def again(work):
            while time.monotonic() < until_s:
                await work()
                await asyncio.sleep(chance.random() * 0.01)

        async def write():
            value = str(len(values))
            written = await profile.write(put("x", value), durable=chance.random() < 0.3)
            values[written.txid] = {"x": value}

        async def look(branch="main", below=None):
            txid = chance.choice([t for t in values if below is None or t <= below])
            try:
                async with asyncio.timeout(chance.choice([0.001, 0.01, 1])):
                    work = chance.choice([Work.POINT, Work.USER])
                    seen = await (await at(node, txid, branch=branch)).read(everything, work=work)
                assert (seen.value, seen.txid) == (values[txid], txid)
                served["right"] += 1
            except TimeoutError:
                served["cancelled"] += 1
            except (OverloadedError, BranchNotFoundError) as error:
                served[type(error).__name__] += 1

        async def fork_and_delete():
            name, txid = f"f{chance.randrange(10**9)}", chance.choice(list(values))
            await node.branches.create("a", name, at=str(txid))
            looks = [asyncio.create_task(look(name, txid)) for _ in range(3)]
            await asyncio.sleep(chance.random() * 0.02)
            await node.branches.delete("a", name)
            await asyncio.gather(*looks)

        async def make_room():
            past._room_bytes = lambda: chance.choice([0, 1 << 18, 1 << 30])
            await chance.choice([past.drop_oldest, node.tiers.sweep, lambda: node.tiers.evict(profile)])()

        async def rewind():
            rewound = await node.branches.rewind("a", "main", str(chance.choice(list(values))))
            values[rewound.txid] = values[rewound.rewound_to]

        async def write_and_rewind():
            await write()
            if chance.random() < 0.1:
                await rewind()

        async with asyncio.TaskGroup() as group:
            for work in (write_and_rewind, make_room, fork_and_delete, *([look] * 12)):
                group.create_task(again(work))

        store.faults.clear()
        await asyncio.wait([state.task for state in past._states.values()])
        assert served["right"] > 20, served
        assert all(state.users == 0 for state in past._states.values())
        assert (past._admission._held, past._admission._gates) == ({}, {})
        assert sorted(files(tmp_path)) == sorted(state.path for state in past._states.values())
        assert past.size_bytes == sum(path.stat().st_size for path in files(tmp_path))
        assert {state.key[0] for state in past._states.values()} <= {profile.ref.branch_id}
        open_ = [c for c in apsw.connections() if "/past/" in c.filename]
        assert len(open_) == len(past._readers._idle) <= IDLE_READERS
