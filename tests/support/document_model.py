"""What a filter of documents means, in plain Python, and documents and filters to hold the real one to it."""

import re

import msgspec
from hypothesis import strategies as st

MISSING = object()
PATHS = ["a", "b", "a.b", "b.a", "a-b", "a_b", "0", "A", "a.0.b_-9"]
WORDS = ["", "a", "b", "ab", "Ab", "1", "[1]", "{}", '{"b":1}', "é", "\U0001f600", "a\0b", "z" * 40, "null"]

numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(
        [0.0, -0.0, 1.0, 1.5, -2.5, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1e300]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(WORDS), st.text(max_size=4))
values = st.recursive(
    scalars,
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "0", "b_-9", "x y", ""]), below, max_size=3),
    ),
    max_leaves=6,
)
documents = st.dictionaries(
    st.sampled_from(["a", "b", "a-b", "a_b", "0", "A", "a.b", '"', "é"]), values, max_size=5
)


def conditions(items=scalars):
    """Operators of one field."""
    plain = st.one_of(
        *(st.tuples(st.just(name), items) for name in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")),
        *(st.tuples(st.just(name), st.lists(items, max_size=3)) for name in ("$in", "$nin", "$all")),
        st.tuples(st.just("$exists"), st.booleans()),
        st.tuples(st.just("$size"), st.integers(0, 3)),
        st.tuples(st.just("$regex"), st.sampled_from(["a", "^a", "b$", "[0-9]", ".", "", "é|z+"])),
    )
    some = st.lists(plain, min_size=1, max_size=3).map(dict)
    return st.one_of(some, some.map(lambda inner: {"$not": inner}))


filters = st.recursive(
    st.dictionaries(st.sampled_from([*PATHS, "_id"]), st.one_of(scalars, conditions()), max_size=2),
    lambda below: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(below, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(below, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": below}),
        st.tuples(below, st.lists(below, min_size=1, max_size=2)).map(
            lambda both: {**both[0], "$or": both[1]}
        ),
    ),
    max_leaves=4,
)


def at(document, path):
    """Return what stands at a path, or MISSING."""
    for key in path.split("."):
        if not isinstance(document, dict) or key not in document:
            return MISSING
        document = document[key]
    return document


def scalar(value):
    """Return a value as it is compared: None, a number or a string; MISSING for an array or object."""
    if value is MISSING or value is None:
        return None
    if isinstance(value, list | dict):
        return MISSING
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value


def rank(value):
    """Return a key that orders what `scalar` gives: null, numbers, strings."""
    if value is None:
        return (0, 0)
    return (2, value) if isinstance(value, str) else (1, value)


def sort_rank(document, path):
    """Return the key by which a document is sorted; arrays and objects are as their text."""
    value = at(document, path)
    return rank(msgspec.json.encode(value).decode() if isinstance(value, list | dict) else scalar(value))


def equals(found, value):
    found = scalar(found)
    return found is not MISSING and rank(found) == rank(scalar(value))


def compares(found, value, test):
    found, value = scalar(found), scalar(value)
    return found not in (None, MISSING) and value is not None and test(rank(found), rank(value))


def holds(name, found, value):
    match name:
        case "$eq":
            return equals(found, value)
        case "$ne":
            return not equals(found, value)
        case "$gt":
            return compares(found, value, lambda a, b: a > b)
        case "$gte":
            return compares(found, value, lambda a, b: a >= b)
        case "$lt":
            return compares(found, value, lambda a, b: a < b)
        case "$lte":
            return compares(found, value, lambda a, b: a <= b)
        case "$in":
            return any(equals(found, item) for item in value)
        case "$nin":
            return not any(equals(found, item) for item in value)
        case "$exists":
            return (found is not MISSING) == value
        case "$size":
            return isinstance(found, list) and len(found) == value
        case "$all":
            return (
                isinstance(found, list)
                and bool(value)
                and all(any(equals(e, i) for e in found) for i in value)
            )
        case "$regex":
            return isinstance(found, str) and re.search(value.replace("$", r"\Z"), found) is not None
        case "$not":
            return not all(holds(*inner, value=each) for inner, each in _pairs(value, found))
    raise AssertionError(name)


def _pairs(operators, found):
    return [((name, found), value) for name, value in operators.items()]


def matches(document, filter_):
    """Return whether a document, its `_id` within it, matches a filter."""
    for name, value in filter_.items():
        if name == "$and":
            held = all(matches(document, item) for item in value)
        elif name == "$or":
            held = any(matches(document, item) for item in value)
        elif name == "$not":
            held = not matches(document, value)
        elif isinstance(value, dict):
            held = all(holds(*inner, value=each) for inner, each in _pairs(value, at(document, name)))
        else:
            held = equals(at(document, name), value)
        if not held:
            return False
    return True


# ---- whole collections


class RefusedError(Exception):
    """The model says that the request has to be refused."""


def in_order(docs, sort):
    """Return documents in the order of a sort; the last field's direction is that of `_id` too."""
    parts = [*sort.items()]
    if "_id" not in sort:
        parts.append(("_id", parts[-1][1] if parts else 1))
    docs = list(docs)
    for path, direction in reversed(parts):
        docs.sort(key=lambda doc, path=path: sort_rank(doc, path), reverse=direction < 0)
    return docs


def projected(doc, projection):
    """Return what a projection shows."""
    fields = {path: bool(value) for path, value in projection.items() if path != "_id"}
    shows_key = bool(projection.get("_id", True))
    if not fields and "_id" in projection:
        return {"_id": doc["_id"]} if shows_key else {k: v for k, v in doc.items() if k != "_id"}
    if not fields:
        return doc

    def walk(value, prefix):
        shown = {}
        for key, item in value.items():
            path = f"{prefix}{key}"
            if path == "_id":
                if shows_key:
                    shown[key] = item
            elif path in fields:
                if fields[path]:
                    shown[key] = item
            elif "." not in key and isinstance(item, dict) and any(f.startswith(f"{path}.") for f in fields):
                shown[key] = walk(item, f"{path}.")
            elif not any(fields.values()):
                shown[key] = item
        return shown

    return walk(doc, "")


def same(one, other):
    """Return whether two values are equal as JSON values: 1 and 1.0 are, true and 1 are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return (type(one) in (int, float) and type(other) in (int, float) and one == other) or (
        type(one) is type(other) and not isinstance(one, list | dict) and one == other
    )


def updated(doc, update):
    """Return a document as an update leaves it. Raises RefusedError."""
    doc = msgspec.json.decode(msgspec.json.encode(doc))
    for operator, fields in update.items():
        for path, value in fields.items():
            _change(doc, operator, path.split("."), msgspec.json.decode(msgspec.json.encode(value)))
    return doc


def _change(doc, operator, keys, value):
    key, *rest = keys
    makes = operator not in ("$unset", "$pull")
    if rest:
        if key not in doc:
            if makes:
                doc[key] = {}
            else:
                return
        if not isinstance(doc[key], dict):
            if makes:
                raise RefusedError
            return
        _change(doc[key], operator, rest, value)
        return
    old = doc.get(key, MISSING)
    match operator:
        case "$set":
            doc[key] = value
        case "$unset":
            doc.pop(key, None)
        case "$inc":
            if isinstance(old, bool | str | list | dict):
                raise RefusedError
            new = (0 if old in (None, MISSING) else old) + value
            if isinstance(new, int) and not -(2**63) <= new < 2**64:
                raise RefusedError
            if new in (float("inf"), float("-inf")):
                raise RefusedError
            doc[key] = new
        case "$max" | "$min":
            if isinstance(old, list | dict):
                raise RefusedError
            if old in (None, MISSING):
                doc[key] = value
            else:
                one, other = ((isinstance(v, str), v) for v in (value, old))
                if one > other if operator == "$max" else one < other:
                    doc[key] = value
        case "$push" | "$addToSet":
            if old is MISSING:
                old = doc[key] = []
            if not isinstance(old, list):
                raise RefusedError
            items = value["$each"] if isinstance(value, dict) and list(value) == ["$each"] else [value]
            for item in items:
                if operator == "$push" or not any(same(item, other) for other in old):
                    old.append(item)
        case "$pull":
            if old is MISSING:
                return
            if not isinstance(old, list):
                raise RefusedError
            items = value["$in"] if isinstance(value, dict) and list(value) == ["$in"] else [value]
            old[:] = [item for item in old if not any(same(item, other) for other in items)]


field_paths = st.sampled_from(PATHS)
sorts = st.dictionaries(st.sampled_from([*PATHS, "_id"]), st.sampled_from([1, -1]), max_size=3)
_elements = values.filter(
    lambda value: not isinstance(value, dict) or not any(k.startswith("$") for k in value)
)
updates = st.dictionaries(
    st.sampled_from(["$set", "$unset", "$inc", "$max", "$min", "$push", "$addToSet", "$pull"]),
    st.none(),
    min_size=1,
    max_size=3,
).flatmap(
    lambda operators: st.fixed_dictionaries(
        {
            operator: st.dictionaries(
                field_paths,
                {
                    "$inc": numbers,
                    "$max": st.one_of(numbers, st.sampled_from(WORDS), st.booleans()),
                    "$min": st.one_of(numbers, st.sampled_from(WORDS), st.booleans()),
                    "$push": st.one_of(
                        values, st.fixed_dictionaries({"$each": st.lists(values, max_size=3)})
                    ),
                    "$addToSet": st.one_of(
                        values, st.fixed_dictionaries({"$each": st.lists(values, max_size=3)})
                    ),
                    "$pull": st.one_of(values, st.fixed_dictionaries({"$in": st.lists(values, max_size=3)})),
                }.get(operator, values),
                min_size=1,
                max_size=2,
            )
            for operator in operators
        }
    )
)
_shown = st.sampled_from(["a", "b", "a-b", "0", "x"])
projections = st.one_of(
    st.none(),
    *(
        st.tuples(
            st.dictionaries(
                st.one_of(_shown, st.sampled_from(["c.a", "c.b.a", "d.b"])), st.just(value), max_size=3
            ),
            st.sampled_from([{}, {"_id": True}, {"_id": 0}]),
        ).map(lambda both: {**both[0], **both[1]})
        for value in (True, False)
    ),
)
