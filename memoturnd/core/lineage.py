"""Whether the lease service still knows what a branch's last owner told it. Pure decisions.

A lease service that was emptied or replaced is of another lineage, and knows neither who holds a lease nor who holds a
replicated tail. The owner's token in the manifest names the lineage under which it was granted, so that each branch's next
owner can tell.
"""

from memoturnd.core.manifest import Manifest

_MARK = "."


def owner_token(random: str, lineage_id: str) -> str:
    """Return what stands in the manifest for one ownership."""
    return f"{random}{_MARK}{lineage_id}" if lineage_id else random


def is_forgotten(manifest: Manifest, lineage_id: str) -> bool:
    """Return whether a lease service of this lineage may not know the last owner, who has not given the branch back.

    An empty lineage is that of a service that forgets nothing.
    """
    if not lineage_id or not manifest.epoch:
        return False
    was_given_back = manifest.txid_ceiling == manifest.head_txid  # an owner has room above what it commits
    return not was_given_back and manifest.owner.partition(_MARK)[2] != lineage_id
