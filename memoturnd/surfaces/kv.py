"""Key-values: bytes under (namespace, key), with metadata, an ETag and an optional lifetime. Reads never write.

An ETag names one put: it is a hash of the value, its metadata, the txid of the commit round and the place in
that round. A txid is never used again, so no put gets the ETag of an earlier one, whatever was deleted or
rewound between them; and the hash tells apart what forks and databases of one name stored at equal txids.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from memoturnd.core import names
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError, PayloadTooLargeError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields
from memoturnd.surfaces.conditions import Condition

LIST_LIMIT: Final = 1000
METADATA_LIMIT_BYTES: Final = 4096
PAGE_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of values in one answer; a page of a list always has one value, however large."""
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
INLINE_VALUE_BYTES: Final = 256 * 1024
"""Values up to this size are written on the event loop."""
_TAG_BYTES: Final = 8
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]{0,18})")
_ABOVE_ALL_TEXT: Final = b""
"""SQLite sorts every blob behind every text."""

_PUT = """INSERT INTO __memoturn_kv(ns, k, v, expires_at, meta, tag) VALUES (?, ?, ?, ?, ?, ?)
 ON CONFLICT(ns, k) DO UPDATE SET
 v = excluded.v, expires_at = excluded.expires_at, meta = excluded.meta, tag = excluded.tag"""
_LIVE = "(expires_at IS NULL OR expires_at > ?)"
_GET = f"SELECT v, tag, meta, expires_at FROM __memoturn_kv WHERE ns = ? AND k = ? AND {_LIVE}"
# A row from before there were tags is told by its value.
_FIND_TAG = f"""SELECT tag, CASE WHEN tag IS NULL THEN v END FROM __memoturn_kv
 WHERE ns = ? AND k = ? AND {_LIVE}"""
_DELETE = "DELETE FROM __memoturn_kv WHERE ns = ? AND k = ?"
_PAGE = f"""SELECT {{columns}} FROM __memoturn_kv
 WHERE ns = ? AND k >= ? AND k < ? AND {_LIVE} ORDER BY k LIMIT ?"""
_PAGE_OF_KEYS = _PAGE.format(columns="k")
_PAGE_OF_ENTRIES = _PAGE.format(
    columns="k, length(v), CASE WHEN tag IS NULL THEN v END, tag, meta, expires_at"
)
_PAGE_OF_VALUES = _PAGE.format(columns="k, length(v), v, tag, meta, expires_at")


class Entry(NamedTuple):
    """What stands under a key. `metadata` is canonical JSON of an object."""

    value: bytes
    tag: bytes | None
    metadata: str | None
    expires_at_ms: int | None

    @property
    def etag(self) -> str:
        """The ETag, as it stands between the quotes."""
        return etag_of(self.tag, self.value)


def etag_of(tag: bytes | None, value: bytes) -> str:
    """Return the ETag of a stored tag; a value from before there were tags has one by its bytes alone."""
    return (_hashed(b"", value, "") if tag is None else tag).hex()


def _hashed(place: bytes, value: bytes, metadata: str) -> bytes:
    hashed = hashlib.blake2b(b"%b\0%b\0" % (place, metadata.encode()), digest_size=_TAG_BYTES)
    hashed.update(value)
    return hashed.digest()


def _new_tag(conn: ProfileConnection, value: bytes, metadata: str | None) -> bytes:
    """Return the tag of a put in the open round: its place is the count of rows changed before it."""
    return _hashed(b"%d.%d" % (conn.round_txid, conn.total_changes()), value, metadata or "")


def parse_metadata(value: Any, where: str) -> str | None:
    """Return a JSON object as canonical text, None for null. Raises InvalidRequestError."""
    if value is None:
        return None
    return fields.object_text(value, where, limit_bytes=METADATA_LIMIT_BYTES)


def shown(value: bytes) -> str | dict[str, str]:
    """Return a value as JSON has it: text where it is UTF-8 without NUL, else `{"$base64": ...}`."""
    if b"\0" not in value:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"$base64": base64.b64encode(value).decode()}


