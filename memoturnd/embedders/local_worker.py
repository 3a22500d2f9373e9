"""The worker process of the local embedder: reads texts from its standard input, and writes vectors to its output.

    python -m memoturnd.embedders.local_worker FOLDER PARENT

It steps back behind the node (niceness), opens nothing but the model's files, and ends with its parent.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO, Final

from memoturnd.embedders.frames import LENGTH_BYTES, Vectors, decode_texts, frame
from memoturnd.embedders.minilm import MiniLM

NICENESS: Final = 10
_PR_SET_PDEATHSIG: Final = 1


def main(folder: str, parent: str) -> int:
    """Serve until the input ends, and return the exit code."""
    _end_with(int(parent))
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    source = sys.stdin.buffer
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the messages
    try:
        model = MiniLM(Path(folder))
    except (ImportError, OSError, ValueError, KeyError) as error:
        _send(sink, Vectors(0, b"", str(error) or type(error).__name__))
        return 1
    _send(sink, Vectors(0, b""))
    while (message := _receive(source)) is not None:
        texts = decode_texts(message)
        try:
            answer = Vectors(texts.number, model.embed(texts.texts).astype("<f4").tobytes())
        except Exception as error:  # noqa: BLE001 - the border of the process: the node is told, and goes on
            answer = Vectors(texts.number, b"", f"{type(error).__name__}: {error}")
        _send(sink, answer)
    return 0


def _end_with(parent: int) -> None:
    """Die at once with the parent, where the system can see to that; else the end of the input does, a batch later."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that
        sys.exit(0)


def _send(sink: BinaryIO, message: Vectors) -> None:
    sink.write(frame(message))
    sink.flush()


def _receive(source: BinaryIO) -> bytes | None:
    """Return the next message, None where the input has ended."""
    head = source.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    size_bytes = int.from_bytes(head, "little")
    body = source.read(size_bytes)
    return body if len(body) == size_bytes else None


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        sys.exit(main(*sys.argv[1:]))
