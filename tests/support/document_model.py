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