def described(
    key: str, etag: str, size_bytes: int, metadata: str | None, expires_at_ms: int | None
) -> dict[str, Any]:
    """Return an entry without its value, as JSON has it."""
    return {
        "key": key,
        "etag": etag,
        "size_bytes": size_bytes,
        "metadata": None if metadata is None else msgspec.json.decode(metadata),
        "expires_at": expires_at_ms,
    }


# ---- one key


def find_etag(conn: ProfileConnection, now_ms: int, ns: str, key: str) -> str | None:
    """Return the ETag of a live key, None where there is none."""
    row: tuple[bytes | None, bytes] | None = conn.execute(_FIND_TAG, (ns, key, now_ms)).fetchone()
    return None if row is None else etag_of(*row)


def apply_put(
    conn: ProfileConnection,
    now_ms: int,
    ns: str,
    key: str,
    value: bytes,
    *,
    ttl_s: int | None = None,
    metadata: str | None = None,
    condition: Condition | None = None,
) -> tuple[str, bool]:
    """Store a value, replacing value, metadata and lifetime; return its ETag. A `ttl_s` of 0 is expired at once.

    Raises PreconditionFailedError unless `condition` holds for what is there.
    """
    if condition is not None:
        condition.require(find_etag(conn, now_ms, ns, key), named(ns, key))
    expires_at_ms = None if ttl_s is None else now_ms + 1000 * ttl_s
    return store(conn, ns, key, value, metadata, expires_at_ms), True


def store(
    conn: ProfileConnection,
    ns: str,
    key: str,
    value: bytes,
    metadata: str | None,
    expires_at_ms: int | None,
) -> str:
    """Write a row, whatever is there, and return its ETag."""
    tag = _new_tag(conn, value, metadata)
    conn.execute(_PUT, (ns, key, value, expires_at_ms, metadata, tag))
    conn.noted.put("kv", ns, key)
    return tag.hex()


def read_entry(conn: ProfileConnection, now_ms: int, ns: str, key: str) -> Entry:
    """Return what stands under a key. Raises NotFoundError when there is nothing, or it expired."""
    row: Any = conn.execute(_GET, (ns, key, now_ms)).fetchone()
    if row is None:
        raise NotFoundError(f"{named(ns, key)} is not there: it was never put, was deleted or expired")
    return Entry(*row)


def find_entry(conn: ProfileConnection, now_ms: int, ns: str, key: str) -> Entry | None:
    """Return what stands under a key, None when there is nothing, or it expired."""
    row: Any = conn.execute(_GET, (ns, key, now_ms)).fetchone()
    return None if row is None else Entry(*row)


def apply_delete(
    conn: ProfileConnection, now_ms: int, ns: str, key: str, *, condition: Condition | None = None
) -> tuple[bool, bool]:
    """Remove a key; return whether it was there, expired or not.

    Raises PreconditionFailedError unless `condition` holds for what is there.
    """
    if condition is not None:
        condition.require(find_etag(conn, now_ms, ns, key), named(ns, key))
    before = conn.total_changes()
    conn.execute(_DELETE, (ns, key))
    deleted = conn.total_changes() > before
    if deleted:
        conn.noted.deleted("kv", ns, key)
    return deleted, deleted


def apply_increment(
    conn: ProfileConnection, now_ms: int, ns: str, key: str, by: int, *, ttl_s: int | None = None
) -> tuple[dict[str, Any], bool]:
    """Add to the decimal number under a key, 0 where there is none; return `{value, etag}`.

    `ttl_s` gives a lifetime to what has none; what has one keeps it, as metadata stays. Raises ConflictError
    where the value is no 64-bit integer, or would not be one any more.
    """
    entry = find_entry(conn, now_ms, ns, key)
    number = 0 if entry is None else _number(entry.value, named(ns, key))
    number += by
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise ConflictError(
            f"{named(ns, key)} would be {number}, which is beyond 64-bit integers: it stays as it is"
        )
    expires_at_ms = entry.expires_at_ms if entry is not None else None
    if expires_at_ms is None and ttl_s is not None:
        expires_at_ms = now_ms + 1000 * ttl_s
    metadata = entry.metadata if entry is not None else None
    etag = store(conn, ns, key, b"%d" % number, metadata, expires_at_ms)
    return {"value": number, "etag": etag}, True


