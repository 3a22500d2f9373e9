"""Keeping a local state that the chain went on without: branch `recovered-{epoch}`, never dropped silently."""

import hashlib
from contextlib import suppress

from memoturnd.core import manifest
from memoturnd.core import register as registers
from memoturnd.core.manifest import Manifest, Parent
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.services import Services
from memoturnd.errors import AlreadyExistsError
from memoturnd.replication.archive import BRANCHES
from memoturnd.replication.snapshot import State, hash_whole_file, write_snapshot
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import BranchRow


async def keep_as_branch(
    services: Services,
    register: SwapFile[Register],
    path: str,
    source: Manifest,
    txid: int,
    at_ms: int,
    epoch: int,
) -> str:
    """Ship the whole state of the file at `path` (no log left in it) as a new branch, and return its name.

    `source` is the branch that it was written on, `epoch` the ownership under which it was. Raises
    StoreUnavailableError; the local file then stays for another try.
    """
    now_ms = services.clock.now_ms()
    hashes = await hash_whole_file(services.executor, path, source.page_size)
    # Derived from what is kept, so that a try that was cut off half way is gone on with and not begun anew.
    tail = f"{source.branch_id} {epoch} {txid} {hashes.checksum:016x}"
    branch_id = hashlib.sha256(tail.encode()).hexdigest()[:16]
    refs, _ = await write_snapshot(
        services.store,
        services.executor,
        path,
        State(txid, at_ms, epoch, source.page_size),
        uuid=source.db,
        branch_id=branch_id,
        known=hashes,
    )
    known = await register.load(fresh=True)
    name = f"recovered-{epoch}"
    taken = await services.archive.find(BRANCHES, known, name) if known is not None else None
    if taken is not None and taken.id != branch_id:
        name = f"recovered-{epoch}-{branch_id[:8]}"
    await register.update(
        lambda r: registers.add_branch(
            r, name, RegisteredBranch(branch_id, now_ms, source.branch, source.head_txid)
        )
    )
    kept = manifest.replace(
        Manifest(
            db=source.db,
            branch_id=branch_id,
            branch=name,
            created_at=now_ms,
            parent=Parent(source.branch_id, source.branch, 0),
            page_size=source.page_size,
        ),
        snapshots=refs,
        head_txid=txid,
        head_at=at_ms,
        head_checksum=refs[0].after,
        txid_ceiling=txid,
    )
    await services.manifest_file(source.db, branch_id).create(kept)
    with suppress(AlreadyExistsError):
        await services.catalog.put_branch(
            BranchRow(source.db, branch_id, name, source.branch, source.head_txid, now_ms, None)
        )
    return name
