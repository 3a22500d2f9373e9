"""Verification of a store with an object of every kind: damage is named, costs what is said, and nothing else."""

import asyncio
import random
from threading import Event

import apsw
import pytest
import ruins
from profiles import everything
from ruins import DAMAGE, KINDS

from memoturnd.core import layout, manifest, register
from memoturnd.core.revisions import AtTxid
from memoturnd.core.verification import Finding, Progress, is_lost
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError, CorruptionError, RetryableError, StoreUnavailableError
from memoturnd.replication import check, verify_states
from memoturnd.replication.archive import Archive
from memoturnd.replication.restore import restore
from memoturnd.replication.verify_states import States, inspect
from memoturnd.seams.executor import InlineExecutor
from memoturnd.seams.object_store import ObjectMissingError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return ruins.build(tmp_path_factory.mktemp("city") / "node")


@pytest.fixture
def city(built):
    return built.copied()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "states"
    made.mkdir()
    return made


def findings(events):
    return [event for event in events if isinstance(event, Finding)]


async def assert_costs_what_it_says(city, found, folder):
    """Restore what the findings say is lost, its neighbours and some others: each is the model's, or not to be had."""
    for branch in ("main", "own"):
        lost = [span for finding in found if finding.branch == branch for span in finding.lost]
        states = city.states[branch]
        edges = {t for a, b in lost for t in (a - 1, a, b, b + 1)}
        some = random.Random(5).sample(sorted(states), min(4, len(states)))
        for txid in sorted((edges | {min(states), max(states)} | set(some)) & set(states)):
            if is_lost(txid, lost):
                with pytest.raises((CorruptionError, ConflictError)):
                    await city.restored(branch, txid, folder)
            else:
                assert await city.restored(branch, txid, folder) == states[txid], (branch, txid)


# ---- whole


@pytest.mark.parametrize("deep", [False, True], ids=["sample", "deep"])
async def test_whole_database_is_clean(city, folder, deep):
    events, summary = await city.verified(folder, deep=deep)

    assert findings(events) == []
    assert summary.outcome == "clean"
    assert summary.unfinished == ()
    assert summary.branches == len(city.branches)
    named = len(city.keys()) - summary.unreachable_objects
    assert summary.objects + 1 == named, "every object that is named was read once, and the register"
    own = [txid for txid in city.states["own"] if txid > max(city.states["main"]) - 4]
    if deep:
        assert summary.states >= len(city.states["main"]) + len(own) - 1
    else:
        assert 4 < summary.states < len(city.states["main"])


async def test_verification_changes_nothing_in_the_store(city, folder):
    before = dict(city.store._objects)

    await city.verified(folder, deep=True)

    assert city.store._objects == before


async def test_one_branch_is_verified_alone(city, folder):
    city.write(city.examples["fork's segment"], b"x")

    events, summary = await city.verified(folder, branch="main")
    assert (summary.outcome, summary.branches, summary.unreachable_objects) == ("clean", 1, None)
    assert not findings(events)

    _, summary = await city.verified(folder, branch="own")
    assert (summary.outcome, summary.branches) == ("damaged", 1)


async def test_sample_is_drawn_again_by_its_seed(city, folder, monkeypatch):
    drawn = []
    one = States.one

    async def noted(self, chain, txid, size_bytes):
        drawn[-1].append((chain.branch, txid))
        return await one(self, chain, txid, size_bytes)

    monkeypatch.setattr(States, "one", noted)
    for seed in ("a", "a", "b"):
        drawn.append([])
        await city.verified(folder, seed=seed)

    assert drawn[0] == drawn[1] != drawn[2]
    assert ("main", max(city.states["main"])) in drawn[2]
    assert ("main", min(city.states["main"])) in drawn[2]


async def test_unreachable_objects_are_counted_and_are_no_damage(city, folder):
    _, before = await city.verified(folder)
    stray = f"{layout.branch_prefix(city.uuid, city.branches['main'])}segments/stray"
    city.write(stray, b"1234567")
    await asyncio.sleep(0.002)

    _, summary = await city.verified(folder)

    assert summary.outcome == "clean"
    assert summary.unreachable_objects == before.unreachable_objects + 1
    assert summary.unreachable_bytes == before.unreachable_bytes + 7


