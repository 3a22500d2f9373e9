"""The levels of durability, in their order, and which of them a write waits for. Pure."""

from enum import IntEnum
from typing import Final


class Durability(IntEnum):
    """How safe a write is: each level includes those below it."""

    LOCAL = 0
    """Committed in the owner's log."""
    REPLICATED = 1
    """Also on the disk of every node of the branch's sync set."""
    DURABLE = 2
    """In object storage, and named by the branch's manifest."""

    @property
    def label(self) -> str:
        """Return the level's name, as settings, headers and answers have it."""
        return self.name.lower()


LEVELS: Final = {level.label: level for level in Durability}
"""Each level by its name."""


def level_of(txid: int, *, durable_txid: int, replicated_txid: int = 0) -> Durability:
    """Return the level that the commit `txid` has reached, given up to where each level is reached."""
    if txid <= durable_txid:
        return Durability.DURABLE
    return Durability.REPLICATED if txid <= replicated_txid else Durability.LOCAL
