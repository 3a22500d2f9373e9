"""Histories rewritten without some rows, against a model: every state is there, without them, and nothing lingers."""

import asyncio
import random
import shutil

import pytest
import ruins
from erased import files_with, objects_with, registered, states
from family import Watched
from harness import node_on
from profiles import BY_HAND, everything, killed, manifest_of, put

from memoturnd.core import layout
from memoturnd.core.durability import Durability
from memoturnd.core.garbage import named_by_manifest
from memoturnd.engine import branching, rewriting
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.rewriting import Shared
from memoturnd.errors import (
    CorruptionError,
    InvalidRequestError,
    MemoturnError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.replication import rewrite, snapshot
from memoturnd.replication.restore import restore
from memoturnd.seams.profile import Work
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


# ---- ends halfway


async def small_past(node, rounds=14):
    await node.databases.create("p")
    branch = await node.profile("p")
    past = Past(branch, seed=3)
    await past.put("secret1", MARK * 400)
    await past.put("k1", b"1")
    await past.delete("secret1")
    await past.live(rounds)
    await past.put("secret2", MARK)
    await settled(branch)
    return branch, past


def copied(store):
    made = MemoryStore()
    made._objects, made._writes = dict(store._objects), store._writes
    return made


async def test_rewrite_may_end_before_any_request_and_the_next_one_finishes_it(tmp_path):
    first, home = MemoryStore(), tmp_path / "home"
    async with killed(tmp_path / "node", first, home, **BY_HAND) as node:
        branch, past = await small_past(node)
        uuid = branch.ref.database.uuid
        txids = set(past.states)
    (tmp_path / "s").mkdir()
    outcomes = []
    for at in range(1, 200):
        store, disk, left = copied(first), tmp_path / f"d{at}", tmp_path / f"l{at}"
        shutil.copytree(home, disk)
        watched = Watched(store)
        is_cut = False
        async with killed(disk, watched, left, **BY_HAND) as node:
            branch = await node.profile("p")
            await branch.own()
            await branch.owned.shipper.ship()
            watched.requests = 0
            watched.cut(at)
            try:
                await node.rewriter.rewrite(branch, erase, ["e1"])
            except MemoturnError:
                is_cut = True
        watched.is_cut, watched.before = False, {}
        found = await states(store, await manifest_of(store, branch), tmp_path / "s", rows)
        assert set(found) == txids
        landed = bool((await manifest_of(store, branch)).erasures)
        assert found == (without(past.states) if landed else past.states)
        outcomes.append(landed)
        async with node_on(left, store, **BY_HAND) as node:
            again = await node.profile("p")
            await node.rewriter.rewrite(again, erase, ["e1"])
            assert (await again.read(lambda conn, _: rows(conn))).value == without({0: past.state})[0]
            written = await again.write(put("more", b"1"), durability=Durability.DURABLE)
            assert await objects_with(node, uuid, MARK) == (
                set(),
                len((await manifest_of(store, again)).objects),
            )
            assert files_with(left, MARK) == []
        latest = await states(store, await manifest_of(store, again), tmp_path / "s", rows)
        assert {t: latest[t] for t in txids} == without(past.states)
        assert latest[written.txid] == {**without({0: past.state})[0], "more": b"1"}
        if not is_cut:
            break
    assert not is_cut, "some try went through"
    assert outcomes.count(False) > 5
    assert outcomes[-1]


class LosesReplies:
    """A store whose next conditional write lands, or does not, and is never answered."""

    def __init__(self, inner):
        self.inner, self.next = inner, None

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def put_if_match(self, key, data, etag):
        outcome, self.next = self.next, None
        if outcome is None or outcome:
            result = await self.inner.put_if_match(key, data, etag)
        if outcome is not None:
            raise StoreUnavailableError("no answer came")
        return result


@pytest.mark.parametrize("lands", [True, False])
async def test_swap_without_an_answer_ends_the_ownership_and_the_file_is_proven(tmp_path, lands):
    store = LosesReplies(MemoryStore())
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        branch, past = await small_past(node)
        await branch.owned.shipper.ship()
        epoch = branch.owned.epoch
        store.next = lands

        with pytest.raises(StoreUnavailableError):
            await node.rewriter.rewrite(branch, erase, ["e1"])

        state = without({0: past.state})[0] if lands else past.state
        assert (await branch.read(lambda conn, _: rows(conn))).value == state
        written = await branch.write(put("more", b"1"), durability=Durability.DURABLE)
        assert branch.owned.epoch > epoch
        await node.rewriter.rewrite(branch, erase, ["e1"])
        found = await states(store, await branch.manifests.load(), tmp_path / "s", rows)
        assert {t: found[t] for t in past.states} == without(past.states)
        assert found[written.txid] == {**without({0: past.state})[0], "more": b"1"}
        assert files_with(tmp_path / "node", MARK) == []


# ---- beside others


async def test_writes_reads_and_forks_go_on_beside_a_rewrite(node, tmp_path):
    branch, past = await small_past(node, rounds=40)
    services, uuid = node._services, branch.ref.database.uuid
    stop = asyncio.Event()

    async def write():
        n = 0
        while not stop.is_set():
            n += 1
            await past.put(f"w{n % 5}", b"%d" % n * 50)
            if n % 3 == 0:
                await branch.owned.shipper.ship()
            await asyncio.sleep(0.002)

    async def read():
        while not stop.is_set():
            seen = await branch.read(lambda conn, _: rows(conn), work=Work.HEAVY)
            assert seen.value["first" if "first" in seen.value else "k1"]
            await asyncio.sleep(0.001)

    async def fork():
        for n in range(5):
            await node.branches.create("p", f"f{n}")
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(work()) for work in (write, read)]
    forking = asyncio.create_task(fork())
    for n in range(5):
        await node.rewriter.rewrite(branch, erase, [f"e{n}"])
    await forking
    stop.set()
    await asyncio.gather(*tasks)
    await settled(branch)
    await rewrite_all(node, "p", erase, ["last"])

    found = await states(services.store, await branch.manifests.load(), tmp_path / "s", rows)
    assert found == without(past.states)
    assert (await objects_with(node, uuid, MARK))[0] == set()
    for n in range(5):
        standing = await (await node.profile("p", f"f{n}")).manifests.load()
        forked = await states(services.store, standing, tmp_path / "s", rows)
        assert forked == {t: state for t, state in found.items() if t <= standing.parent.txid}