# ---- damage of every kind


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
async def test_any_damaged_object_is_named_and_costs_what_is_said(city, folder, kind, damage):
    key = city.examples[kind]
    damage(city, key)

    events, summary = await city.verified(folder)

    found = findings(events)
    assert {finding.key for finding in found} == {key}
    assert (summary.outcome, summary.damaged_objects, summary.unfinished) == ("damaged", 1, ())
    assert all(finding.what and finding.todo for finding in found)
    if kind in {"manifest", "fork's manifest"}:
        hurt = "main" if kind == "manifest" else "own"
        with pytest.raises((CorruptionError, ObjectMissingError)):
            manifest.decode_of((await city.store.get(key)).data, db=city.uuid, branch_id=city.branches[hurt])
        other = "own" if hurt == "main" else "main"
        assert (
            await city.restored(other, max(city.states[other]), folder)
            == city.states[other][max(city.states[other])]
        )
        return
    await assert_costs_what_it_says(city, found, folder)


@pytest.mark.parametrize("kind", KINDS)
async def test_deep_verification_names_the_damaged_object_and_goes_on_around_it(city, folder, kind):
    key = city.examples[kind]
    _, whole = await city.verified(folder, deep=True)
    ruins.flip_middle(city, key)

    events, summary = await city.verified(folder, deep=True)

    assert {finding.key for finding in findings(events)} == {key}
    lost = sum(
        is_lost(t, f.lost) for f in findings(events) if f.branch == "main" for t in city.states["main"]
    )
    if "manifest" not in kind:
        assert summary.states >= whole.states - 2 * lost - 8
        assert summary.states > 0


async def test_damage_of_several_objects_is_named_of_each(city, folder):
    kinds = ("segment", "snapshot part", "fork's segment", "run of pins", "register")
    for kind in kinds:
        ruins.flip_middle(city, city.examples[kind])

    events, summary = await city.verified(folder)

    assert {finding.key for finding in findings(events)} == {city.examples[kind] for kind in kinds}
    assert summary.damaged_objects == len(kinds)
    await assert_costs_what_it_says(city, findings(events), folder)


async def test_shared_object_is_told_of_in_every_branch_that_needs_it(city, folder):
    ruins.remove(city, city.examples["page"])

    events, summary = await city.verified(folder)

    told = {finding.branch for finding in findings(events)}
    assert {"main", "own", "f00", "f65"} <= told
    assert summary.damaged_objects == 1


# ---- what does not fit together, though every object is whole


def edited(city, branch, change):
    key = layout.manifest_key(city.uuid, city.branches[branch])
    city.write(key, manifest.encode(change(manifest.decode(city.data(key)))))
    return key


async def test_entry_that_says_something_else_than_its_object_is_told(city, folder):
    def later(current):
        wrong = manifest.replace(current.segments[0], first_at=current.segments[0].first_at - 1)
        return manifest.replace(current, segments=(wrong, *current.segments[1:]))

    edited(city, "main", later)
    events, _ = await city.verified(folder, branch="main")

    (found,) = findings(events)
    assert found.kind == "contradiction"
    assert "first_at" in found.what


async def test_head_that_is_not_the_chains_end_is_told(city, folder):
    key = edited(city, "main", lambda m: manifest.replace(m, head_checksum="0" * 16))
    events, _ = await city.verified(folder, branch="main")

    assert [(f.kind, f.key) for f in findings(events)] == [("contradiction", key)]
    assert "head" in findings(events)[0].what


async def test_checkpoint_of_a_state_that_never_was_is_told(city, folder):
    txid = max(city.states["main"]) + 5

    def named(current):
        return manifest.set_checkpoint(current, "ghost", manifest.Checkpoint(txid, 1))

    edited(city, "main", named)
    events, _ = await city.verified(folder, branch="main")

    (found,) = findings(events)
    assert found.kind == "unrestorable"
    assert "ghost" in found.what


async def test_snapshot_of_which_a_part_is_not_named_is_told(city, folder):
    def cut(current):
        newest = [ref for ref in current.snapshots if ref.first_page > 1]
        assert newest
        return manifest.replace(current, snapshots=tuple(r for r in current.snapshots if r != newest[0]))

    edited(city, "main", cut)
    events, summary = await city.verified(folder, branch="main")

    assert summary.outcome == "damaged"
    assert any("part" in finding.what or "checksum" in finding.what for finding in findings(events))


