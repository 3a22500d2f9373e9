"""Which node gets a database that nobody owns: weighted rendezvous hashing over the nodes that are there. Pure.

Each node draws a number for a database from the hash of both names, and the highest number has it. So everybody who knows the same
nodes comes to the same answer, and a node that comes or goes moves its own share and nothing else. A node's weight is the part of
its capacity that is free.
"""

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

import xxhash

from memoturnd.seams.leases import LiveNode, Owner

STEPS: Final = 8
"""Loads count in so many steps, so that small changes of a load move nothing."""
_ADDRESS_SCHEMES: Final = ("http://", "https://")
_NOBODY: Final[frozenset[str]] = frozenset()
_SPACE: Final = 2**64


def weight(node: LiveNode) -> float:
    """Return the part of a node's capacity that is free, from 0 (full, or draining) to 1, in steps."""
    free = 1 - min(max(node.load, 0.0), 1.0)
    return math.ceil(free * STEPS) / STEPS


def place(
    database: str, nodes: Iterable[LiveNode], *, avoiding: AbstractSet[str] = _NOBODY
) -> LiveNode | None:
    """Return the node for a database by its qualified name, None where no node may have it.

    Ids in `avoiding` are not considered. A node with load 1 gets something only where every node has.
    """
    candidates = [node for node in nodes if node.node_id not in avoiding]
    free = [node for node in candidates if weight(node) > 0]
    return max(free or candidates, key=lambda node: (_draw(database, node), node.node_id), default=None)


def spread(
    nodes: Iterable[LiveNode], point: float, *, avoiding: AbstractSet[str] = _NOBODY
) -> LiveNode | None:
    """Return the node for a request that concerns no database: each has a part of [0, 1) as large as its weight, and `point` lies in one."""
    candidates = [node for node in nodes if node.node_id not in avoiding]
    free = [node for node in candidates if weight(node) > 0]
    if not free:
        return candidates[int(point * len(candidates))] if candidates else None
    left = point * sum(map(weight, free))
    for node in free:
        left -= weight(node)
        if left < 0:
            return node
    return free[-1]


def _draw(database: str, node: LiveNode) -> float:
    # -w / ln(u) for u even in (0, 1): the highest of several is each one's with a probability in proportion to its weight.
    drawn = xxhash.xxh3_64_intdigest(f"{node.node_id}\0{database}".encode())
    return -(weight(node) or 1.0) / math.log((drawn + 0.5) / _SPACE)


def owner_named(node_id: str, address: str, epoch: str) -> Owner | None:
    """Return the owner that an answer's headers name, None where they name none."""
    if not node_id or not address.startswith(_ADDRESS_SCHEMES) or not (epoch.isascii() and epoch.isdigit()):
        return None
    return Owner(node_id, address, int(epoch))
