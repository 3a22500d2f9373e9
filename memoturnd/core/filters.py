"""Filters of JSON documents, compiled to parameterised SQL. Pure.

    found = filters.compile_filter(payload, where="filter", doc="m.doc", key="m.id")
    conn.execute(f"SELECT m.id FROM {table} AS m WHERE {found.sql} AND m.n > ?", (*found.bindings, 5))

`doc` is the SQL of a column that holds an object as JSON text (or JSONB), `key` that of a TEXT column, never
null, which the path `_id` stands for. The SQL has anonymous parameters (`?`), so `bindings` go where it stands among the
others. Paths stand in it as literals, whose characters `paths.field_path` has checked; values are only ever
bound. A connection of Memoturn's (`open_connection`) is needed for `$regex` alone.

An index on `extracted(doc, path)` serves equality, `$in`, ranges and sorting by that path.

What a comparison sees of a field is its scalar, by SQLite's rules: null and a field that is not there are the
same, booleans are 1 and 0, numbers come before strings, integers beyond 64 bits are doubles. An array or object equals
no scalar and is neither above nor below one; `$all` and `$size` look into arrays.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from memoturnd.core import paths, patterns
from memoturnd.errors import InvalidRequestError

DEPTH_LIMIT: Final = 32
"""Nesting of `$and`, `$or` and `$not`."""
CONDITIONS_LIMIT: Final = 256
"""Conditions of one filter; each item of `$all` is one."""
LIST_LIMIT: Final = 1000
"""Items of `$in` and `$nin`."""
SIZE_LIMIT: Final = 2**31 - 1

MATCHES_FUNCTION: Final = "__memoturn_matches"
"""The SQL function (pattern, text) of `patterns.matches` on Memoturn's connections."""

Scalar = None | bool | int | float | str
Binding = None | int | float | str
Clause = tuple[str, tuple[Binding, ...]]
_Promise = Callable[[str, str, Any], None]

