"""Compaction against long histories: nothing is lost, what a restore reads and what a manifest weighs stay small."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import compaction, manifest
from memoturnd.core.manifest import Manifest, ObjectRef, PageRef
from memoturnd.errors import FencedError

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
EPOCH = 3
BASE_BYTES = 100_000


class Chain:
    """A branch as its shipper and compactor change it, with its pages in a dict. Objects are names only."""

    def __init__(self, base_bytes=BASE_BYTES):
        new = Manifest(db="d1", branch_id="b1", branch="main", created_at=1)
        self.manifest = manifest.own(new, epoch=EPOCH, owner="token", start_txid=0)
        self.base_bytes = base_bytes
        self.pages = {}
        self.objects = 0
        self.written_bytes = 0
        self.txids = []

    def ref(self, prev, low, high, size_bytes, kind="segment"):
        self.objects += 1
        self.written_bytes += size_bytes
        return ObjectRef(
            kind=kind,
            branch="b1",
            prev=prev,
            min=low,
            max=high,
            epoch=EPOCH,
            hash=f"{self.objects:032d}",
            size_bytes=size_bytes,
            first_at=1000 + low,
            last_at=1000 + high,
            after=f"{high:016x}",
        )

    def ship(self, rounds=1, size_bytes=700, gap=0):
        head = self.manifest.head_txid
        low = head + 1 + gap
        refs = (self.ref(head, low, low + rounds - 1, size_bytes),)
        self.manifest = manifest.append_segments(self.manifest, refs, epoch=EPOCH)
        self.txids += range(low, low + rounds)

    def plan(self):
        """Return the change that a job would attach now, None where nothing is due."""
        current = self.manifest
        if compaction.snapshot_due(current):
            taken = self.ref(0, current.head_txid, current.head_txid, self.base_bytes, "snapshot")
            return lambda m: compaction.without_idle_snapshots(
                manifest.add_snapshot(m, (taken,), epoch=EPOCH)
            )
        found = compaction.choose_join(current)
        if found is not None:
            inputs = found.inputs
            size_bytes = sum(r.size_bytes for r in inputs)
            output = self.ref(inputs[0].prev, inputs[0].min, inputs[-1].max, size_bytes)
            return lambda m: compaction.joined(m, inputs, output, epoch=EPOCH)
        roll = compaction.choose_roll(current)
        if roll is not None:
            refs = (*roll.snapshots, *roll.segments)
            page = PageRef(
                "b1",
                min(r.min for r in refs),
                max(r.end for r in refs),
                f"{len(self.pages):032d}",
                1,
                len(refs),
                1,
                2,
            )
            self.pages[page.hash] = roll
            return lambda m: compaction.rolled(m, roll, page, epoch=EPOCH)
        return None

    def compact(self):
        for _ in range(100):
            change = self.plan()
            if change is None:
                return
            self.manifest = change(self.manifest)
        raise AssertionError("compaction does not come to rest")

    def whole(self):
        current = self.manifest
        for page in reversed(current.pages):
            roll = self.pages[page.hash]
            current = manifest.replace(
                current,
                pages=(),
                snapshots=roll.snapshots + current.snapshots,
                segments=roll.segments + current.segments,
            )
        return current

    def check(self, txids):
        assert manifest.decode(manifest.encode(self.manifest)) == self.manifest
        whole = self.whole()
        for txid in txids:
            plan = manifest.restore_plan(whole, txid)
            assert plan[0].is_base
            for before, after in itertools.pairwise(plan):
                assert after.prev <= before.end < after.end
            assert plan[-1].min <= txid <= plan[-1].end


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ship"), st.integers(1, 20), st.sampled_from([300, 9000, 200_000])),
        st.tuples(st.just("gap"), st.integers(1, 70_000), st.just(0)),
        st.tuples(st.sampled_from(["plan", "land", "compact"]), st.just(0), st.just(0)),
        st.tuples(st.just("ships"), st.integers(1, 60), st.just(500)),
    ),
    max_size=40,
)


@QUICK
@given(steps=STEPS, base_bytes=st.sampled_from([5_000, 100_000, 3_000_000]))
def test_every_txid_stays_restorable_whatever_lands_when(steps, base_bytes):
    chain, waiting = Chain(base_bytes), []
    for kind, n, size_bytes in steps:
        if kind == "ship":
            chain.ship(n, size_bytes)
        elif kind == "ships":
            for _ in range(n):
                chain.ship(1, size_bytes)
        elif kind == "gap":
            chain.ship(1, 100, gap=n)
        elif kind == "plan":
            waiting.append(chain.plan())
        elif kind == "land":
            for change in filter(None, waiting):
                chain.manifest = change(chain.manifest)
            waiting = []
        else:
            chain.compact()
        chain.check(chain.txids)
    unshipped = set(range(chain.manifest.head_txid + 2)) - set(chain.txids)
    for txid in itertools.islice(unshipped, 50):
        assert not manifest.contains(chain.whole(), txid)


@pytest.mark.parametrize("base_bytes", [20_000, 1_000_000, 50_000_000])
def test_a_long_life_leaves_the_manifest_small_and_a_restore_short(base_bytes):
    chain = Chain(base_bytes)
    longest = largest = 0
    for n in range(20_000):
        chain.ship(10, 700 + n % 300)
        chain.compact()
        if n % 50 == 0:
            longest = max(longest, len(manifest.restore_plan(chain.manifest, chain.manifest.head_txid)))
            largest = max(largest, len(manifest.encode(chain.manifest)))

    assert longest <= 12
    assert largest < 64 * 1024
    chain.check(range(1, 200_001, 997))
    live = len(chain.whole().objects) + len(chain.manifest.pages)
    assert live < 200
    assert chain.written_bytes < 40 * 20_000 * 850


def test_inputs_that_moved_leave_the_manifest_alone():
    chain = Chain()
    for _ in range(compaction.JOIN_SEGMENTS):
        chain.ship()
    change = chain.plan()
    landed = change(chain.manifest)
    assert len(landed.segments) < len(chain.manifest.segments)

    assert change(landed) is landed
    moved = manifest.replace(chain.manifest, segments=chain.manifest.segments[1:])
    assert change(moved) is moved
    with pytest.raises(FencedError):
        change(manifest.replace(chain.manifest, epoch=EPOCH + 1))


def test_a_fork_does_not_join_what_is_its_parents():
    chain = Chain()
    for _ in range(compaction.JOIN_SEGMENTS - 1):
        chain.ship()
    child = manifest.fork(
        chain.manifest,
        branch_id="b2",
        branch="fork",
        txid=4,
        head_at=1,
        head_checksum="0" * 16,
        created_at=1,
        expires_at=None,
    )

    assert compaction.choose_join(manifest.replace(child, segments=child.segments * 3)) is None


def test_snapshots_that_repeat_little_history_are_dropped():
    chain = Chain(base_bytes=1_000_000)
    for _ in range(3):
        for _ in range(200):
            chain.ship(1, 1000)
        taken = chain.ref(0, chain.manifest.head_txid, chain.manifest.head_txid, 1_000_000, "snapshot")
        chain.manifest = compaction.without_idle_snapshots(
            manifest.add_snapshot(chain.manifest, (taken,), epoch=EPOCH)
        )
        chain.check(chain.txids)

    assert [ref.max for ref in chain.manifest.snapshots] == [600]


def test_parts_of_a_snapshot_do_not_count_as_a_chain_that_is_behind():
    chain = Chain()
    chain.ship(1, 1000)
    whole = chain.ref(0, 1, 1, 1000, "snapshot")
    parts = tuple(
        manifest.replace(whole, hash=f"{n:032x}", first_page=n + 1, last_page=n + 1) for n in range(200)
    )

    assert not compaction.is_behind(manifest.add_snapshot(chain.manifest, parts, epoch=EPOCH))
    for _ in range(compaction.HEAD_ENTRIES):
        chain.ship()
    assert compaction.is_behind(chain.manifest)


def test_history_page_is_named_only_under_its_owners_epoch():
    chain = Chain()
    for _ in range(3 * compaction.PAGE_ENTRIES):
        chain.ship(1, 5_000_000)  # too large to be joined
    taken = chain.ref(0, chain.manifest.head_txid, chain.manifest.head_txid, 9, "snapshot")
    chain.manifest = manifest.add_snapshot(chain.manifest, (taken,), epoch=EPOCH)
    roll = compaction.choose_roll(chain.manifest)
    page = PageRef("b1", 1, roll.segments[-1].end, "ab", 1, 9, 1, 2)

    assert compaction.rolled(chain.manifest, roll, page, epoch=EPOCH).pages == (page,)
    with pytest.raises(FencedError):
        compaction.rolled(chain.manifest, roll, page, epoch=EPOCH + 1)
    with pytest.raises(FencedError):
        compaction.rolled(manifest.delete(chain.manifest, at_ms=1), roll, page, epoch=EPOCH)


def test_restore_of_the_head_reads_no_segment_across_its_snapshot():
    """What lies before the newest snapshot is joined too, but never with what comes after it."""
    chain = Chain(20_000)
    for n in range(2_000):
        chain.ship(3, 900 + n % 7)
        chain.compact()
        base, *after = manifest.restore_plan(chain.manifest, chain.manifest.head_txid)
        if base.kind == "snapshot":
            assert all(ref.min > base.end for ref in after)
    assert chain.manifest.snapshots
    assert len(chain.whole().segments) < 40


def test_many_rounds_alone_make_a_snapshot_due():
    chain = Chain()
    chain.ship(2_000, 100_000)

    assert compaction.snapshot_due(chain.manifest)
