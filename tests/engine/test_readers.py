"""The reader connections of a branch: in parallel, bounded on the node, and out of the way of what changes the file."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest
from harness import node_on

from memoturnd.engine.connection import open_connection
from memoturnd.engine.readers import AT_ONCE, IdleReaders, Readers
from memoturnd.errors import ConflictError, FencedError, RetryableError
from memoturnd.seams.profile import Work
from memoturnd.stores.memory import MemoryStore


def put(conn, _now_ms):
    conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', 'k', 'v')")
    return None, True


def get(conn, _now_ms):
    return conn.execute("SELECT v FROM __memoturn_kv WHERE k = 'k'").get


class Meeting:
    """A read that waits for others of its kind, so that it ends only when so many run at the same time."""

    def __init__(self, reads, timeout_s=10):
        self.barrier = threading.Barrier(reads, timeout=timeout_s)
        self.conns = []

    def __call__(self, conn, _now_ms):
        self.conns.append(conn)
        self.barrier.wait()
        return conn.execute("SELECT v FROM __memoturn_kv").get


def open_files(folder):
    """Return how many descriptors are open on each kind of file below `folder`."""
    found = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found[target.rsplit("/", 1)[-1]] += 1
    return found


async def profile_on(node, name="a"):
    await node.databases.create(name)
    profile = await node.profile(name)
    await profile.write(put)
    return profile


async def test_reads_of_one_profile_run_at_the_same_time_and_beside_a_writer(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        engine, users = Meeting(AT_ONCE), Meeting(2)

        seen = await asyncio.gather(
            *(profile.read(engine, work=Work.HEAVY) for _ in range(AT_ONCE)),
            *(profile._read_in_pool(users, node._services.user_executor) for _ in range(2)),
            profile.write(put),
        )

        assert {answer.value for answer in seen[:-1]} == {"v"}
        assert len(set(map(id, engine.conns))) == AT_ONCE


async def test_a_read_beside_a_round_in_the_pool_sees_one_state_and_its_txid(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        inside, go = threading.Event(), threading.Event()

        def slow_write(conn, _now_ms):
            conn.execute("UPDATE __memoturn_kv SET v = 'new'")
            inside.set()
            assert go.wait(10)
            return None, True

        writing = asyncio.create_task(profile.write(slow_write, work=Work.HEAVY))
        await asyncio.to_thread(inside.wait, 10)
        during = await profile.read(get)
        go.set()
        written = await writing
        after = await profile.read(get)

        assert (during.value, during.txid) == ("v", written.txid - 1)
        assert (after.value, after.txid) == ("new", written.txid)


async def read_at_once(profile, reads=AT_ONCE):
    meeting = Meeting(reads)
    await asyncio.gather(*(profile.read(meeting, work=Work.HEAVY) for _ in range(reads)))


async def test_idle_connections_stay_for_the_next_read_and_are_bounded_on_the_node(tmp_path):
    async with node_on(tmp_path, MemoryStore(), WARM_AFTER_S="3600") as node:
        readers_of_node = node._services.readers
        readers_of_node._idle_limit = 4
        profiles = [await profile_on(node, f"p{n}") for n in range(4)]
        for _ in range(3):
            for profile in profiles:
                await read_at_once(profile)

        assert len(readers_of_node) == 4
        assert [len(profile._readers.idle) for profile in profiles] == [0, 0, 1, 3]
        # Each branch has its main connection and a reader; SQLite keeps the descriptors of all that there were.
        assert open_files(tmp_path)["main.db"] == 4 * 2 + readers_of_node.extra == 4 * (1 + AT_ONCE)

        readers_of_node.close_unused(node._services.clock.monotonic_s() + 1)
        assert [len(profile._readers.idle) for profile in profiles] == [0, 0, 0, 0]
        await profiles[0].close()
        assert readers_of_node.extra == 3 * (AT_ONCE - 1)
        assert open_files(tmp_path)["main.db"] == 3 * (1 + AT_ONCE)


async def test_beyond_what_the_node_may_open_reads_of_a_branch_wait_for_each_other(tmp_path):
    async with node_on(tmp_path, MemoryStore(), WARM_AFTER_S="3600") as node:
        readers_of_node = node._services.readers
        readers_of_node._extra_limit = 2
        first, second = [await profile_on(node, name) for name in "ab"]
        await read_at_once(first)
        assert readers_of_node.extra == 2

        apart = Meeting(2, timeout_s=0.2)
        met = await asyncio.gather(
            *(second.read(apart, work=Work.HEAVY) for _ in range(2)), return_exceptions=True
        )
        assert [type(error) for error in met] == [threading.BrokenBarrierError] * 2
        seen = await asyncio.gather(*(second.read(get, work=Work.HEAVY) for _ in range(20)))
        assert [answer.value for answer in seen] == ["v"] * 20
        assert second._readers.opened == 1

        await first.close()
        await read_at_once(second)
        assert readers_of_node.extra == 2


async def test_closing_a_branch_closes_its_readers(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        await read_at_once(profile)

        assert await profile.close()

        assert open_files(tmp_path / "dbs")["main.db"] == 0
        assert len(node._services.readers) == 0
        assert (await profile.read(get)).value == "v"


async def test_a_branch_with_a_read_in_the_pool_is_not_idle(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        go = threading.Event()
        reading = asyncio.create_task(profile.read(lambda conn, _: go.wait(10), work=Work.HEAVY))
        await asyncio.sleep(0.05)

        assert not profile.idle
        assert not await profile.close()
        go.set()
        await reading
        assert profile.idle


async def test_a_fence_waits_for_the_engines_reads_and_not_for_a_users(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        await node.branches.sync("a", "main")
        for work, waits in ((Work.HEAVY, True), (Work.USER, False)):
            inside, go = threading.Event(), threading.Event()

            def slow(conn, _now_ms, inside=inside, go=go):
                value = get(conn, 0)
                inside.set()
                assert go.wait(10)
                return value, get(conn, 0)

            executor = node._services.user_executor
            reading = asyncio.create_task(
                profile.read(slow, work=work) if waits else profile._read_in_pool(slow, executor)
            )
            await asyncio.to_thread(inside.wait, 10)
            profile.fenced(FencedError("a test says so"))
            writing = asyncio.create_task(profile.write(put))
            await asyncio.wait([writing], timeout=0.3)

            assert writing.done() is not waits
            go.set()
            assert (await reading).value == ("v", "v")
            await writing
        await read_at_once(profile, 2)
        assert len(profile._readers.idle) == 2


async def test_a_read_that_waited_for_its_thread_while_the_file_was_closed_is_to_be_sent_again(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        go = threading.Event()
        blocking = [asyncio.create_task(node._services.user_executor.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(profile._read_in_pool(get, node._services.user_executor))
        await asyncio.sleep(0.05)
        profile.fenced(FencedError("a test says so"))
        await profile.write(put)
        go.set()
        await asyncio.gather(*blocking)

        with pytest.raises(RetryableError, match="send it again"):
            await waiting
        assert (await profile.read(get, work=Work.HEAVY)).value == "v"


async def test_readers_under_transitions_of_every_kind_end_or_say_to_send_again(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        ended, stop = Counter(), False

        async def reads(work):
            while not stop:
                try:
                    seen = await profile.read(
                        lambda conn, _: conn.execute("SELECT sum(length(v)) FROM __memoturn_kv").get,
                        work=work,
                    )
                    assert seen.value == 1
                    ended["read"] += 1
                except (RetryableError, ConflictError):
                    ended["again"] += 1
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(reads(work)) for work in (Work.HEAVY, Work.HEAVY, Work.USER, Work.POINT)]
        for turn in range(30):
            await profile.write(put)
            await asyncio.sleep(0.01)
            if turn % 3 == 0:
                profile.fenced(FencedError("a test says so"))
            elif turn % 3 == 1:
                await profile.close()
            else:
                await node.branches.rewind("a", "main", str(profile.txid))
        stop = True
        await asyncio.gather(*tasks)

        assert ended["read"] > 100
        assert await profile.close()
        assert open_files(tmp_path / "dbs")["main.db"] == 0


def test_readers_used_from_many_threads_lose_no_connection(tmp_path):
    open_connection(str(tmp_path / "p.db"), read_only=False, sync="normal", cache_kib=64).close()
    readers_of_node = IdleReaders(extra_limit=2, idle_limit=2)
    several = [Readers(readers_of_node, lambda: 0.0) for _ in range(3)]

    def connect():
        return open_connection(str(tmp_path / "p.db"), read_only=True, sync="normal", cache_kib=64)

    def work(readers):
        for n in range(60):
            generation = readers.generation
            try:
                conn = readers.take(generation, connect)
            except RetryableError:
                continue
            assert conn.execute("SELECT 1").get == 1
            readers.give(conn, generation)
            if n % 20 == 19:
                readers.close()

    threads = [threading.Thread(target=work, args=(readers,)) for readers in several * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(readers_of_node) <= 2
    assert readers_of_node.extra <= 2
    assert sum(len(readers.idle) for readers in several) == len(readers_of_node)
    for readers in several:
        assert readers.opened == len(readers.idle)
        readers.close()
    assert readers_of_node.extra == 0
    assert not open_files(tmp_path)