async def test_rewind_that_began_before_brings_nothing_back(node, monkeypatch):
    branch, past = await small_past(node)
    secret = min(t for t, state in past.states.items() if "secret1" in state)
    restored, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args, **kwargs):
        made = await restore(*args, **kwargs)
        restored.set()
        await go_on.wait()
        return made

    monkeypatch.setattr(branching, "restore", slow)
    rewinding = asyncio.create_task(node.branches.rewind("p", "main", str(secret)))
    await restored.wait()
    await node.rewriter.rewrite(branch, erase, ["e1"])
    go_on.set()
    with pytest.raises(RetryableError, match="rewritten"):
        await rewinding

    await node.branches.rewind("p", "main", str(secret))
    assert (await branch.read(lambda conn, _: rows(conn))).value == without(past.states)[secret]
    await node.branches.undo_rewind("p", "main")
    assert (await branch.read(lambda conn, _: rows(conn))).value == without({0: past.state})[0]


async def test_deleted_branch_is_rewritten_before_it_comes_back(node, tmp_path):
    branch, past = await small_past(node)
    await node.branches.create("p", "gone")
    fork = await node.profile("p", "gone")
    await fork.write(put("secret9", MARK * 9), durability=Durability.DURABLE)
    await node.branches.delete("p", "gone")
    deleted = node.tiers.get(BranchRef(branch.ref.database, fork.branch_id, "gone"))

    await node.rewriter.rewrite(deleted, erase, ["e1"])
    again = await node.rewriter.rewrite(deleted, erase, ["e1"])

    assert again[2:] == (0, 0)
    await node.branches.undelete("p", "gone")
    back = await node.profile("p", "gone")
    assert (await back.read(lambda conn, _: rows(conn))).value == without({0: past.state})[0]
    assert (await registered(node, branch.ref.database.uuid))["gone"].erasures
    await node.rewriter.rewrite(branch, erase, ["e1"])
    assert (await objects_with(node, branch.ref.database.uuid, MARK))[0] == set()


