"""Verification of runs: the names that a manifest or a register leaves to immutable objects."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from memoturnd.core import keyed, layout
from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import Checkpoint, Manifest, Pin
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.replication.archive import NamedMap
from memoturnd.replication.check import Damage
from memoturnd.replication.ledger import Ledger

D = TypeVar("D", Manifest, Register)
V = TypeVar("V", Checkpoint, Pin, RegisteredBranch)


async def read_names(
    ledger: Ledger,
    names: NamedMap[D, V],
    document: D,
    damaged: Callable[[str, Damage], Awaitable[None]],
) -> dict[str, V]:
    """Prove the runs of `names`, and return every name that could be read; `damaged` is told of the other runs."""
    recent, runs = names.parts(document)
    layers: list[Mapping[str, V | None]] = [recent]
    uuid, _ = names.home(document)
    for ref in runs:
        key = layout.run_key(uuid, ref, names.kind)
        ledger.expect(1)
        ledger.name(key)
        ledger.see(key)
        found = await ledger.checker.listed(key, ref.hash, ref.size_bytes, names.run_type)
        await ledger.step()
        if isinstance(found, Damage):
            await damaged(key, found)
        elif len(found.entries) != ref.count:
            await damaged(key, _miscounted(ref, len(found.entries)))
        else:
            layers.append(found.entries)
    return keyed.live(layers)


def _miscounted(ref: RunRef, found: int) -> Damage:
    return Damage("contradiction", f"it has {found} entries, not {ref.count} as its entry says")
