"""What happens to a branch's local commits before it is deleted, so that nothing is missing if it comes back."""

import structlog

from memoturnd.engine.branch import Branch
from memoturnd.engine.releasing import free, obtain
from memoturnd.errors import MemoturnError, RetryableError

_log = structlog.get_logger(__name__)


async def ship_last(branch: Branch) -> None:
    """Ship what is committed and not stored, here or at another node, which gives the branch back. A damaged one is deleted as it is stored.

    Raises RetryableError while the store does not take it, or its owner does not answer.
    """
    services = branch.services
    branch.users += 1
    try:
        await free(services, branch)
        if not branch.is_ours and await services.leases.sync_set(branch.branch_id) is not None:
            await obtain(services, branch)  # others hold what its last owner had acknowledged and not shipped
        if branch.is_fenced or (branch.owned is None and branch.files.exists() and not branch.hot):
            await branch.wake()  # an earlier process or ownership may have left commits that are not shipped
        if branch.owned is not None and branch.owned.shipper.dirty_since_s is not None:
            await branch.owned.shipper.ship()
    except RetryableError:
        raise
    except MemoturnError as error:
        _log.warning("branch is deleted as it is in the store", branch=str(branch.ref), error=str(error))
    finally:
        branch.leave()
