"""The checkers of what takeovers may lose, and of the bank."""

import random

import pytest
from histories import FAIL, OK, UNKNOWN, Operation
from prefixes import Books, bank_violations, local_violations


def write(value, txid, durable_txid=0, level="local", outcome=OK):
    told = {"txid": txid, "durable_txid": durable_txid, "level": level} if outcome == OK else {}
    return Operation(0, "c", "write", "b", value, 0, level, 0, outcome, None, told)


SIX = [write(n, n, durable_txid=2) for n in range(1, 7)]


@pytest.mark.parametrize("left", [set(range(1, n)) for n in range(4, 8)])
def test_the_end_may_be_lost_by_a_takeover(left):
    assert local_violations(SIX, left, 1) == []


@pytest.mark.parametrize(
    ("left", "takeovers", "wrong"),
    [
        ({1, 2, 3, 4, 5}, 0, "1 runs of writes are lost, after 0 takeovers"),
        ({1, 2, 4}, 1, "2 runs"),
        ({1, 2, 3, 5, 6, 4, 9}, 1, "9 is there"),
        ({1}, 1, "2 was disclosed as durable"),
        (set(), 1, "2 was disclosed as durable"),
    ],
)
def test_anything_else_may_not(left, takeovers, wrong):
    assert any(wrong in found for found in local_violations(SIX, left, takeovers))


def test_each_takeover_may_lose_its_predecessors_end():
    two = [write(1, 1), write(2, 2), write(3, 100), write(4, 101)]
    assert local_violations(two, {1, 3}, 2) == []
    assert local_violations(two, {1, 3}, 1) != []


def test_a_hole_in_the_middle_is_a_run_of_its_own():
    assert (
        local_violations(SIX, {1, 2, 3, 5, 6}, 1) == []
    )  # one run: by its txids alone it may be a predecessor's end
    assert local_violations(SIX, {1, 2, 3, 5}, 1) != []


def test_half_a_round_is_a_hole():
    round_ = [write("a", 3), write("b", 3), write("c", 4)]
    assert local_violations(round_, {"a", "b"}, 1) == []
    assert local_violations(round_, {"a"}, 1) != []


def test_more_than_local_is_never_lost():
    for level in ("replicated", "durable"):
        assert local_violations([write(1, 1), write(2, 2, level=level)], {1}, 1) != []


def test_what_is_unknown_may_be_there_or_not_and_what_was_refused_is_not():
    unknown, refused = write(7, 0, outcome=UNKNOWN), write(8, 0, outcome=FAIL)
    for left in ({1}, {1, 7}):
        assert local_violations([write(1, 1), unknown, refused], left, 0) == []
    assert local_violations([write(1, 1), unknown, refused], {1, 8}, 0) != []


OPENING = {"a": 50, "b": 50, "c": 0}


def kept_books(rng, count):
    balances, transfers = dict(OPENING), []
    for number in range(count):
        source, target = rng.sample(sorted(balances), 2)
        amount = rng.randint(1, 9)
        balances[source] -= amount
        balances[target] += amount
        transfers.append((f"t{number}", source, target, amount))
    return Books(balances, transfers)


@pytest.mark.parametrize("seed", range(20))
def test_books_that_were_kept_are_good_and_spoilt_ones_are_not(seed):
    rng = random.Random(seed)
    books = kept_books(rng, 30)
    names = [transfer[0] for transfer in books.transfers]
    assert bank_violations(OPENING, books, names) == []
    twice = [*books.transfers, rng.choice(books.transfers)]
    assert bank_violations(OPENING, Books(books.balances, twice)) != []
    fewer = [t for t in books.transfers if t[0] != "t7"]
    assert bank_violations(OPENING, Books(books.balances, fewer)) != []
    half = {**books.balances, "a": books.balances["a"] - 1}
    assert any("total" in found for found in bank_violations(OPENING, Books(half, books.transfers)))
    swapped = {**books.balances, "a": books.balances["a"] - 1, "b": books.balances["b"] + 1}
    assert bank_violations(OPENING, Books(swapped, books.transfers)) != []
    assert bank_violations(OPENING, books, ["t99"]) == ["transfer t99 was acknowledged and is missing"]