async def test_what_was_written_so_far_is_kept_from_the_collector(node, monkeypatch):
    branch, _ = await small_past(node)
    monkeypatch.setattr(rewrite, "NOTE_S", -1.0)
    uuid, drafts = branch.ref.database.uuid, []
    update = branch.manifests.update

    async def watched(change):
        made = await update(change)
        if made.drafts:
            drafts.append(made)
        return made

    monkeypatch.setattr(branch.manifests, "update", watched)
    await node.rewriter.rewrite(branch, erase, ["e1"])

    archive = node._services.archive
    named = {ref for page in drafts[-1].drafts for ref in (await archive.page(uuid, page)).segments}
    after = await branch.manifests.load()
    assert set(after.segments) <= named | set(drafts[-1].segments)
    assert after.drafts == ()
    assert {layout.page_key(uuid, page) for page in drafts[-1].drafts} <= set(named_by_manifest(drafts[-1]))


async def test_what_a_rewrite_that_failed_has_written_is_let_go_of_by_the_next(node, monkeypatch):
    branch, _ = await small_past(node)
    monkeypatch.setattr(rewrite, "NOTE_S", -1.0)
    noted = []

    async def failing(*_):
        raise CorruptionError("no")

    monkeypatch.setattr(rewriting._Pass, "_made", failing)
    for _ in range(3):
        with pytest.raises(CorruptionError):
            await node.rewriter.rewrite(branch, erase, ["e1"])
        noted.append(len((await branch.manifests.load()).drafts))

    assert noted[0] > 0
    assert noted == noted[:1] * 3


async def test_erase_that_fails_changes_nothing(node, tmp_path):
    branch, past = await small_past(node)
    before = await branch.manifests.load()
    seen = []

    def failing(conn):
        seen.append(erase(conn))
        if len(seen) > 3:
            raise InvalidRequestError("no")
        return seen[-1]

    with pytest.raises(InvalidRequestError):
        await node.rewriter.rewrite(branch, failing, ["e1"])

    after = await branch.manifests.load()
    assert (after.segments, after.erasures) == (before.segments, ())
    await past.put("k", b"goes on")
    assert (await branch.read(lambda conn, _: rows(conn))).value == past.state


@pytest.mark.parametrize("first", ["read", "write"])
async def test_file_that_was_closed_before_another_node_rewrote_history_is_not_served(tmp_path, first):
    store = MemoryStore()
    async with node_on(tmp_path / "a", store, **BY_HAND) as node:
        branch, past = await small_past(node)
        await past.put("secret3", MARK)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "dbs")
    assert files_with(tmp_path / "a", MARK)
    async with node_on(tmp_path / "b", store, **BY_HAND) as node:
        await node.rewriter.rewrite(await node.profile("p"), erase, ["e1"])

    async with node_on(tmp_path / "a", store, **BY_HAND) as node:
        branch = await node.profile("p")
        if first == "write":
            await branch.write(put("more", b"1"), durability=Durability.DURABLE)
            await branch.write(put("more", b"2"), durability=Durability.DURABLE)
        seen = (await branch.read(lambda conn, _: rows(conn))).value
        assert {k: v for k, v in seen.items() if k != "more"} == without({0: past.state})[0]
        assert files_with(tmp_path / "a", MARK) == []
        found = await states(store, await manifest_of(store, branch), tmp_path / "s", rows)
    assert {t: found[t] for t in past.states} == without(past.states)
