"""What a node remembers of a database's register is old where other nodes have changed it since.

Guards: `enter` in memoturnd.engine.new_branch, `_branch_id` in memoturnd.engine.branching, `ensure` in
memoturnd.engine.registers.
"""

import asyncio

import pytest
from profiles import BY_HAND, everything, get, put
from sharing import sharing

from memoturnd.core import keyed
from memoturnd.engine.branching import FORK_DEADLINE_S
from memoturnd.errors import AlreadyExistsError, RetryableError
from memoturnd.replication.archive import BRANCHES


@pytest.fixture
async def two(tmp_path):
    async with sharing(tmp_path, "a", "b", **BY_HAND) as shared:
        await shared.nodes["a"].databases.create("db")
        await (await shared.nodes["a"].profile("db")).write(put("x", "main"))
        yield shared


async def registered(node):
    """Return every registered branch of the database by its name."""
    services = node._services
    register = await services.register_file((await node.databases.get("db")).uuid).load()
    return await services.archive.all(BRANCHES, register)


async def test_a_name_that_another_node_gave_away_long_ago_stays_its_branchs(two, monkeypatch):
    monkeypatch.setattr(keyed, "RECENT_LIMIT", 4)
    a, b = two.nodes.values()
    await a.branches.create("db", "first")  # `a` remembers the register from here on
    await b.branches.create("db", "dev")
    dev = await b.profile("db", "dev")
    await dev.write(put("x", "dev"))
    for number in range(6):  # the name moves out of the register itself
        await b.branches.create("db", f"more{number}")
    before = await registered(b)

    with pytest.raises((AlreadyExistsError, RetryableError)):
        await a.branches.create("db", "dev")

    assert await registered(b) == before
    assert (await dev.read(get("x"))).value == "dev"


async def test_a_name_that_another_node_freed_is_free(two):
    a, b = two.nodes.values()
    await a.branches.create("db", "dev")
    await b.branches.delete("db", "dev")
    await (await a.profile("db")).write(put("x", "newer"))
    await a.branches.create("db", "dev")
    assert (await (await b.profile("db", "dev")).read(everything)).value == {"x": "newer"}


async def test_a_database_that_another_node_brought_back_takes_branches(two):
    a, b = two.nodes.values()
    await a.branches.create("db", "dev")
    uuid = (await a.databases.get("db")).uuid
    await b.databases.delete("db")
    await a._registers.get(uuid).load(fresh=True)  # as the collector does
    await b.databases.undelete("db")
    await a.branches.create("db", "more")
    assert {"main", "dev", "more"} <= set(await registered(b))


async def test_two_nodes_that_fork_under_one_name_at_once_make_one_branch(two):
    a, b = two.nodes.values()
    for number in range(8):
        name = f"dev{number}"
        results = await asyncio.gather(
            *(node.branches.create("db", name) for node in (a, b)), return_exceptions=True
        )
        made = [one for one in results if not isinstance(one, BaseException)]
        assert all(
            isinstance(one, (AlreadyExistsError, RetryableError)) for one in results if one not in made
        )
        assert len(made) == 1, results
        entry, (row,) = (
            (await registered(a))[name],
            [r for r in await a.branches.list("db") if r.name == name],
        )
        manifest = await a._services.manifest_file(row.db_uuid, entry.id).load()
        assert (row.branch_id, row.fork_txid) == (entry.id, entry.fork_txid)
        assert manifest.parent.txid == made[0].fork_txid == entry.fork_txid


async def test_a_fork_that_was_cut_off_is_finished_by_another_node_once_it_is_surely_over(two, monkeypatch):
    a, b = two.nodes.values()

    async def cut_off(*_, **__):
        raise RetryableError("the process ends here (a test)")

    with monkeypatch.context() as patch:
        patch.setattr("memoturnd.engine.branching.create_manifest", cut_off)
        with pytest.raises(RetryableError):
            await a.branches.create("db", "dev")
    cut = (await registered(b))["dev"]
    with pytest.raises(RetryableError, match="being made"):
        await b.branches.create("db", "dev")
    clock = b._services.clock
    monkeypatch.setattr(type(clock), "now_ms", lambda _: cut.created_at + round(1000 * FORK_DEADLINE_S) + 1)
    assert (await b.branches.create("db", "dev")).branch == "dev"
