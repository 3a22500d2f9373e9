"""Tails: commits that other nodes hold until object storage has them. What is sent, who holds it, what it proves. Pure."""

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from memoturnd.core.segment import Segment
from memoturnd.errors import CorruptionError
from memoturnd.seams.leases import LiveNode

PUSH_PATH: Final = "/internal/replica/tail"
READ_PATH: Final = "/internal/replica/tail/read"
FORGET_PATH: Final = "/internal/replica/tail/forget"
UUID_HEADER: Final = "Memoturn-Db-Uuid"
BRANCH_ID_HEADER: Final = "Memoturn-Branch-Id"
EPOCH_HEADER: Final = "Memoturn-Epoch"
DURABLE_HEADER: Final = "Memoturn-Durable-Txid"
BEGINS_HEADER: Final = "Memoturn-Tail-Begins"
_LENGTH: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Push:
    """What goes with a piece of a tail: whose it is, and that all up to `durable_txid` is in object storage.

    The first piece of one `begins`: everything that is not in object storage yet follows with it and behind it.
    """

    uuid: str
    branch_id: str
    epoch: int
    durable_txid: int
    begins: bool = False

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        return {
            UUID_HEADER: self.uuid,
            BRANCH_ID_HEADER: self.branch_id,
            EPOCH_HEADER: str(self.epoch),
            DURABLE_HEADER: str(self.durable_txid),
            BEGINS_HEADER: "1" if self.begins else "0",
        }


def choose(
    branch_id: str, nodes: Iterable[LiveNode], count: int, *, avoiding: Collection[str]
) -> tuple[LiveNode, ...]:
    """Return the `count` nodes that are to hold a branch's tail, fewer where there are not so many.

    By rendezvous hashing, so that the nodes of one branch stay the same while they live, and those of all are spread.
    """
    candidates = [node for node in nodes if node.node_id not in avoiding]
    candidates.sort(key=lambda n: xxhash.xxh3_64_intdigest(f"{n.node_id}\0tail\0{branch_id}".encode()))
    return tuple(candidates[:count])


def packed(objects: Iterable[bytes]) -> bytes:
    """Return objects as one body: each behind its length, 8 bytes little-endian."""
    return b"".join(part for data in objects for part in (_LENGTH.pack(len(data)), data))


def unpacked(body: bytes) -> list[bytes]:
    """Return the objects of a body. Raises CorruptionError where it is cut off."""
    objects, at = [], 0
    while at < len(body):
        if at + _LENGTH.size > len(body):
            raise CorruptionError("a tail is cut off")
        (size_bytes,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if at + size_bytes > len(body):
            raise CorruptionError("a tail is cut off")
        objects.append(body[at : at + size_bytes])
        at += size_bytes
    return objects


def longest(head_txid: int, head_checksum: int, pieces: Collection[Segment]) -> list[Segment]:
    """Return the pieces that lead furthest from the state at `head_txid`, each behind the other; none where none follows.

    A piece follows where the state that it is reached from has the txid and the checksum before it, or one of its
    rounds is that state. Pieces overlap where an owner sent them again.
    """
    at, checksum, chain = head_txid, head_checksum, list[Segment]()
    behind: dict[int, list[Segment]] = {}
    for piece in pieces:
        behind.setdefault(piece.prev_txid, []).append(piece)
    while True:
        found = _following(behind.get(at, ()), at, checksum) or _following(pieces, at, checksum)
        if not found:
            return chain
        piece = max(found, key=lambda piece: piece.rounds[-1].txid)
        chain.append(piece)
        at, checksum = piece.rounds[-1].txid, piece.checksum_after


def _following(pieces: Collection[Segment], txid: int, checksum: int) -> list[Segment]:
    return [piece for piece in pieces if piece.rounds[-1].txid > txid and _leads_from(piece, txid, checksum)]


def _leads_from(piece: Segment, txid: int, checksum: int) -> bool:
    if piece.prev_txid == txid:
        return piece.checksum_before == checksum
    return any(entry.txid == txid and entry.checksum == checksum for entry in piece.rounds)


def holds(pieces: Iterable[Segment], txid: int) -> bool:
    """Return whether some piece has the commit `txid`."""
    return any(entry.txid == txid for piece in pieces for entry in piece.rounds)


def is_beyond(pieces: Sequence[Segment], txid: int) -> bool:
    """Return whether some piece holds commits above `txid`."""
    return any(piece.rounds[-1].txid > txid for piece in pieces)
