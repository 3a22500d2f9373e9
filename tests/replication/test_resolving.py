"""Revisions against histories of every shape: which txid they name, and how little is read to find it."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoturnd.core.manifest import (
    Checkpoint,
    Manifest,
    ObjectRef,
    delete_checkpoint,
    replace,
    set_checkpoint,
)
from memoturnd.core.revisions import AtTime, AtTxid, BeforeHead, rfc3339
from memoturnd.core.segment import RoundEntry
from memoturnd.errors import BranchNotFoundError, ConflictError
from memoturnd.replication.archive import CHECKPOINTS, Archive, update_names
from memoturnd.replication.points import Window, points
from memoturnd.replication.revisions import resolve
from memoturnd.stores.faulty import FaultyStore
from memoturnd.stores.memory import MemoryStore

_MINE = "0" * 16


class Tables(Archive):
    """An archive whose round tables are the test's, and counted."""

    def __init__(self, store, tables):
        super().__init__(store)
        self.tables = tables
        self.read = 0

    async def rounds(self, uuid, ref):
        self.read += 1
        return self.tables[ref.hash]


@dataclass
class History:
    """A branch's history as a manifest tells it, and the commits that it can restore: txid to wall time."""

    store: FaultyStore
    current: Manifest
    tables: dict[str, tuple[RoundEntry, ...]]
    kept: dict[int, int] = field(default_factory=dict)
    whole: frozenset[int] = frozenset()

    def archive(self):
        self.store.counts.clear()
        return Tables(self.store, self.tables)


@st.composite
def plans(draw):
    """Objects as lists of (txid, wall time, kept), and what is done to them."""
    txid, at_ms, objects = 0, 1_000_000, []
    for _ in range(draw(st.integers(1, 9))):
        rounds = []
        txid += draw(st.sampled_from([1, 1, 1, 70]))  # a new owner may jump ahead
        for number in range(draw(st.integers(1, 5))):
            txid += number > 0
            at_ms += draw(st.sampled_from([0, 0, 1, 1000]))
            rounds.append((txid, at_ms, draw(st.booleans())))
        if draw(st.booleans()):  # nothing was thinned
            rounds = [(t, at, True) for t, at, _ in rounds]
        rounds[-1] = (*rounds[-1][:2], True)
        objects.append(rounds)
    dropped = draw(st.integers(0, len(objects) - 1))
    return {
        "objects": objects,
        "dropped": dropped,
        "bare": draw(st.booleans()),
        "snapshots": draw(st.lists(st.integers(0, len(objects) - 1), max_size=3)),
        "inside": draw(st.lists(st.tuples(st.integers(0, len(objects) - 1), st.integers(0, 3)), max_size=2)),
        "pages": sorted(draw(st.lists(st.integers(1, len(objects)), max_size=3, unique=True))),
        "upto": draw(st.booleans()),
        "late": draw(st.booleans()),
    }


def ref(kind, rounds, prev, number, *, kept):
    return ObjectRef(
        kind=kind, branch=_MINE, prev=prev, min=rounds[0][0], max=rounds[-1][0], epoch=1, hash=f"{kind[:2]}{number}",
        size_bytes=1, first_at=rounds[0][1], last_at=rounds[-1][1], after="0" * 16, rounds=len(kept),
    )  # fmt: skip


