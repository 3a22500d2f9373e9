"""Key-values of one branch."""

import builtins  # its classes have methods named `list`
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from memoturn._async.address import AsyncAddress
from memoturn._core.bodies import (
    changed,
    conditions,
    given,
    metadata_header,
    value_bytes,
    value_from_json,
    value_to_json,
)
from memoturn._core.entries import entry_of
from memoturn.types import (
    DeleteItem,
    KeyBatchResult,
    KeyEntry,
    KeyIncremented,
    KeyStored,
    PutItem,
    ReadOptions,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncKeyValues:
    """Values by key within a key-value namespace. Keys are any non-empty text; values are bytes.

    An ETag names the put that a value comes from. As a condition, `if_match` asks for it (`*`: for any value),
    `if_none_match` asks that it is not there (`*`: that there is none). Where a condition does not hold,
    PreconditionFailedError is raised, and nothing was changed.
    """

    def __init__(self, address: AsyncAddress) -> None:
        self._address = address.below("kv")

    async def put(
        self,
        ns: str,
        key: str,
        value: str | bytes,
        *,
        ttl: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> int:
        """Set a key to bytes, or to text as UTF-8, with its `metadata`, for `ttl` seconds; return the txid.

        Raises PreconditionFailedError.
        """
        stored = await self.put_entry(
            ns,
            key,
            value,
            ttl=ttl,
            metadata=metadata,
            if_match=if_match,
            if_none_match=if_none_match,
            **options,
        )
        return stored["txid"]

    async def put_entry(
        self,
        ns: str,
        key: str,
        value: str | bytes,
        *,
        ttl: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> KeyStored:
        """Set a key as `put` does; return the ETag of what was stored besides. Raises PreconditionFailedError."""
        headers = conditions(if_match, if_none_match)
        if metadata is not None:
            headers["Memoturn-Meta"] = metadata_header(metadata)
        answer = await self._address.write(
            "PUT", ns, key, data=value_bytes(value), query={"ttl": ttl}, headers=headers, **options
        )
        return cast("KeyStored", {**answer.stamped(), "etag": answer.headers.get("ETag", "").strip('"')})

    async def get(self, ns: str, key: str, **options: "Unpack[ReadOptions]") -> bytes | None:
        """Return a key's value, or that which it had `at` a revision; None when it has none or it has expired."""
        answer = await self._address.find("GET", ns, key, **options)
        return None if answer is None else answer.body

    async def get_text(self, ns: str, key: str, **options: "Unpack[ReadOptions]") -> str | None:
        """Return a key's value as text; None when it has none. Raises UnicodeDecodeError for other bytes."""
        value = await self.get(ns, key, **options)
        return None if value is None else value.decode()

    async def get_entry(
        self,
        ns: str,
        key: str,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> KeyEntry | None:
        """Return a key's value with its ETag, metadata and end; None when it has none or it has expired.

        With `if_none_match` naming the ETag that is there, the entry comes without its `value`, and with 0 bytes. Raises
        PreconditionFailedError where `if_match` names another one.
        """
        headers = conditions(if_match, if_none_match)
        answer = await self._address.find("GET", ns, key, headers=headers, **options)
        return None if answer is None else entry_of(key, answer)

    async def delete(
        self,
        ns: str,
        key: str,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> int:
        """Remove a key; no error when it is absent. Return the txid. Raises PreconditionFailedError."""
        headers = conditions(if_match, if_none_match)
        return (await self._address.write("DELETE", ns, key, headers=headers, **options)).txid

    async def increment(
        self,
        ns: str,
        key: str,
        by: int = 1,
        *,
        ttl: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> KeyIncremented:
        """Add to the number under a key (decimal digits; 0 where there is none), and return what is there now.

        `ttl` is the lifetime in seconds of a number that has none; one that has one keeps it, so that it counts
        within a fixed window. Raises ConflictError where the value is no number, or beyond 64 bits.
        """
        answer = await self._address.write(
            "POST", ns, key, "increment", body=given(by=by, ttl=ttl), **options
        )
        return cast("KeyIncremented", answer.stamped())

    async def batch(
        self,
        ns: str,
        *,
        gets: Iterable[str] = (),
        puts: Iterable[PutItem] = (),
        deletes: Iterable[str | DeleteItem] = (),
        partial: bool = False,
        **options: "Unpack[WriteOptions]",
    ) -> KeyBatchResult:
        """Get, set and remove up to 1000 keys as one commit; the results are in the order of the items.

        The gets show what was there before. Raises PreconditionFailedError where one condition does not hold, and
        then nothing was changed; with `partial` that item alone is left out, and its result says so.
        """
        body = given(
            gets=list(gets),
            puts=[changed(item, "value", value_to_json) for item in puts],
            deletes=list(deletes),
            partial=partial or None,
        )
        stamped = (await self._address.write("POST", ns, body=body, **options)).stamped()
        for got in stamped["gets"]:
            if "value" in got:
                got["value"] = value_from_json(got["value"])
        return cast("KeyBatchResult", stamped)

    async def iter_keys(
        self, ns: str, *, prefix: str = "", limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> AsyncIterator[str]:
        """Yield every live key that starts with `prefix`, ascending."""
        query = {"prefix": prefix or None}
        async for key in self._address.pages("keys", ns, query=query, most=limit, **options):
            yield cast("str", key)

    async def iter_entries(
        self,
        ns: str,
        *,
        prefix: str = "",
        values: bool = True,
        limit: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> AsyncIterator[KeyEntry]:
        """Yield every live key that starts with `prefix` with what stands under it, without `values` if not wanted."""
        query = {"prefix": prefix or None, "values": values, "metadata": True}
        async for entry in self._address.pages("entries", ns, query=query, most=limit, **options):
            if "value" in entry:
                entry["value"] = value_from_json(entry["value"])
            yield cast("KeyEntry", entry)

    async def list(
        self, ns: str, *, prefix: str = "", limit: int = 100, **options: "Unpack[ReadOptions]"
    ) -> "builtins.list[str]":
        """Return up to `limit` (at most 1000) live keys that start with `prefix`, ascending."""
        query = {"prefix": prefix or None, "limit": limit}
        return cast("list[str]", (await self._address.read("GET", ns, query=query, **options)).json()["keys"])
