"""A node that fails is left alone for a while."""

from memoturnd.core.breaker import FAILURES, FIRST_OPEN_S, LONGEST_OPEN_S, Breaker


def opened(now_s=0.0):
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.admits(now_s)
        breaker.failed(now_s)
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not():
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.admits(0)
    assert not breaker.is_open
    assert not opened().admits(FIRST_OPEN_S / 2)


def test_half_open_lets_one_through_which_decides():
    breaker = opened()
    assert [breaker.admits(FIRST_OPEN_S), breaker.admits(FIRST_OPEN_S)] == [True, False]
    breaker.succeeded()
    assert [breaker.admits(FIRST_OPEN_S), breaker.admits(FIRST_OPEN_S)] == [True, True]


def test_each_attempt_that_fails_doubles_the_time_up_to_a_bound():
    breaker, now_s, open_s = opened(), 0.0, FIRST_OPEN_S
    for _ in range(10):
        now_s += open_s
        assert breaker.admits(now_s)
        breaker.failed(now_s)
        open_s = min(LONGEST_OPEN_S, 2 * open_s)
        assert not breaker.admits(now_s + 0.99 * open_s)
    assert open_s == LONGEST_OPEN_S


def test_an_attempt_that_was_given_up_lets_the_next_one_decide():
    breaker = opened()
    assert breaker.admits(FIRST_OPEN_S)
    breaker.abandoned()
    assert breaker.admits(FIRST_OPEN_S)


def test_late_failures_of_requests_under_way_do_not_make_it_longer():
    breaker = opened()
    for _ in range(20):
        breaker.failed(0)
    assert breaker.admits(FIRST_OPEN_S)
