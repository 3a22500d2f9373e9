"""The owner's side of memoturnd.engine.releasing: what this node does with its branches because another one asks."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog

from memoturnd.engine.branch import Branch
from memoturnd.engine.services import Services
from memoturnd.engine.shared_branch import SharedBranch
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import DatabaseNotFoundError, MemoturnError, NotOwnerError, RetryableError

RELEASE_S: Final = 4.0
"""How long what uses a branch has to end before the branch is kept, and what was held back goes on."""
_PAUSE_S: Final = 0.01
_log = structlog.get_logger(__name__)


class Releases:
    """Gives this node's branches back, and lets go of those that were deleted elsewhere."""

    def __init__(self, services: Services, tiers: Tiers) -> None:
        self._services = services
        self._tiers = tiers

    async def release(self, uuid: str, branch_id: str) -> int:
        """Ship a branch, close it, give it back, and return its durable txid.

        Raises NotOwnerError where this node does not own it, RetryableError where it is used for too long or cannot be
        shipped: it then goes on here.
        """
        branch = self._owned(uuid, branch_id)
        try:
            async with asyncio.timeout(RELEASE_S), branch.held_off():
                await self._close(branch)
        except TimeoutError as error:
            raise RetryableError(f"{branch.ref} is in use on this node; ask again") from error
        _log.info("given back, as another node asked", branch=str(branch.ref), txid=branch.durable_txid)
        return branch.durable_txid

    async def _close(self, branch: SharedBranch) -> None:
        if not branch.hot and branch.may_hold_more:
            await branch.own()  # an earlier process or ownership left commits here
        while not await branch.close():
            await self._services.clock.sleep(_PAUSE_S)
        if not await branch.give_back():
            raise RetryableError(f"{branch.ref} was opened again meanwhile; ask again")
        await self._services.unreleased.release(self._services.leases)
        branch.lets_others_first()

    async def ship(self, uuid: str, branch_id: str) -> int:
        """Ship what is committed of a branch, and return its durable txid. Raises NotOwnerError, RetryableError."""
        branch = self._owned(uuid, branch_id)
        branch.users += 1
        try:
            owned = await branch.own()
            if owned.shipper.dirty_since_s is not None:
                async with asyncio.timeout(RELEASE_S):
                    await owned.shipper.ship()
        except TimeoutError as error:
            raise RetryableError(f"{branch.ref} could not be shipped in time; ask again") from error
        finally:
            branch.leave()
        return owned.shipper.durable_txid

    def _owned(self, uuid: str, branch_id: str) -> SharedBranch:
        branch = self._tiers.find(branch_id)
        if isinstance(branch, SharedBranch) and branch.ref.database.uuid == uuid and branch.lease is not None:
            return branch
        raise NotOwnerError(f"this node does not own branch {branch_id} of database {uuid}")

    async def departed(self, branch_ids: Iterable[str]) -> None:
        """Let go of branches that another node has deleted; of such as were not, nothing."""
        for branch_id in branch_ids:
            branch = self._tiers.find(branch_id)
            if branch is None or (branch.owned is None and branch.may_hold_more):
                continue  # unshipped commits stay, in case it is undeleted and used here
            try:
                if await self._is_deleted(branch):
                    await self._let_go(branch)
            except MemoturnError as error:
                _log.info("kept, should it be deleted", branch=str(branch.ref), error=str(error))

    async def _is_deleted(self, branch: Branch) -> bool:
        services, uuid = self._services, branch.ref.database.uuid
        try:
            if (await services.catalog.get_database_by_uuid(uuid)).deleted_at is not None:
                return True
        except DatabaseNotFoundError:
            return True
        current = await services.manifest_file(uuid, branch.branch_id).load()
        return current is not None and current.deleted_at is not None

    async def _let_go(self, branch: Branch) -> None:
        if branch.owned is not None:
            with suppress(MemoturnError):  # its manifest may say that it is deleted
                await branch.owned.shipper.ship()
        try:
            await branch.destroy()
        finally:
            await self._tiers.forget(branch)
        _log.info("let go of, since another node has deleted it", branch=str(branch.ref))
