"""What to do with the file that a node finds on its disk when it takes a branch over. Pure decisions.

A txid is never used twice, so a local txid that the manifest's chain holds names the same state. A local
txid outside the chain is an unshipped tail. The tail belongs to the chain exactly when this node's own
ownership is still the last one in the manifest: nobody else can have committed since. Each ownership puts a
random token into the manifest; the owner marker beside the file holds the token of the ownership it was
written under, and that of the takeover that was under way, so that a crash in between is told from a rival.
"""

from enum import Enum
from typing import NamedTuple

from memoturnd.core.manifest import Manifest, contains


class Local(NamedTuple):
    """A file found locally: its last txid, and the tokens of this node's ownership of it (none: never owned).

    That ownership committed only above `start_txid`: what lies between the head and it may have been used by
    a tail that was lost before.
    """

    txid: int
    tokens: tuple[str, ...]
    start_txid: int
    same_boot: bool = True
    """Whether the machine ran on since: otherwise acknowledged commits may be gone from the file's end."""
    all_shipped: bool = False
    """Whether it was closed clean, so that the chain had all of it, even if retention has dropped that since."""


class Verdict(Enum):
    """What the local file is."""

    ABSENT = "absent"
    CURRENT = "current"
    """Exactly the head: keep it."""
    STALE = "stale"
    """An older state of the chain: drop it and restore."""
    TAIL = "tail"
    """The head and unshipped commits behind it: keep it and ship them."""
    DIVERGED = "diverged"
    """Commits that the chain went on without: keep them as another branch, then restore."""


class Decision(NamedTuple):
    """The verdict, and the txid above which the new owner starts to commit."""

    verdict: Verdict
    start_txid: int


def decide(manifest: Manifest, local: Local | None) -> Decision:
    """Return what to do with `local` when taking the branch over from the owner that `manifest` names."""
    head = manifest.head_txid
    # Whoever takes over without the last owner's tail must not reuse the txids that tail may have used.
    above_any_tail = manifest.txid_ceiling
    if local is None:
        return Decision(Verdict.ABSENT, above_any_tail)
    last_owner_is_us = manifest.owner in local.tokens
    nothing_is_lost = last_owner_is_us and local.same_boot
    if local.txid == head:
        return Decision(Verdict.CURRENT, max(head, local.start_txid) if nothing_is_lost else above_any_tail)
    # A file without any commit is a part of every chain: what a power cut leaves of one never checkpointed.
    if local.txid == 0 or contains(manifest, local.txid) or (local.all_shipped and local.txid < head):
        return Decision(Verdict.STALE, above_any_tail)
    if last_owner_is_us and local.txid > head:
        return Decision(
            Verdict.TAIL,
            max(local.txid, local.start_txid) if nothing_is_lost else max(local.txid, above_any_tail),
        )
    return Decision(Verdict.DIVERGED, above_any_tail)
