"""History pages and runs: the immutable objects to which manifests and registers move what grows.

The first byte of an input says which it is.
"""

import hashlib
from random import Random
from typing import Any

import msgspec
from fuzz_json import changed
from fuzz_target import GOLDEN, BreachError, Target, same

from memoturnd.core.manifest import FORMAT_VERSION, HistoryPage
from memoturnd.errors import CorruptionError
from memoturnd.replication.archive import BRANCHES, CHECKPOINTS, PINS, Archive
from memoturnd.seams.object_store import Blob

KINDS = (HistoryPage, CHECKPOINTS.run_type, PINS.run_type, BRANCHES.run_type)
V2 = GOLDEN.parent / "v2"


class One:
    """A store that has one object under every key."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def get(self, _key: str) -> Blob:
        return Blob(self._data, "etag")


def read(data: bytes) -> tuple[Any, Any] | None:
    """Decode as the archive does, under the name that the bytes have."""
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    return _read(data[1:], kind)


def _read(data: bytes, kind: Any) -> tuple[Any, Any] | None:
    reading = Archive(One(data))._read("key", hashlib.sha256(data).hexdigest()[:32], kind)
    try:
        return kind, _now(reading)
    except CorruptionError:
        return None


def _now(coroutine: Any) -> Any:
    """Return what a coroutine comes to that never waits, without the cost of a loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("it waits")


def again(found: tuple[Any, Any]) -> None:
    """Encode and compare; nothing of a newer format is read, and every entry of a page is in order."""
    kind, value = found
    same(found, _read(msgspec.json.encode(value), kind))
    if value.format > FORMAT_VERSION:
        raise BreachError(f"format {value.format} is read as {FORMAT_VERSION}")
    if isinstance(value, HistoryPage):
        for ref in (*value.segments, *value.snapshots):
            if not ref.prev < ref.min <= ref.end <= ref.max:
                raise BreachError(f"a page names {ref}")


def mutate(data: bytes, rng: Random) -> bytes:
    """Change one value of the document, or what it is taken for."""
    if not data:
        return b"\x00{}"
    kind = rng.randrange(4) if rng.random() < 0.1 else data[0]
    return bytes([kind]) + changed(data[1:], rng)


def seeds() -> list[bytes]:
    """Return the golden page and run, and runs of pins and branches."""
    return [
        b"\x00" + (V2 / "page.json").read_bytes(),
        b"\x01" + (V2 / "run.json").read_bytes(),
        b'\x02{"entries":{"f1f2f3f4f5f6f7f8":{"branch":"fork","txid":13},"gone":null}}',
        b'\x03{"entries":{"fork":{"id":"f1f2f3f4f5f6f7f8","created_at":5,"parent":"main","fork_txid":13}}}',
    ]


TARGET = Target(
    name="archive",
    modules=("memoturnd.replication.archive", "memoturnd.core.manifest"),
    read=read,
    again=again,
    mutate=mutate,
    seeds=seeds,
    multiple=32,
    constant=256 << 10,
)
