"""Histories rewritten without some rows, against a model: every state is there, without them, and nothing lingers."""

import asyncio
import random

import pytest
import ruins
from erased import files_with, objects_with, states
from harness import node_on
from profiles import BY_HAND, everything, put

from memoturnd.engine.rewriting import Shared
from memoturnd.replication import rewrite, snapshot
from memoturnd.stores.memory import MemoryStore

MARK = b"4711-is-the-secret"


def rows(conn):
    return dict(conn.execute("SELECT k, v FROM __memoturn_kv"))


def erase(conn):
    before = conn.total_changes()
    conn.execute("DELETE FROM __memoturn_kv WHERE k LIKE 'secret%'")
    return conn.total_changes() - before


def delete(key):
    return lambda conn, _: (conn.execute("DELETE FROM __memoturn_kv WHERE k = ?", (key,)), True)


def without(states_):
    return {
        txid: {k: v for k, v in state.items() if not k.startswith("secret")}
        for txid, state in states_.items()
    }


@pytest.fixture
async def node(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        yield node


async def settled(branch):
    """Let compaction come to its end."""
    shipper = branch.owned.shipper
    await shipper.ship()
    while (job := shipper.compactor.running) is not None:
        await asyncio.wait([job])
        await shipper.ship()


class Past:
    """A profile's branch, and what it held at each commit."""

    def __init__(self, branch, seed=1):
        self.branch, self.rng = branch, random.Random(seed)
        self.state, self.states = {}, {1: {}}

    async def put(self, key, value):
        written = await self.branch.write(put(key, value))
        self.state = {**self.state, key: value}
        self.states[written.txid] = self.state

    async def delete(self, key):
        written = await self.branch.write(delete(key))
        self.state = {k: v for k, v in self.state.items() if k != key}
        self.states[written.txid] = self.state

    async def live(self, rounds):
        """Commit at random: values of all lengths come, change and go, those of secret keys with the mark."""
        for _ in range(rounds):
            secret = self.rng.random() < 0.2
            key = f"{'secret' if secret else 'k'}{self.rng.randrange(12)}"
            text = MARK if secret else b"open"
            if key in self.state and self.rng.random() < 0.3:
                await self.delete(key)
            else:
                length = self.rng.choice((1, 10, 100, 1000, 9000))
                await self.put(key, text + bytes([self.rng.randrange(256)]) * length + text)
            if self.rng.random() < 0.2:
                await self.branch.owned.shipper.ship()
            if self.rng.random() < 0.03:
                await self.branch.owned.shipper.snapshot()


async def test_every_state_stays_without_the_rows(node, tmp_path):
    await node.databases.create("p")
    branch = await node.profile("p")
    past = Past(branch)
    await past.put("first", b"1")
    await past.live(60)
    await settled(branch)
    uuid = branch.ref.database.uuid
    services = node._services
    before = await branch.manifests.load()
    known = await states(services.store, before, tmp_path / "s", rows)
    assert known == past.states
    assert (await objects_with(node, uuid, MARK))[0]

    done = await node.rewriter.rewrite(branch, erase, ["e1"])

    after = await branch.manifests.load()
    assert await states(services.store, after, tmp_path / "s", rows) == without(known)
    assert await objects_with(node, uuid, MARK) == (set(), len(after.objects))
    assert files_with(tmp_path / "node", MARK) == []
    assert [(e.id, e.txid) for e in after.erasures] == [("e1", before.head_txid)]
    assert (after.head_txid, after.head_at, after.rewinds) == (
        before.head_txid,
        before.head_at,
        before.rewinds,
    )
    assert done.objects_replaced
    assert done.rounds_rewritten
    # It goes on as any other branch does.
    past.state = without({0: past.state})[0]
    past.states = without(past.states)
    assert (await branch.read(lambda conn, _: rows(conn))).value == past.state
    await past.live(10)
    await settled(branch)
    latest = await branch.manifests.load()
    assert await states(services.store, latest, tmp_path / "s", rows) == past.states


# ---- every kind of object, and forks


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return ruins.build(tmp_path_factory.mktemp("city") / "node")


def erase_k3(conn):
    before = conn.total_changes()
    conn.execute("DELETE FROM __memoturn_kv WHERE k = 'k3'")
    return conn.total_changes() - before


async def rewrite_all(node, database, erase, ids, *, shared=None):
    """Rewrite every branch, main and older ones first; return what was done by name."""
    shared = shared or Shared()
    names = ["main", *(row.name for row in await node.branches.list(database))]
    return {
        name: await node.rewriter.rewrite(await node.profile(database, name), erase, ids, shared=shared)
        for name in names
    }


async def test_every_kind_of_object_and_every_fork_is_rewritten(built, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "PART_PAGES", 6)
    monkeypatch.setattr(rewrite, "PART_PAGES", 6)
    city = built.copied()
    texts = [f"v{n}v{n}".encode() for n in range(110) if n % 7 == 3]
    (tmp_path / "s").mkdir()
    old = {name: await city.chain(name) for name in city.branches}
    async with city.node(tmp_path / "node") as node:
        assert any([(await objects_with(node, city.uuid, text))[0] for text in texts])

        done = await rewrite_all(node, "p", erase_k3, ["e1"])

        for text in texts:
            assert (await objects_with(node, city.uuid, text))[0] == set()
            assert files_with(tmp_path / "node", text) == []
        for name, states_ in city.states.items():
            left = {t: {k: v for k, v in state.items() if k != "k3"} for t, state in states_.items()}
            found = await states(city.store, await city.chain(name), tmp_path / "s", everything)
            assert {t: state for t, state in found.items() if t in left} == left
        again = await rewrite_all(node, "p", erase_k3, ["e1"])
    assert all(one.objects_replaced for one in done.values())
    assert {one[2:] for one in again.values()} == {(0, 0)}, "a second pass finds nothing to do"
    assert all(one.rounds_checked for one in again.values())
    events, summary = await city.verified(tmp_path / "s", deep=True)
    assert events == [] or not [e for e in events if type(e).__name__ == "Finding"]
    assert summary.outcome == "clean"
    new = {name: await city.chain(name) for name in city.branches}
    for name, before in old.items():
        assert [(p.min, p.max) for p in new[name].pages] == [(p.min, p.max) for p in before.pages]
        assert new[name].checkpoints == before.checkpoints
        assert new[name].pins == before.pins
    # A fork wrote nothing of what its parent had written again, and main wrote it once.
    parents = {new["main"].branch_id}
    assert {ref.branch for ref in new["f00"].objects} == parents
    assert {page.branch for page in new["own"].pages} == parents
