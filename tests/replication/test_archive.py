"""Large runs of names: what is done with them leaves the event loop to others."""

import threading

import pytest
from family import Family

from memoturnd.core import layout
from memoturnd.core.manifest import Checkpoint, replace
from memoturnd.errors import CorruptionError
from memoturnd.replication.archive import CHECKPOINTS, INLINE_BYTES, Archive
from memoturnd.seams.executor import PoolExecutor


class Watching(PoolExecutor):
    """A pool that remembers what ran in it, and that it was not the caller's thread."""

    ran = 0

    async def run(self, work):
        caller = threading.get_ident()

        def aside():
            assert threading.get_ident() != caller
            return work()

        self.ran += 1
        return await super().run(aside)


@pytest.fixture
def executor():
    executor = Watching(1)
    yield executor
    executor.close()


def checkpoints(first, count):
    return {f"c{n:06d}": Checkpoint(n, 1_790_000_000_000 + n) for n in range(first, first + count)}


async def flushed(archive, current, more):
    """The manifest after these checkpoints came and became a run."""
    current = replace(current, checkpoints=more)
    return (await archive.flush(CHECKPOINTS, current))(current)


async def made(executor, count):
    """A database with two runs' worth of checkpoints in one run, and its manifest."""
    family = await Family().begin()
    archive = Archive(family.store, executor=executor)
    current = await flushed(archive, await family.standing(), checkpoints(0, count))
    return family, archive, await flushed(archive, current, checkpoints(count, count))


async def test_large_run_is_joined_read_and_searched_in_the_executor(executor):
    family, _, current = await made(executor, 6_000)
    (run,) = current.checkpoint_runs
    assert run.size_bytes > INLINE_BYTES
    assert executor.ran == 1, "two runs became one"
    reading = Archive(family.store, executor=executor)

    assert await reading.find(CHECKPOINTS, current, "c000007") == Checkpoint(7, 1_790_000_000_007)
    assert executor.ran == 2, "it was decoded"
    assert await reading.all(CHECKPOINTS, current) == checkpoints(0, 12_000)
    assert executor.ran == 3, "its names were gathered"
    for txid in (8, 9_999):
        assert await reading.checkpoints_at(current, {txid}) == {txid: [f"c{txid:06d}"]}
    assert executor.ran == 4, "its names were found by txid, once"


async def test_small_run_is_worked_on_where_it_is_asked_for(executor):
    family, _, current = await made(executor, 100)
    reading = Archive(family.store, executor=executor)

    assert await reading.all(CHECKPOINTS, current) == checkpoints(0, 200)
    assert executor.ran == 0


async def test_damaged_large_run_is_named(executor):
    family, _, current = await made(executor, 6_000)
    key = layout.run_key(current.db, current.checkpoint_runs[0], "checkpoints")
    family.store._write(key, family.store._objects[key].blob.data[:-1])

    with pytest.raises(CorruptionError, match=key):
        await Archive(family.store, executor=executor).all(CHECKPOINTS, current)
