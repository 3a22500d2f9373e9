"""The whole decision table: whose txid the file has, who owned the branch last, and how far that owner came."""

import itertools

import pytest

from memoturnd.core import manifest
from memoturnd.core.manifest import Manifest, ObjectRef
from memoturnd.core.recovery import Decision, Local, Verdict, decide

EPOCH = 7
HEAD = 10
CEILING = 500


def standing(epoch=EPOCH):
    """Return a manifest with txids 1 to 4, and 8 to 10, in its chain; 5 to 7 were lost with a node."""
    made = manifest.own(
        Manifest(db="d", branch_id="b", branch="main", created_at=1),
        epoch=epoch,
        owner=f"token-{epoch}",
        start_txid=0,
    )
    for prev, low, high in ((0, 1, 4), (4, 8, HEAD)):
        ref = ObjectRef(
            kind="segment", branch="b", prev=prev, min=low, max=high, epoch=epoch, hash=f"{low:032x}",
            size_bytes=1, first_at=1, last_at=1, after="0" * 16,
        )  # fmt: skip
        made = manifest.append_segments(made, (ref,), epoch=epoch)
    return manifest.replace(made, txid_ceiling=CEILING)


@pytest.mark.parametrize("epoch", [EPOCH, EPOCH - 1, EPOCH + 1, 0])
def test_without_a_file_the_owner_starts_above_whatever_was_reserved(epoch):
    assert decide(standing(epoch) if epoch else standing(1), None) == Decision(Verdict.ABSENT, CEILING)


OURS, OTHERS, NEVER = (f"token-{EPOCH}",), (f"token-{EPOCH - 1}",), ()
CLAIMED = ("token-of-the-ownership-before", f"token-{EPOCH}")
CHAIN, GAP, AHEAD = (1, 4, 8, 9), (5, 7), (HEAD + 1, HEAD + 40)


def expected(txid, owner, start_txid):
    ours = owner in {OURS, CLAIMED}
    if txid == HEAD:
        return Decision(Verdict.CURRENT, max(HEAD, start_txid) if ours else CEILING)
    if txid in CHAIN or txid == 0:
        return Decision(Verdict.STALE, CEILING)
    if txid in AHEAD and ours:
        return Decision(Verdict.TAIL, max(txid, start_txid))
    return Decision(Verdict.DIVERGED, CEILING)


@pytest.mark.parametrize(
    ("txid", "owner", "start_txid"),
    list(itertools.product((*CHAIN, *GAP, *AHEAD, HEAD, 0), (OURS, OTHERS, CLAIMED, NEVER), (0, 9, 300))),
)
def test_every_local_file_has_one_verdict(txid, owner, start_txid):
    assert decide(standing(), Local(txid, owner, start_txid)) == expected(txid, owner, start_txid)


def test_marker_that_was_never_written_matches_no_unowned_manifest():
    made = Manifest(db="d", branch_id="b", branch="main", created_at=1)

    assert decide(made, Local(3, (), 0)).verdict is Verdict.DIVERGED
    assert decide(made, Local(0, (), 0)) == Decision(Verdict.CURRENT, 0)


def test_new_owner_never_starts_below_a_txid_that_may_be_used():
    for txid, owner in itertools.product((*CHAIN, *GAP, *AHEAD, HEAD), (OURS, OTHERS, NEVER)):
        verdict, start_txid = decide(standing(), Local(txid, owner, 0))
        assert start_txid >= HEAD
        if verdict not in {Verdict.TAIL, Verdict.CURRENT} or owner != OURS:
            assert start_txid >= CEILING


def test_file_whose_shipped_state_retention_has_dropped_is_only_old():
    """It was closed clean below the head: all of it was in the chain once."""
    local = Local(5, (f"token-{EPOCH - 1}",), 0)

    assert decide(standing(), local).verdict is Verdict.DIVERGED
    assert decide(standing(), local._replace(all_shipped=True)).verdict is Verdict.STALE
    ahead = Local(HEAD + 5, (f"token-{EPOCH - 1}",), 0, all_shipped=True)
    assert decide(standing(), ahead).verdict is Verdict.DIVERGED, "above the head nothing is taken on trust"
