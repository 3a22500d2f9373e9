"""Writes that take effect once, however often they are sent: what an `Idempotency-Key` does to a profile."""

import hashlib
from typing import Any, Final, TypeVar

import msgspec

from memoturnd.core.durability import Durability, level_of
from memoturnd.engine import idempotency
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.idempotency import Once
from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.http.ports import BranchProfile
from memoturnd.http.wrapped import WrappedProfile
from memoturnd.seams.profile import Work, WriteOp, Written

T = TypeVar("T")

KEY_LENGTH_LIMIT: Final = 255
_VISIBLE: Final = range(0x21, 0x7F)


def parse_once(route: str, principal: str, key: bytes, request: list[bytes]) -> Once:
    """Return what an `Idempotency-Key` asks for; `request` is what makes two requests the same.

    Raises InvalidRequestError.
    """
    if not 0 < len(key) <= KEY_LENGTH_LIMIT or any(byte not in _VISIBLE for byte in key):
        raise InvalidRequestError(
            f"Idempotency-Key takes 1 to {KEY_LENGTH_LIMIT} visible ASCII characters, such as a UUID"
        )
    return Once(route, principal, key.decode("ascii"), _digest(request))


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


class OnceProfile(WrappedProfile):
    """A profile whose write is applied once. Implements memoturnd.http.ports.BranchProfile.

    The value of a write is kept as JSON, and comes back as what JSON decodes to.
    """

    def __init__(self, profile: BranchProfile, once: Once) -> None:
        super().__init__(profile)
        self._once = once

    async def kept(self, *, durability: Durability) -> Written[Any] | None:
        """Return what the same request was answered before, None where it is a new one; see `kept` below."""
        request = self._once.request(self._profile.branch_id)
        seen = await self._profile.read(lambda conn, now_ms: idempotency.find(conn, now_ms, request))
        return None if seen.value is None else await self.write(_gone, durability=durability)

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Written[T]:
        """Apply `op`, unless the same request was applied before: then return what that one returned.

        Raises IdempotencyKeyReusedError when the key came with another request, InvalidRequestError when the
        value is too large to be kept, and what memoturnd.seams.profile.Profile.write raises.
        """
        once = self._once
        request = once.request(self._profile.branch_id)

        def apply(conn: ProfileConnection, now_ms: int) -> tuple[tuple[Any, int | None], bool]:
            kept = idempotency.find(conn, now_ms, request)
            if kept is not None:
                return (msgspec.json.decode(kept.answer), kept.txid), False
            value, _ = op(conn, now_ms)
            idempotency.record(conn, now_ms, request, msgspec.json.encode(value))
            return (value, None), True

        written = await self._profile.write(apply, durability=durability, work=work)
        value, txid = written.value
        if txid is None:
            return Written(value, written.txid, written.durable_txid, written.durability)
        once.replayed = True
        # What the newest commit has reached the earlier one has, too.
        level = max(written.durability, level_of(txid, durable_txid=written.durable_txid))
        return Written(value, txid, written.durable_txid, level)


def _gone(_conn: ProfileConnection, _now_ms: int) -> tuple[None, bool]:
    raise ConflictError("what was kept under the Idempotency-Key has just expired: send it once more")


async def kept(profile: BranchProfile, *, durability: Durability) -> Written[Any] | None:
    """Return what an earlier request with the same Idempotency-Key was answered, None where there was none.

    For what is dear and comes before the write. Raises IdempotencyKeyReusedError.
    """
    return await profile.kept(durability=durability) if isinstance(profile, OnceProfile) else None
