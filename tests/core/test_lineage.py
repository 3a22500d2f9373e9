"""Whether the lease service knows a branch's last owner."""

import pytest

from memoturnd.core import manifest as manifests
from memoturnd.core.lineage import is_forgotten, owner_token
from memoturnd.core.manifest import Manifest

NEW = Manifest(db="0" * 32, branch_id="1" * 16, branch="main", created_at=0)


def owned(lineage_id: str) -> Manifest:
    return manifests.own(NEW, epoch=7, owner=owner_token("aa", lineage_id), start_txid=0)


@pytest.mark.parametrize(
    ("current", "lineage_id", "forgotten"),
    [
        (NEW, "two", False),
        (owned("one"), "one", False),
        (owned("one"), "two", True),
        (owned(""), "two", True),
        (owned("one"), "", False),
        (manifests.release(owned("one"), epoch=7, start_txid=0), "two", False),
    ],
    ids=[
        "never owned",
        "same",
        "emptied",
        "of a release before",
        "of one that forgets nothing",
        "given back",
    ],
)
def test_an_owner_is_forgotten_who_did_not_give_back_and_is_of_another_lineage(
    current, lineage_id, forgotten
):
    assert is_forgotten(current, lineage_id) is forgotten
