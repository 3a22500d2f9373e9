"""Key-values: bytes under (namespace, key), with an optional lifetime. Reads never write."""

from typing import Final

from memoturnd.core import names
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields

LIST_LIMIT: Final = 1000
_INLINE_VALUE_BYTES = 256 * 1024
"""Values up to this size are written on the event loop."""
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

_PUT = """INSERT INTO __memoturn_kv(ns, k, v, expires_at) VALUES (?, ?, ?, ?)
 ON CONFLICT(ns, k) DO UPDATE SET v = excluded.v, expires_at = excluded.expires_at"""
_GET = """SELECT v FROM __memoturn_kv
 WHERE ns = ? AND k = ? AND (expires_at IS NULL OR expires_at > ?)"""
_LIST = """SELECT k FROM __memoturn_kv
 WHERE ns = ? AND k >= ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY k LIMIT ?"""
_LIST_BELOW = """SELECT k FROM __memoturn_kv
 WHERE ns = ? AND k >= ? AND k < ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY k LIMIT ?"""


def apply_put(
    conn: ProfileConnection, now_ms: int, ns: str, key: str, value: bytes, *, ttl_s: int | None = None
) -> tuple[None, bool]:
    """Store `value`, replacing value and lifetime; with a `ttl_s` of 0 it is expired at once."""
    conn.execute(_PUT, (ns, key, value, None if ttl_s is None else now_ms + 1000 * ttl_s))
    return None, True


def read_value(conn: ProfileConnection, now_ms: int, ns: str, key: str) -> bytes:
    """Return the bytes under a key. Raises NotFoundError when there are none, or they expired."""
    row = conn.execute(_GET, (ns, key, now_ms)).fetchone()
    if row is None:
        raise NotFoundError(f"no key {key[:64]!a} in {ns[:64]!a}: it was never put, was deleted or expired")
    value: bytes = row[0]
    return value


def apply_delete(conn: ProfileConnection, now_ms: int, ns: str, key: str) -> tuple[bool, bool]:
    """Remove a key; return whether it was there, expired or not."""
    del now_ms
    before = conn.total_changes()
    conn.execute("DELETE FROM __memoturn_kv WHERE ns = ? AND k = ?", (ns, key))
    deleted = conn.total_changes() > before
    return deleted, deleted


def read_keys(
    conn: ProfileConnection, now_ms: int, ns: str, *, prefix: str = "", limit: int = 100
) -> list[str]:
    """Return up to `limit` live keys that start with `prefix`, ascending by their UTF-8 bytes."""
    end = _end_of_prefix(prefix)
    if end is None:
        rows = conn.execute(_LIST, (ns, prefix, now_ms, limit))
    else:
        rows = conn.execute(_LIST_BELOW, (ns, prefix, end, now_ms, limit))
    return [key for (key,) in rows]


def _end_of_prefix(prefix: str) -> str | None:
    """Return the smallest string above every one that starts with `prefix`, None when there is none."""
    prefix = prefix.rstrip(chr(_LAST_CHARACTER))
    if not prefix:
        return None
    last = ord(prefix[-1]) + 1
    if last in _SURROGATES:
        last = _SURROGATES.stop
    return prefix[:-1] + chr(last)


async def put(
    profile: Profile, ns: str, key: str, value: bytes, *, ttl_s: int | None = None, durable: bool = False
) -> Written[None]:
    """Store a value; see `apply_put`. Raises InvalidRequestError for a bad namespace, key or ttl."""
    names.kv_namespace(ns)
    names.kv_key(key)
    if ttl_s is not None and not 0 <= ttl_s <= fields.SECONDS_LIMIT:
        raise InvalidRequestError(f"ttl is {ttl_s}: it takes 0 to {fields.SECONDS_LIMIT} seconds")
    work = Work.POINT if len(value) <= _INLINE_VALUE_BYTES else Work.HEAVY
    return await profile.write(
        lambda conn, now_ms: apply_put(conn, now_ms, ns, key, value, ttl_s=ttl_s), durable=durable, work=work
    )


async def get(profile: Profile, ns: str, key: str, *, min_txid: int = 0) -> Seen[bytes]:
    """Return a value; see `read_value`. Raises InvalidRequestError for a bad namespace or key."""
    names.kv_namespace(ns)
    names.kv_key(key)
    return await profile.read(lambda conn, now_ms: read_value(conn, now_ms, ns, key), min_txid=min_txid)


async def delete(profile: Profile, ns: str, key: str, *, durable: bool = False) -> Written[bool]:
    """Remove a key; see `apply_delete`. Raises InvalidRequestError for a bad namespace or key."""
    names.kv_namespace(ns)
    names.kv_key(key)
    return await profile.write(lambda conn, now_ms: apply_delete(conn, now_ms, ns, key), durable=durable)


async def keys(
    profile: Profile, ns: str, *, prefix: str = "", limit: int = 100, min_txid: int = 0
) -> Seen[list[str]]:
    """Return live keys; see `read_keys`. Raises InvalidRequestError for a bad namespace or prefix."""
    names.kv_namespace(ns)
    names.kv_prefix(prefix)
    limit = min(limit, LIST_LIMIT)
    return await profile.read(
        lambda conn, now_ms: read_keys(conn, now_ms, ns, prefix=prefix, limit=limit), min_txid=min_txid
    )
