"""Where databases that nobody owns go."""

from collections import Counter

import pytest

from memoturnd.core.placement import place, spread
from memoturnd.seams.leases import LiveNode

DATABASES = [f"app--user-{number}" for number in range(4000)]


def nodes(*loads):
    return [LiveNode(f"n{number}", f"http://n{number}", load) for number, load in enumerate(loads)]


def homes(members):
    return {name: place(name, members).node_id for name in DATABASES}


def test_everybody_comes_to_the_same_answer_whatever_order_he_knows_the_nodes_in():
    members = nodes(0, 0, 0)

    assert homes(members) == homes(members[::-1])


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_node_that_comes_or_goes_moves_its_own_share_and_nothing_else(count):
    before, after = homes(nodes(*[0] * count)), homes(nodes(*[0] * (count + 1)))
    moved = [name for name in DATABASES if before[name] != after[name]]

    assert {after[name] for name in moved} == {f"n{count}"}
    assert len(moved) / len(DATABASES) == pytest.approx(1 / (count + 1), rel=0.2)


def test_shares_are_in_proportion_to_what_is_free():
    shares = Counter(homes(nodes(0, 0.5, 0.75)).values())

    assert shares["n1"] / shares["n0"] == pytest.approx(0.5, rel=0.2)
    assert shares["n2"] / shares["n0"] == pytest.approx(0.25, rel=0.25)


def test_a_draining_node_gets_nothing_new_and_takes_nothing_from_others():
    before, after = homes(nodes(0, 0, 0)), homes(nodes(0, 0, 1))

    assert "n2" not in after.values()
    assert all(after[name] == before[name] for name in DATABASES if before[name] != "n2")


def test_a_small_change_of_load_moves_nothing():
    assert homes(nodes(0.3, 0.3)) == homes(nodes(0.31, 0.28))


def test_only_where_all_are_full_does_a_full_node_get_something():
    assert set(homes(nodes(1, 1)).values()) == {"n0", "n1"}


def test_nodes_to_avoid_are_not_considered():
    members = nodes(0, 0)

    assert all(place(name, members, avoiding={"n0"}).node_id == "n1" for name in DATABASES[:50])
    assert place("a", members, avoiding={"n0", "n1"}) is None
    assert place("a", []) is None


def test_requests_without_a_database_are_spread_by_what_is_free():
    members = nodes(0, 0.5, 1)
    got = Counter(spread(members, point / 1000).node_id for point in range(1000))

    assert got["n0"] == pytest.approx(667, abs=2)
    assert got["n2"] == 0
    assert spread([], 0.5) is None
    assert spread(nodes(1), 0.99).node_id == "n0"
    assert spread(members, 0.1, avoiding={"n0"}).node_id == "n1"
