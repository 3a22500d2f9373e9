"""Keeping a local state that the chain went on without: branch `recovered-{epoch}`, never dropped silently.

The branch is registered before anything is stored of it, as a fork is, so that the collector sees it being
made; should it be cut off, the next try finds what there is by what is kept: its txid and checksum.
"""

from contextlib import suppress

from memoturnd.core.manifest import Manifest, ObjectRef, Parent
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.new_branch import create_manifest, enter
from memoturnd.engine.services import Services
from memoturnd.errors import AlreadyExistsError, RetryableError
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
    RetryableError; the local file then stays for another try.
    """
    now_ms = services.clock.now_ms()
    hashes = await hash_whole_file(services.executor, path, source.page_size)
    state = State(txid, at_ms, epoch, source.page_size)
    name, branch_id, is_kept = await _place(services, register, source, state, hashes.checksum)
    if not is_kept:
        entry = RegisteredBranch(branch_id, now_ms, source.branch, source.head_txid, is_new=True)
        started_s = services.clock.monotonic_s()
        await enter(services, register, source.db, name, entry)
        refs, _ = await write_snapshot(
            services.store,
            services.executor,
            path,
            state,
            uuid=source.db,
            branch_id=branch_id,
            nonce=bytes.fromhex(services.randomness.hex(16)),
            known=hashes,
        )
        kept = _manifest(source, branch_id, name, refs, now_ms)
        try:
            await create_manifest(
                services, kept, started_s=started_s, deadline_s=services.graces.unreachable_ms / 1000
            )
        except AlreadyExistsError as error:
            raise RetryableError(
                f"local commits could not be kept as branch {name} ({error}); try again"
            ) from error
    with suppress(AlreadyExistsError):
        await services.catalog.put_branch(
            BranchRow(source.db, branch_id, name, source.branch, source.head_txid, now_ms, None)
        )
    return name


async def _place(
    services: Services, register: SwapFile[Register], source: Manifest, state: State, checksum: int
) -> tuple[str, str, bool]:
    """Return (name, branch id, whether it is kept there already) for a state with that database checksum."""
    known = await register.load(fresh=True)
    after = f"{checksum:016x}"
    names = [f"recovered-{state.epoch}", f"recovered-{state.epoch}-{after[:8]}"]
    for name in names:
        taken = await services.archive.find(BRANCHES, known, name) if known is not None else None
        if taken is None:
            return name, services.randomness.hex(8), False
        standing = await services.manifest_file(source.db, taken.id).load()
        if standing is None and taken.is_new:
            return name, taken.id, False
        if standing is None or standing.deleted_at is not None or standing.parent is None:
            continue
        begins = any((ref.max, ref.after) == (state.txid, after) for ref in standing.snapshots)
        if begins and standing.parent.branch_id == source.branch_id:
            return name, taken.id, True
    return f"{names[0]}-{services.randomness.hex(4)}", services.randomness.hex(8), False


def _manifest(
    source: Manifest, branch_id: str, name: str, refs: tuple[ObjectRef, ...], now_ms: int
) -> Manifest:
    head = refs[-1]
    return Manifest(
        db=source.db,
        branch_id=branch_id,
        branch=name,
        created_at=now_ms,
        parent=Parent(source.branch_id, source.branch, 0),
        page_size=source.page_size,
        snapshots=refs,
        head_txid=head.max,
        head_at=head.last_at,
        head_checksum=head.after,
        txid_ceiling=head.max,
    )
