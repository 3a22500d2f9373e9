"""Retention against a model: what is kept restores exactly, what is dropped says so, and nothing else changes."""

import asyncio
import random

import golden
import pytest
from harness import node_on
from profiles import BY_HAND

from memoturnd.core import compaction, manifest, retention, segment
from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.retention import Windows
from memoturnd.core.revisions import AtTime
from memoturnd.core.segment import Round
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError
from memoturnd.replication.join import Writer, join, thin
from memoturnd.replication.points import Window
from memoturnd.replication.restore import restore, round_entry
from memoturnd.replication.retention import Retention
from memoturnd.replication.revisions import resolve
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
WINDOWS = Windows(fine_ms=DAY_MS, coarse_ms=30 * DAY_MS, grain_ms=HOUR_MS)


class At(SystemClock):
    """A clock whose wall time stands where the test puts it."""

    def __init__(self, now_ms):
        self.at_ms = now_ms

    def now_ms(self):
        return self.at_ms


def put(key, value):
    def op(conn, _now_ms):
        conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', ?, ?)", (key, value))
        return None, True

    return op


class Life:
    """A branch with a long history, and the model of it."""

    def __init__(self, node, store, clock):
        self.node, self.store, self.clock = node, store, clock
        self.states = {}
        self.times = {}
        self.rng = random.Random(7)

    async def begin(self):
        await self.node.databases.create("p")
        self.branch = await self.node.profile("p")
        self.state = {}
        return self

    async def commit(self, hours=0.0):
        self.clock.at_ms += int(hours * HOUR_MS)
        key, value = f"k{self.rng.randrange(6)}", f"v{len(self.states)}" * self.rng.randrange(1, 200)
        written = await self.branch.write(put(key, value))
        self.state = {**self.state, key: value}
        self.states[written.txid] = self.state
        self.times[written.txid] = self.clock.at_ms

    async def ship(self):
        shipper = self.branch.owned.shipper
        await shipper.ship()
        while (job := shipper.compactor.running) is not None:
            await asyncio.wait([job])
            await shipper.ship()

    async def snapshot(self):
        await self.branch.owned.shipper.snapshot()

    @property
    def retention(self):
        services = self.node._services
        return Retention(
            services.store, services.archive, InlineExecutor(), self.clock, services.randomness, WINDOWS
        )

    async def apply(self):
        return await self.retention.apply(self.branch.manifests)

    async def kept(self, tmp_path):
        """Return the txids that restore, each checked against the model."""
        kept = []
        archive = self.node._services.archive
        current = await self.branch.manifests.load()
        assert manifest.decode(manifest.encode(current)) == current
        for txid, state in self.states.items():
            reaching = await archive.reaching(current, txid)
            path = tmp_path / "past.db"
            try:
                await restore(self.store, reaching, txid, path, executor=InlineExecutor(), fsync=False)
            except ConflictError:
                continue
            conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=256)
            assert conn.execute("PRAGMA integrity_check").get == "ok"
            assert dict(conn.execute("SELECT k, v FROM __memoturn_kv").fetchall()) == state, txid
            conn.close()
            for leftover in tmp_path.glob("past.db*"):
                leftover.unlink()
            assert (await round_entry(self.store, reaching, txid))[0] == self.times[txid]
            kept.append(txid)
        return kept


@pytest.fixture
async def life(tmp_path):
    store, clock = MemoryStore(), At(1_000 * DAY_MS)
    async with node_on(
        tmp_path / "node", store, clock=clock, MAINTENANCE_INTERVAL_S="2592000", **BY_HAND
    ) as node:
        yield await Life(node, store, clock).begin()


async def three_days(life):
    """Commit every ten minutes for three days, with checkpoints, ships and a snapshot a day; return the checkpoints."""
    named = {}
    for day in range(3):
        for n in range(144):
            await life.commit(hours=1 / 6)
            if n % 4 == 0:
                await life.ship()
            if n in {17, 90}:
                made = await life.node.branches.checkpoint("p", "main", f"d{day}-{n}")
                named[f"d{day}-{n}"] = made.txid
        await life.ship()
        await life.snapshot()
    return named


async def settle(life):
    due = await life.apply()
    while due == life.clock.at_ms:
        due = await life.apply()
    return due


