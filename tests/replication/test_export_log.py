"""The export of one kind in an object store, with several nodes at it at once."""

import asyncio
import contextlib
import itertools
import random

import pytest
from family import MovedClock

from memoturnd.core import export, layout
from memoturnd.core.export import Entry
from memoturnd.errors import StoreUnavailableError
from memoturnd.replication.export_log import ExportLog
from memoturnd.seams.clock import SystemRandomness
from memoturnd.stores.memory import MemoryStore

PREFIX = layout.catalog_export_prefix("token")


@pytest.fixture
def clock():
    return MovedClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def log_of(store, clock):
    def make(inner=None):
        return ExportLog(inner or store, "token", clock=clock, randomness=SystemRandomness())

    return make


def entry(change, id_, body=b"{}", at=0):
    return Entry(change, id_, body, at)


async def present(log):
    return set(export.present(await log.state()))


async def keys(store):
    return [info.key async for info in store.list(PREFIX)]


async def test_what_one_node_appends_another_sees_and_reads_once(store, log_of):
    writer, reader = log_of(), log_of()
    await writer.append([entry(1, "a")])
    assert await present(reader) == {"a"}
    gets, plain = [], store.get

    async def get(key):
        gets.append(key)
        return await plain(key)

    store.get = get
    assert await present(reader) == {"a"}
    assert gets == []
    await writer.append([entry(2, "b"), entry(3, "a", None)])
    assert await present(reader) == {"b"}
    assert len(gets) == 1


async def test_objects_are_joined_before_there_are_many_and_nothing_is_lost(store, log_of):
    log = log_of()
    for n in range(1000):
        await log.append([entry(n + 1, f"t{n}", None if n % 3 == 0 else b"{}")])
        await log.join_some()
        if n % 100 == 0:
            assert len(await keys(store)) <= export.OBJECTS_LIMIT + 1
    assert await present(log_of()) == {f"t{n}" for n in range(1000) if n % 3}


async def test_a_node_that_has_started_joins_what_others_left(store, log_of):
    for _ in range(export.OBJECTS_LIMIT + 5):
        await log_of().append([entry(1, "a")])
    log = log_of()
    await log.append([entry(2, "b")])
    assert await log.join_some() > 0
    assert len(await keys(store)) < export.OBJECTS_LIMIT


class Slow:
    """A store that lets others go first at every request, in an order that a seed draws."""

    def __init__(self, inner, seed):
        self._inner, self._rng = inner, random.Random(seed)

    async def _wait(self):
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)

    def __getattr__(self, name):
        async def request(*args):
            await self._wait()
            return await getattr(self._inner, name)(*args)

        return request

    async def list(self, prefix):
        await self._wait()
        async for info in self._inner.list(prefix):
            yield info


@pytest.mark.parametrize("seed", range(20))
async def test_many_nodes_append_join_and_read_at_once_and_nothing_is_lost(store, log_of, seed):
    numbers = itertools.count(1)
    expected = set()

    async def node(name):
        log = log_of(Slow(store, f"{seed}{name}"))
        for n in range(60):
            id_ = f"{name}{n}"
            await log.append([entry(next(numbers), id_)])
            expected.add(id_)
            if n % 4 == 3:
                gone = f"{name}{n - 2}"
                await log.append([entry(next(numbers), gone, None, at=store._clock.now_ms())])
                expected.discard(gone)
            await log.join_some()
            if n % 10 == 0:
                seen = await present(log)
                assert id_ in seen

    await asyncio.gather(*(node(name) for name in "abcd"))
    assert await present(log_of()) == expected
    assert len(await keys(store)) <= 2 * export.OBJECTS_LIMIT


@pytest.mark.parametrize("cut_at", range(1, 70, 3))
async def test_a_join_that_is_cut_off_loses_nothing(store, log_of, cut_at):
    for n in range(export.OBJECTS_LIMIT + 3):
        await log_of().append([entry(2 * n + 1, f"u{n}"), entry(2 * n + 1, f"t{n}")])
    gone = [
        entry(2 * n + 2, f"u{n}", None, at=store._clock.now_ms()) for n in range(export.OBJECTS_LIMIT + 3)
    ]
    await log_of().append(gone)
    requests = itertools.count(1)

    class Cut:
        def __getattr__(self, name):
            async def request(*args):
                if next(requests) > cut_at:
                    raise StoreUnavailableError("cut off")
                return await getattr(store, name)(*args)

            return request

        def list(self, prefix):
            return store.list(prefix)

    log = log_of(Cut())
    with contextlib.suppress(StoreUnavailableError):
        await log.append([entry(9999, "x")])
        await log.join_some()
    assert next(requests) > cut_at
    assert await present(log_of()) >= {f"t{n}" for n in range(export.OBJECTS_LIMIT + 3)}
    assert not await present(log_of()) & {f"u{n}" for n in range(export.OBJECTS_LIMIT + 3)}


async def test_damaged_object_is_left_where_it_is_and_out_of_what_is_read(store, log_of):
    await store.put(f"{PREFIX}0-damaged.json", b"{")
    for n in range(export.OBJECTS_LIMIT + 3):
        await log_of().append([entry(n + 1, f"t{n}")])
    log = log_of()
    assert len(await present(log)) == export.OBJECTS_LIMIT + 3
    assert log.damaged == {f"{PREFIX}0-damaged.json"}
    await log.append([entry(999, "x")])
    assert await log.join_some() > 0
    assert f"{PREFIX}0-damaged.json" in await keys(store)


async def test_what_is_gone_leaves_the_export_after_a_day(store, log_of, clock):
    log = log_of()
    for n in range(export.OBJECTS_LIMIT + 3):
        await log.append([entry(2 * n + 1, f"t{n}"), entry(2 * n + 2, f"t{n}", None, clock.now_ms())])
    clock.at_s += 2 * 24 * 3600
    await log.join_some()
    assert await keys(store) == []


async def test_a_large_export_is_left_alone_until_there_are_many_small_objects(store, log_of, monkeypatch):
    monkeypatch.setattr(export, "FULL_BYTES", 200)
    body = b'{"a":"' + b"x" * 300 + b'"}'
    log = log_of()
    for n in range(2 * export.OBJECTS_LIMIT):
        await log.append([entry(n + 1, f"full{n}", body)])
    assert await log.join_some() == 0
    listed, plain = [], store.list

    def list_(prefix):
        listed.append(prefix)
        return plain(prefix)

    store.list = list_
    assert await log.join_some() == 0
    assert listed == []
    for n in range(export.OBJECTS_LIMIT + 1):
        await log.append([entry(1000 + n, f"small{n}")])
    assert await log.join_some() == export.OBJECTS_LIMIT + 1
    assert len(await present(log_of())) == 3 * export.OBJECTS_LIMIT + 1
