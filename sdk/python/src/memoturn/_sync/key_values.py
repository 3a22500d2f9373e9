# Made of _async/key_values.py by scripts/unasync: change that one.
"""Key-values of one branch."""

from typing import TYPE_CHECKING, cast

from memoturn._sync.address import Address
from memoturn.types import ReadOptions, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


class KeyValues:
    """Values by key within a key-value namespace. Keys are any non-empty text, values are bytes."""

    def __init__(self, address: Address) -> None:
        self._address = address.below("kv")

    def put(
        self, ns: str, key: str, value: bytes, *, ttl: int | None = None, **options: "Unpack[WriteOptions]"
    ) -> int:
        """Set a key, and with `ttl` in seconds its end; return the txid."""
        return (self._address.write("PUT", ns, key, data=value, query={"ttl": ttl}, **options)).txid

    def get(self, ns: str, key: str, **options: "Unpack[ReadOptions]") -> bytes | None:
        """Return a key's value, or that which it had `at` a revision; None when it has none or it has expired."""
        answer = self._address.find("GET", ns, key, **options)
        return None if answer is None else answer.body

    def delete(self, ns: str, key: str, **options: "Unpack[WriteOptions]") -> int:
        """Remove a key; no error when it is absent. Return the txid."""
        return (self._address.write("DELETE", ns, key, **options)).txid

    def list(
        self, ns: str, *, prefix: str = "", limit: int = 100, **options: "Unpack[ReadOptions]"
    ) -> "list[str]":
        """Return up to `limit` (at most 1000) live keys that start with `prefix`, ascending."""
        query = {"prefix": prefix or None, "limit": limit}
        return cast("list[str]", (self._address.read("GET", ns, query=query, **options)).json()["keys"])
