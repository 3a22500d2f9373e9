"""Tiers: how branches go up and down, and the bounds that send them."""

from pathlib import Path

import pytest
from harness import node_on

from memoturnd.config import HOT_PROFILE_DESCRIPTORS
from memoturnd.core.durability import Durability
from memoturnd.errors import OverloadedError
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


def put(key, value="v"):
    def op(conn, _now_ms):
        conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', ?, ?)", (key, value))
        return None, True

    return op


def get(key):
    return lambda conn, _now_ms: conn.execute("SELECT v FROM __memoturn_kv WHERE k = ?", (key,)).get


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def some_profiles(node, count):
    profiles = []
    for i in range(count):
        await node.databases.create(f"p{i}")
        profiles.append(await node.profile(f"p{i}"))
        await profiles[-1].write(put("k", str(i)))
    return profiles


async def test_creating_a_database_makes_no_file_and_no_object(tmp_path):
    store = FaultyStore(MemoryStore(), None)
    async with node_on(tmp_path, store) as node:
        store.counts.clear()
        await node.databases.create("a")

        assert not list((tmp_path / "dbs").rglob("*"))
        assert not store.counts


async def test_reading_a_profile_never_written_makes_no_file_and_writes_no_object(tmp_path):
    store = FaultyStore(MemoryStore(), None)
    async with node_on(tmp_path, store) as node:
        await node.databases.create("a")
        assert (await (await node.profile("a")).read(get("k"))).txid == 0

        assert not list((tmp_path / "dbs").rglob("*"))
        assert not any(store.counts[op] for op in ("put", "put_if_absent", "put_if_match"))


async def test_pool_of_open_branches_stays_within_its_cap(tmp_path):
    async with node_on(tmp_path, MemoryStore(), HOT_CAP="3") as node:
        profiles = await some_profiles(node, 8)

        assert sum(p.hot for p in profiles) == 3
        assert [p.hot for p in profiles[-3:]] == [True] * 3, "the least recently used went"
        for i, profile in enumerate(profiles):
            assert (await profile.read(get("k"))).value == str(i)
        assert sum(p.hot for p in profiles) <= 3


async def test_pool_whose_branches_are_all_in_use_turns_away_and_says_so(tmp_path):
    async with node_on(tmp_path, MemoryStore(), HOT_CAP="2") as node:
        profiles = await some_profiles(node, 3)
        busy = [p for p in profiles if p.hot]
        for profile in busy:
            profile.users += 1
        (idle,) = [p for p in profiles if not p.hot]

        with pytest.raises(OverloadedError, match="MEMOTURN_HOT_CAP"):
            await idle.read(get("k"))

        for profile in busy:
            profile.leave()
        assert (await idle.read(get("k"))).value is not None


async def test_idle_branch_goes_warm_then_cold_and_comes_back(tmp_path):
    async with node_on(tmp_path, MemoryStore(), WARM_AFTER_S="1", COLD_AFTER_S="2") as node:
        (profile,) = await some_profiles(node, 1)
        profile.used_s -= 10
        node.tiers._hot[profile] -= 10
        await node.tiers.sweep()
        assert not profile.hot
        assert profile.files.exists(), "warm: closed, with its file"

        node.tiers._warm[profile] -= 10
        await node.tiers.sweep()
        assert not profile.files.folder.exists(), "cold: nothing local, the log and its index included"

        assert (await profile.read(get("k"))).value == "0"


async def test_branch_that_cannot_be_shipped_never_goes_cold(tmp_path):
    faults = [Fault(FaultKind.STATUS_503, times=None)]
    store = FaultyStore(MemoryStore(), None, [])
    async with node_on(tmp_path, store, SHIP_INTERVAL_MS="60000") as node:
        (profile,) = await some_profiles(node, 1)
        store.faults.extend(faults)

        assert not await node.tiers.evict(profile)
        assert (await profile.read(get("k"))).value == "0"

        store.faults.clear()
        assert await node.tiers.evict(profile)


async def test_branch_in_use_never_goes_cold(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        (profile,) = await some_profiles(node, 1)
        profile.users += 1

        assert not await node.tiers.evict(profile)
        assert profile.files.exists()

        profile.leave()
        assert await node.tiers.evict(profile)


async def test_disk_over_its_budget_sends_warm_branches_cold(tmp_path):
    async with node_on(tmp_path, MemoryStore(), DISK_BUDGET_BYTES="1048576", HOT_CAP="2") as node:
        await some_profiles(node, 16)  # more than 80 KB each
        await node.tiers.sweep()

        _, warm, disk_bytes = node.tiers.counts
        assert disk_bytes <= 1_048_576
        assert warm < 14


async def test_cold_branch_wakes_from_few_objects_however_many_were_shipped(tmp_path):
    store = FaultyStore(MemoryStore(), None)
    async with node_on(tmp_path, store) as node:
        (profile,) = await some_profiles(node, 1)
        for i in range(60):
            await profile.write(put(f"k{i}"), durability=Durability.DURABLE)
        assert await node.tiers.evict(profile)

        store.counts.clear()
        assert (await profile.read(get("k59"))).value == "v"
        assert store.counts["get"] <= 5, "the manifest, a snapshot, and few segments"


async def test_hot_profile_takes_no_more_descriptors_than_it_is_counted_for(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        await some_profiles(node, 1)
        before = descriptors()
        await node.databases.create("x")
        profile = await node.profile("x")
        await profile.write(put("k"), durability=Durability.DURABLE)
        await profile.read(get("k"), work=Work.HEAVY)

        assert descriptors() - before <= HOT_PROFILE_DESCRIPTORS


async def test_everybody_gets_the_same_object_of_a_branch(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        (profile,) = await some_profiles(node, 1)
        assert await node.tiers.evict(profile)

        assert await node.profile("p0") is profile


async def test_catalog_rows_that_a_power_cut_took_come_back_from_the_store(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path, store) as node:
        (profile,) = await some_profiles(node, 1)
        await node.branches.create("p0", "f")
        await profile.write(put("k", "new"), durability=Durability.DURABLE)
        await node.databases.create("other")
        await node._services.catalog.delete_branch(profile.ref.database.uuid, "f")
        await node._services.catalog.forget_database(profile.ref.database.uuid)

    async with node_on(tmp_path, store, boot_id="after the power cut") as node:
        assert (await (await node.profile("p0")).read(get("k"))).value == "new"
        assert (await (await node.profile("p0", "f")).read(get("k"))).value == "0"
        assert [d.name for d in await node.databases.list()] == ["other", "p0"]


async def test_files_of_an_earlier_boot_go_cold_too_once_they_are_proven(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path, store) as node:
        await some_profiles(node, 1)

    async with node_on(tmp_path, store, boot_id="after a reboot") as node:
        profile = await node.profile("p0")
        assert profile.files.exists()

        assert await node.tiers.evict(profile)
        assert not profile.files.exists()
        assert (await profile.read(get("k"))).value == "0"
