"""What the headers of an answer say of the branch that it concerns. It stands beside what the answer itself says."""

from typing import TypedDict

from memoturn.types.options import Durability


class _Txids(TypedDict):
    txid: int
    durable_txid: int


class Seen(_Txids, total=False):
    """What a read has seen.

    `txid` is the state that it shows, `durable_txid` the newest one that object storage has. An answer from a
    copy says how long ago that was known to be the newest state (`replica_age_ms`).
    """

    replica_age_ms: int


class Written(_Txids, total=False):
    """What a write has made: the state `txid`. `durability` is the level that it has reached."""

    durability: Durability
