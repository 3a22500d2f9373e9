import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memoturnd.errors import ConfigurationError, FencedError, NotOwnerError
from memoturnd.leases import file_table
from memoturnd.leases.file_watch import FileWatch
from memoturnd.leases.files import FileLeases, Unshipped
from memoturnd.seams.clock import SystemRandomness
from memoturnd.seams.leases import Lease, LiveNode, NodeLeft, Owner, Placed, Placements, SyncSet

SCRIPT = Path(__file__).with_name("lease_process.py")


@pytest.fixture
async def open_leases(tmp_path):
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(node_id: str, **more) -> FileLeases:
            leases = await FileLeases.open(
                tmp_path, node_id, f"http://{node_id}:1", randomness=SystemRandomness(), **more
            )
            stack.push_async_callback(leases.close)
            return leases

        yield open_one


@pytest.fixture
def start(tmp_path):
    """Starts processes that hold leases, and ends them."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_one(node_id: str, branches: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "hold", str(tmp_path), node_id, str(branches)], stdout=subprocess.PIPE
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_until_held(process: subprocess.Popen[bytes]) -> dict[str, int]:
    epochs = {}
    assert process.stdout is not None
    while (line := process.stdout.readline()) != b"ready\n":
        epoch, name = line.split()
        epochs[name.decode()] = int(epoch)
    return epochs


async def test_branch_of_a_killed_process_can_be_taken_at_once(open_leases, start):
    b = await open_leases("b")
    process = start("a", 3)
    epochs = wait_until_held(process)
    with pytest.raises(NotOwnerError) as refused:
        await b.acquire("branch0")
    assert refused.value.owner == Owner("a", "http://a:1", epochs["branch0"])

    process.kill()
    process.wait()

    assert await b.owner_of("branch0") is None
    assert (await b.acquire("branch0")).epoch > max(epochs.values())
    assert await b.live_nodes() == (LiveNode("b", "http://b:1"),)


async def test_branch_of_a_stopped_process_cannot_be_taken(open_leases, start):
    b = await open_leases("b")
    process = start("a", 1)
    wait_until_held(process)

    process.send_signal(signal.SIGSTOP)

    with pytest.raises(NotOwnerError):
        await b.acquire("branch0")
    assert (await b.owner_of("branch0")).node_id == "a"
    assert [node.node_id for node in await b.live_nodes()] == ["a", "b"]


async def test_two_processes_of_one_identity_refuse_to_run(open_leases, start, monkeypatch):
    monkeypatch.setattr("memoturnd.leases.files._TAKE_TIMES", 5)
    process = start("a", 1)
    wait_until_held(process)

    with pytest.raises(ConfigurationError, match="a node a runs already"):
        await open_leases("a")

    process.kill()
    process.wait()
    await open_leases("a")


async def test_looking_at_a_node_does_not_keep_it_from_starting(open_leases, tmp_path):
    b = await open_leases("b")
    locks = file_table.NodeLocks(tmp_path)
    looked = os.open(tmp_path / "nodes" / "a", os.O_RDWR | os.O_CREAT)
    fcntl.flock(looked, fcntl.LOCK_SH)
    starting = asyncio.create_task(open_leases("a"))
    await asyncio.sleep(0.02)
    assert not starting.done()
    os.close(looked)

    await starting
    assert locks.is_alive("a")
    assert len(await b.live_nodes()) == 2


async def test_node_that_starts_gets_what_it_has_not_shipped_but_what_another_took(open_leases, start):
    process = start("a", 3)
    wait_until_held(process)
    process.kill()
    process.wait()
    b = await open_leases("b")
    taken = await b.acquire("branch1")

    unshipped = [Unshipped("branch1", "t/x", "main"), Unshipped("branch2", "t/y", "main")]
    a = await open_leases("a", unshipped=unshipped)

    assert await b.owner_of("branch0") is None
    assert b.holds(taken)
    assert (await a.owner_of("branch1")).node_id == "b"
    with pytest.raises(NotOwnerError):
        await b.acquire("branch2")
    assert (await a.acquire("branch2", database="t/y", branch="main")).epoch > taken.epoch


async def test_lease_of_an_earlier_process_is_not_held(open_leases):
    a = await open_leases("a")
    lease = await a.acquire("branch")
    await a.close()
    again = await open_leases("a", unshipped=[Unshipped("branch", "t/x", "main")])

    assert not a.holds(lease)
    assert not again.holds(lease)
    assert not again.holds(Lease("branch", "a", (await again.owner_of("branch")).epoch))


async def test_sync_set_outlives_its_owner_and_is_recorded_by_the_current_one_alone(open_leases):
    a, b = await open_leases("a"), await open_leases("b")
    members = [LiveNode("b", "http://b:1", 0.5)]
    lease = await a.acquire("branch")
    await a.record_sync_set(lease, members)
    await a.close()

    assert await b.sync_set("branch") == SyncSet(lease.epoch, tuple(members))
    current = await b.acquire("branch")
    with pytest.raises(FencedError):
        await b.record_sync_set(Lease("branch", "b", lease.epoch, lease.session), [])
    await b.record_sync_set(current, [])
    assert await b.sync_set("branch") is None


async def next_of(watching, seconds: float = 3.0):
    async with asyncio.timeout(seconds):
        return await anext(watching)


async def test_watch_tells_of_grants_and_of_deaths(open_leases, start, tmp_path):
    watching = FileWatch(tmp_path, poll_s=0.02).watch()
    assert await next_of(watching) == Placements((), ())
    b = await open_leases("b")
    assert await next_of(watching) == LiveNode("b", "http://b:1")
    lease = await b.acquire("branch0", database="t/x", branch="main")
    assert await next_of(watching) == Placed("branch0", "t/x", "main", Owner("b", "http://b:1", lease.epoch))
    await b.release(lease)
    assert await next_of(watching) == Placed("branch0", "t/x", "main", None)
    process = start("a", 1)
    epochs = wait_until_held(process)
    told = [await next_of(watching) for _ in range(2)]
    assert told == [
        LiveNode("a", "http://a:1"),
        Placed("branch0", "", "", Owner("a", "http://a:1", epochs["branch0"])),
    ]

    process.kill()
    process.wait()

    assert await next_of(watching) == Placed("branch0", "", "", None)
    assert await next_of(watching) == NodeLeft("a")
    await watching.aclose()


async def test_watch_that_is_far_behind_reads_everything_again(open_leases, tmp_path, monkeypatch):
    monkeypatch.setattr(file_table, "KEPT_CHANGES", 10)
    monkeypatch.setattr(file_table, "_PRUNE_EVERY", 5)
    a = await open_leases("a")
    watching = FileWatch(tmp_path, poll_s=0.02).watch()
    await next_of(watching)
    for number in range(30):
        await a.release(await a.acquire(f"branch{number}"))
    kept = await a.acquire("kept")

    assert await next_of(watching) == Placements(
        (Placed("kept", "", "", Owner("a", "http://a:1", kept.epoch)),), (LiveNode("a", "http://a:1"),)
    )
    rows = a._reads._connection.execute("SELECT count(*) FROM owners").get
    assert rows <= 11 + 5
    await watching.aclose()


async def test_watch_goes_on_when_the_table_was_removed_and_made_again(tmp_path):
    """As an operator may while nothing runs."""
    folder = tmp_path / "leases"
    first = await FileLeases.open(folder, "a", "http://a:1", randomness=SystemRandomness())
    await first.close()
    for path in folder.glob("leases.db*"):
        path.unlink()

    again = await FileLeases.open(folder, "a", "http://a:1", randomness=SystemRandomness())
    assert (await again.acquire("branch")).epoch == 1
    await again.close()


def test_processes_that_race_and_are_killed_never_share_a_branch(tmp_path):
    """20 processes over 5 branches, of which one is killed every 20 ms, wherever it is, and started anew."""
    ended = subprocess.run(
        [sys.executable, SCRIPT, "race", str(tmp_path), "20", "100"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    words = ended.stdout.split()
    found = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert found.pop("grants") > 200
    assert found == {"clashes": 0, "failed": 0, "repeated": 0}, ended.stderr


def test_processes_that_make_the_table_at_once_all_get_it(tmp_path):
    """Guard: `_open_beside_others` in memoturnd.leases.file_table; SQLite answers the slower ones "locked" at once."""
    for number in range(20):
        with ThreadPoolExecutor(4) as pool:
            tables = list(pool.map(file_table.Table, [tmp_path / str(number)] * 4))
        for table in tables:
            table.close()
