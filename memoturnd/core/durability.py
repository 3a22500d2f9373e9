"""The levels of durability, in their order, and which of them a write waits for. Pure."""

from collections.abc import Mapping
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


_LOCAL, _REPLICATED, _DURABLE = Durability  # an attribute of an enum takes a while to look up
LEVELS: Final = {level.label: level for level in Durability}
"""Each level by its name."""


def level_of(txid: int, *, durable_txid: int, replicated_txid: int = 0) -> Durability:
    """Return the level that the commit `txid` has reached, given up to where each level is reached."""
    if txid <= durable_txid:
        return _DURABLE
    return _REPLICATED if txid <= replicated_txid else _LOCAL


def level_for(
    asked: Durability, surface: str, rules: Mapping[str, Durability], node: Durability = Durability.LOCAL
) -> Durability:
    """Return the level that a write waits for: the highest of what is asked for, the node's default, and what the rules say.

    `surface` is what is written, such as `docs/orders`, empty where it is none. Of the rules the most specific counts: the
    one for it, for its kind (`docs`), `default`. So a rule may be below the database's default; a request only raises.
    """
    kind = surface.partition("/")[0]
    said = next((rules[name] for name in (surface, kind, "default") if name in rules), Durability.LOCAL)
    return max(asked, said, node)
