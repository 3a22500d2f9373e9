"""A node comes back, or another one takes over: what was committed is shipped, kept aside, or restored."""

import os
import shutil
from pathlib import Path

import apsw
import pytest
from harness import node_on
from profiles import (
    BY_HAND,
    checkpoint_behind_the_back,
    everything,
    killed,
    manifest_of,
    put,
    restored,
    retained,
)

from memoturnd.core.durability import Durability
from memoturnd.core.manifest import CEILING_STEP
from memoturnd.engine import takeover
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError, FencedError, MemoturnError
from memoturnd.replication import swap
from memoturnd.seams.clock import SystemClock
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


async def with_tail(tmp_path, store, *, only_in_the_file=False):
    """Leave in `tmp_path/killed` the disk of a node with txid 3 durable, and 4 and 5 committed only there."""
    async with killed(tmp_path / "n", store, tmp_path / "killed", **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "durable"))
        await profile.write(put("y", "durable"), durability=Durability.DURABLE)
        await profile.write(put("x", "local"))
        await profile.write(put("z", "local" * 2000))
        if only_in_the_file:  # the log starts anew, so that txids 4 and 5 are nowhere else
            checkpoint_behind_the_back(profile)
            await profile.write(put("x", "local"))
    return tmp_path / "killed"


DURABLE = {"x": "durable", "y": "durable"}
ALL = {"x": "local", "y": "durable", "z": "local" * 2000}


async def move_on(tmp_path, store, **values):
    """Let another node take branch main of `a` over, and write."""
    async with node_on(tmp_path / f"other-{len(list(tmp_path.iterdir()))}", store, **BY_HAND) as node:
        profile = await node.profile("a")
        assert (await profile.read(everything)).value == DURABLE
        for key, value in values.items():
            await profile.write(put(key, value), durability=Durability.DURABLE)
        if not values:
            await profile.own()
        return profile.txid


async def branches(node):
    return [row.name for row in await node.branches.list("a")]


async def state(node, branch="main"):
    return (await (await node.profile("a", branch)).read(everything)).value


def log_of(disk):
    (path,) = disk.rglob("main.db-wal")
    return path


# ---- the same disk comes back


