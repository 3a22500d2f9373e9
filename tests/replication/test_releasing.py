"""A branch that another node owns is had by asking: everything committed is stored first, and nobody is told of an error.

Guards: memoturnd.engine.releasing, memoturnd.engine.releases, `held_off` and `lets_others_first` in
memoturnd.engine.shared_branch, `free` in memoturnd.engine.last_ship, memoturnd.engine.departures.
"""

import asyncio

import pytest
from profiles import BY_HAND, everything, get, put
from sharing import sharing

from memoturnd.core.release_wire import RELEASE
from memoturnd.engine import releases, releasing
from memoturnd.engine.releasing import free, obtain, shipped
from memoturnd.errors import (
    BranchNotFoundError,
    DatabaseNotFoundError,
    MemoturnError,
    NotOwnerError,
    RetryableError,
)

SLOW = {**BY_HAND, "SHIP_INTERVAL_MS": "60000"}


@pytest.fixture
async def three(tmp_path):
    async with sharing(tmp_path, "a", "b", "c", **SLOW) as shared:
        await shared.nodes["a"].databases.create("db")
        yield shared


async def profiles(shared, branch="main"):
    return [await node.profile("db", branch) for node in shared.nodes.values()]


async def until(true):
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def test_a_branch_is_obtained_with_all_that_its_owner_committed(three):
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "1"))
    assert owner.durable_txid < owner.txid

    await obtain(three.nodes["b"]._services, other)

    assert three.owner(other) == "b"
    assert (await other.read(get("x"))).value == "1"
    with pytest.raises(NotOwnerError):
        await owner.write(put("x", "2"))


async def test_writes_under_way_are_applied_here_or_not_at_all(three):
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "0"))
    applied, stop = [], asyncio.Event()

    async def writing(n):
        for i in range(1000):
            if stop.is_set():
                return
            key = f"{n}-{i}"
            try:
                await owner.write(put(key, "there"))
            except NotOwnerError:
                return
            applied.append(key)
            await asyncio.sleep(0)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for n in range(8):
            group.create_task(writing(n))
        await asyncio.sleep(0.05)
        await obtain(three.nodes["b"]._services, other)
        await asyncio.sleep(0.1)
        stop.set()

    assert applied
    assert three.owner(other) == "b"
    assert set(applied) == set((await other.read(everything)).value) - {"x"}


async def test_the_node_that_gave_it_back_does_not_take_it_first(three):
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "1"))
    await free(three.nodes["b"]._services, other)
    late = asyncio.create_task(owner.write(put("x", "2")))
    await asyncio.sleep(0.05)

    assert three.owner(other) is None
    await other.write(put("x", "3"))
    with pytest.raises(NotOwnerError):
        await late
    assert (await other.read(get("x"))).value == "3"


async def test_without_anybody_who_takes_it_the_branch_goes_on_where_it_was(three, monkeypatch):
    monkeypatch.setattr("memoturnd.engine.shared_branch.OTHERS_FIRST_S", 0.1)
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "1"))
    await free(three.nodes["b"]._services, other)

    await owner.write(put("x", "2"))

    assert three.owner(owner) == "a"


async def test_a_branch_in_use_for_too_long_is_kept(three, monkeypatch):
    monkeypatch.setattr(releases, "RELEASE_S", 0.1)
    monkeypatch.setattr(releasing, "FREE_S", 0.2)
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "1"))
    owner.users += 1
    try:
        with pytest.raises(RetryableError, match="in use"):
            await free(three.nodes["b"]._services, other)
    finally:
        owner.leave()
    await owner.write(put("x", "2"))
    assert three.owner(owner) == "a"


async def test_an_owner_that_does_not_answer_is_waited_for_until_its_lease_ends(three, monkeypatch):
    monkeypatch.setattr(releasing, "FREE_S", 2.0)
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "1"))
    three.wires.cut.add("a")
    waiting = asyncio.create_task(free(three.nodes["b"]._services, other))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    three.leases["a"].expire()
    await waiting