_SQLITE_INTEGERS: Final = range(-(2**63), 2**63)
_TRUE: Final[Clause] = ("TRUE", ())
_FALSE: Final[Clause] = ("FALSE", ())
_OPENING: Final = ("[", "{")
_BOUNDING: Final = frozenset({"$in", "$gt", "$gte", "$lt", "$lte"})
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter: SQL that is true for what matches (else false or null), and its bindings in order.

    Of what every match fulfils, `equal` has the fields that equal one value, `ranged` the paths that `$in` or a
    range bounds. `slow` is whether it holds a pattern, whose cost SQLite's steps do not show.
    """

    sql: str
    bindings: tuple[Binding, ...]
    equal: Mapping[str, Scalar] = field(default_factory=dict)
    ranged: frozenset[str] = frozenset()
    slow: bool = False


def compile_filter(payload: Any, *, where: str = "filter", doc: str = "doc", key: str = "id") -> Filter:
    """Compile a filter; `{}` matches everything. Raises InvalidRequestError, naming the part that is wrong.

    - `{field: scalar}` and `$eq`: equal; null matches where the field is null or not there. `$ne`: the opposite.
    - `$gt $gte $lt $lte`: by order; a null is neither above nor below anything.
    - `$in`, `$nin`: equal to any, to none. An empty `$in` matches nothing, an empty `$nin` everything.
    - `$exists`: whether the field is there, be it null.
    - `$all`: an array that has every item. `$size`: an array of that many.
    - `$regex` with `$options`: a string in which a pattern is found; see `memoturnd.core.patterns`.
    - `$not`: the opposite of other operators of the same field.
    - `$and`, `$or`: arrays of one or more filters; `$not`: the opposite of one filter.

    Several members of an object must all hold.
    """
    compiler = _Compiler(doc, key)
    sql, bindings = compiler.filter(payload, where, 0, compiler.promised)
    return Filter(sql, bindings, compiler.equal, frozenset(compiler.ranged), compiler.slow)


def extracted(doc: str, path: str) -> str:
    """Return the SQL of the scalar at a checked path: what is compared, sorted and indexed."""
    return f"({doc} ->> {paths.literal(path)})"


def bound(value: Any, where: str) -> Binding:
    """Return a scalar as SQLite compares it. Raises InvalidRequestError when it is none."""
    if value is None:
        return None
    if isinstance(value, str):
        _check_text(value, where)
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if value in _SQLITE_INTEGERS else _as_double(value, where)
    if isinstance(value, float) and math.isfinite(value):
        return value
    kind = "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else "no JSON"
    raise InvalidRequestError(
        f"{where} must be a string, number, boolean or null, not {kind}; "
        "`$all` and `$size` look into arrays, and dotted paths into objects"
    )


class _Compiler:
    """One filter being compiled. `equal` and `ranged` collect what every match fulfils."""

    def __init__(self, doc: str, key: str) -> None:
        self.equal: dict[str, Scalar] = {}
        self.ranged: set[str] = set()
        self.slow = False
        self._doc = doc
        self._key = key
        self._conditions = 0

    # ---- filters

    def filter(self, payload: Any, where: str, depth: int, promise: _Promise | None) -> Clause:
        """Compile one object, whose members must all hold."""
        if depth > DEPTH_LIMIT:
            raise InvalidRequestError(f"{where[:200]} is nested over {DEPTH_LIMIT} deep: flatten it")
        if not isinstance(payload, dict):
            raise InvalidRequestError(f"{where[:200]} must be an object of fields and operators")
        return _joined(
            " AND ",
            [self._member(name, value, where, depth, promise) for name, value in payload.items()],
            _TRUE,
        )

    def _member(self, name: Any, value: Any, where: str, depth: int, promise: _Promise | None) -> Clause:
        match name:
            case "$and" | "$or":
                if not isinstance(value, list) or not value:
                    raise InvalidRequestError(f"{where}.{name} must be an array of one or more filters")
                below = promise if name == "$and" or len(value) == 1 else None
                clauses = [
                    self.filter(item, f"{where}.{name}[{at}]", depth + 1, below)
                    for at, item in enumerate(value)
                ]
                return _joined(" AND " if name == "$and" else " OR ", clauses, _TRUE)
            case "$not":
                return _negated(self.filter(value, f"{where}.$not", depth + 1, None))
        path = self._path(name, where)
        if isinstance(value, dict):
            return self._operators(path, value, f"{where}.{path}", depth, promise)
        return self._operator(path, "$eq", value, f"{where}.{path}", promise)

    def _path(self, name: Any, where: str) -> str:
        if isinstance(name, str) and name.startswith("$"):
            raise InvalidRequestError(
                f"{where[:200]} has the unknown operator {ascii(name)[:40]}: $and, $or and $not take filters"
            )
        return paths.field_path(name, where[:200])

    def _operators(
        self, path: str, operators: dict[str, Any], where: str, depth: int, promise: _Promise | None
    ) -> Clause:
        """Compile `{$operator: value, ...}` of one field."""
        if not operators:
            raise InvalidRequestError(f"{where} is an empty object: give it an operator, such as $exists")
        if "$options" in operators and "$regex" not in operators:
            raise InvalidRequestError(f"{where}.$options goes with $regex")
        clauses = []
        for name, value in operators.items():
            if name == "$regex":
                clauses.append(self._regex(path, value, operators.get("$options"), where))
            elif name == "$not":
                if depth >= DEPTH_LIMIT or not isinstance(value, dict):
                    raise InvalidRequestError(
                        f"{where}.$not must be an object of operators, nested at most {DEPTH_LIMIT} deep"
                    )
                clauses.append(_negated(self._operators(path, value, f"{where}.$not", depth + 1, None)))
            elif name != "$options":
                clauses.append(self._operator(path, name, value, where, promise))
        return _joined(" AND ", clauses, _TRUE)

    def _operator(self, path: str, name: str, value: Any, where: str, promise: _Promise | None) -> Clause:
        self._count(where)
        compile_one = _OPERATORS.get(name)
        if compile_one is None:
            raise InvalidRequestError(
                f"{where} has the unknown operator {ascii(name)[:40]}: {', '.join(_OPERATORS)}, $regex and $not are known"
            )
        clause = compile_one(self, path, value, f"{where}.{name}")
        if promise is not None:
            promise(path, name, value)
        return clause

    def promised(self, path: str, name: str, value: Any) -> None:
        """Note what every match fulfils."""
        if name == "$eq":
            self.equal.setdefault(path, value)
        elif name in _BOUNDING:
            self.ranged.add(path)

    def _count(self, where: str, conditions: int = 1) -> None:
        self._conditions += conditions
        if self._conditions > CONDITIONS_LIMIT:
            raise InvalidRequestError(
                f"{where[:200]} is one condition too many: a filter takes {CONDITIONS_LIMIT}; use $in for lists"
            )

    # ---- operators

    def _scalar(self, path: str) -> str:
        return self._key if path == paths.KEY else extracted(self._doc, path)

    def _type(self, path: str) -> str:
        return f"json_type({self._doc}, {paths.literal(path)})"

    def _only_scalars(self, path: str) -> str:
        """Return a further condition that keeps out arrays and objects, which are extracted as text."""
        if path == paths.KEY:
            return ""
        # Only what looks like the text of one makes SQLite read the document, which an index spares it else.
        return f" AND (substr({self._scalar(path)}, 1, 1) NOT IN ('[', '{{') OR {self._type(path)} = 'text')"

    def eq(self, path: str, value: Any, where: str) -> Clause:
        binding = bound(value, where)
        if binding is None:
            return f"{self._scalar(path)} IS NULL", ()
        if path == paths.KEY and not isinstance(binding, str):
            return _FALSE  # the column would take a number for its digits
        guard = self._only_scalars(path) if _like_container(value) else ""
        return f"({self._scalar(path)} = ?{guard})", (binding,)

    def ne(self, path: str, value: Any, where: str) -> Clause:
        if path == paths.KEY or _like_container(value):
            return _negated(self.eq(path, value, where))
        return f"{self._scalar(path)} IS NOT ?", (bound(value, where),)

    def _ordered(self, sign: str, path: str, value: Any, where: str) -> Clause:
        binding = bound(value, where)
        if binding is None:
            return _FALSE
        if path == paths.KEY and not isinstance(binding, str):
            return _TRUE if sign.startswith(">") else _FALSE
        # The text of an array or object would come behind every number.
        guard = "" if sign.startswith("<") and not isinstance(binding, str) else self._only_scalars(path)
        return f"({self._scalar(path)} {sign} ?{guard})", (binding,)

    def gt(self, path: str, value: Any, where: str) -> Clause:
        return self._ordered(">", path, value, where)

    def gte(self, path: str, value: Any, where: str) -> Clause:
        return self._ordered(">=", path, value, where)

    def lt(self, path: str, value: Any, where: str) -> Clause:
        return self._ordered("<", path, value, where)

    def lte(self, path: str, value: Any, where: str) -> Clause:
        return self._ordered("<=", path, value, where)

    def in_(self, path: str, value: Any, where: str) -> Clause:
        if not isinstance(value, list):
            raise InvalidRequestError(f"{where} must be an array")
        if len(value) > LIST_LIMIT:
            raise InvalidRequestError(f"{where} has {len(value)} items: at most {LIST_LIMIT} are taken")
        items = [bound(item, f"{where}[{at}]") for at, item in enumerate(value)]
        clauses: list[Clause] = []
        some = [item for item in items if item is not None]
        if path == paths.KEY:
            some = [item for item in some if isinstance(item, str)]
        if some:
            guard = self._only_scalars(path) if any(map(_like_container, some)) else ""
            # One text for lists of any length, so that the statement is prepared once.
            listed = f"({self._scalar(path)} IN (SELECT value FROM json_each(?)){guard})"
            clauses.append((listed, (_encode(some).decode(),)))
        if None in items:
            clauses.append((f"{self._scalar(path)} IS NULL", ()))
        return _joined(" OR ", clauses, _FALSE)

    def nin(self, path: str, value: Any, where: str) -> Clause:
        return _negated(self.in_(path, value, where))

    def exists(self, path: str, value: Any, where: str) -> Clause:
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{where} must be true or false")
        if path == paths.KEY:
            return _TRUE if value else _FALSE
        return f"{self._type(path)} IS {'NOT ' if value else ''}NULL", ()

    def size(self, path: str, value: Any, where: str) -> Clause:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= SIZE_LIMIT:
            raise InvalidRequestError(f"{where} must be an integer from 0 to {SIZE_LIMIT}")
        if path == paths.KEY:
            return _FALSE
        length = f"json_array_length({self._doc}, {paths.literal(path)})"
        return f"({self._type(path)} = 'array' AND {length} = ?)", (value,)

    def all_(self, path: str, value: Any, where: str) -> Clause:
        if not isinstance(value, list):
            raise InvalidRequestError(f"{where} must be an array")
        self._count(where, len(value))
        if not value or path == paths.KEY:
            return _FALSE
        items = f"SELECT 1 FROM json_each({self._doc}, {paths.literal(path)}) WHERE"
        clauses: list[Clause] = [(f"{self._type(path)} = 'array'", ())]
        for at, item in enumerate(value):
            binding = bound(item, f"{where}[{at}]")
            if binding is None:
                clauses.append((f"EXISTS ({items} type = 'null')", ()))
            else:
                clauses.append((f"EXISTS ({items} atom = ?)", (binding,)))
        return _joined(" AND ", clauses, _TRUE)

    def _regex(self, path: str, value: Any, options: Any, where: str) -> Clause:
        self._count(where)
        self.slow = True
        whole = patterns.pattern(value, options, where)
        found = f"{MATCHES_FUNCTION}(?, {self._scalar(path)})"
        if path == paths.KEY:
            return found, (whole,)
        return f"({self._type(path)} = 'text' AND {found})", (whole,)


_OPERATORS: Final[dict[Any, Callable[[_Compiler, str, Any, str], Clause]]] = {
    "$eq": _Compiler.eq,
    "$ne": _Compiler.ne,
    "$gt": _Compiler.gt,
    "$gte": _Compiler.gte,
    "$lt": _Compiler.lt,
    "$lte": _Compiler.lte,
    "$in": _Compiler.in_,
    "$nin": _Compiler.nin,
    "$exists": _Compiler.exists,
    "$size": _Compiler.size,
    "$all": _Compiler.all_,
}


def _joined(word: str, clauses: list[Clause], otherwise: Clause) -> Clause:
    """Join clauses by AND or OR; `otherwise` where there are none."""
    if not clauses:
        return otherwise
    if len(clauses) == 1:
        return clauses[0]
    sql = word.join([sql for sql, _ in clauses])
    return f"({sql})", tuple([binding for _, bindings in clauses for binding in bindings])


def _negated(clause: Clause) -> Clause:
    """Return what is true wherever `clause` is false or null."""
    sql, bindings = clause
    return f"(({sql}) IS NOT TRUE)", bindings


def _like_container(value: object) -> bool:
    """Return whether a string might equal the text of an array or object."""
    return isinstance(value, str) and value[:1] in _OPENING


def _check_text(value: str, where: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"{where[:200]} holds half of a surrogate pair: remove it") from error


def _as_double(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidRequestError(f"{where[:200]} is beyond 64-bit floats (about 1.8e308)") from error