async def build(plan):
    """Return the history that a plan describes."""
    objects, dropped = plan["objects"], plan["dropped"]
    tables, entries, prev, kept = {}, [], 0, {}
    for number, rounds in enumerate(objects):
        stay = [r for r in rounds if r[2]]
        segment = ref("segment", rounds, prev, number, kept=stay)
        tables[segment.hash] = tuple(RoundEntry(t, at, 0, 1, 1) for t, at, _ in stay)
        prev = segment.max
        snapshots = []
        floor = dropped - (not plan["bare"])  # retention keeps a base below what it keeps
        older = number < floor and plan["bare"]
        if not older and number >= dropped:  # of a state whose round may have been thinned
            for inside in sorted({r for n, r in plan["inside"] if n == number and r < len(rounds) - 1}):
                at = rounds[inside : inside + 1]
                snapshots.append(ref("snapshot", at, 0, f"{number}-{inside}", kept=at))
        if (number in plan["snapshots"] and not older) or (dropped and number == floor):
            snapshots.append(ref("snapshot", rounds[-1:], 0, number, kept=rounds[-1:]))
        entries.append((segment if number >= dropped else None, snapshots))
        kept |= {s.end: s.last_at for s in snapshots}
        kept |= {t: at for t, at, _ in stay} if number >= dropped else {}
    last = entries[-1][0]
    if plan["upto"] and len(objects[-1]) > 1:
        had = sorted(t for t in kept if last.min <= t <= last.max)
        if len(had) > 1:  # the head of a fork is any state that the parent has
            end = had[-2]
            last = replace(last, upto=end)
            entries[-1] = (last, [s for s in entries[-1][1] if s.end <= end])
            kept = {t: at for t, at in kept.items() if t <= end}
    base = 0 if dropped == 0 else min((s.end for _, ss in entries for s in ss), default=1 << 62)
    kept = {t: at for t, at in kept.items() if t >= base}
    store = FaultyStore(MemoryStore(), None)
    pages, first = [], 0
    for end in [p for p in plan["pages"] if p < len(objects)]:
        if plan["late"] and entries[end - 1][0] is not None:  # the page was written before the snapshot
            last_of_page, standing = entries[end - 1]
            late = [s for s in standing if s.end == last_of_page.max]
            entries[end - 1] = (last_of_page, [s for s in standing if s not in late])
            entries[end] = (entries[end][0], late + entries[end][1])
        part = entries[first:end]
        segments = tuple(s for s, _ in part if s is not None)
        snapshots = tuple(s for _, ss in part for s in ss)
        if segments or snapshots:
            pages.append(await Archive(store).write_page("d" * 32, _MINE, snapshots, segments))
        first = end
    own = entries[first:]
    current = Manifest(
        db="d" * 32, branch_id=_MINE, branch="main", created_at=1, head_txid=last.end,
        head_at={t: at for t, at, _ in objects[-1]}[last.end], txid_ceiling=last.end,
        pages=tuple(pages), segments=tuple(s for s, _ in own if s is not None),
        snapshots=tuple(s for _, ss in own for s in ss),
    )  # fmt: skip
    whole = frozenset(ref.end for _, snapshots in entries for ref in snapshots)
    return History(store, current, tables, kept, whole)


many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(plans())
async def test_time_is_the_newest_commit_at_or_before_it(plan):
    history = await build(plan)
    for at_ms in {at + change for rounds in plan["objects"] for _, at, _ in rounds for change in (-1, 0, 1)}:
        wanted = [t for t, at in history.kept.items() if at <= at_ms]
        archive = history.archive()
        if at_ms >= history.current.head_at:
            assert await resolve(archive, history.current, AtTime(at_ms)) == history.current.head_txid
        elif wanted:
            assert await resolve(archive, history.current, AtTime(at_ms)) == max(wanted)
        else:
            with pytest.raises(ConflictError, match="no commit at or before"):
                await resolve(archive, history.current, AtTime(at_ms))


@many
@given(plans())
async def test_rounds_before_the_head_are_counted_over_what_is_kept(plan):
    history = await build(plan)
    newest_first = sorted(history.kept, reverse=True)
    for rounds in range(len(newest_first) + 2):
        archive = history.archive()
        if rounds == 0:
            assert await resolve(archive, history.current, "head") == history.current.head_txid
        elif rounds < len(newest_first):
            assert await resolve(archive, history.current, f"head~{rounds}") == newest_first[rounds]
        else:
            with pytest.raises(ConflictError, match=f"no {rounds} commits before"):
                await resolve(archive, history.current, BeforeHead(rounds))


@many
@given(plans())
async def test_txid_is_itself_or_refused_with_its_neighbours(plan):
    history = await build(plan)
    head = history.current.head_txid
    for txid in {t + change for rounds in plan["objects"] for t, _, _ in rounds for change in (-1, 0, 1)} | {
        0
    }:
        archive = history.archive()
        if txid in history.kept:
            assert await resolve(archive, history.current, str(txid)) == txid
            continue
        with pytest.raises(ConflictError) as refused:
            await resolve(archive, history.current, AtTxid(txid))
        below = [t for t in history.kept if t < txid]
        above = [t for t in history.kept if t > txid]
        assert (f"txid {max(below, default=-1)} below it" in str(refused.value)) is bool(below)
        assert (f"txid {min(above, default=-1)} above it" in str(refused.value)) is bool(above)
        assert txid > 0 or head > 0


@many
@given(plans(), st.integers(1, 4), st.booleans())
async def test_points_come_page_by_page_in_either_order(plan, size, newest_first):
    history = await build(plan)
    window, found = Window(), []
    while True:
        page = await points(history.archive(), history.current, window, size, newest_first=newest_first)
        found += page
        if len(page) < size:
            break
        last = page[-1].txid
        window = Window(below=last) if newest_first else Window(above=last)

    assert [(p.txid, p.at_ms) for p in found] == sorted(history.kept.items(), reverse=newest_first)
    assert {p.txid for p in found if p.is_snapshot} == history.whole & history.kept.keys()


@many
@given(plans(), st.integers(999_990, 1_012_000), st.integers(0, 6000))
async def test_points_of_a_span_of_time(plan, since_ms, length_ms):
    history = await build(plan)
    window = Window(since_ms=since_ms, until_ms=since_ms + length_ms)

    found = await points(history.archive(), history.current, window, 1000)

    wanted = {t: at for t, at in history.kept.items() if since_ms <= at <= since_ms + length_ms}
    assert {p.txid: p.at_ms for p in found} == wanted


