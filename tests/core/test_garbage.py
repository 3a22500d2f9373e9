"""What is reachable in any family of branches, and what may be deleted of what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import garbage, layout
from memoturnd.core.garbage import Garbage, Listed, Mark, Survey, judge
from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import HistoryPage, Manifest, ObjectRef, PageRef
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.errors import CorruptionError

UUID = "0" * 32
PREFIX = layout.database_prefix(UUID)
GRACE_MS = 600_000
HEX = "0123456789abcdef"


def ids(size=16):
    return st.integers(0, 2**32).map(lambda n: f"{n:0{size}x}")


def refs():
    return st.builds(
        lambda kind, branch, txid, name: ObjectRef(
            kind, branch, txid - 1, txid, txid, 1, name, 1, 1, 1, "0" * 16
        ),
        st.sampled_from(["segment", "snapshot"]),
        ids(),
        st.integers(1, 1000),
        ids(32),
    )


def pages():
    return st.builds(PageRef, ids(), st.just(1), st.just(9), ids(32), *[st.just(1)] * 4)


def runs():
    return st.builds(RunRef, ids(), st.integers(1, 99), ids(32), st.just(1))


def manifests():
    some = {"max_size": 4}
    return st.builds(
        lambda branch_id, objects, pages, checkpoint_runs, pin_runs: Manifest(
            db=UUID,
            branch_id=branch_id,
            branch="b",
            created_at=1,
            segments=tuple(o for o in objects if o.kind == "segment"),
            snapshots=tuple(o for o in objects if o.kind == "snapshot"),
            pages=tuple(pages),
            checkpoint_runs=tuple(checkpoint_runs),
            pin_runs=tuple(pin_runs),
        ),
        ids(),
        st.lists(refs(), **some),
        st.lists(pages(), **some),
        st.lists(runs(), **some),
        st.lists(runs(), **some),
    )


@st.composite
def families(draw):
    """Return (keys that branches name, keys that nothing names) of a database with pages, runs and deleted branches."""
    known = draw(st.lists(manifests(), min_size=1, max_size=4, unique_by=lambda m: m.branch_id))
    held = {
        page: HistoryPage((), tuple(draw(st.lists(refs(), max_size=3)))) for m in known for page in m.pages
    }
    entries = [RegisteredBranch(m.branch_id, 1, deleted_at=draw(st.sampled_from([None, 5]))) for m in known]
    register = Register(
        uuid=UUID,
        name="a",
        created_at=1,
        branches={},
        branch_runs=tuple(draw(st.lists(runs().map(lambda r: RunRef("", r.count, r.hash, 1)), max_size=2))),
    )
    named = set(garbage.named_by_register(register, entries))
    for current in known:
        named |= set(garbage.named_by_manifest(current))
        for page in current.pages:
            named |= set(garbage.named_by_page(UUID, held[page]))
    others = draw(st.lists(refs().map(lambda r: layout.object_key(UUID, r)), max_size=6))
    return named, set(others) - named, known, held


@given(families())
def test_all_that_restores_need_is_named(family):
    named, _, known, held = family
    for current in known:
        assert layout.manifest_key(UUID, current.branch_id) in named
        objects = [*current.objects, *(r for page in current.pages for r in held[page].segments)]
        assert {layout.object_key(UUID, ref) for ref in objects} <= named
        assert {layout.page_key(UUID, page) for page in current.pages} <= named
        assert {layout.run_key(UUID, run, "pins") for run in current.pin_runs} <= named
        assert {layout.run_key(UUID, run, "checkpoints") for run in current.checkpoint_runs} <= named
    assert {layout.register_key(UUID), layout.garbage_key(UUID)} <= named


@given(families(), st.data())
def test_what_is_named_is_never_deleted_and_the_rest_only_after_two_marks_a_grace_apart(family, data):
    named, others, _, _ = family
    now_ms, stored_now_ms = 10 * GRACE_MS, data.draw(st.integers(0, 20 * GRACE_MS))
    everything = sorted(named | others)
    ages = data.draw(
        st.lists(st.integers(0, 3 * GRACE_MS), min_size=len(everything), max_size=len(everything))
    )
    listed = [Listed(key, 1, max(0, stored_now_ms - age)) for key, age in zip(everything, ages, strict=True)]
    marks = [
        Mark(
            now_ms - data.draw(st.integers(0, 2 * GRACE_MS)),
            max(0, stored_now_ms - data.draw(st.integers(0, 2 * GRACE_MS))),
            tuple(key.removeprefix(PREFIX) for key in keys),
        )
        for keys in data.draw(st.lists(st.lists(st.sampled_from(everything), max_size=4), max_size=3))
    ]

    verdict = judge(
        marks,
        listed,
        named,
        prefix=PREFIX,
        now_ms=now_ms,
        stored_now_ms=stored_now_ms,
        grace_ms=GRACE_MS,
    )

    for row in verdict.delete:
        assert row.key not in named
        assert stored_now_ms - row.modified_ms >= GRACE_MS
        assert any(
            row.key.removeprefix(PREFIX) in mark.keys
            and now_ms - mark.at >= GRACE_MS
            and stored_now_ms - mark.stored_at >= GRACE_MS > 0 < mark.stored_at
            for mark in marks
        )
    remembered = [PREFIX + key for mark in verdict.marks for key in mark.keys]
    assert len(remembered) == len(set(remembered))
    deleted = {row.key for row in verdict.delete}
    assert deleted.isdisjoint(remembered)
    assert deleted | set(remembered) == others, "what nobody names is either deleted or remembered"


def test_mark_keeps_its_time_and_gets_the_stores_time_once():
    first, second = Mark(5, 0, ("a",)), Mark(6, 7, ("b",))

    assert garbage.stored((first, second), 9) == (Mark(5, 9, ("a",)), second)


def test_rows_that_were_not_deleted_keep_their_marks():
    marks = (Mark(5, 6, ("a", "b")), Mark(7, 8, ("c",)))

    assert garbage.put_back(marks, [Listed(PREFIX + "b", 1, 1)], PREFIX) == (Mark(5, 6, ("b",)),)


@pytest.mark.parametrize(
    ("key", "writer"),
    [
        (f"{PREFIX}register/00000064-{'a' * 32}", ""),
        (f"{PREFIX}branches/b1/manifest.json", "b1"),
        (f"{PREFIX}branches/b1/segments/x", "b1"),
        (f"{PREFIX}branches/b1/pins/x", "b1"),
    ],
)
def test_objects_of_this_version_are_collectable_and_say_whose_they_are(key, writer):
    assert garbage.is_collectable(key)
    assert garbage.writer_of(key) == writer


@pytest.mark.parametrize(
    "key",
    [
        f"{PREFIX}database.json",
        f"{PREFIX}garbage.json",
        f"{PREFIX}branches/b1/blobs/x",
        f"{PREFIX}branches/b1/segments/x/y",
        f"{PREFIX}branches/b1",
        "v1/_catalog/changes/x.json",
        f"v2/{UUID}/branches/b1/segments/x",
    ],
)
def test_nothing_else_is_collectable(key):
    assert not garbage.is_collectable(key)


def test_memory_is_read_back_as_it_was_written():
    known = Garbage(db=UUID, commit_id="c", marks=(Mark(1, 2, ("branches/b/segments/x",)),))

    assert garbage.decode(garbage.encode(known)) == known


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":99,"db":"a"}', b'{"db":"a","marks":[{"at":-1}]}'])
def test_memory_that_is_cut_off_or_newer_is_refused(data):
    with pytest.raises(CorruptionError, match=r"garbage\.json"):
        garbage.decode(data)


def test_former_objects_are_unnamed_ones_of_old_commits_that_were_stored_by_then():
    folder = f"{PREFIX}branches/b1"

    def row(name, modified_ms):
        return Listed(f"{folder}/{name}", 1, modified_ms)

    old = row("segments/0000000000000001-0000000000000009-00000001-aa", 100)
    base = row("snapshots/0000000000000007-0000000000000007-00000001-bb", 100)
    newer_commits = row("segments/0000000000000011-0000000000000012-00000001-cc", 100)
    joined_since = row("segments/0000000000000001-0000000000000012-00000001-dd", 101)
    page = row("pages/0000000000000001-0000000000000009-ee", 100)
    unnamed = (old, base, newer_commits, joined_since, page)
    assert Survey((), unnamed, unnamed).former(10, 100) == [old, base]
    assert Survey((), unnamed, ()).former(10, 100) == []
