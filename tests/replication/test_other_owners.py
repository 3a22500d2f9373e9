"""Background work and forks of branches that other nodes own.

Guards: `_worked` and `do_for_another` in memoturnd.engine.maintenance, `obtain` in memoturnd.erasing and
memoturnd.engine.rewriting, `shipped` in memoturnd.engine.branching.
"""

import pytest
from profiles import BY_HAND, everything, get, put
from sharing import sharing

from memoturnd.engine import maintenance
from memoturnd.errors import NotOwnerError, OverloadedError
from memoturnd.seams.catalog import ERASE, SWEEP, Chore
from memoturnd.seams.clock import SystemClock
from memoturnd.surfaces import erasing


@pytest.fixture
async def three(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.node.BURNER_S", 3600.0)
    async with sharing(tmp_path, "a", "b", "c", **BY_HAND) as shared:
        await shared.nodes["a"].databases.create("db")
        yield shared


async def owned_by(shared, name, branch="main", **values):
    """Return a branch of which the node of that name is the owner, with commits that are not shipped."""
    profile = await shared.nodes[name].profile("db", branch)
    for key, value in values.items():
        await profile.write(put(key, value))
    assert shared.owner(profile) == name
    return profile


def works(shared, done):
    """Let the sweep of every node write, and note who did."""
    for name, node in shared.nodes.items():

        async def sweep(chore, name=name, node=node):
            branch = await node.branches.find_by_id(chore.db_uuid, chore.branch_id)
            await branch.write(put("swept", name))
            done.append(name)
            return 1_000

        node.maintenance._works[SWEEP] = sweep


async def test_a_chore_is_done_by_the_node_that_owns_the_branch(three):
    owner, done = await owned_by(three, "a", x="1"), []
    works(three, done)
    c = three.nodes["c"]
    chore = Chore(SWEEP, owner.ref.database.uuid, owner.branch_id)
    await c._services.catalog.schedule(chore, 0)

    await c.maintenance.run_due()

    assert done == ["a"]
    assert (await owner.read(get("swept"))).value == "a"
    assert c.metrics.maintenance_passes["done"]._value.get() == 1
    assert three.owner(owner) == "a"


async def test_a_chore_whose_owner_does_not_answer_is_tried_again(three):
    owner, done = await owned_by(three, "a", x="1"), []
    works(three, done)
    c = three.nodes["c"]
    await c._services.catalog.schedule(Chore(SWEEP, owner.ref.database.uuid, owner.branch_id), 0)
    three.wires.cut.add("a")
    await c.maintenance.run_due()
    assert done == []
    assert c.metrics.maintenance_passes["failed"]._value.get() == 1


async def test_a_node_does_few_chores_for_others_and_only_its_own_branches(three, monkeypatch):
    owner, done = await owned_by(three, "a", x="1"), []
    works(three, done)
    chore = Chore(SWEEP, owner.ref.database.uuid, owner.branch_id)
    with pytest.raises(NotOwnerError):
        await three.nodes["b"].maintenance.do_for_another(chore)
    monkeypatch.setattr(maintenance, "PASSED_AT_ONCE", 0)
    with pytest.raises(OverloadedError):
        await three.nodes["a"].maintenance.do_for_another(chore)
    assert done == []


async def test_a_fork_begins_at_what_its_parents_owner_had_committed(three):
    await owned_by(three, "a", x="1", y="2")
    await three.nodes["c"].branches.create("db", "dev")
    dev = await three.nodes["b"].profile("db", "dev")
    assert (await dev.read(everything)).value == {"x": "1", "y": "2"}


async def test_an_erasure_takes_from_every_branch_whoever_owns_it(three):
    a, _, c = three.nodes.values()
    main = await owned_by(three, "a", x="secret", y="kept")
    await a.branches.create("db", "dev")
    dev = await owned_by(three, "b", "dev", z="new")
    asked = erasing.parse({"kv": {"ns": "t", "key": "x"}, "grace_secs": 0})

    async def ask():
        return asked

    requested = await a.erasing.request("db", "main", ask, a.erasing.new_id())
    await c.erasing.look(Chore(ERASE, main.ref.database.uuid))

    coupon = await c.erasing.coupons.file(main.ref.database.uuid, requested.coupon.id).load()
    assert coupon.blocked_by is None
    assert coupon.rewritten_at is not None
    assert (await (await c.profile("db", "dev")).read(everything)).value == {"y": "kept", "z": "new"}
    assert (await (await c.profile("db")).read(everything)).value == {"y": "kept"}
    with pytest.raises(NotOwnerError):
        await dev.write(put("late", "1"))


async def test_a_burner_is_deleted_by_one_node_and_by_any_other_where_that_does_not(three, monkeypatch):
    nodes = list(three.nodes.values())
    await owned_by(three, "a", x="1")
    for number in range(9):  # ids that are not random, so that each node has some of them
        await nodes[0].branches.create("db", f"b{number}", ttl_s=1, branch_id=f"{number:016x}")
    now_ms = nodes[0]._services.clock.now_ms()

    async def swept_at(ms, *several):
        monkeypatch.setattr(SystemClock, "now_ms", lambda _: ms)
        return [await node.housekeeping.delete_burners() for node in several]

    deleted = await swept_at(now_ms + 2_000, *nodes[:2])
    left = await nodes[0].branches.list("db")
    assert all(deleted)
    assert len(left) == 9 - sum(deleted) > 0  # those of the third node

    assert await swept_at(now_ms + 63_000, nodes[0]) == [len(left)]
    assert await nodes[0].branches.list("db") == []
