"""Leases that are to be given back: the lease service did not answer, or the branch could not be taken. Tried until it answers."""

from typing import Final

import structlog

from memoturnd.errors import RetryableError
from memoturnd.seams.leases import Lease, Leases

KEPT: Final = 65_536
"""Leases that are noted at most. One that is forgotten ends with the node's session; until then the branch is served here."""
_log = structlog.get_logger(__name__)


class Unreleased:
    """The leases of branches that have nothing here any more."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def note(self, lease: Lease) -> None:
        """Give a lease back later. One that was taken anew meanwhile is not the current one, and stays."""
        if len(self._leases) < KEPT or lease.branch_id in self._leases:
            self._leases[lease.branch_id] = lease

    async def release(self, leases: Leases) -> None:
        """Give back what was noted, as far as the service answers."""
        while self._leases:
            branch_id, lease = next(iter(self._leases.items()))
            try:
                await leases.release(lease)
            except RetryableError as error:
                _log.warning("leases not given back yet", branches=len(self._leases), error=str(error))
                return
            if self._leases.get(branch_id) is lease:
                del self._leases[branch_id]
