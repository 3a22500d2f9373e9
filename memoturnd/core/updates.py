"""Updates of JSON documents: operators, applied one after the other in the order in which they were sent. Pure.

    {"$set": {"a.b": 1}, "$inc": {"n": 2}, "$push": {"tags": "x"}}

Each operator sees what the ones before it left. Paths go through objects alone: where a path crosses anything
else, the update is refused, and of a document that an update refuses nothing is changed by whoever applies it.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from memoturnd.core import canonical, paths
from memoturnd.errors import InvalidRequestError

CHANGES_LIMIT: Final = 256
"""Paths of one update."""
EACH_LIMIT: Final = 1000
"""Items of `$each`, and of `$in` inside `$pull`."""

_INTEGERS: Final = range(canonical.INTEGER_MIN, canonical.INTEGER_MAX + 1)
_MISSING: Final = object()
_Apply = Callable[[dict[str, Any], "Change"], None]


@dataclass(frozen=True, slots=True)
class Change:
    """One operator on one path. `keys` are those of the path; `value` is the operator's, checked."""

    operator: str
    path: str
    keys: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class Update:
    """Changes in the order in which they are applied."""

    changes: tuple[Change, ...]


def parse_update(payload: Any, *, where: str = "update") -> Update:
    """Return a checked update. Raises InvalidRequestError, naming the part that is wrong.

    - `$set`: any value; objects on the way are made. `$unset`: removes the field, whatever the value says.
    - `$inc`: adds a number; a field that is null or not there counts as 0.
    - `$max`, `$min`: a number, string or boolean that replaces a lower (higher) one, or null. Numbers and
      booleans, which are 1 and 0, are below strings.
    - `$push`: appends to an array, or makes one. `$addToSet`: the same for what is not in it yet.
      Both take `{"$each": [...]}` for several.
    - `$pull`: removes from an array every element that equals the value, or one of `{"$in": [...]}`.

    Elements are equal as JSON values are: 1 and 1.0 are, true and 1 are not.
    """
    if not isinstance(payload, dict) or not payload:
        raise InvalidRequestError(f"{where} must be an object of operators: {', '.join(_OPERATORS)}")
    changes = []
    for operator, fields in payload.items():
        known = _OPERATORS.get(operator)
        if known is None:
            raise InvalidRequestError(
                f"{where} has the unknown operator {ascii(operator)[:40]}: {', '.join(_OPERATORS)} are known"
            )
        if not isinstance(fields, dict) or not fields:
            raise InvalidRequestError(f"{where}.{operator} must be an object of field paths and values")
        for path, value in fields.items():
            keys = tuple(paths.parts(paths.field_path(path, f"{where}.{operator}")))
            if keys[0] == paths.KEY:
                raise InvalidRequestError(
                    f"{where}.{operator} changes {paths.KEY}, which stays: insert another document"
                )
            check, _ = known
            changes.append(Change(operator, path, keys, check(value, f"{where}.{operator}.{path}")))
    if len(changes) > CHANGES_LIMIT:
        raise InvalidRequestError(
            f"{where} has {len(changes)} field paths: at most {CHANGES_LIMIT} are taken"
        )
    return Update(tuple(changes))


def apply(update: Update, document: dict[str, Any]) -> None:
    """Apply an update to a document in place. Raises InvalidRequestError, with the document half changed."""
    for change in update.changes:
        _, act = _OPERATORS[change.operator]
        act(document, change)


