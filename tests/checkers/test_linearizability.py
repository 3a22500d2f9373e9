"""The checker of registers: against histories made by hand, and against trying every order of small random ones."""

import itertools
import random
import time

import pytest
from histories import FAIL, FOREVER, OK, UNKNOWN, History, Operation, read_history
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability import MOST, UndecidedError, check_register, violations


def op(kind, value, call_s, return_s, result=None, outcome=OK, key="k"):
    return Operation(0, "c", kind, key, value, call_s, "", return_s, outcome, result)


def read(result, call_s, return_s):
    return op("read", None, call_s, return_s, result)


def write(value, call_s, return_s=FOREVER, outcome=None):
    return op("write", value, call_s, return_s, outcome=outcome or (UNKNOWN if return_s == FOREVER else OK))


def cas(expected, new, call_s, return_s, outcome=OK):
    return op("cas", (expected, new), call_s, return_s, outcome=outcome)


GOOD = {
    "nothing": [],
    "a register begins empty": [read(None, 0, 1)],
    "a write is read": [write(1, 0, 1), read(1, 2, 3)],
    "a read beside a write sees it or not": [write(1, 0, 9), read(None, 1, 2), read(1, 3, 4)],
    "what is unknown may have happened": [write(1, 0), read(1, 2, 3)],
    "what is unknown may never happen": [write(1, 0), read(None, 2, 3), read(None, 4, 5)],
    "what is unknown may happen late": [write(1, 0), write(2, 1, 2), read(2, 3, 4), read(1, 5, 6)],
    "a failed write is nowhere": [write(1, 0, 1, FAIL), read(None, 2, 3)],
    "a swap of what is there": [write(1, 0, 1), cas(1, 2, 2, 3), read(2, 4, 5)],
    "a swap that fails saw something else": [write(1, 0, 1), cas(3, 2, 2, 3, FAIL), read(1, 4, 5)],
    "a swap that fails proves an unknown write": [write(1, 0), cas(None, 2, 2, 3, FAIL), read(1, 4, 5)],
    "one of two swaps beside each other": [cas(None, 1, 0, 5), cas(None, 2, 0, 5, FAIL), read(1, 6, 7)],
    "an unknown swap on an unknown write": [write(1, 0), cas(1, 2, 1, FOREVER, UNKNOWN), read(2, 3, 4)],
}
BAD = {
    "a read of what nobody wrote": [read(7, 0, 1)],
    "a stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "a lost write": [write(1, 0, 1), read(None, 2, 3)],
    "back and forth": [write(1, 0, 9), read(1, 1, 2), read(None, 3, 4)],
    "read before it was sent": [read(1, 0, 1), write(1, 2, 3)],
    "a failed write is read": [write(1, 0, 1, FAIL), read(1, 2, 3)],
    "an unknown write goes away again": [write(1, 0), read(1, 2, 3), read(None, 4, 5)],
    "an unknown write happens twice": [
        write(1, 0),
        write(2, 1, 2),
        read(1, 3, 4),
        read(2, 5, 6),
        read(1, 7, 8),
    ],
    "two swaps of one value": [write(1, 0, 1), cas(1, 2, 2, 5), cas(1, 3, 2, 5)],
    "a swap that fails although nobody was faster": [write(1, 0, 1), cas(1, 2, 2, 3, FAIL)],
    "a swap that was acknowledged is lost": [cas(None, 1, 0, 1), cas(None, 2, 2, 3)],
    "two reads that disagree on the order": [
        write(1, 0, 9),
        write(2, 0, 9),
        read(1, 10, 11),
        read(2, 12, 13),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name):
    assert check_register(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused(name):
    assert check_register(BAD[name]) is not None


def test_a_violation_names_its_key_and_what_does_not_fit():
    good = [op("write", 1, 0, 1, key="a"), op("read", None, 2, 3, 1, key="a")]
    bad = [op("write", 1, 0, 1, key="b"), op("read", None, 2, 3, 5, key="b")]
    [found] = violations([*good, *bad])
    assert found.key == "b"
    assert found.stuck == (bad[1],)
    assert "read" in str(found)


def explained(operations):
    """Whether any order explains them, by trying all, with every choice of what unknown ones did."""
    sure = [o for o in operations if o.outcome != UNKNOWN]
    unknown = [o for o in operations if o.outcome == UNKNOWN]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            if any(map(fits, itertools.permutations([*sure, *chosen]))):
                return True
    return False


def fits(order):
    if any(later.return_s < earlier.call_s for earlier, later in itertools.combinations(order, 2)):
        return False
    state = None
    for o in order:
        if o.kind == "read" and o.outcome == OK and o.result != state:
            return False
        if o.kind == "write" and o.outcome != FAIL:
            state = o.value
        if o.kind == "cas":
            if (o.value[0] == state) == (o.outcome == FAIL):
                return False
            state = state if o.outcome == FAIL else o.value[1]
    return True


@st.composite
def small_histories(draw):
    operations = []
    values = st.sampled_from([None, 1, 2])
    for _ in range(draw(st.integers(1, 5))):
        call_s = draw(st.integers(0, 8)) + 0.25
        outcome = draw(st.sampled_from([OK, OK, OK, FAIL, UNKNOWN]))
        return_s = FOREVER if outcome == UNKNOWN else call_s + draw(st.integers(0, 4)) + 0.5
        kind = draw(st.sampled_from(["read", "write", "cas"]))
        value = (draw(values), draw(st.integers(1, 2))) if kind == "cas" else draw(st.integers(1, 2))
        operations.append(op(kind, value, call_s, return_s, draw(values), outcome))
    return operations


@settings(max_examples=600, deadline=None)
@given(small_histories())
def test_it_agrees_with_trying_every_order(operations):
    assert (check_register(operations) is None) == explained(operations)


def recorded(rng, count, clients=8, unknown=0.05):
    """A history of a register that is one, with swaps that succeed: each operation takes effect at one moment between its call and its return."""
    state, operations, free_s = None, [], [0.0] * clients
    points = []
    for number in range(count):
        client = min(range(clients), key=free_s.__getitem__)
        call_s = free_s[client] + rng.random()
        point_s = call_s + rng.random()
        return_s = point_s + rng.random()
        free_s[client] = return_s
        points.append((point_s, number, call_s, return_s))
    for _, number, call_s, return_s in sorted(points):
        kind = rng.choice(["read", "write", "cas"])
        if kind == "read":
            operations.append(read(state, call_s, return_s))
            continue
        fate = rng.random()
        landed = fate >= unknown / 2
        if kind == "write":
            made = write(number, call_s, return_s)
            state = number if landed else state
        else:
            made = cas(state, number, call_s, return_s)
            state = number if landed else state
        if fate < unknown:
            made.outcome, made.return_s = UNKNOWN, FOREVER
        operations.append(made)
    return operations


@pytest.mark.parametrize("seed", range(6))
def test_long_histories_are_told_apart_in_time(seed):
    rng = random.Random(seed)
    operations = recorded(rng, MOST)
    began = time.monotonic()
    assert check_register(operations) is None
    reads = [o for o in operations if o.kind == "read" and o.call_s > 30]
    spoilt = rng.choice(reads)
    ended = [
        o
        for o in operations
        if o.kind == "read" and o.return_s < spoilt.call_s - 20 and o.result != spoilt.result
    ]
    spoilt.result = ended[-1].result
    assert check_register(operations) is not None
    assert time.monotonic() - began < 20


def test_a_search_that_takes_too_long_decides_nothing(monkeypatch):
    monkeypatch.setattr("linearizability.MOST_STATES", 10)
    with pytest.raises(UndecidedError, match="k is not decided"):
        check_register([write(n, 0, 1) for n in range(20)] + [read(99, 2, 3)], "k")


def test_a_key_with_too_many_operations_is_refused():
    with pytest.raises(ValueError, match="take a new key"):
        check_register([write(n, n, n + 0.5) for n in range(MOST + 1)])


def test_a_history_reads_back_what_it_wrote(tmp_path):
    ticks = iter(range(100))
    history = History(tmp_path / "history.jsonl", lambda: float(next(ticks)))
    first = history.call("a", "write", "k", 1, level="durable")
    second = history.call("b", "cas", "k", (1, 2))
    third = history.call("c", "read", "k")
    history.ok(first, txid=4, durable_txid=4)
    history.unknown(second, status=500)
    history.ok(third, 2)
    history.call("d", "write", "k", 3)
    history.close()
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert read_history(lines) == history.operations
    assert [o.outcome for o in history.operations] == [OK, UNKNOWN, OK, UNKNOWN]
    assert [o.return_s for o in history.operations] == [3.0, FOREVER, 5.0, FOREVER]
    assert check_register(history.operations) is None