# ---- states


async def state_file(city, folder):
    """Restore main's head and return (its file, its txid)."""
    txid, path = max(city.states["main"]), folder / "head.db"
    archive = Archive(city.store)
    current = await archive.reaching(await city.chain("main"), txid)
    await restore(city.store, current, txid, path, executor=InlineExecutor(), fsync=False)
    return path, txid


@pytest.mark.parametrize("whole", [False, True])
async def test_restored_file_is_checked_by_sqlite_and_by_its_txid(city, folder, whole):
    path, txid = await state_file(city, folder)
    good = path.read_bytes()
    assert inspect(path, txid, Event(), whole=whole) is None

    assert "txid" in inspect(path, txid - 1, Event(), whole=whole)
    for page in range(2, len(good) // 4096):
        path.write_bytes(good[: page * 4096] + b"\xff" * 4096 + good[(page + 1) * 4096 :])
        assert "SQLite" in inspect(path, txid, Event(), whole=whole), page
    path.write_bytes(b"no database" * 1000)
    assert "SQLite" in inspect(path, txid, Event(), whole=whole)


async def test_check_ends_when_the_node_stops(city, folder):
    path, txid = await state_file(city, folder)
    stopping = Event()
    stopping.set()
    large = open_connection(str(path), read_only=False, sync="normal", cache_kib=64)
    large.execute("CREATE TABLE large(x)")
    large.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
        "INSERT INTO large SELECT i FROM n"
    )
    large.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    large.close()

    with pytest.raises(RetryableError, match="stopping"):
        inspect(path, txid, stopping, whole=True)


@pytest.mark.parametrize("deep", [False, True])
async def test_state_that_sqlite_finds_wrong_is_told_though_its_objects_are_whole(
    city, folder, monkeypatch, deep
):
    bad = max(city.states["main"])

    def finds(path, txid, stopping, *, whole):
        return "SQLite finds: a hole" if txid == bad else inspect(path, txid, stopping, whole=whole)

    monkeypatch.setattr(verify_states, "inspect", finds)
    events, summary = await city.verified(folder, branch="main", deep=deep)

    (found,) = findings(events)
    assert (found.kind, found.lost, summary.outcome) == ("unrestorable", ((bad, bad),), "damaged")
    assert "a hole" in found.what


# ---- a branch that moves on


class Moving:
    """A store in which something happens before a certain object is read for the first time."""

    def __init__(self, inner, key, happens):
        self.inner, self.key, self.happens = inner, key, happens

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def get_range(self, key, start, length):
        if key == self.key and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return await self.inner.get_range(key, start, length)


async def test_object_that_compaction_replaced_meanwhile_is_no_damage(city, folder):
    """The joined segment's inputs went from the manifest, and then from the store, while it was verified."""
    current = await city.chain("main")
    gone = current.segments[-1]
    key = layout.object_key(city.uuid, gone)
    other = manifest.replace(gone, branch="elsewhere")

    def moved():
        data = city.data(key)
        ruins.remove(city, key)
        city.write(layout.object_key(city.uuid, other), data)
        edited(
            city,
            "main",
            lambda m: manifest.replace(m, commit_id="next", segments=(*m.segments[:-1], other)),
        )

    events, summary = await city.verified(folder, branch="main", store=Moving(city.store, key, moved))

    assert findings(events) == []
    assert (summary.outcome, summary.branches) == ("clean", 1)


async def test_object_that_is_gone_though_the_branch_moved_on_is_damage(city, folder):
    current = await city.chain("main")
    key = layout.object_key(city.uuid, current.segments[-1])

    def moved():
        ruins.remove(city, key)
        edited(city, "main", lambda m: manifest.replace(m, commit_id="next"))

    events, _ = await city.verified(folder, branch="main", store=Moving(city.store, key, moved))

    assert {finding.key for finding in findings(events)} == {key}


async def test_branch_that_is_deleted_meanwhile_is_no_damage(city, folder):
    current = await city.chain("own")
    key = layout.object_key(city.uuid, current.segments[-1])

    def deleted():
        ruins.remove(city, key)
        ruins.remove(city, layout.manifest_key(city.uuid, city.branches["own"]))
        at = layout.register_key(city.uuid)
        known = register.decode(city.data(at))
        city.write(at, register.encode(register.remove_branch(known, "own", city.branches["own"])))

    events, summary = await city.verified(folder, store=Moving(city.store, key, deleted))

    assert findings(events) == []
    assert summary.branches == len(city.branches) - 1


