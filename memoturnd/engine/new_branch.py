"""The steps that every new branch takes, a fork, an import, or local commits that are kept: an entry, then a manifest.

Between the two the collector sees a branch that is being made. One that it waited for too long it gives up, by
putting a tombstone in the place of its manifest: whoever creates that object first has decided.
"""

from memoturnd.core import register as registers
from memoturnd.core.manifest import Manifest
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.services import Services
from memoturnd.errors import AlreadyExistsError, RetryableError
from memoturnd.replication.archive import BRANCHES
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import COLLECT, Chore


async def enter(
    services: Services, register: SwapFile[Register], uuid: str, name: str, entry: RegisteredBranch
) -> None:
    """Register a branch that is about to be made, under a name that is free, or half made under that id.

    The register that the name was looked up in is the one that is changed: what other nodes have entered since may be in a
    run by now, where the change does not see it. Raises AlreadyExistsError, RetryableError, StoreUnavailableError.
    """
    seen = await register.load(fresh=services.leases.is_shared)
    if seen is not None:
        known = await services.archive.find(BRANCHES, seen, name)
        if known is not None and known.id != entry.id:
            raise AlreadyExistsError(f"branch {name} of {seen.name} already exists; choose another name")
    due_ms = entry.created_at + services.graces.unreachable_ms
    await services.catalog.schedule(Chore(COLLECT, uuid), due_ms)  # should it be cut off from here on
    flush = None if seen is None else await services.archive.flush(BRANCHES, seen)

    def renew(current: Register) -> Register:
        if seen is not None and current.branch_runs != seen.branch_runs:
            raise RetryableError(f"the branches of {current.name} changed meanwhile; try again")
        return registers.renew_branch(current if flush is None else flush(current), name, entry)

    await register.update(renew)


async def create_manifest(services: Services, new: Manifest, *, started_s: float, deadline_s: float) -> None:
    """Create the manifest of a branch that was registered at `started_s` (monotonic), in time.

    The time is checked behind it too: nothing may be promised that came too late. Raises RetryableError for
    that, and AlreadyExistsError where a manifest stands there.
    """

    def check_deadline() -> None:
        if services.clock.monotonic_s() - started_s > deadline_s:
            raise RetryableError(
                f"making branch {new.branch} took over {deadline_s:g} s, in which what it names may have been let "
                "go; try again"
            )

    check_deadline()
    file = services.manifest_file(new.db, new.branch_id)
    made = await file.create(new)
    check_deadline()
    if made:
        services.agenda.changed(new.db, new.branch_id)
        return
    standing = await file.load()
    if standing is None or standing.deleted_at is None:
        raise AlreadyExistsError(f"branch {new.branch} already exists; choose another name")
    await services.catalog.delete_branch(new.db, new.branch, branch_id=new.branch_id)
    raise RetryableError(f"branch {new.branch} was given up before it was made; try again")
