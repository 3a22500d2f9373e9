"""The page that names a commit round, read out of a log or an object without SQLite."""

from random import Random

import apsw
from fuzz_target import INTERESTING, BreachError, Target, same

from memoturnd.core.pages import META_PAGE, RoundMeta, parse_meta_page
from memoturnd.errors import CorruptionError

LIMIT = 1 << 53


def read(data: bytes) -> RoundMeta | None:
    """Decode."""
    try:
        return parse_meta_page(data)
    except CorruptionError:
        return None


def again(meta: RoundMeta) -> None:
    """Let SQLite write the row, and compare; every value is one that a node may go on from."""
    if any(not 0 <= value < LIMIT for value in meta):
        raise BreachError(f"page 2 says {meta}")
    same(meta, parse_meta_page(page(meta)))


def page(meta: RoundMeta, page_size: int = 512) -> bytes:
    """Return page 2 of a database whose first table holds this row."""
    conn = apsw.Connection(":memory:")
    conn.execute(f"PRAGMA page_size={page_size}")
    conn.execute("CREATE TABLE __memoturn_meta (id INTEGER PRIMARY KEY, version, txid, at_ms, epoch)")
    conn.execute("INSERT INTO __memoturn_meta VALUES (1, ?, ?, ?, ?)", meta)
    data = conn.serialize("main")
    conn.close()
    return data[(META_PAGE - 1) * page_size : META_PAGE * page_size]


def mutate(data: bytes, rng: Random) -> bytes:
    """Change what describes the cell, or a byte of it."""
    body = bytearray(data)
    if len(body) < 12:
        return page(RoundMeta(1, 2, 3, 4))
    cell = int.from_bytes(body[8:10], "big") % len(body)
    kind = rng.randrange(3)
    if kind == 0:
        body[8:10] = (rng.choice((0, len(body) - 1, len(body) - 3, len(body), 0xFFFF)) % 65536).to_bytes(
            2, "big"
        )
    elif kind == 1:
        at = min(len(body) - 1, cell + rng.randrange(16))
        body[at] = rng.choice((0, 1, 6, 8, 9, 10, 0x7F, 0x80, 0xFF))
    else:
        values = [rng.choice((*INTERESTING[:-1], -1, -(1 << 63))) for _ in range(4)]
        return page(RoundMeta(*values))
    body[:1], body[3:5] = b"\x0d", b"\x00\x01"
    return bytes(body)


def seeds() -> list[bytes]:
    """Return pages with small and large values."""
    return [
        page(RoundMeta(1, 0, 0, 0)),
        page(RoundMeta(1, 200, 1_700_000_000_000, 3)),
        page(RoundMeta(3, LIMIT - 1, LIMIT - 1, 70_000), 4096),
    ]


TARGET = Target(
    name="meta",
    modules=("memoturnd.core.pages",),
    read=read,
    again=again,
    mutate=mutate,
    seeds=seeds,
    multiple=16,
    constant=64 << 10,
)
