"""Past states: the room that they take, and what faults and a crowd leave behind."""

import asyncio
import random
import shutil
import time
from collections import Counter

import apsw
import pytest
from harness import node_on
from pasts import at, files, slow_gets, state, with_values
from profiles import BY_HAND, everything, get, put

from memoturnd.core.durability import Durability
from memoturnd.engine import schema
from memoturnd.engine.past import IDLE_READERS
from memoturnd.errors import (
    BranchNotFoundError,
    ConflictError,
    CorruptionError,
    DiskFullError,
    OverloadedError,
    RetryableError,
)
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


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
        monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        monkeypatch.setitem(
            schema.migrate.__kwdefaults__, "migrations",
            (
                *schema.MIGRATIONS,
                lambda conn: conn.execute("CREATE TABLE __memoturn_new(a)", can_cache=False),
            ),
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
            written = await profile.write(
                put("x", value), durability=Durability.DURABLE if chance.random() < 0.3 else Durability.LOCAL
            )
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
        if past._states:
            await asyncio.wait([state.task for state in past._states.values()])
        assert served["right"] > 20, served
        assert all(state.users == 0 for state in past._states.values())
        assert (past._admission._held, past._admission._gates) == ({}, {})
        assert sorted(files(tmp_path)) == sorted(state.path for state in past._states.values())
        assert past.size_bytes == sum(path.stat().st_size for path in files(tmp_path))
        assert {state.key[0] for state in past._states.values()} <= {profile.ref.branch_id}
        open_ = [c for c in apsw.connections() if "/past/" in c.filename]
        assert len(open_) == len(past._readers._idle) <= IDLE_READERS
