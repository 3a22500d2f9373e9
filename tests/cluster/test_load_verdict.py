"""What of a history of registers counts, and that a verdict would see what is wrong."""

from histories import FAIL, OK, History, Operation
from linearizability import violations

from cluster.load import counted


def history():
    ticks = iter(range(1000))
    return History(clock=lambda: float(next(ticks)))


def done(history, kind, value=None, result=None, *, outcome=OK, txid=5, durable_txid=5):
    operation = history.call("c", kind, "a--b/durable-0", value, level="durable")
    if outcome == OK:
        history.ok(operation, result, txid=txid, durable_txid=durable_txid)
    elif outcome == FAIL:
        history.failed(operation)
    else:
        history.unknown(operation)
    return operation


def test_a_read_of_what_was_never_acknowledged_and_is_not_durable_proves_nothing():
    seen = history()
    done(seen, "write", "v", outcome="unknown")
    dirty = done(seen, "read", result="v", txid=6, durable_txid=5)
    done(seen, "read", result=None, txid=90, durable_txid=90)
    assert dirty not in counted(seen.operations)
    assert violations(counted(seen.operations)) == []
    assert violations(seen.operations) != []


def test_a_read_that_says_that_it_is_durable_counts():
    seen = history()
    done(seen, "write", "v", outcome="unknown")
    done(seen, "read", result="v", txid=6, durable_txid=6)
    done(seen, "read", result=None, txid=90, durable_txid=90)
    assert violations(counted(seen.operations)) != []


def test_what_was_acknowledged_counts_whoever_reads_it():
    seen = history()
    done(seen, "write", "v")
    done(seen, "write", "w")
    done(seen, "read", result="v", txid=6, durable_txid=5)
    assert violations(counted(seen.operations)) != []


def test_a_lost_write_and_a_stale_read_are_seen():
    lost = history()
    done(lost, "write", "v")
    done(lost, "read", result=None, txid=4, durable_txid=4)
    assert violations(counted(lost.operations)) != []


def test_a_swap_that_failed_does_not_count_and_one_of_two_that_succeeded_is_seen():
    seen = history()
    done(seen, "write", "v")
    done(seen, "cas", ("x", "y"), outcome=FAIL)
    assert [o.kind for o in counted(seen.operations)] == ["write"]
    done(seen, "cas", ("v", "w"))
    assert violations(counted(seen.operations)) == []
    done(seen, "cas", ("v", "u"))
    assert violations(counted(seen.operations)) != []


def test_other_keys_than_registers_do_not_count():
    seen = history()
    for key in ("local/a--b", "memory/a--b", "bank/a--b"):
        seen.ok(seen.call("c", "write", key, "v"), level="local", txid=1, durable_txid=0)
    assert counted(seen.operations) == []
    assert isinstance(seen.operations[0], Operation)
