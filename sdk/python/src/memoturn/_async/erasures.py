"""Erasures of one database: requested, listed, shown."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, cast

from memoturn._async.address import AsyncAddress
from memoturn.types import ErasureCoupon, ErasureRequested, ErasureTarget, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PAGE: Final = 100


class AsyncErasures:
    """The erasures below one address, that of a profile or a database."""

    def __init__(self, address: AsyncAddress) -> None:
        self._address = address.below("erasures")

    async def request(
        self,
        targets: list[ErasureTarget],
        *,
        grace_secs: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> ErasureRequested:
        """Erase what one or more targets name: out of the newest state at once, then out of history.

        Raises NotFoundError for a memory or topic that was never there, InvalidRequestError.
        """
        body: dict[str, Any] = dict(targets[0]) if len(targets) == 1 else {"targets": targets}
        if grace_secs is not None:
            body["grace_secs"] = grace_secs
        answer = await self._address.write("POST", body=body, **options)
        return cast("ErasureRequested", answer.json())

    async def each(self, *, limit: int | None = None) -> AsyncIterator[ErasureCoupon]:
        """Yield every erasure, the newest request first."""
        async for row in self._address.pages("erasures", page=_PAGE, most=limit, min_txid=0):
            yield cast("ErasureCoupon", row)

    async def get(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        answer = await self._address.find("GET", erasure_id, min_txid=0)
        return None if answer is None else cast("ErasureCoupon", answer.json())
