# Made of _async/erasures.py by scripts/unasync: change that one.
"""Erasures of one database: requested, listed, shown."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from memoturn._sync.address import Address
from memoturn.types import ErasureCoupon, ErasureRequested, ErasureTarget, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PAGE: Final = 100


class Erasures:
    """The erasures below one address, that of a profile or a database."""

    def __init__(self, address: Address) -> None:
        self._address = address.below("erasures")

    def request(
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
        answer = self._address.write("POST", body=body, **options)
        return cast("ErasureRequested", answer.json())

    def each(self, *, limit: int | None = None) -> Iterator[ErasureCoupon]:
        """Yield every erasure, the newest request first."""
        for row in self._address.pages("erasures", page=_PAGE, most=limit, min_txid=0):
            yield cast("ErasureCoupon", row)

    def get(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        answer = self._address.find("GET", erasure_id, min_txid=0)
        return None if answer is None else cast("ErasureCoupon", answer.json())