async def test_store_that_fails_leaves_the_verification_unfinished(city, folder):
    class Failing(Moving):
        async def get_range(self, key, start, length):
            if key == self.key:
                raise StoreUnavailableError("the store is away")
            return await self.inner.get_range(key, start, length)

    failing = Failing(city.store, city.examples["joined segment"], None)
    events, summary = await city.verified(folder, store=failing)

    assert findings(events) == []
    assert summary.outcome == "unfinished"
    assert any("the store is away" in text for text in summary.unfinished)


# ---- large objects


async def test_large_objects_are_read_in_pieces_and_proven_all_the_same(city, folder, monkeypatch):
    monkeypatch.setattr(check, "PIECE_BYTES", 256)
    _, summary = await city.verified(folder)
    assert summary.outcome == "clean"
    key = city.examples["joined segment"]
    size_bytes = len(city.data(key))
    assert size_bytes > 3 * check.PIECE_BYTES

    for at in (0, 60, 200, size_bytes // 3, size_bytes // 2, size_bytes - 40, size_bytes - 1):
        one = city.copied()
        ruins._flip(one, key, at)
        events, _ = await one.verified(folder, branch="main")
        assert {finding.key for finding in findings(events)} == {key}, at
    for damage in (ruins.cut_off, ruins.lengthen, ruins.remove):
        one = city.copied()
        damage(one, key)
        events, _ = await one.verified(folder, branch="main")
        assert {finding.key for finding in findings(events)} == {key}, damage


async def test_progress_ends_at_all_that_was_known(city, folder, monkeypatch):
    monkeypatch.setattr("memoturnd.replication.ledger.PROGRESS_S", 0.0)

    events, _ = await city.verified(folder)

    steps = [event for event in events if isinstance(event, Progress)]
    assert [s.checked for s in steps] == sorted(s.checked for s in steps)
    assert all(s.checked <= s.of for s in steps)
    assert steps[-1].checked == steps[-1].of > 100


# ---- a node on what is left


HURT = ["segment", "joined segment", "thinned segment", "snapshot", "snapshot part", "page", "fork's segment"]


@pytest.mark.parametrize("kind", HURT)
async def test_node_serves_what_does_not_need_the_object_and_names_it_else(city, folder, tmp_path, kind):
    key = city.examples[kind]
    ruins.flip_middle(city, key)
    events, _ = await city.verified(folder)
    async with city.node(tmp_path / "node") as node:
        for branch in ("own", "main"):
            lost = [span for f in findings(events) if f.branch == branch for span in f.lost]
            txids = sorted(city.states[branch])
            needing = [txid for txid in txids if is_lost(txid, lost)]
            assert branch == "own" or "fork" in kind or needing
            for txid in needing:
                with pytest.raises(CorruptionError, match=key):
                    await (await node.past("p", branch, AtTxid(txid))).read(everything)
            for txid in set(txids) - set(needing):
                seen = await (await node.past("p", branch, AtTxid(txid))).read(everything)
                assert seen.value == city.states[branch][txid], "nothing wrong is ever shown"
        seen = await (await node.profile("p", "f00")).read(everything)
        at = (await city.chain("f00")).head_txid
        assert seen.value == city.states["main"][at]


@pytest.mark.parametrize("kind", ["run of checkpoints", "run of branches", "register", "manifest"])
async def test_node_names_the_document_to_who_needs_it_and_serves_the_rest(city, tmp_path, kind):
    key = city.examples[kind]
    ruins.flip_middle(city, key)
    head = max(city.states["own"])
    async with city.node(tmp_path / "node") as node:
        assert (await (await node.profile("p", "own")).read(everything)).value == city.states["own"][head]
        uses = {
            "run of checkpoints": lambda: node.branches.create("p", "new", at="early"),
            "manifest": lambda: node.branches.create("p", "new"),
        }
        use = uses.get(kind, lambda: node.branches.create("p", "new", from_branch="own"))
        with pytest.raises(CorruptionError, match=key):
            await use()
        if kind != "manifest":
            at = max(city.states["main"])
            assert (await (await node.profile("p")).read(everything)).value == city.states["main"][at]
