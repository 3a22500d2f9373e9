"""Changes of the catalog's export: joined in any order, and objects joined before there are many."""

import random

import pytest

from memoturnd.core import export
from memoturnd.core.export import Entry, Stored
from memoturnd.errors import CorruptionError

DAY_MS = 24 * 3600 * 1000


def entry(change, id_="a", body=b'{"x":1}', at=0):
    return Entry(change, id_, body, at)


def joined(entries):
    state = {}
    export.join(state, entries)
    return state


def test_object_holds_what_was_put_in():
    entries = [entry(1), entry(2, "b", None, 7)]
    found = export.decode(export.encode(entries))
    assert [(e.change, e.id, e.body, e.at) for e in found] == [
        (1, "a", b'{"x":1}', 0),
        (2, "b", None, 7),
    ]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"entries":[[1]]}', b'{"entries":[["x","a",null,1]]}', b"\xff"]
)
def test_damaged_object_is_told(data):
    with pytest.raises(CorruptionError):
        export.decode(data)


def test_newer_object_is_refused():
    with pytest.raises(CorruptionError, match="newer"):
        export.decode(b'{"entries":[],"format":2}')


def test_order_repetition_and_partition_of_changes_do_not_matter():
    rng = random.Random(7)
    changes = [
        entry(n, rng.choice("abcde"), None if rng.random() < 0.4 else b'{"n":%d}' % n, n)
        for n in range(1, 60)
    ]
    expected = export.present(joined(changes))
    for _ in range(50):
        shuffled = rng.choices(changes, k=30) + rng.sample(changes, len(changes))
        cut = rng.randrange(len(shuffled))
        state = joined(joined(shuffled[:cut]).values())
        export.join(state, shuffled[cut:])
        assert export.present(state) == expected


def test_what_is_gone_is_remembered_for_a_day():
    state = joined([entry(1, "a"), entry(2, "b", None, at=1000)])
    assert len(export.without_old_ends(state, now_ms=1000 + DAY_MS - 1)) == 2
    assert [e.id for e in export.without_old_ends(state, now_ms=1000 + DAY_MS)] == ["a"]


def test_few_objects_are_left_alone_and_of_many_the_small_ones_are_joined():
    small = [Stored(f"s{n:03d}", 100) for n in range(64)]
    assert export.to_join(small) == ([], False)
    large = Stored("large", 1_000_000)
    taken, is_all = export.to_join([large, *small])
    assert (set(taken), is_all) == (set(small), False)
    assert export.to_join([*small, Stored("s999", 100)])[1]


def test_each_byte_is_written_anew_a_few_times_only():
    objects, written, number = [], 0, 0
    for _ in range(20_000):
        number += 1
        objects.append(Stored(f"{number:08d}", 100))
        taken, _ = export.to_join(objects)
        if taken:
            size = sum(stored.size_bytes for stored in taken)
            written += size
            number += 1
            objects = [o for o in objects if o not in taken] + [Stored(f"{number:08d}", size)]
        assert len(objects) <= export.OBJECTS_LIMIT
    assert written < 12 * 20_000 * 100


def test_full_objects_of_a_large_export_are_not_written_anew():
    full = [Stored(f"f{n:04d}", 800_000) for n in range(20_000)]
    small = [Stored(f"s{n:03d}", 100) for n in range(export.OBJECTS_LIMIT)]
    assert export.to_join([*full, *small]) == ([], False)
    taken, is_all = export.to_join([*full, *small, Stored("s999", 100)])
    assert set(taken) == {*small, Stored("s999", 100)}
    assert not is_all
