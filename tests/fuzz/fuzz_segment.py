"""Segments and snapshots."""

import hashlib
import struct
from random import Random

import golden
import xxhash
import zstandard
from fuzz_target import GOLDEN, INTERESTING, Target, same

from memoturnd.core import segment
from memoturnd.core.segment import PAGES_PER_BLOCK, Kind, Round, Segment
from memoturnd.errors import CorruptionError

HEADER, ROUND, PAGE, BLOCK = 116, 40, 12, 12
REENCODED_BYTES = 8 << 20
"""Page images up to which a decoded object is encoded again: it may hold far more than its own size."""
_FIELDS = {
    20: 4,
    24: 4,
    28: 4,
    32: 4,
    36: 4,
    44: 8,
    52: 8,
    60: 8,
    68: 8,
    76: 8,
    84: 8,
    8: 2,
    10: 1,
    11: 1,
    12: 2,
}


def read(data: bytes) -> Segment | None:
    """Decode, and look at every page."""
    try:
        part = segment.decode(data)
        for _ in part.images(range(len(part.pages))):
            pass
    except CorruptionError:
        return None
    return part


def again(part: Segment) -> None:
    """Encode what the object holds, and compare."""
    if len(part.pages) * part.page_size > REENCODED_BYTES:
        return
    whole = range(len(part.pages))
    images = [image for _, image in part.images(whole)]
    rounds, first = [], 0
    for entry in part.rounds:
        pages = part.pages[first : first + entry.pages]
        rounds.append(
            Round(
                entry.txid, entry.at_ms, entry.checksum, entry.db_size_pages,
                {pgno: images[first + at] for at, (pgno, _) in enumerate(pages)}, dict(pages),
            )
        )  # fmt: skip
        first += entry.pages
    data, name_hash = segment.encode(
        part.kind,
        rounds,
        page_size=part.page_size,
        prev_txid=part.prev_txid,
        epoch=part.epoch,
        checksum_before=part.checksum_before,
    )
    other = segment.decode(data, name_hash=name_hash)
    same(_meaning(part), _meaning(other))
    same(images, [image for _, image in other.images(whole)])


def _meaning(part: Segment) -> tuple[object, ...]:
    return (
        part.kind,
        part.page_size,
        part.prev_txid,
        part.epoch,
        part.checksum_before,
        part.rounds,
        part.pages,
    )


def mend(data: bytes) -> bytes:
    """Return the object with every checksum made right, as far as its own counts allow."""
    body = bytearray(data[:-32])
    if len(body) < HEADER + 8:
        return data
    rounds, pages, blocks = struct.unpack_from("<3I", body, 24)
    table = HEADER + ROUND * rounds + PAGE * pages
    end = table + BLOCK * blocks
    if end + 8 <= len(body):
        at = end + 8
        for entry in range(table, end, BLOCK):
            (size,) = struct.unpack_from("<I", body, entry)
            struct.pack_into("<Q", body, entry + 4, xxhash.xxh3_64_intdigest(bytes(body[at : at + size])))
            at += size
        struct.pack_into("<Q", body, end, xxhash.xxh3_64_intdigest(bytes(body[HEADER:end])))
    struct.pack_into("<Q", body, HEADER - 8, xxhash.xxh3_64_intdigest(bytes(body[: HEADER - 8])))
    return bytes(body) + hashlib.sha256(body).digest()


def mutate(data: bytes, rng: Random) -> bytes:
    """Change a field, a table entry or a block, then make the checksums right."""
    body = bytearray(data)
    if len(body) < HEADER + 40:
        return data
    kind = rng.randrange(5)
    if kind == 0:
        at = rng.choice(list(_FIELDS))
        _store(body, at, _FIELDS[at], rng)
    elif kind == 1:
        at = HEADER + rng.randrange(0, len(body) - HEADER - 8)
        _store(body, at, rng.choice((4, 8)), rng)
    elif kind == 2:
        body = bytearray(_other_block(bytes(body), rng))
    elif kind == 3:
        return made(rng)
    return mend(bytes(body))


def _store(body: bytearray, at: int, size: int, rng: Random) -> None:
    value = rng.choice((*INTERESTING, int.from_bytes(body[at : at + size], "little") + rng.choice((-1, 1))))
    body[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _other_block(data: bytes, rng: Random) -> bytes:
    """Put another frame where the only block stands: of another size, or one that lies about its size."""
    rounds, pages, blocks = struct.unpack_from("<3I", data, 24)
    table = HEADER + ROUND * rounds + PAGE * pages
    at = table + BLOCK * blocks + 8
    if blocks != 1 or at >= len(data) - 32:
        return data
    size = rng.choice((0, 512 * pages, 16 << 20, rng.randrange(1 << 16)))
    block = zstandard.ZstdCompressor(level=1, write_content_size=rng.random() < 0.8).compress(bytes(size))
    if rng.random() < 0.3:
        block = b"\x28\xb5\x2f\xfd\xe0" + rng.choice(INTERESTING).to_bytes(8, "little") + block[9:]
    return data[:table] + struct.pack("<IQ", len(block), 0) + bytes(8) + block + data[-32:]


def made(rng: Random) -> bytes:
    """Return an object with random contents that keeps every rule but those that a decoder has to check."""
    page_size = rng.choice((512, 512, 1024, 4096, 65536, 8, 1 << 20))
    rounds, txid = [], rng.choice((1, 2, 1 << 40))
    for _ in range(rng.randint(1, 4)):
        images = {
            rng.choice((1, 2, 3, 9, 0, 1 << 31)): bytes([rng.randrange(3)]) * page_size
            for _ in range(rng.randint(0, 5))
        }
        hashes = {
            pgno: xxhash.xxh3_64_intdigest(image, pgno) if any(image) else 0 for pgno, image in images.items()
        }
        rounds.append(
            Round(
                txid, rng.choice((0, 1, 1 << 60)), rng.getrandbits(64), rng.choice((0, 1, 9)), images, hashes
            )
        )
        txid += 1
    return segment.encode(
        rng.choice(list(Kind)), rounds, page_size=page_size, prev_txid=rng.randrange(rounds[0].txid),
        epoch=rng.choice((0, 1, 1 << 54)), checksum_before=rng.getrandbits(64),
    )[0]  # fmt: skip


def seeds() -> list[bytes]:
    """Return golden objects, and small ones of every page size in use."""
    small = []
    for page_size in (512, 4096, 65536):
        images = {n: bytes([n]) * page_size for n in range(1, PAGES_PER_BLOCK + 3)}
        hashes = {n: xxhash.xxh3_64_intdigest(image, n) for n, image in images.items()}
        first = Round(1, 5, sum(hashes.values()) % 2**64, len(images), images, hashes)
        small.append(
            segment.encode(
                Kind.SNAPSHOT, [first], page_size=page_size, prev_txid=0, epoch=1, checksum_before=0
            )[0]
        )
    return [
        (GOLDEN / "segment").read_bytes(),
        (GOLDEN / "snapshot").read_bytes(),
        golden.encoded()[0]["segment"],
        *small,
    ]


TARGET = Target(
    name="segment",
    modules=("memoturnd.core.segment", "memoturnd.core.pages"),
    read=read,
    again=again,
    mutate=mutate,
    seeds=seeds,
    multiple=32,  # the tables: a page of 12 bytes becomes a pair of integers
    constant=4 << 20,  # a block of 16 pages of 64 KiB, stored and cut up
)
