"""Batches of key-values: gets, puts and deletes of one namespace as one commit.

The gets see what is there before the batch. Either every condition holds and all of it is applied, or nothing
is; with `partial` the items whose condition does not hold are left out and told instead.
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from memoturnd.core import names
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Work, Written
from memoturnd.surfaces import conditions, fields, kv
from memoturnd.surfaces.conditions import Condition

ITEMS_LIMIT: Final = 1000
_INLINE_ITEMS: Final = 32
_INLINE_BYTES: Final = 64 * 1024
"""Batches up to this size are written on the event loop."""
_BASE64: Final = "$base64"


@dataclass(frozen=True, slots=True)
class Put:
    """A value to store, checked. `metadata` is canonical JSON."""

    key: str
    value: bytes
    ttl_s: int | None
    metadata: str | None
    condition: Condition | None


@dataclass(frozen=True, slots=True)
class Delete:
    """A key to remove, checked."""

    key: str
    condition: Condition | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, checked: no key is changed twice."""

    gets: tuple[str, ...]
    puts: tuple[Put, ...]
    deletes: tuple[Delete, ...]
    partial: bool

    @property
    def is_small(self) -> bool:
        """Whether it may run on the event loop."""
        items = len(self.gets) + len(self.puts) + len(self.deletes)
        return items <= _INLINE_ITEMS and sum(len(put.value) for put in self.puts) <= _INLINE_BYTES


def parse_batch(payload: Any) -> Batch:
    """Return the batch of `{gets?, puts?, deletes?, partial?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    if body.keys().isdisjoint({"gets", "puts", "deletes"}):
        raise InvalidRequestError("the batch has none of gets, puts and deletes: send a list of at least one")
    lists = {name: _list(body.get(name), name) for name in ("gets", "puts", "deletes")}
    total = sum(map(len, lists.values()))
    if total > ITEMS_LIMIT:
        raise InvalidRequestError(f"the batch holds {total} items: send at most {ITEMS_LIMIT} at once")
    batch = Batch(
        gets=tuple(fields.name(key, f"gets[{at}]", names.kv_key) for at, key in enumerate(lists["gets"])),
        puts=tuple(_parse_put(item, f"puts[{at}]") for at, item in enumerate(lists["puts"])),
        deletes=tuple(_parse_delete(item, f"deletes[{at}]") for at, item in enumerate(lists["deletes"])),
        partial=fields.boolean(body, "partial"),
    )
    seen: set[str] = set()
    for where, key in _changed_keys(batch):
        if key in seen:
            raise InvalidRequestError(
                f"{where} changes the key {key[:64]!a}, which the batch changes already: send it in another one"
            )
        seen.add(key)
    return batch


def _list(value: Any, where: str) -> list[Any]:
    return [] if value is None else fields.array(value, where)


def _changed_keys(batch: Batch) -> Iterator[tuple[str, str]]:
    for at, put in enumerate(batch.puts):
        yield f"puts[{at}]", put.key
    for at, delete in enumerate(batch.deletes):
        yield f"deletes[{at}]", delete.key


def _parse_put(value: Any, where: str) -> Put:
    item = fields.mapping(value, where)
    ttl = item.get("ttl")
    return Put(
        key=fields.name(item.get("key"), f"{where}.key", names.kv_key),
        value=_parse_value(item.get("value"), f"{where}.value"),
        ttl_s=None if ttl is None else fields.count(ttl, f"{where}.ttl", limit=fields.SECONDS_LIMIT),
        metadata=kv.parse_metadata(item.get("metadata"), f"{where}.metadata"),
        condition=conditions.parse_fields(item, where),
    )


def _parse_value(value: Any, where: str) -> bytes:
    """Return the bytes of a value as `kv.shown` writes it."""
    if isinstance(value, dict) and value.keys() == {_BASE64}:
        try:
            return base64.b64decode(fields.text(value[_BASE64], f"{where}.{_BASE64}"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequestError(f"{where}.{_BASE64} is not valid base64: {error}") from error
    if not isinstance(value, str):
        raise InvalidRequestError(f'{where} must be a string, or {{"$base64": string}} for other bytes')
    return fields.text(value, where).encode()


def _parse_delete(value: Any, where: str) -> Delete:
    if isinstance(value, str):
        return Delete(fields.name(value, where, names.kv_key), None)
    item = fields.mapping(value, where)
    return Delete(
        fields.name(item.get("key"), f"{where}.key", names.kv_key), conditions.parse_fields(item, where)
    )


def apply_batch(conn: ProfileConnection, now_ms: int, ns: str, batch: Batch) -> tuple[dict[str, Any], bool]:
    """Apply a batch; return `{gets, puts, deletes}` with one result per item, in order.

    Raises PreconditionFailedError where a condition does not hold, unless the batch is partial, and
    PayloadTooLargeError where the values to get are too large together.
    """
    gets = _read(conn, now_ms, ns, batch.gets)
    puts, deletes = [], []
    changed = False
    for at, put in enumerate(batch.puts):
        unmet = _unmet(conn, now_ms, ns, put, f"puts[{at}]", partial=batch.partial)
        if unmet is None:
            etag, _ = kv.apply_put(
                conn, now_ms, ns, put.key, put.value, ttl_s=put.ttl_s, metadata=put.metadata
            )
            changed = True
        puts.append(unmet or {"key": put.key, "status": "stored", "etag": etag})
    for at, delete in enumerate(batch.deletes):
        unmet = _unmet(conn, now_ms, ns, delete, f"deletes[{at}]", partial=batch.partial)
        if unmet is None:
            was_there, _ = kv.apply_delete(conn, now_ms, ns, delete.key)
            changed = changed or was_there
        deletes.append(unmet or {"key": delete.key, "status": "deleted" if was_there else "absent"})
    return {"gets": gets, "puts": puts, "deletes": deletes}, changed


def _unmet(
    conn: ProfileConnection, now_ms: int, ns: str, item: Put | Delete, where: str, *, partial: bool
) -> dict[str, Any] | None:
    """Return the result of an item whose condition does not hold, None where it does."""
    if item.condition is None:
        return None
    etag = kv.find_etag(conn, now_ms, ns, item.key)
    if not partial:
        item.condition.require(etag, f"{where}: {kv.named(ns, item.key)}")
    if item.condition.holds(etag):
        return None
    return {"key": item.key, "status": "precondition_failed", "etag": etag}


def _read(conn: ProfileConnection, now_ms: int, ns: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    size_bytes = 0
    for key in keys:
        entry = kv.find_entry(conn, now_ms, ns, key)
        if entry is None:
            results.append({"key": key, "status": "absent"})
            continue
        size_bytes += len(entry.value)
        kv.check_answer(size_bytes)
        found = kv.described(key, entry.etag, len(entry.value), entry.metadata, entry.expires_at_ms)
        results.append({**found, "status": "found", "value": kv.shown(entry.value)})
    return results


async def apply(
    profile: Profile, ns: str, batch: Batch, *, durability: Durability = Durability.LOCAL
) -> Written[dict[str, Any]]:
    """Apply a batch; see `apply_batch`. Raises InvalidRequestError for a bad namespace."""
    names.kv_namespace(ns)
    return await profile.write(
        lambda conn, now_ms: apply_batch(conn, now_ms, ns, batch),
        durability=durability,
        work=Work.POINT if batch.is_small else Work.HEAVY,
    )
