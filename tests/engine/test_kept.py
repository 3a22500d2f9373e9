import threading

import pytest

from memoturnd.engine.kept import Memory


class Item:
    def __init__(self, size_bytes):
        self.size_bytes = size_bytes


def test_what_was_used_least_recently_goes_first():
    evicted = []
    memory = Memory(100, evicted=lambda: evicted.append(1))
    first, second, third = (memory.open() for _ in range(3))
    assert first.keep(Item(40))
    assert second.keep(Item(40))

    assert first.keep(first.item)
    assert third.keep(Item(40))

    assert [kept.item is None for kept in (first, second, third)] == [False, True, False]
    assert (memory.size_bytes, len(memory), evicted) == (80, 2, [1])


def test_what_has_grown_is_counted_anew():
    memory = Memory(100)
    kept, item = memory.open(), Item(10)
    kept.keep(item)
    item.size_bytes = 60

    kept.keep(item)

    assert (memory.size_bytes, len(memory)) == (60, 1)


def test_what_is_beyond_the_bound_is_refused_and_others_stay():
    memory = Memory(100)
    other, large = memory.open(), memory.open()
    other.keep(Item(90))

    assert not large.keep(Item(101))

    assert large.refused
    assert (large.item, memory.size_bytes, len(memory)) == (None, 90, 1)
    assert not other.refused


def test_after_the_end_nothing_is_kept():
    memory = Memory(100)
    kept = memory.open()
    kept.keep(Item(10))

    kept.close()
    kept.close()

    assert not kept.keep(Item(10))
    assert (kept.item, kept.room_bytes, memory.size_bytes, len(memory)) == (None, 0, 0, 0)


@pytest.mark.parametrize("limit_bytes", [0, 50, 10**6])
def test_many_threads_leave_the_count_right(limit_bytes):
    memory = Memory(limit_bytes)
    opened = [memory.open() for _ in range(8)]

    def use(at):
        for n in range(300):
            opened[(at + n) % 8].keep(Item(n % 40))
            if n % 50 == 49:
                opened[at].close()

    threads = [threading.Thread(target=use, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    held = [kept.item.size_bytes for kept in opened if kept.item is not None]
    assert memory.size_bytes == sum(held) <= limit_bytes
    assert len(memory) == len(held)
    for kept in opened:
        kept.close()
    assert (memory.size_bytes, len(memory)) == (0, 0)


def test_parts_of_a_file_go_by_themselves_and_end_with_it():
    memory = Memory(100)
    kept = memory.open()
    first, second = kept.part("a"), kept.part("b")
    assert kept.part("a") is first
    kept.keep(Item(10))
    first.keep(Item(50))

    second.keep(Item(45))

    assert [place.item is None for place in (kept, first, second)] == [True, False, False]
    assert memory.size_bytes == 95
    kept.close()
    assert (memory.size_bytes, first.item, second.item) == (0, None, None)
    assert not first.keep(Item(1))
    assert not kept.part("new").keep(Item(1))