def _number(value: bytes, what: str) -> int:
    if _NUMBER.fullmatch(value) and INTEGER_MIN <= (number := int(value)) <= INTEGER_MAX:
        return number
    raise ConflictError(
        f"{what} holds {value[:24]!r}, which is no 64-bit integer in decimal digits: put a number, then increment it"
    )


def named(ns: str, key: str) -> str:
    """Return how errors name a key."""
    return f"key {key[:64]!a} in {ns[:64]!a}"


# ---- many keys


def read_page(
    conn: ProfileConnection,
    now_ms: int,
    ns: str,
    *,
    prefix: str = "",
    after: str | None = None,
    limit: int = 100,
    with_values: bool = False,
    with_metadata: bool = False,
) -> dict[str, Any]:
    """Return `{keys, next_cursor}`: up to `limit` live keys that start with `prefix` and come after `after`.

    Ascending by their UTF-8 bytes; `next_cursor` is the last one, None when no more follow. With values or
    metadata there are `entries` too, and a page ends where its values would pass PAGE_LIMIT_BYTES.
    """
    first = prefix if after is None else max(prefix, f"{after}\0")  # the first text above `after`
    bindings: Sequence[Binding] = (ns, first, _end_of_prefix(prefix), now_ms, limit + 1)
    if with_values:
        keys, entries, is_more = _read_entries(conn, _PAGE_OF_VALUES, bindings, limit, with_values=True)
    elif with_metadata:
        keys, entries, is_more = _read_entries(conn, _PAGE_OF_ENTRIES, bindings, limit, with_values=False)
    else:
        keys = [key for (key,) in conn.execute(_PAGE_OF_KEYS, bindings)]
        keys, entries, is_more = keys[:limit], None, len(keys) > limit
    page: dict[str, Any] = {"keys": keys, "next_cursor": keys[-1] if keys and is_more else None}
    return page if entries is None else {**page, "entries": entries}


def _read_entries(
    conn: ProfileConnection, statement: str, bindings: Sequence[Binding], limit: int, *, with_values: bool
) -> tuple[list[str], list[dict[str, Any]], bool]:
    """Return (keys, entries, whether more follow)."""
    entries: list[dict[str, Any]] = []
    room_bytes = PAGE_LIMIT_BYTES
    cursor = conn.execute(statement, bindings)
    is_more = False
    for key, size_bytes, value, tag, metadata, expires_at_ms in cursor:
        room_bytes -= size_bytes if with_values else 0
        if len(entries) == limit or (entries and room_bytes < 0):
            is_more = True
            break
        entry = described(key, etag_of(tag, value), size_bytes, metadata, expires_at_ms)
        if with_values:
            entry["value"] = shown(value)
        entries.append(entry)
    cursor.close(force=True)  # a statement that is not at its end would hold its state open
    return [entry["key"] for entry in entries], entries, is_more


def _end_of_prefix(prefix: str) -> str | bytes:
    """Return the smallest string above every one that starts with `prefix`, or what is above all text."""
    prefix = prefix.rstrip(chr(_LAST_CHARACTER))
    if not prefix:
        return _ABOVE_ALL_TEXT
    last = ord(prefix[-1]) + 1
    if last in _SURROGATES:
        last = _SURROGATES.stop
    return prefix[:-1] + chr(last)