async def test_time_in_a_long_history_reads_one_page_and_one_table():
    objects = [[(20 * n + i, 1000 * (20 * n + i), True) for i in range(20)] for n in range(1, 501)]
    plan = {
        "objects": objects, "dropped": 0, "bare": True, "snapshots": [], "pages": list(range(10, 500, 10)),
        "upto": False, "late": False, "inside": [],
    }  # fmt: skip
    history = await build(plan)
    for at_ms in (25_500, 5_000_500, 9_990_000, 10_019_000 - 1):
        archive = history.archive()

        assert await resolve(archive, history.current, AtTime(at_ms)) == at_ms // 1000
        assert (archive.read, history.store.counts["get"] <= 1) == (1, True)


async def test_txid_in_a_long_history_reads_the_pages_from_its_base_on_only():
    objects = [[(n, 1000 * n, True)] for n in range(1, 501)]
    plan = {
        "objects": objects, "dropped": 0, "bare": True, "snapshots": [204], "pages": list(range(10, 500, 10)),
        "upto": False, "late": False, "inside": [],
    }  # fmt: skip
    history = await build(plan)
    archive = history.archive()

    assert await resolve(archive, history.current, "207") == 207
    assert (archive.read, history.store.counts["get"]) == (0, 1)


async def test_branch_without_a_commit_stands_at_0_at_any_time():
    current = Manifest(db="d" * 32, branch_id=_MINE, branch="main", created_at=1)
    archive = Archive(MemoryStore())

    for revision in ("head", "0", "1790000000000", "1990-01-01T00:00:00Z"):
        assert await resolve(archive, current, revision) == 0
    for revision in ("1", "head~1"):
        with pytest.raises(ConflictError, match="nothing was committed"):
            await resolve(archive, current, revision)


async def test_checkpoint_names_its_txid_while_that_can_be_restored():
    history = await build({
        "objects": [[(1, 1000, True), (2, 2000, False), (3, 3000, True)]], "dropped": 0, "bare": True,
        "snapshots": [], "pages": [], "upto": False, "late": False, "inside": [],
    })  # fmt: skip
    current = replace(history.current, checkpoints={"good": Checkpoint(1, 1), "thinned": Checkpoint(2, 1)})

    assert await resolve(history.archive(), current, "good") == 1
    with pytest.raises(
        ConflictError, match=r"checkpoint 'thinned', txid 2, .*txid 1 below it, txid 3 above it"
    ):
        await resolve(history.archive(), current, "thinned")
    with pytest.raises(BranchNotFoundError, match="no checkpoint 'other'"):
        await resolve(history.archive(), current, "other")


async def test_refusal_of_a_time_names_the_oldest_commit():
    history = await build({
        "objects": [[(7, 5_000_000, True)]], "dropped": 0, "bare": True, "snapshots": [], "pages": [], "upto": False, "late": False, "inside": [],
    })  # fmt: skip

    with pytest.raises(ConflictError, match=f"oldest is txid 7 of {rfc3339(5_000_000)}"):
        await resolve(history.archive(), history.current, "1970-01-01T00:00:01Z")


class Kept:
    """A document that update_names changes, without a store in between."""

    def __init__(self, document):
        self.document = document

    async def load(self):
        return self.document

    async def update(self, transition):
        self.document = transition(self.document)
        return self.document


async def test_checkpoints_are_found_by_txid_wherever_their_names_lie():
    chance = random.Random(7)
    archive = Archive(MemoryStore())
    file = Kept(Manifest(db="d" * 32, branch_id=_MINE, branch="main", created_at=1))
    most_runs = 0
    for number in range(1200):
        name = f"c{chance.randrange(600)}"
        if chance.random() < 0.9:
            point = Checkpoint(chance.randrange(40), 1)
            await update_names(archive, CHECKPOINTS, file, lambda m, n=name, p=point: set_checkpoint(m, n, p))
        else:
            await update_names(archive, CHECKPOINTS, file, lambda m, n=name: delete_checkpoint(m, n))
        most_runs = max(most_runs, len(file.document.checkpoint_runs))
        if number % 7:
            continue
        asked = {chance.randrange(40) for _ in range(8)}
        found = await archive.checkpoints_at(file.document, asked)

        wanted = {}
        for other, checkpoint in (await archive.all(CHECKPOINTS, file.document)).items():
            if checkpoint.txid in asked:
                wanted.setdefault(checkpoint.txid, []).append(other)
        assert {t: sorted(ns) for t, ns in found.items()} == {t: sorted(ns) for t, ns in wanted.items()}
    assert most_runs > 1
