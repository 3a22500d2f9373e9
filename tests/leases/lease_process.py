"""Node processes that only hold leases, for tests.

    lease_process.py hold FOLDER NODE_ID BRANCHES     takes all, says the epochs and `ready`, and waits
    lease_process.py race FOLDER PROCESSES KILLS      lets processes race for 5 branches, and kills some of them

A race says `grants N kills N clashes N repeated N`.
"""

import asyncio
import fcntl
import os
import random
import signal
import sys
import time
from pathlib import Path

from memoturnd.errors import NotOwnerError
from memoturnd.leases.files import FileLeases
from memoturnd.seams.clock import SystemRandomness

BRANCHES = 5
EXITING = 0x4


async def opened(folder: str, node_id: str) -> FileLeases:
    return await FileLeases.open(Path(folder), node_id, f"http://{node_id}:1", randomness=SystemRandomness())


async def hold(folder: str, node_id: str, branches: str) -> None:
    leases = await opened(folder, node_id)
    for name in (f"branch{number}" for number in range(int(branches))):
        lease = await leases.acquire(name)
        os.write(1, f"{lease.epoch} {name}\n".encode())
    os.write(1, b"ready\n")
    await asyncio.sleep(3600)


async def take_and_give_back(folder: str, node_id: str, log: int) -> None:
    """Take and give back branches for ever; each is also guarded by a lock of its own, which the holder takes."""
    leases = await opened(folder, node_id)
    while True:
        name = f"branch{random.randrange(BRANCHES)}"
        try:
            lease = await leases.acquire(name)
        except NotOwnerError:
            continue
        guard = os.open(Path(folder) / f"{name}.guard", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_running(os.pread(guard, 20, 0)):
                os.write(log, b"clash\n")
        else:
            os.pwrite(guard, f"{os.getpid():20d}".encode(), 0)
            os.write(log, f"{lease.epoch}\n".encode())
            await asyncio.sleep(random.random() / 1000)
        os.close(guard)
        await leases.release(lease)


def is_running(pid: bytes) -> bool:
    """Return whether a process is there and not at its end, where it lets go of one lock after the other."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    return fields[0] not in "ZX" and not int(fields[6]) & EXITING


def race(folder: str, processes: str, kills: str) -> None:
    log = os.open(Path(folder) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    running: dict[str, int] = {}

    def start(node_id: str) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(take_and_give_back(folder, node_id, log))
            finally:
                os.write(log, b"failed\n")
                os._exit(1)
        running[node_id] = pid

    for number in range(int(processes)):
        start(f"n{number}")
    for _ in range(int(kills)):
        time.sleep(0.02)
        node_id = random.choice(sorted(running))
        pid = running.pop(node_id)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        start(node_id)
    for pid in running.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    lines = (Path(folder) / "log").read_text().split()
    epochs = [int(line) for line in lines if line.isdigit()]
    sys.stdout.write(
        f"grants {len(epochs)} clashes {lines.count('clash')} failed {lines.count('failed')} "
        f"repeated {len(epochs) - len(set(epochs))}\n"
    )


if __name__ == "__main__":
    if sys.argv[1] == "race":
        race(*sys.argv[2:])
    else:
        asyncio.run(hold(*sys.argv[2:]))