async def test_who_does_not_own_a_branch_says_so(three):
    owner, other, _ = await profiles(three)
    await owner.write(put("x", "1"))
    path = RELEASE.format(uuid=owner.ref.database.uuid, branch_id=owner.branch_id)
    with pytest.raises(NotOwnerError):
        await three.wires.ask("http://b:1", path, timeout_s=1)
    with pytest.raises(NotOwnerError):
        await three.wires.ask("http://a:1", path.replace(owner.ref.database.uuid, "0" * 32), timeout_s=1)
    assert three.owner(other) == "a"


async def test_an_owner_ships_and_stays_the_owner(three):
    owner, other, _ = await profiles(three)
    written = await owner.write(put("x", "1"))
    await shipped(three.nodes["b"]._services, other)
    assert owner.durable_txid == written.txid
    assert three.owner(owner) == "a"


async def test_an_undeleted_database_has_what_its_owners_had_not_shipped(three):
    a, b, c = three.nodes.values()
    on_main = await a.profile("db")
    await on_main.write(put("x", "main"))
    await a.branches.create("db", "dev")
    on_dev = await b.profile("db", "dev")
    await on_dev.write(put("x", "dev"))

    await c.databases.delete("db")
    await until(lambda: not on_main.files.exists() and not on_dev.files.exists())
    await c.databases.undelete("db")

    assert (await (await a.profile("db")).read(get("x"))).value == "main"
    assert (await (await c.profile("db", "dev")).read(get("x"))).value == "dev"


async def test_an_undeleted_branch_has_what_its_owner_had_not_shipped(three):
    a, b, c = three.nodes.values()
    await (await a.profile("db")).write(put("x", "main"))
    await a.branches.create("db", "dev")
    await (await b.profile("db", "dev")).write(put("x", "dev"))

    await c.branches.delete("db", "dev")
    with pytest.raises(BranchNotFoundError):
        await b.profile("db", "dev")
    await a.branches.undelete("db", "dev")

    assert (await (await a.profile("db", "dev")).read(get("x"))).value == "dev"


async def test_a_deletion_that_its_owner_does_not_hear_of_changes_nothing(three, monkeypatch):
    monkeypatch.setattr(releasing, "FREE_S", 0.1)
    a, _, c = three.nodes.values()
    profile = await a.profile("db")
    await profile.write(put("x", "1"))
    three.wires.cut.add("a")
    with pytest.raises(RetryableError, match="owns db@main"):
        await c.databases.delete("db")
    assert (await profile.read(get("x"))).value == "1"
    three.wires.cut.clear()
    await c.databases.delete("db")
    with pytest.raises(DatabaseNotFoundError):
        await a.profile("db")


async def test_files_of_what_was_deleted_elsewhere_go_on_every_node(three):
    _, b, c = three.nodes.values()
    owner, reader, _ = await profiles(three)
    await owner.write(put("x", "1"))
    await obtain(b._services, reader)  # `a` keeps a warm file, `b` an open one
    assert owner.files.exists()
    assert reader.files.exists()

    await c.databases.delete("db")

    await until(lambda: not owner.files.exists() and not reader.files.exists())
    assert three.table.placed == {}


async def test_nothing_is_let_go_of_that_was_not_deleted(three):
    owner, *_ = await profiles(three)
    await owner.write(put("x", "1"))
    await three.nodes["a"].releases.departed([owner.branch_id])
    assert (await owner.read(get("x"))).value == "1"


async def test_a_deleted_branch_leaves_no_lease(three):
    a = three.nodes["a"]
    await (await a.profile("db")).write(put("x", "1"))
    await a.branches.create("db", "dev")
    dev = await a.profile("db", "dev")
    await dev.write(put("x", "2"))
    await a.branches.delete("db", "dev")
    await a.tiers.sweep()
    assert three.owner(dev) is None
    with pytest.raises(MemoturnError):
        await dev.write(put("x", "3"))