def put(document: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at a checked path. Raises InvalidRequestError where the path crosses what is no object."""
    _set(document, Change("$set", path, tuple(paths.parts(path)), value))


# ---- operands


def _any(value: Any, where: str) -> Any:
    canonical.check(value, where)
    return value


def _amount(value: Any, where: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{where} must be a number")
    canonical.check(value, where)
    return value


def _bound(value: Any, where: str) -> bool | int | float | str:
    if not isinstance(value, bool | int | float | str):
        raise InvalidRequestError(f"{where} must be a number, string or boolean")
    canonical.check(value, where)
    return value


def _each(value: Any, where: str) -> list[Any]:
    """Return the items to append."""
    if isinstance(value, dict) and value.keys() == {"$each"}:
        return _items(value["$each"], f"{where}.$each")
    return [_any(value, where)]


def _pulled(value: Any, where: str) -> frozenset[Any]:
    """Return the elements to remove, as `_same` compares them."""
    if isinstance(value, dict) and any(isinstance(key, str) and key.startswith("$") for key in value):
        if value.keys() != {"$in"}:
            raise InvalidRequestError(f"{where} takes a value, or an object with nothing but $in")
        return frozenset(map(_same, _items(value["$in"], f"{where}.$in")))
    return frozenset((_same(_any(value, where)),))


def _items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequestError(f"{where} must be an array")
    if len(value) > EACH_LIMIT:
        raise InvalidRequestError(f"{where} has {len(value)} items: at most {EACH_LIMIT} are taken")
    canonical.check(value, where)
    return value


def _same(value: Any) -> Any:
    """Return what is equal, and hashes equal, for equal JSON values and for no others."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, tuple(map(_same, value)))
    if isinstance(value, dict):
        return (dict, frozenset((key, _same(item)) for key, item in value.items()))
    return value


# ---- applying


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return kinds.get(type(value), "a number")


def _refuse(change: Change, path: str, value: Any, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(f"{change.operator} of {change.path}: {path} is {_kind(value)}, not {wanted}")


def _parent(document: dict[str, Any], change: Change) -> dict[str, Any]:
    """Return the object that the field is in, making what is not there."""
    found: Any = document
    for depth, key in enumerate(change.keys[:-1]):
        found = found.setdefault(key, {})
        if not isinstance(found, dict):
            raise _refuse(change, ".".join(change.keys[: depth + 1]), found, "an object")
    return found  # type: ignore[no-any-return]


def _existing_parent(document: dict[str, Any], change: Change) -> dict[str, Any] | None:
    """Return the object that has the field, None where none has."""
    found: Any = document
    for key in change.keys[:-1]:
        found = found.get(key)
        if not isinstance(found, dict):
            return None
    return found if change.keys[-1] in found else None


def _set(document: dict[str, Any], change: Change) -> None:
    # A copy, because a later change of this update may reach into it.
    _parent(document, change)[change.keys[-1]] = copy.deepcopy(change.value)


def _unset(document: dict[str, Any], change: Change) -> None:
    parent = _existing_parent(document, change)
    if parent is not None:
        del parent[change.keys[-1]]


def _inc(document: dict[str, Any], change: Change) -> None:
    parent, key = _parent(document, change), change.keys[-1]
    before = parent.get(key)
    if before is None:
        before = 0
    if isinstance(before, bool) or not isinstance(before, int | float):
        raise _refuse(change, change.path, before, "a number")
    after = before + change.value
    if after not in _INTEGERS if isinstance(after, int) else not math.isfinite(after):
        raise InvalidRequestError(f"$inc of {change.path} leaves the numbers that a document can hold")
    parent[key] = after


def _replace_if(document: dict[str, Any], change: Change, is_better: Callable[[Any, Any], bool]) -> None:
    parent, key = _parent(document, change), change.keys[-1]
    before = parent.get(key)
    if isinstance(before, list | dict):
        raise _refuse(change, change.path, before, "a number, string or boolean")
    if before is None or is_better(_rank(change.value), _rank(before)):
        parent[key] = change.value


def _rank(value: bool | float | str) -> tuple[int, bool | float | str]:
    return (1 if isinstance(value, str) else 0), value


def _max(document: dict[str, Any], change: Change) -> None:
    _replace_if(document, change, lambda new, old: new > old)


def _min(document: dict[str, Any], change: Change) -> None:
    _replace_if(document, change, lambda new, old: new < old)


def _array(document: dict[str, Any], change: Change) -> list[Any]:
    """Return the array at the path, making it where nothing is."""
    found = _parent(document, change).setdefault(change.keys[-1], [])
    if not isinstance(found, list):
        raise _refuse(change, change.path, found, "an array")
    return found


def _push(document: dict[str, Any], change: Change) -> None:
    _array(document, change).extend(copy.deepcopy(change.value))


def _add_to_set(document: dict[str, Any], change: Change) -> None:
    array = _array(document, change)
    seen = set(map(_same, array))
    for item in change.value:
        same = _same(item)
        if same not in seen:
            seen.add(same)
            array.append(copy.deepcopy(item))


def _pull(document: dict[str, Any], change: Change) -> None:
    parent = _existing_parent(document, change)
    if parent is None:
        return
    array = parent[change.keys[-1]]
    if not isinstance(array, list):
        raise _refuse(change, change.path, array, "an array")
    array[:] = [item for item in array if _same(item) not in change.value]


_OPERATORS: Final[dict[Any, tuple[Callable[[Any, str], Any], _Apply]]] = {
    "$set": (_any, _set),
    "$unset": (lambda value, _: value, _unset),
    "$inc": (_amount, _inc),
    "$max": (_bound, _max),
    "$min": (_bound, _min),
    "$push": (_each, _push),
    "$addToSet": (_each, _add_to_set),
    "$pull": (_pulled, _pull),
}
