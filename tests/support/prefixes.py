"""What may be missing of `local` writes after takeovers, and the invariant of a bank."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from histories import OK, Operation


def lost_runs(acknowledged: Iterable[Operation], survivors: set[Any]) -> list[list[Operation]]:
    """Return acknowledged writes of one branch that are not there any more: the longest runs of them in order of their txids.

    `survivors` holds the values that are there. Writes of one txid are lost together or not at all, so a round of which
    one is left and another is not counts as a run of its own, like any hole.
    """
    runs: list[list[Operation]] = []
    was_lost = False
    for write in sorted(acknowledged, key=lambda o: (o.told["txid"], o.value in survivors)):
        lost = write.value not in survivors
        if lost and not was_lost:
            runs.append([])
        if lost:
            runs[-1].append(write)
        was_lost = lost
    return runs


def local_violations(operations: Sequence[Operation], survivors: set[Any], takeovers: int) -> list[str]:
    """Return what is wrong with the writes of one branch, each of a value of its own that none overwrites.

    Each takeover without a tail may lose the end of what its predecessor committed and nothing else: so there are at most
    as many runs of lost writes, none of them reaches down to a txid that an answer disclosed as durable, and none
    has a write that was acknowledged as more than `local`. Nothing is there that was refused or never sent.
    """
    writes = [o for o in operations if o.kind == "write"]
    found = []
    acknowledged = [o for o in writes if o.outcome == OK]
    runs = lost_runs(acknowledged, survivors)
    if len(runs) > takeovers:
        ranges = [(run[0].told["txid"], run[-1].told["txid"]) for run in runs]
        found.append(f"{len(runs)} runs of writes are lost, after {takeovers} takeovers: txids {ranges}")
    disclosed = sorted({o.told["durable_txid"] for o in operations if "durable_txid" in o.told})
    for run in runs:
        first, last = run[0].told["txid"], run[-1].told["txid"]
        durable = [txid for txid in disclosed if first <= txid <= last]
        if durable:
            found.append(f"txids {first} to {last} are lost, and {durable[-1]} was disclosed as durable")
        found += [
            f"{o.value!r} of txid {o.told['txid']} is lost, and was acknowledged as {o.told['level']}"
            for o in run
            if o.told.get("level", "local") != "local"
        ]
    possible = {o.value for o in writes if o.outcome != "fail"}
    found += [f"{value!r} is there, and was refused or never sent" for value in survivors - possible]
    return found


@dataclass(frozen=True, slots=True)
class Books:
    """What one read of a bank showed: the balance of each account, and the transfers that are written down."""

    balances: Mapping[str, int]
    transfers: Sequence[tuple[str, str, str, int]]
    """Each (id, from, to, amount)."""


def bank_violations(opening: Mapping[str, int], books: Books, kept: Iterable[str] = ()) -> list[str]:
    """Return what is wrong with books that opened so: money that came or went, a transfer applied twice or by halves, or
    one of `kept` (ids of transfers that were acknowledged for good) that is missing.
    """
    found = []
    total, now = sum(opening.values()), sum(books.balances.values())
    if now != total:
        found.append(f"the total is {now}, and was {total}")
    ids = [transfer[0] for transfer in books.transfers]
    found += [
        f"transfer {name} is written down twice" for name in sorted({i for i in ids if ids.count(i) > 1})
    ]
    expected = dict(opening)
    for _, source, target, amount in books.transfers:
        expected[source] -= amount
        expected[target] += amount
    if expected != dict(books.balances):
        found.append(f"the balances are {dict(books.balances)}, and the transfers give {expected}")
    found += [f"transfer {name} was acknowledged and is missing" for name in sorted(set(kept) - set(ids))]
    return found
