"""What is set for one database: which durability its writes wait for, by surface. Pure.

{"durability": {"default": "local", "docs/orders": "durable", "timelines/clicks": "local", "memory": "replicated"}}
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import msgspec

from memoturnd.core import names
from memoturnd.core.durability import LEVELS, Durability
from memoturnd.errors import InvalidRequestError

RULES_LIMIT: Final = 256
LevelRules = Mapping[str, Durability]
NO_RULES: Final[LevelRules] = MappingProxyType({})
_NAMED: Final[Mapping[str, Callable[[str], str]]] = {
    "docs": names.collection,
    "kv": names.kv_namespace,
    "vectors": names.collection,
    "timelines": names.timeline,
    "turns": names.session_id,
}
"""The surfaces with parts that have names, and how these are checked."""
_SURFACES: Final = frozenset({"memory", "sql", *_NAMED})
_IN_PATHS: Final = {
    "docs": "docs",
    "kv": "kv",
    "vectors": "vectors",
    "timelines": "timelines",
    "memory": "turns",
}
"""What the part of a path behind `/v1/db/{db}/` writes to."""


def parse(body: object) -> dict[str, str]:
    """Return the levels in a request's body, by surface. Raises InvalidRequestError."""
    if not isinstance(body, dict) or set(body) - {"durability"}:
        raise InvalidRequestError('settings are an object {"durability": {...}}, and nothing else yet')
    said = body.get("durability", {})
    if not isinstance(said, dict):
        raise InvalidRequestError("`durability` takes an object of levels by surface")
    if len(said) > RULES_LIMIT:
        raise InvalidRequestError(f"`durability` takes {RULES_LIMIT} entries at most, not {len(said)}")
    for surface, level in said.items():
        _check(surface)
        if not isinstance(level, str) or level not in LEVELS:
            raise InvalidRequestError(f"the level of `{surface}` is one of {', '.join(LEVELS)}")
    return dict(sorted(said.items()))


def _check(surface: str) -> None:
    kind, slash, name = surface.partition("/")
    if surface == "default" or (kind in _SURFACES and not slash):
        return
    if kind not in _NAMED:
        raise InvalidRequestError(
            f"`{surface[:100]}` is no surface: take `default`, one of {', '.join(sorted(_SURFACES))}, or one of "
            f"{', '.join(sorted(_NAMED))} with a name behind it, as `docs/orders`"
        )
    _NAMED[kind](name)


def encode(levels: Mapping[str, str]) -> str:
    """Return levels as the catalog keeps them; empty where none is set."""
    return msgspec.json.encode(dict(levels)).decode() if levels else ""


def decode(text: str) -> dict[str, str]:
    """Return the levels of what the catalog keeps."""
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


@lru_cache(maxsize=4096)
def rules_of(text: str) -> LevelRules:
    """Return the rules in what the catalog keeps. A level of a later release counts as the highest."""
    return MappingProxyType(
        {name: LEVELS.get(level, Durability.DURABLE) for name, level in decode(text).items()}
    )


def surface_of(template: str, params: Mapping[str, Any]) -> str:
    """Return what a route with these parts in its path writes to, empty where it is no surface of its own."""
    kind, parameter = _place(template)
    return f"{kind}/{params[parameter]}" if parameter else kind


@lru_cache(maxsize=512)
def _place(template: str) -> tuple[str, str]:
    """Return (surface, the parameter that names the part of it or nothing) of a route."""
    parts = template.split("/")[1:]
    if parts[:2] == ["v1", "memory"]:
        return "memory", ""
    if parts[:2] != ["v1", "db"] or len(parts) < 4:  # noqa: PLR2004 - /v1/db/{db}/kind
        return "", ""
    if parts[3] == "sql":
        return "sql", ""
    kind = _IN_PATHS.get(parts[3], "")
    named = len(parts) > 4 and parts[4].startswith("{") and kind  # noqa: PLR2004 - /kind/{name}
    return kind, parts[4][1:-1] if named else ""
