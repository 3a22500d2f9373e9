"""What a process does that `memoturnd --workers` started: it waits for its turn, says when it is ready, and does not outlive its parent."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Final

READY: Final = "ready"
GO: Final = b"\n"


def wait_to_go() -> bool:
    """Wait, once everything is imported, until the parent says that it is this process' turn; False where it has ended."""
    return os.read(sys.stdin.fileno(), len(GO)) == GO


def tell_ready(address: str) -> None:
    """Tell the parent, on standard output, that requests are served at `address`."""
    sys.stdout.write(f"{READY} {address}\n")
    sys.stdout.flush()


def when_orphaned(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` once the parent has ended: standard input is a pipe that only the parent has the other end of."""
    descriptor = sys.stdin.fileno()
    os.set_blocking(descriptor, False)

    def look() -> None:
        try:
            ended = not os.read(descriptor, 64)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            loop.remove_reader(descriptor)
            stop()

    loop.add_reader(descriptor, look)
