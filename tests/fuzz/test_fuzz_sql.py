"""A few hundred batches of random SQL against a node, the same in every run; `make fuzz` goes on with others."""

import pytest
from sql_rules import BrokenRuleError, run_history

from memoturnd.engine import guard
from memoturnd.engine.guard import UserStatements


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_sql_breaks_no_rule(seed):
    history = await run_history(seed, batches=200)

    # Neither a wall of refusals, nor a guard that refuses nothing.
    assert history.outcomes["taken"] > 20
    assert history.outcomes["403"] > 10


@pytest.mark.parametrize(
    ("owner", "name", "hole"),
    [
        (guard, "is_reserved", lambda _: False),
        (guard, "_SCHEMA_TABLES", frozenset()),
        (UserStatements, "_pragma_reason", lambda *_: None),
    ],
    ids=["reserved", "schema", "pragmas"],
)
async def test_a_hole_in_the_guard_is_found(monkeypatch, owner, name, hole):
    monkeypatch.setattr(owner, name, hole)

    with pytest.raises(BrokenRuleError):
        await run_history(1, batches=600)
