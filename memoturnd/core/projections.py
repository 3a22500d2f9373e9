"""Projections: which fields of a document are shown. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from memoturnd.core import paths
from memoturnd.errors import InvalidRequestError

FIELDS_LIMIT: Final = 256

_Tree = dict[str, Any]
"""Keys of paths: a subtree, or None where a path ends."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The fields in `tree`, or all but them. Whatever is shown stays in its order and place."""

    tree: _Tree
    is_including: bool

    def of(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return what is shown of a document."""
        return _included(document, self.tree) if self.is_including else _excluded(document, self.tree)


def parse_projection(payload: Any, *, where: str = "projection") -> Projection | None:
    """Return a checked projection, None where it shows everything. Raises InvalidRequestError.

    `{field: true, ...}` shows these fields and `_id`, `{field: false, ...}` all but these; `_id: false` leaves
    that out in either. 1 and 0 count as true and false.
    """
    if payload is None:
        return None
    if not isinstance(payload, dict):
        raise InvalidRequestError(f"{where} must be an object of field paths, each true or false")
    if len(payload) > FIELDS_LIMIT:
        raise InvalidRequestError(f"{where} has {len(payload)} fields: at most {FIELDS_LIMIT} are taken")
    tree: _Tree = {}
    wanted: set[bool] = set()
    key: bool | None = None
    for path, value in payload.items():
        paths.field_path(path, where)
        if not isinstance(value, int) or value not in (0, 1):
            raise InvalidRequestError(f"{where}.{path} must be true or false")
        if path == paths.KEY:
            key = bool(value)
            continue
        wanted.add(bool(value))
        _plant(tree, path, where)
    if len(wanted) > 1:
        raise InvalidRequestError(
            f"{where} shows some fields and leaves out others: do one of both ({paths.KEY} may differ)"
        )
    if not wanted and key is None:
        return None
    is_including = wanted == {True} or (not wanted and key is True)
    if is_including == (key is not False):
        tree[paths.KEY] = None
    return Projection(tree, is_including)


def _plant(tree: _Tree, path: str, where: str) -> None:
    *outer, last = paths.parts(path)
    for part in outer:
        below = tree.setdefault(part, {})
        if below is None:
            raise InvalidRequestError(f"{where} names {path} and a field around it: name one of both")
        tree = below
    if last in tree:
        raise InvalidRequestError(f"{where} names {path} and a field inside it: name one of both")
    tree[last] = None


def _included(document: dict[str, Any], tree: _Tree) -> dict[str, Any]:
    shown = {}
    for name, value in document.items():
        if name in tree:
            below = tree[name]
            if below is None:
                shown[name] = value
            elif isinstance(value, dict):
                shown[name] = _included(value, below)
    return shown


def _excluded(document: dict[str, Any], tree: _Tree) -> dict[str, Any]:
    shown = {}
    for name, value in document.items():
        below = tree.get(name, {})
        if below is not None:
            shown[name] = _excluded(value, below) if below and isinstance(value, dict) else value
    return shown
