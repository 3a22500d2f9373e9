"""Getting hold of a branch that another node owns: its owner is asked, ships, and gives it back.

    free      no other node owns the branch any more, and all that its owner had committed is in object storage
    obtain    this node owns it
    shipped   all that its owner has committed until now is in object storage; it stays the owner

An owner that is asked lets what is under way end, and holds back what comes meanwhile, for some seconds at most. Behind
that it does not take the branch again for a moment, so that whoever asked comes first. What it held back then finds the
branch's next owner, or that the branch was deleted.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from memoturnd.core.release_wire import RELEASE, SHIP, Durable
from memoturnd.engine.owner_of import owner_elsewhere
from memoturnd.engine.ownership import Owned
from memoturnd.engine.services import Services
from memoturnd.errors import MemoturnError, NotOwnerError, RetryableError
from memoturnd.seams.leases import Owner

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch

FREE_S: Final = 8.0
"""How long a branch's owners are asked before whoever wants it is told to try again."""
ASK_S: Final = 5.0
"""How long one of them may take to answer."""
OBTAINS: Final = 4
"""How often a branch is taken that somebody else took first."""
_PAUSE_S: Final = 0.05
_DURABLE: Final = msgspec.json.Decoder(Durable)


async def free(services: Services, branch: "Branch") -> None:
    """Return once no other node owns the branch. Raises RetryableError where its owner does not give it back in time."""
    await _until_answered(services, branch, RELEASE)


async def obtain(services: Services, branch: "Branch") -> Owned:
    """Own the branch, whoever does now. Raises RetryableError, and what Branch.own raises."""
    for _ in range(OBTAINS):
        try:
            return await branch.own()
        except NotOwnerError:
            await free(services, branch)
    return await branch.own()


async def shipped(services: Services, branch: "Branch") -> None:
    """Return once all is in object storage that another node, the owner, had committed before. Raises RetryableError."""
    await _until_answered(services, branch, SHIP)


async def _until_answered(services: Services, branch: "Branch", path: str) -> None:
    """Ask whoever owns the branch until one has answered, or nobody else owns it. Raises RetryableError."""
    clock = services.clock
    deadline_s = clock.monotonic_s() + FREE_S
    while True:
        owner = await owner_elsewhere(services, branch)
        if owner is None:
            return
        why = "it went to another node meanwhile"
        try:
            await _ask(services, branch, owner, path)
            if path == SHIP:
                return
        except NotOwnerError:
            pass  # it says so; the lease service will
        except MemoturnError as error:
            why = str(error)
        if clock.monotonic_s() >= deadline_s:
            raise RetryableError(
                f"node {owner.node_id} owns {branch.ref} and was asked in vain for {FREE_S:g} s ({why}); try again"
            )
        await clock.sleep(_PAUSE_S)


async def _ask(services: Services, branch: "Branch", owner: Owner, path: str) -> Durable:
    if services.peers is None:
        raise RetryableError("this node has no key to ask others with: set MEMOTURN_CLUSTER_KEY")
    where = path.format(uuid=branch.ref.database.uuid, branch_id=branch.branch_id)
    answer = await services.peers.ask(owner.address, where, timeout_s=ASK_S)
    try:
        return _DURABLE.decode(answer)
    except msgspec.MsgspecError as error:
        raise RetryableError(f"node {owner.node_id} does not say what it has shipped: {error}") from error
