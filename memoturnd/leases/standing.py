"""How this node stands with its leases, for readiness and metrics."""

from memoturnd.errors import RetryableError
from memoturnd.seams.clock import Clock
from memoturnd.seams.leases import Leases


async def lease_answers(leases: Leases, clock: Clock) -> None:
    """Return if the lease service answers, and this node may own branches. Raises RetryableError."""
    await leases.owner_of("ready")
    deadline_s = leases.deadline()
    if deadline_s is not None and deadline_s <= clock.monotonic_s():
        raise RetryableError("this node's lease has run out, and it has no new one yet")
