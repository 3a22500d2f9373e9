"""From a URL to an object store, and the proof at start that the store honours conditions.

The clients of buckets are imported only where one is opened: a node on a local directory does not pay for them.
"""

from contextlib import suppress
from pathlib import Path

from memoturnd.errors import ConfigurationError, StoreRefusedError, StoreUnavailableError
from memoturnd.seams.clock import Randomness, SystemRandomness
from memoturnd.seams.object_store import Committed, ObjectMissingError, ObjectStore, SwapResult, Unknown
from memoturnd.stores.local import LocalStore
from memoturnd.stores.location import Location
from memoturnd.stores.memory import MemoryStore

SUPPORTED = (
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file://PATH (absolute or relative) "
    "and mem:// (gone with the process)"
)
CONNECTIONS = 32
_BUCKETS = {"s3", "gs", "az"}


def check_url(url: str) -> None:
    """Raise ConfigurationError unless `open_store` can open `url`. Touches nothing."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"file", "mem"} | _BUCKETS:
        raise ConfigurationError(f"object store {url!r} is not supported: use {SUPPORTED}")
    if scheme in _BUCKETS:
        Location.parse(url)
    if scheme == "file" and not rest:
        raise ConfigurationError(f"object store {url!r} names no folder: use {SUPPORTED}")
    if scheme == "mem" and rest:
        raise ConfigurationError(f"object store {url!r} has a name that would be ignored: use mem://")


def open_store(url: str, *, s3_client: str = "aiobotocore", connections: int = CONNECTIONS) -> ObjectStore:
    """Return the store that `url` names, without any I/O. Raises ConfigurationError.

    `s3_client` chooses the library for s3://, aiobotocore or obstore; `connections` bounds those to a bucket.
    """
    check_url(url)
    scheme, _, path = url.partition("://")
    if scheme == "mem":
        return MemoryStore()
    if scheme == "file":
        return LocalStore(Path(path))
    if scheme == "s3" and s3_client == "aiobotocore":
        from memoturnd.stores.s3 import S3Store

        return S3Store(Location.parse(url), connections=connections)
    from memoturnd.stores.obstore_client import ObstoreStore

    return ObstoreStore(Location.parse(url), connections=connections)


async def probe(store: ObjectStore, *, randomness: Randomness | None = None) -> None:
    """Prove with conditional writes that the store compares before it swaps, then clean up.

    Four on one object, and a swap of an object that is gone. Raises ConfigurationError when the store does not, or
    turns the node away, StoreUnavailableError when it gives no clear answer.
    """
    key = f"v1/_probe/{(randomness or SystemRandomness()).hex(16)}"
    gone = f"{key}-gone"
    try:
        first = _committed("create", await store.put_if_absent(key, b"1"))
    except StoreRefusedError as error:
        raise ConfigurationError(str(error)) from error
    try:
        _lost("create over an existing object", await store.put_if_absent(key, b"2"))
        _committed("swap", await store.put_if_match(key, b"3", first.etag))
        _lost("swap of a version that is gone", await store.put_if_match(key, b"4", first.etag))
        with suppress(ObjectMissingError):
            _lost("swap of an object that is gone", await store.put_if_match(gone, b"5", first.etag))
    except StoreRefusedError as error:
        raise ConfigurationError(str(error)) from error
    finally:
        # A leftover probe is harmless, and must not hide what the probe found.
        for left in (key, gone):
            with suppress(StoreUnavailableError):
                await store.delete(left)


def _committed(step: str, result: SwapResult) -> Committed:
    if isinstance(result, Committed):
        return result
    _refuse_unknown(step, result)
    raise ConfigurationError(
        f"the object store refused a conditional {step} that it had to accept; "
        "check that nothing rewrites its objects, or choose another MEMOTURN_OBJECT_STORE",
    )


def _lost(step: str, result: SwapResult) -> None:
    _refuse_unknown(step, result)
    if isinstance(result, Committed):
        raise ConfigurationError(
            f"the object store accepted a conditional {step}: it ignores conditions, so two nodes could "
            "overwrite each other; choose another MEMOTURN_OBJECT_STORE",
        )


def _refuse_unknown(step: str, result: SwapResult) -> None:
    if isinstance(result, Unknown):
        raise StoreUnavailableError(f"the object store gave no clear answer to a {step}: {result.cause}")
