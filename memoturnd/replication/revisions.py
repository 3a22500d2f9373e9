"""Which txid a revision names, looked up in what object storage has of a branch."""

from memoturnd.core.manifest import Manifest, restore_plan, round_ref
from memoturnd.errors import BranchNotFoundError
from memoturnd.replication.archive import CHECKPOINTS, Archive
from memoturnd.replication.restore import round_entry
from memoturnd.seams.object_store import ObjectStore

_TXID_DIGITS = 20  # more than any txid has, and few enough to convert whatever was sent


async def resolve(store: ObjectStore, archive: Archive, current: Manifest, revision: str) -> int:
    """Return the txid that a revision names: a decimal txid, or a checkpoint.

    Raises BranchNotFoundError for an unknown checkpoint, ConflictError for a txid that cannot be restored.
    """
    if revision.isdecimal():
        txid = int(revision[:_TXID_DIGITS])
    else:
        checkpoint = await archive.find(CHECKPOINTS, current, revision)
        if checkpoint is None:
            raise BranchNotFoundError(
                f"branch {current.branch} has no checkpoint {revision!r}; list them with GET .../checkpoints"
            )
        txid = checkpoint.txid
    reaching = await archive.reaching(current, txid)
    restore_plan(reaching, txid)
    if round_ref(reaching, txid).is_thinned:
        await round_entry(store, reaching, txid)
    return txid