@pytest.mark.parametrize("page_entries", [96, 6])
async def test_old_rounds_go_but_for_one_a_grain_and_those_that_have_a_name(
    life, tmp_path, monkeypatch, page_entries
):
    monkeypatch.setattr(compaction, "PAGE_ENTRIES", page_entries)
    named = await three_days(life)
    assert await life.kept(tmp_path) == list(life.states)
    before = await life.node._services.archive.whole(await life.branch.manifests.load())

    due = await settle(life)

    kept = set(await life.kept(tmp_path))
    fine_cut_ms = life.clock.at_ms - DAY_MS
    base = manifest.base_txid(await life.branch.manifests.load())
    for txid, at_ms in life.times.items():
        if at_ms > fine_cut_ms or txid > base:
            assert txid in kept, "inside the fine window every round stays"
    assert set(named.values()) <= kept
    hours = {at_ms // HOUR_MS for at_ms in life.times.values()}
    assert {life.times[txid] // HOUR_MS for txid in kept} == hours, "each hour keeps a state"
    old = [t for t in life.states if life.times[t] <= fine_cut_ms - 2 * HOUR_MS]
    assert len([t for t in old if t in kept]) < len(old) / 3
    assert due is not None
    assert due > life.clock.at_ms
    after = await life.branch.manifests.load()
    await settle(life)
    assert (await life.branch.manifests.load()) == after, "a second pass finds nothing to do"
    assert sum(page.entries for page in after.pages) <= retention.JOINED_PAGE_ENTRIES
    assert len(after.pages) <= 1, "pages with few entries left become one"
    whole = await life.node._services.archive.whole(after)
    assert sum(r.size_bytes for r in whole.segments) < sum(r.size_bytes for r in before.segments)


async def test_beyond_the_coarse_window_only_named_states_are_left(life, tmp_path):
    named = await three_days(life)
    await settle(life)
    life.clock.at_ms += 29 * DAY_MS + 12 * HOUR_MS  # the first day and a half are past it

    await settle(life)

    kept = await life.kept(tmp_path)
    floor_ms = life.clock.at_ms - 30 * DAY_MS
    gone = [t for t in kept if life.times[t] <= floor_ms - DAY_MS]
    assert set(named.values()) <= set(kept)
    assert len(gone) <= 2 + 4, "two checkpoints, and the ends of what was joined"
    life.clock.at_ms += 30 * DAY_MS
    for name in named:
        await life.node.branches.delete_checkpoint("p", "main", name)
    assert await settle(life) is None, "an idle branch has nothing left to do"
    kept = await life.kept(tmp_path)
    assert kept == [max(life.states)]
    whole = await life.node._services.archive.whole(await life.branch.manifests.load())
    assert len(whole.objects) == 1


async def test_live_branch_goes_on_through_retention(life, tmp_path):
    await three_days(life)
    for _ in range(5):
        apply = asyncio.create_task(settle(life))
        for _ in range(10):
            await life.commit(hours=0.5)
            await life.ship()
        await apply
    await life.snapshot()
    await settle(life)

    kept = set(await life.kept(tmp_path))
    fine_cut_ms = life.clock.at_ms - DAY_MS
    assert {t for t, at_ms in life.times.items() if at_ms > fine_cut_ms} <= kept


async def test_edit_is_dropped_where_a_base_or_an_input_has_gone(life):
    await three_days(life)
    seen = await life.branch.manifests.load()
    parts = [retention.Entries(None, seen.snapshots, seen.segments)]
    made = retention.plan(parts, (), life.clock.at_ms, WINDOWS, branch_id=seen.branch_id)
    (edit,) = made.edits
    assert edit.thins
    outputs = [(manifest.replace(thin.inputs[0], hash="ab" * 16),) for thin in edit.thins]

    def edited(current):
        return retention.edited(current, seen, edit, outputs, (), made.floor)

    assert edited(seen) != seen
    for moved in (
        manifest.replace(seen, segments=seen.segments[1:]),
        manifest.replace(seen, pages=(manifest.PageRef("b", 1, 1, "ab", 1, 1, 1, 1),)),
    ):
        assert edited(moved) is moved
    life.clock.at_ms += 29 * DAY_MS
    made = retention.plan(parts, (), life.clock.at_ms, WINDOWS, branch_id=seen.branch_id)
    (edit,) = made.edits
    outputs = [(manifest.replace(thin.inputs[0], hash="ab" * 16),) for thin in edit.thins]
    assert edit.dropped
    without_base = manifest.replace(
        seen, snapshots=tuple(r for r in seen.snapshots if r.end != made.floor.base)
    )
    assert edited(without_base) is without_base, "what is dropped relies on that snapshot"


async def test_what_a_fork_has_of_its_parent_is_not_copied(life):
    await three_days(life)
    await life.node.branches.create("p", "fork")
    fork = await life.node.profile("p", "fork")
    before = await fork.manifests.load(fresh=True)

    await life.retention.apply(fork.manifests)

    assert await fork.manifests.load() == before


class Counting:
    """Randomness that is the same in each test."""

    def __init__(self):
        self.calls = 0

    def hex(self, size_bytes):
        self.calls += 1
        return f"{self.calls:0{2 * size_bytes}x}"


def one_by_one(rounds):
    """Return (decoded segments, their entries), one for each round."""
    parts, refs, before, prev = [], [], 0, 0
    for round_ in rounds:
        data, name_hash = segment.encode(
            segment.Kind.SEGMENT, [round_], page_size=512, prev_txid=prev, epoch=3, checksum_before=before
        )
        refs.append(golden.object_ref("segment", [round_], prev, 3, "b1", len(data), name_hash))
        parts.append(segment.decode(data))
        before, prev = round_.checksum, round_.txid
    return parts, refs


def test_join_of_what_was_joined_is_the_same():
    """Joining is associative: rounds, times and checksums are those of the inputs."""
    made, _ = golden.rounds()
    parts, refs = one_by_one(made)

    def writer():
        return Writer("b1", 3, Counting())

    at_once = join(parts, refs, writer())
    first = join(parts[:2], refs[:2], writer())
    in_steps = join([segment.decode(first.data), *parts[2:]], [first.ref, *refs[2:]], writer())

    assert in_steps == at_once
    again = Counting()
    again.hex(16)
    assert join(parts, refs, Writer("b1", 3, again)).ref.hash != at_once.ref.hash, "no name is used twice"
    assert [r.at_ms for r in segment.decode(at_once.data).rounds] == [r.at_ms for r in made]
    assert (at_once.ref.first_at, at_once.ref.last_at) == (made[0].at_ms, made[-1].at_ms)


@pytest.mark.parametrize("days", [0, 3, 40])
async def test_states_that_are_listed_and_named_after_retention_are_those_that_restore(
    life, tmp_path, monkeypatch, days
):
    monkeypatch.setattr(compaction, "PAGE_ENTRIES", 6)
    await three_days(life)
    life.clock.at_ms += days * DAY_MS
    await life.commit()
    await life.ship()
    await settle(life)
    kept = await life.kept(tmp_path)
    assert len(kept) < len(life.states)
    archive, current = life.node._services.archive, await life.branch.manifests.load()

    listed = (await life.node.branches.restore_points("p", "main", Window(), 10_000, newest_first=False)).rows
    listed = [row for row in listed if row.txid in life.states]  # but for the commit that made the tables
    assert [(row.txid, row.at) for row in listed] == [(txid, life.times[txid]) for txid in kept]
    assert {row.txid for row in listed if row.kind == "checkpoint"} <= set(kept)
    for back in range(0, len(kept), 7):
        assert await resolve(archive, current, f"head~{back}") == kept[-1 - back]
    for txid, at_ms in life.times.items():
        at_or_before = [t for t in kept if life.times[t] <= at_ms]
        if txid in kept:
            assert await resolve(archive, current, str(txid)) == txid
        else:
            with pytest.raises(ConflictError, match="nearest"):
                await resolve(archive, current, str(txid))
        if at_or_before:
            assert await resolve(archive, current, AtTime(at_ms)) == at_or_before[-1]


async def test_pass_that_took_too_long_is_made_again(life, monkeypatch):
    await three_days(life)
    before = await life.branch.manifests.load()
    monkeypatch.setattr("memoturnd.replication.retention.REUSE_S", -1.0)

    assert await life.apply() == life.clock.at_ms, "due at once"
    assert await life.branch.manifests.load() == before

    monkeypatch.undo()
    assert await settle(life) != life.clock.at_ms
    assert await life.branch.manifests.load() != before


def test_plan_over_many_names_is_made_in_time_that_follows_their_number():
    """A hundred thousand checkpoints and a thousand segments: bisection, not a product of the two."""
    refs = [
        manifest.ObjectRef(
            "segment", "b1", 100 * n, 100 * n + 1, 100 * n + 100, 1, f"{n:032x}", 9_000_000, n, n, "0" * 16
        )
        for n in range(1_000)
    ]
    base = manifest.ObjectRef("snapshot", "b1", 0, 99_900, 99_900, 1, "ab", 9, 999, 999, "0" * 16)
    parts = [retention.Entries(None, (base,), tuple(refs))]

    made = retention.plan(parts, range(1, 100_001), 10**12, Windows(1, 2, 1), branch_id="b1")

    assert made.floor == (99_900, 0)
    assert all(len(one.keep) <= 200 for one in made.edits[0].thins), "each has the names in its own range"


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([], []),
        ([96] * 9, [4, 4, 1]),
        ([1] * 400, [384, 16]),
        ([500, 3, 500], [1, 1, 1]),
        ([383, 1, 1], [2, 1]),
    ],
)
def test_neighbouring_pages_are_joined_up_to_their_bound(counts, groups):
    made = retention.joinable_pages(counts)

    assert [len(group) for group in made] == groups
    assert [number for group in made for number in group] == list(range(len(counts)))


def test_page_that_a_dropped_round_cut_off_is_not_kept():
    """A file that shrinks and grows again without writing a page of its middle; only its last round is kept."""
    hashes, made = PageHashes(), []
    for step, (numbers, size) in enumerate([((1, 2, 3, 4, 5), 5), ((2,), 3), ((2, 5), 5)]):
        images = {n: golden.page(n, step + 1) for n in numbers}
        sums = {n: page_hash(n, image) for n, image in images.items()}
        made.append(Round(1 + step, 1_000 + step, hashes.apply(sums, size), size, images, sums))
    parts, refs = one_by_one(made)

    (output,) = thin(parts, retention.Thin(tuple(refs), frozenset(), 0, 2**50), Writer("b1", 3, Counting()))

    decoded = segment.decode(output.data)
    assert [(r.txid, r.checksum, r.db_size_pages) for r in decoded.rounds] == [(3, made[-1].checksum, 5)]
    assert PageHashes().apply(dict(decoded.pages), 5) == made[-1].checksum