def check_answer(size_bytes: int) -> None:
    """Raise PayloadTooLargeError where values would make an answer too large."""
    if size_bytes > PAGE_LIMIT_BYTES:
        raise PayloadTooLargeError(
            f"the values asked for take over {PAGE_LIMIT_BYTES} bytes together: get fewer at once"
        )


# ---- what routes call


async def put(
    profile: Profile,
    ns: str,
    key: str,
    value: bytes,
    *,
    ttl_s: int | None = None,
    metadata: str | None = None,
    condition: Condition | None = None,
    durability: Durability = Durability.LOCAL,
) -> Written[str]:
    """Store a value; see `apply_put`. Raises InvalidRequestError for a bad namespace, key or ttl."""
    names.kv_namespace(ns)
    names.kv_key(key)
    if ttl_s is not None and not 0 <= ttl_s <= fields.SECONDS_LIMIT:
        raise InvalidRequestError(f"ttl is {ttl_s}: it takes 0 to {fields.SECONDS_LIMIT} seconds")
    work = Work.POINT if len(value) <= INLINE_VALUE_BYTES else Work.HEAVY
    return await profile.write(
        lambda conn, now_ms: apply_put(
            conn, now_ms, ns, key, value, ttl_s=ttl_s, metadata=metadata, condition=condition
        ),
        durability=durability,
        work=work,
    )


async def get(profile: Profile, ns: str, key: str, *, min_txid: int = 0) -> Seen[Entry]:
    """Return what stands under a key; see `read_entry`. Raises InvalidRequestError for a bad namespace or key."""
    names.kv_namespace(ns)
    names.kv_key(key)
    return await profile.read(lambda conn, now_ms: read_entry(conn, now_ms, ns, key), min_txid=min_txid)


async def delete(
    profile: Profile,
    ns: str,
    key: str,
    *,
    condition: Condition | None = None,
    durability: Durability = Durability.LOCAL,
) -> Written[bool]:
    """Remove a key; see `apply_delete`. Raises InvalidRequestError for a bad namespace or key."""
    names.kv_namespace(ns)
    names.kv_key(key)
    return await profile.write(
        lambda conn, now_ms: apply_delete(conn, now_ms, ns, key, condition=condition), durability=durability
    )


def parse_increment(payload: Any) -> tuple[int, int | None]:
    """Return (by, ttl in seconds) of `{by?, ttl?}`; `by` is 1 unless given. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    by, ttl = body.get("by"), body.get("ttl")
    return (
        1 if by is None else fields.integer(by, "by", least=INTEGER_MIN, most=INTEGER_MAX),
        None if ttl is None else fields.count(ttl, "ttl", limit=fields.SECONDS_LIMIT),
    )


async def increment(
    profile: Profile,
    ns: str,
    key: str,
    by: int,
    *,
    ttl_s: int | None = None,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Add to a number; see `apply_increment`. Raises InvalidRequestError for a bad namespace or key."""
    names.kv_namespace(ns)
    names.kv_key(key)
    return await profile.write(
        lambda conn, now_ms: apply_increment(conn, now_ms, ns, key, by, ttl_s=ttl_s), durability=durability
    )


async def page(
    profile: Profile,
    ns: str,
    *,
    prefix: str = "",
    after: str | None = None,
    limit: int = 100,
    with_values: bool = False,
    with_metadata: bool = False,
    min_txid: int = 0,
) -> Seen[dict[str, Any]]:
    """Return live keys; see `read_page`. Raises InvalidRequestError for a bad namespace, prefix or cursor."""
    names.kv_namespace(ns)
    names.kv_prefix(prefix)
    if after is not None:
        names.kv_cursor(after)
    limit = min(limit, LIST_LIMIT)
    return await profile.read(
        lambda conn, now_ms: read_page(
            conn,
            now_ms,
            ns,
            prefix=prefix,
            after=after,
            limit=limit,
            with_values=with_values,
            with_metadata=with_metadata,
        ),
        min_txid=min_txid,
        work=Work.SCAN,  # whether a key lives stands behind its value, and expired keys are passed over
    )
