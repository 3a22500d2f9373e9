"""Which level a write waits for, and what may be set about it."""

import pytest

from memoturnd.core import database_settings
from memoturnd.core.durability import LEVELS, Durability, level_for, level_of
from memoturnd.errors import InvalidRequestError

L, R, D = Durability

RULES = {"default": R, "docs": L, "docs/orders": D, "timelines/clicks": L, "memory": R}


@pytest.mark.parametrize(
    ("asked", "surface", "rules", "node", "level"),
    [
        (L, "docs/a", {}, L, L),
        (R, "docs/a", {}, L, R),
        (L, "docs/a", {}, D, D),
        (L, "", RULES, L, R),
        (L, "kv/ns", RULES, L, R),
        (L, "docs/other", RULES, L, L),  # a surface's rule lowers below the database's default
        (L, "docs/orders", RULES, L, D),  # the most specific counts
        (L, "timelines/clicks", RULES, L, L),
        (R, "timelines/clicks", RULES, L, R),  # a request raises above a rule
        (D, "timelines/clicks", RULES, L, D),
        (L, "docs/orders", RULES, R, D),
        (L, "timelines/clicks", RULES, R, R),  # nothing lowers below the node's default
        (L, "memory", RULES, L, R),
        (R, "docs/orders", RULES, L, D),  # nor does a request lower
    ],
)
def test_level_is_the_highest_of_request_rule_and_node(asked, surface, rules, node, level):
    assert level_for(asked, surface, rules, node) is level


def test_levels_are_ordered_and_have_names():
    assert L < R < D
    assert LEVELS == {"local": L, "replicated": R, "durable": D}


@pytest.mark.parametrize(("txid", "level"), [(3, D), (4, R), (5, R), (6, L)])
def test_level_that_a_txid_has_reached(txid, level):
    assert level_of(txid, durable_txid=3, replicated_txid=5) is level


@pytest.mark.parametrize(
    ("template", "params", "surface"),
    [
        ("/v1/memory/{ns}/{profile}/memories", {"ns": "n", "profile": "p"}, "memory"),
        ("/v1/db/{db}/docs/{coll}/insert", {"db": "d", "coll": "orders"}, "docs/orders"),
        ("/v1/db/{db}/docs", {"db": "d"}, "docs"),
        ("/v1/db/{db}/kv/{ns}/{key}", {"ns": "n", "key": "k"}, "kv/n"),
        ("/v1/db/{db}/vectors/{coll}", {"coll": "c"}, "vectors/c"),
        ("/v1/db/{db}/timelines/{timeline}/rows", {"timeline": "t"}, "timelines/t"),
        ("/v1/db/{db}/memory/{session}/turns", {"session": "s"}, "turns/s"),
        ("/v1/db/{db}/memory/search", {}, "turns"),
        ("/v1/db/{db}/sql", {}, "sql"),
        ("/v1/db/{db}/sync", {}, ""),
        ("/v1/databases", {}, ""),
    ],
)
def test_surface_is_told_by_the_route(template, params, surface):
    assert database_settings.surface_of(template, params) == surface


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"durability": None},
        {"durability": {"default": "standard"}},
        {"durability": {"default": 1}},
        {"durability": {"default/x": "local"}},
        {"durability": {"docs/": "local"}},
        {"durability": {"docs/a/b": "local"}},
        {"durability": {"memory/x": "local"}},
        {"durability": {"sql/x": "local"}},
        {"durability": {"nothing": "local"}},
        {"durability": {"": "local"}},
        {"durability": {f"docs/d{n}": "local" for n in range(257)}},
        {"retention": 1},
    ],
)
def test_odd_settings_are_refused(body):
    with pytest.raises(InvalidRequestError):
        database_settings.parse(body)


def test_settings_come_back_as_they_were_set():
    said = {"docs/orders": "durable", "default": "local", "turns/s 1": "replicated", "kv/ns": "local"}
    text = database_settings.encode(database_settings.parse({"durability": said}))
    assert database_settings.decode(text) == said
    assert database_settings.rules_of(text)["docs/orders"] is D
    assert database_settings.encode(database_settings.parse({})) == ""
    assert database_settings.rules_of("") == {}
