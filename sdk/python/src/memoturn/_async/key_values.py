"""Key-values of one branch."""

from typing import TYPE_CHECKING, cast

from memoturn._async.address import AsyncAddress
from memoturn.types import ReadOptions, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncKeyValues:
    """Values by key within a key-value namespace. Keys are any non-empty text, values are bytes."""

    def __init__(self, address: AsyncAddress) -> None:
        self._address = address.below("kv")

    async def put(
        self, ns: str, key: str, value: bytes, *, ttl: int | None = None, **options: "Unpack[WriteOptions]"
    ) -> int:
        """Set a key, and with `ttl` in seconds its end; return the txid."""
        return (await self._address.write("PUT", ns, key, data=value, query={"ttl": ttl}, **options)).txid

    async def get(self, ns: str, key: str, **options: "Unpack[ReadOptions]") -> bytes | None:
        """Return a key's value, or that which it had `at` a revision; None when it has none or it has expired."""
        answer = await self._address.find("GET", ns, key, **options)
        return None if answer is None else answer.body

    async def delete(self, ns: str, key: str, **options: "Unpack[WriteOptions]") -> int:
        """Remove a key; no error when it is absent. Return the txid."""
        return (await self._address.write("DELETE", ns, key, **options)).txid

    async def list(
        self, ns: str, *, prefix: str = "", limit: int = 100, **options: "Unpack[ReadOptions]"
    ) -> "list[str]":
        """Return up to `limit` (at most 1000) live keys that start with `prefix`, ascending."""
        query = {"prefix": prefix or None, "limit": limit}
        return cast("list[str]", (await self._address.read("GET", ns, query=query, **options)).json()["keys"])