async def test_commits_that_were_not_shipped_are_shipped_after_a_kill(tmp_path, store):
    disk = await with_tail(tmp_path, store)

    async with node_on(disk, store, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 5
        assert await state(node) == ALL
        profile = await node.profile("a")
        written = await profile.write(put("after", "1"), durability=Durability.DURABLE)
        assert written.txid == 6
        assert await branches(node) == []
        standing = await manifest_of(store, profile)
        assert profile.owned.shipper.surprises == 0

    assert retained(standing) == [1, 2, 3, 4, 5, 6]
    assert await restored(store, standing, 4, tmp_path / "r") == DURABLE | {"x": "local"}
    assert await restored(store, standing, 5, tmp_path / "r") == ALL


async def test_recovery_does_not_wait_for_a_use(tmp_path, store):
    disk = await with_tail(tmp_path, store)

    async with node_on(disk, store, **BY_HAND) as node:
        profile = await node.profile("a")
        for _ in range(200):
            if profile.durable_txid == 5:
                break
            await node._services.clock.sleep(0.01)
        assert (await manifest_of(store, profile)).head_txid == 5


@pytest.mark.parametrize("torn_bytes", [1, 100, 4000, 4120])
async def test_torn_end_of_the_log_costs_only_the_commit_that_was_not_whole(tmp_path, store, torn_bytes):
    """Guard: the checksum chain in memoturnd.core.wal.committed_rounds."""
    disk = await with_tail(tmp_path, store)
    log = log_of(disk)
    os.truncate(log, log.stat().st_size - torn_bytes)

    async with node_on(disk, store, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 4
        assert await state(node) == DURABLE | {"x": "local"}
        profile = await node.profile("a")
        assert (await profile.write(put("after", "1"), durability=Durability.DURABLE)).txid == 5
        standing = await manifest_of(store, profile)

    assert await restored(store, standing, 5, tmp_path / "r") == DURABLE | {"x": "local", "after": "1"}


async def test_garbage_behind_the_log_is_no_commit(tmp_path, store):
    disk = await with_tail(tmp_path, store)
    with log_of(disk).open("ab") as log:
        log.write(os.urandom(5 * 4120))

    async with node_on(disk, store, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 5
        assert await state(node) == ALL


async def test_kill_before_anything_was_shipped_loses_nothing(tmp_path, store):
    async with killed(tmp_path / "n", store, tmp_path / "killed", **BY_HAND) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("x", "1"))

    async with node_on(tmp_path / "killed", store, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 2
        assert await state(node) == {"x": "1"}


async def test_tail_is_proven_against_the_chain_after_a_reboot(tmp_path, store):
    """Guard: the checksum in memoturnd.replication.prove.prove."""
    disk = await with_tail(tmp_path, store)

    async with node_on(disk, store, boot_id="another boot", **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 5
        assert await branches(node) == []
        assert await state(node) == ALL


async def test_tail_that_only_the_file_has_is_shipped_whole_within_the_same_boot(tmp_path, store):
    disk = await with_tail(tmp_path, store, only_in_the_file=True)

    async with node_on(disk, store, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 6
        assert await state(node) == ALL
        standing = await manifest_of(store, await node.profile("a"))

    assert retained(standing) == [1, 2, 3, 6]
    assert await restored(store, standing, 6, tmp_path / "r") == ALL


async def test_tail_that_nothing_proves_after_a_reboot_is_kept_as_another_branch(tmp_path, store):
    """Guard: `same_boot` in memoturnd.engine.takeover._settle."""
    disk = await with_tail(tmp_path, store, only_in_the_file=True)

    async with node_on(disk, store, boot_id="another boot", **BY_HAND) as node:
        await node.branches.sync("a", "main")
        assert await state(node) == DURABLE
        (kept,) = await branches(node)
        assert await state(node, kept) == ALL


async def test_clean_file_is_opened_as_it_is_within_the_same_boot(tmp_path, store):
    disk = tmp_path / "n"
    await with_clean_file(disk, store)
    store.counts.clear()

    async with node_on(disk, store, **BY_HAND) as node:
        assert await state(node) == {"x": "1"}
        assert await state(node) == {"x": "1"}
        assert store.counts["get"] == 1, "the manifest alone: history may have been rewritten by another node"


def cut_the_log(main):
    """Lose the end of the log."""
    log = Path(f"{main}-wal")
    os.truncate(log, log.stat().st_size // 2)


def lose_a_page(main):
    """Move the log into the file, then lose a page of the file that is not the one with the txid."""
    conn = apsw.Connection(str(main))
    conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    root = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_kv'").get
    conn.close()
    with main.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))


@pytest.mark.parametrize("damage", [None, cut_the_log, lose_a_page], ids=["whole", "log cut", "page lost"])
async def test_clean_file_of_another_boot_is_proven_or_restored(tmp_path, store, damage):
    """Guard: `boot_id` in memoturnd.engine.files.BranchFiles.clean; a power cut leaves such files."""
    disk = tmp_path / "n"
    main = await with_clean_file(disk, store)
    if damage is not None:
        damage(main)

    async with node_on(disk, store, boot_id="another boot", **BY_HAND) as node:
        profile = await node.profile("a")
        assert await state(node) == {"x": "1"}
        assert (await profile.write(put("y", "2"), durability=Durability.DURABLE)).durable
        standing = await manifest_of(store, profile)

    assert await branches_of(disk, store) == []
    assert await restored(store, standing, standing.head_txid, tmp_path / "r") == {"x": "1", "y": "2"}


async def with_clean_file(disk, store):
    async with node_on(disk, store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("w", "v" * 20000))
        await profile.write(lambda conn, _: (conn.execute("DELETE FROM __memoturn_kv"), True))
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        return profile.files.main


async def branches_of(disk, store):
    async with node_on(disk, store) as node:
        return await branches(node)


async def test_file_that_sqlite_cannot_read_is_set_aside_and_restored(tmp_path, store):
    disk = tmp_path / "n"
    main = await with_clean_file(disk, store)
    main.write_bytes(b"no database" * 1000)
    log_of(disk).unlink()

    async with node_on(disk, store) as node:
        assert await state(node) == {"x": "1"}
    (aside,) = (disk / "damaged").iterdir()
    assert (aside / "main.db").read_bytes().startswith(b"no database")


async def test_commits_under_an_unreadable_mark_are_set_aside_and_never_deleted(tmp_path, store):
    """Guard: memoturnd.node.Node._left_behind tells a mark that cannot be read from none."""
    disk = await with_tail(tmp_path, store)
    (mark,) = disk.rglob("owner")
    mark.write_bytes(b"")

    async with node_on(disk, store, **BY_HAND) as node:
        assert await state(node) == DURABLE
    (aside,) = (disk / "damaged").iterdir()
    assert (aside / "main.db-wal").stat().st_size > 0


# ---- another node was faster


@pytest.mark.parametrize("values", [{"x": "theirs"}, {}], ids=["who wrote", "who only took it over"])
async def test_tail_of_a_branch_that_moved_on_becomes_a_branch_of_its_own(tmp_path, store, values):
    """Guard: `last_owner_is_us` in memoturnd.core.recovery.decide."""
    disk = await with_tail(tmp_path, store)
    theirs = await move_on(tmp_path, store, **values)

    async with node_on(disk, store, **BY_HAND) as node:
        await node.branches.sync("a", "main")
        assert await state(node) == DURABLE | values
        assert await branches(node) == ["recovered-1"]
        assert await state(node, "recovered-1") == ALL
        kept = await manifest_of(store, await node.profile("a", "recovered-1"))
        profile = await node.profile("a")
        assert (await profile.write(put("mine", "1"), durability=Durability.DURABLE)).txid > max(theirs, 5)
        assert node.metrics.recovered_branches._value.get() == 1

    assert retained(kept) == [5]
    assert await restored(store, kept, 5, tmp_path / "r") == ALL


async def test_same_tail_brought_twice_is_kept_once(tmp_path, store):
    disk = await with_tail(tmp_path, store)
    shutil.copytree(disk, tmp_path / "twin")
    await move_on(tmp_path, store)

    for folder in (disk, tmp_path / "twin"):
        async with node_on(folder, store, **BY_HAND) as node:
            await node.branches.sync("a", "main")

    async with node_on(tmp_path / "fresh", store, **BY_HAND) as node:
        assert await branches(node) == ["recovered-1"]
        assert await state(node, "recovered-1") == ALL


async def test_second_diverged_tail_of_an_ownership_gets_another_name(tmp_path, store):
    disk = await with_tail(tmp_path, store)
    shutil.copytree(disk, tmp_path / "twin")
    await move_on(tmp_path, store)
    (database,) = (tmp_path / "twin" / "dbs").glob("*/*/*/main.db")
    conn = open_connection(str(database), read_only=False, sync="normal", cache_kib=64)
    conn.execute("CREATE TABLE other (x)")
    conn.close()

    for folder in (disk, tmp_path / "twin"):
        async with node_on(folder, store, **BY_HAND) as node:
            await node.branches.sync("a", "main")
            names = await branches(node)

    async with node_on(tmp_path / "fresh", store, **BY_HAND) as node:
        names = await branches(node)
        assert len(names) == 2
        assert names[0] == "recovered-1"
        assert names[1].startswith("recovered-1-")
        for name in names:
            assert await state(node, name) == ALL


@pytest.mark.parametrize("operation", ["put", "put_if_absent", "put_if_match"])
async def test_tail_that_cannot_be_kept_yet_is_never_taken_for_the_branch(
    tmp_path, store, operation, monkeypatch
):
    """Guard: take_over claims only a file that continued the chain, in memoturnd.engine.takeover."""
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.0005)
    disk = await with_tail(tmp_path, store)
    await move_on(tmp_path, store)
    skip = 1 if operation == "put_if_match" else 0  # the swap that takes over
    store.faults.append(Fault(FaultKind.STATUS_500, {operation}, times=None, skip=skip))
    with pytest.raises(MemoturnError):
        async with killed(disk, store, tmp_path / "again", **BY_HAND) as node:
            await state(node)
    store.faults.clear()

    async with node_on(disk, store, **BY_HAND) as node:
        await node.branches.sync("a", "main")
        assert await state(node) == DURABLE
        names = await branches(node)
        assert ALL in [await state(node, name) for name in names]


async def test_zombie_that_still_runs_is_fenced_and_its_commits_are_kept(tmp_path, store):
    async with node_on(tmp_path / "zombie", store, **BY_HAND) as zombie:
        await zombie.databases.create("a")
        profile = await zombie.profile("a")
        await profile.write(put("x", "durable"))
        await profile.write(put("y", "durable"), durability=Durability.DURABLE)
        await profile.write(put("x", "zombie"))
        await move_on(tmp_path, store, x="theirs")

        with pytest.raises(FencedError):
            await profile.write(put("z", "zombie"), durability=Durability.DURABLE)

        assert await state(zombie) == {"x": "theirs", "y": "durable"}
        (kept,) = await branches(zombie)
        assert await state(zombie, kept) == {"x": "zombie", "y": "durable", "z": "zombie"}
        standing = await manifest_of(store, profile)
    assert await restored(store, standing, standing.head_txid, tmp_path / "r") == {
        "x": "theirs",
        "y": "durable",
    }


async def test_commits_of_a_fenced_owner_are_not_deleted_with_the_file(tmp_path, store):
    """Guard: the look at `owner` without `clean` in memoturnd.engine.branch.Branch.evict."""
    async with node_on(tmp_path / "zombie", store, **BY_HAND) as zombie:
        await zombie.databases.create("a")
        profile = await zombie.profile("a")
        await profile.write(put("x", "durable"))
        await profile.write(put("y", "durable"), durability=Durability.DURABLE)
        await profile.write(put("x", "zombie"))
        await move_on(tmp_path, store)
        with pytest.raises(FencedError):
            await profile.owned.shipper.ship()

        for _ in range(2):
            await zombie.tiers.evict(profile)

        assert await state(zombie) == DURABLE
        (kept,) = await branches(zombie)
        assert (await state(zombie, kept))["x"] == "zombie"


# ---- a takeover that is cut off


@pytest.mark.parametrize("step", ["_settle", "_start"])
async def test_kill_right_behind_the_swap_of_a_takeover_keeps_the_tail_in_the_branch(
    tmp_path, store, step, monkeypatch
):
    """Guard: write_claim before the swap, in memoturnd.engine.takeover.take_over."""
    disk = await with_tail(tmp_path, store)

    async def dies(*_args):
        raise ConflictError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(takeover, step, dies)
        async with killed(disk, store, tmp_path / "again", **BY_HAND) as node:
            with pytest.raises(ConflictError):
                await state(node)

    async with node_on(tmp_path / "again", store, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 5
        assert await state(node) == ALL
        assert await branches(node) == []


@pytest.mark.parametrize("kind", [FaultKind.LOST_REPLY, FaultKind.DELAYED, FaultKind.STATUS_500])
async def test_takeover_with_an_unknown_outcome_keeps_the_tail_in_the_branch(
    tmp_path, store, kind, monkeypatch
):
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.0005)
    disk = await with_tail(tmp_path, store)
    store.faults.append(Fault(kind, {"put_if_match"}, times=3))
    store.faults.append(Fault(FaultKind.STATUS_503, {"get"}, times=1, skip=1))

    async with node_on(disk, store, **BY_HAND) as node:
        for _ in range(5):
            try:
                await state(node)
                break
            except MemoturnError:
                await store.land()
        await store.land()
        assert await node.branches.sync("a", "main") == 5
        assert await state(node) == ALL
        assert await branches(node) == []


async def test_two_nodes_that_race_for_a_branch_end_with_one_owner(tmp_path, store):
    """Guard: the token in memoturnd.core.manifest.own; both race for the same epoch."""
    await with_tail(tmp_path, store)
    async with (
        node_on(tmp_path / "b", store, **BY_HAND) as one,
        node_on(tmp_path / "c", store, **BY_HAND) as two,
    ):
        first, second = await one.profile("a"), await two.profile("a")
        await first.read(everything)
        await second.read(everything)
        swapping = store.inner.put_if_match

        async def rival_first(key, data, etag):
            store.inner.put_if_match = swapping
            await second.write(put("who", "second"))
            return await swapping(key, data, etag)

        store.inner.put_if_match = rival_first

        await first.write(put("who", "first"), durability=Durability.DURABLE)

        assert first.owned.epoch > second.owned.epoch
        with pytest.raises(FencedError):
            await second.owned.shipper.ship()
        assert (await state(two))["who"] == "first"
        (kept,) = await branches(two)
        assert (await state(two, kept))["who"] == "second"


# ---- txids


async def test_txids_above_a_lost_tail_are_never_used_again(tmp_path, store):
    """Guard: `txid_ceiling` in memoturnd.core.recovery.decide."""
    await with_tail(tmp_path, store)  # the disk with txids 4 and 5 is gone

    async with node_on(tmp_path / "fresh", store, **BY_HAND) as node:
        profile = await node.profile("a")
        assert await state(node) == DURABLE
        written = await profile.write(put("x", "new"), durability=Durability.DURABLE)
        assert written.txid > 3 + CEILING_STEP
        standing = await manifest_of(store, profile)
        with pytest.raises(ConflictError):
            await node.branches.create("a", "f", at="5")

    assert retained(standing) == [1, 2, 3, written.txid]
    assert standing.segments[-1].prev == 3


async def test_txids_only_grow_through_everything(tmp_path, store):
    """Guard: `next_txid` in memoturnd.engine.writer.Writer starts above the decision's start_txid."""
    seen = []

    async def step(node, *, durable=False):
        profile = await node.profile("a")
        seen.append(
            (
                await profile.write(
                    put("n", str(len(seen))), durability=Durability.DURABLE if durable else Durability.LOCAL
                )
            ).txid
        )
        return profile

    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await step(node, durable=True)
        await node.tiers.evict(profile)
        await step(node)
        seen.append((await node.branches.rewind("a", "main", "2")).txid)
        seen.append((await node.branches.undo_rewind("a", "main")).txid)
        assert await profile.close()
        await step(node)
    for lost in ("n", "second", "third"):
        async with killed(tmp_path / lost, store, tmp_path / f"{lost} killed", **BY_HAND) as node:
            await step(node, durable=True)
            await step(node)
    async with node_on(tmp_path / "third killed", store, **BY_HAND) as node:
        await step(node, durable=True)
        await node.branches.checkpoint("a", "main", "c")
        await step(node)
    async with node_on(tmp_path / "fresh", store, **BY_HAND) as node:
        await step(node)

    assert seen == sorted(set(seen))
