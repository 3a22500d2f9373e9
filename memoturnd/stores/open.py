"""From a URL to an object store, and the proof at start that the store honours conditions."""

from contextlib import suppress
from pathlib import Path

from memoturnd.errors import ConfigurationError, StoreUnavailableError
from memoturnd.seams.clock import Randomness, SystemRandomness
from memoturnd.seams.object_store import Committed, ObjectStore, SwapResult, Unknown
from memoturnd.stores.local import LocalStore
from memoturnd.stores.memory import MemoryStore

SUPPORTED = "file://PATH (absolute or relative) and mem:// (gone with the process)"


def check_url(url: str) -> None:
    """Raise ConfigurationError unless `open_store` can open `url`. Touches nothing."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"file", "mem"}:
        raise ConfigurationError(f"object store {url!r} is not supported: use {SUPPORTED}")
    if scheme == "file" and not rest:
        raise ConfigurationError(f"object store {url!r} names no folder: use {SUPPORTED}")
    if scheme == "mem" and rest:
        raise ConfigurationError(f"object store {url!r} has a name that would be ignored: use mem://")


def open_store(url: str) -> ObjectStore:
    """Return the store that `url` names, without any I/O. Raises ConfigurationError."""
    check_url(url)
    scheme, _, path = url.partition("://")
    return MemoryStore() if scheme == "mem" else LocalStore(Path(path))


async def probe(store: ObjectStore, *, randomness: Randomness | None = None) -> None:
    """Prove with four conditional writes that the store compares before it swaps, then clean up.

    Raises ConfigurationError when it does not, StoreUnavailableError when it gives no clear answer.
    """
    key = f"v1/_probe/{(randomness or SystemRandomness()).hex(16)}"
    try:
        first = _committed("create", await store.put_if_absent(key, b"1"))
        _lost("create over an existing object", await store.put_if_absent(key, b"2"))
        _committed("swap", await store.put_if_match(key, b"3", first.etag))
        _lost("swap of a version that is gone", await store.put_if_match(key, b"4", first.etag))
    finally:
        # A leftover probe is harmless, and must not hide what the probe found.
        with suppress(StoreUnavailableError):
            await store.delete(key)


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
