"""The rules by which a request is sent again, one by one."""

import pytest

from memoturnd.core.retries import LOST_ATTEMPTS, Act, Asked, Event, Outcome, attempt_s, backoff_s, decide

READ = Asked(reads=True, keyed=False)
WRITE = Asked(reads=False, keyed=False)
KEYED = Asked(reads=False, keyed=True)
GONE = [Asked(reads=False, keyed=keyed, replayable=False) for keyed in (False, True)]
UNCONNECTED = Outcome(Event.UNCONNECTED)
LOST = Outcome(Event.LOST)
HINTED = Outcome(Event.ANSWERED, 421, unapplied=True, hinted=True)
NOT_OWNER = Outcome(Event.ANSWERED, 421, unapplied=True)
BUSY = Outcome(Event.ANSWERED, 503, unapplied=True)


def act(asked, outcome, attempts=1, left_s=10.0, *, lost=False):
    return decide(asked, outcome, attempts=attempts, left_s=left_s, lost=lost).act


@pytest.mark.parametrize("asked", [READ, WRITE, KEYED])
def test_what_was_never_sent_may_be_sent(asked):
    assert act(asked, UNCONNECTED) is Act.AGAIN
    assert act(asked, UNCONNECTED, attempts=40) is Act.AGAIN


def test_a_write_that_got_no_answer_is_sent_again_only_with_a_key():
    assert act(READ, LOST) is Act.AGAIN
    assert act(KEYED, LOST) is Act.AGAIN
    assert act(WRITE, LOST) is Act.UNKNOWN


def test_what_never_gets_an_answer_is_not_sent_for_ever():
    assert act(READ, LOST, attempts=LOST_ATTEMPTS - 1) is Act.AGAIN
    assert act(READ, LOST, attempts=LOST_ATTEMPTS) is Act.UNANSWERED
    assert act(KEYED, LOST, left_s=0) is Act.UNANSWERED


@pytest.mark.parametrize("asked", GONE)
def test_a_body_that_is_gone_is_not_sent_again(asked):
    assert act(asked, UNCONNECTED) is Act.UNAVAILABLE
    assert act(asked, HINTED) is Act.UNAVAILABLE
    assert act(asked, BUSY) is Act.ANSWER
    assert act(asked, LOST) is (Act.UNANSWERED if asked.keyed else Act.UNKNOWN)


@pytest.mark.parametrize("asked", [READ, WRITE, KEYED])
def test_a_node_that_does_not_own_the_branch_is_taken_at_its_word(asked):
    assert act(asked, HINTED) is Act.HINT
    assert act(asked, NOT_OWNER) is Act.AGAIN


def test_two_nodes_that_name_each_other_are_not_asked_in_a_ring():
    assert [act(WRITE, HINTED, attempts=n) for n in (1, 2, 3, 4)] == [
        Act.HINT,
        Act.HINT,
        Act.AGAIN,
        Act.AGAIN,
    ]


def test_nobody_is_shown_a_421():
    for asked in (READ, WRITE, KEYED, *GONE):
        for outcome in (HINTED, NOT_OWNER):
            for attempts in range(1, 60):
                for left_s in (0.0, 0.01, 5.0):
                    assert act(asked, outcome, attempts, left_s) is not Act.ANSWER


def test_a_node_that_did_not_apply_it_is_asked_again_a_few_times_and_then_heard():
    assert [act(WRITE, BUSY, attempts=n) for n in (1, 2, 3)] == [Act.AGAIN, Act.AGAIN, Act.ANSWER]
    assert act(WRITE, BUSY, left_s=0) is Act.ANSWER


@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 404, 408, 409, 412, 429, 500, 502])
@pytest.mark.parametrize("asked", [READ, WRITE, KEYED])
def test_every_other_answer_is_the_clients(asked, status):
    assert act(asked, Outcome(Event.ANSWERED, status)) is Act.ANSWER


@pytest.mark.parametrize("asked", [READ, WRITE, KEYED])
def test_a_503_that_does_not_say_that_nothing_was_applied_is_the_clients(asked):
    assert act(asked, Outcome(Event.ANSWERED, 503)) is Act.ANSWER


def test_without_time_what_was_not_sent_is_unavailable():
    assert act(WRITE, UNCONNECTED, left_s=0) is Act.UNAVAILABLE
    assert act(WRITE, HINTED, left_s=0) is Act.UNAVAILABLE


def test_waits_double_and_are_bounded():
    assert [backoff_s(n) for n in (1, 2, 3)] == [0.02, 0.04, 0.08]
    assert backoff_s(10_000) == 0.5


@pytest.mark.parametrize(
    "outcome", [UNCONNECTED, HINTED, NOT_OWNER, BUSY, Outcome(Event.ANSWERED, 429, unapplied=True)]
)
@pytest.mark.parametrize("asked", [READ, KEYED, *GONE])
def test_what_may_have_been_applied_once_is_never_said_to_be_unapplied(asked, outcome):
    for attempts in range(2, 20):
        for left_s in (0.0, 10.0):
            assert act(asked, outcome, attempts, left_s, lost=True) in {Act.AGAIN, Act.HINT, Act.UNANSWERED}
    assert act(asked, outcome, 20, 0, lost=True) is Act.UNANSWERED


def test_what_was_lost_and_then_answered_is_the_clients():
    for status in (200, 404, 409, 412, 500, 503):
        assert act(KEYED, Outcome(Event.ANSWERED, status), attempts=2, lost=True) is Act.ANSWER


def test_what_any_node_may_answer_waits_a_second_for_the_first_of_them_and_longer_for_each_further_one():
    cached = Asked(reads=True, keyed=False, anywhere=True)

    def waits(asked, left_s=30.0):
        return [attempt_s(asked, attempts=n, longest_s=10.0, left_s=left_s) for n in range(5)]

    assert waits(cached) == [1, 2, 4, 8, 10]
    assert waits(cached, left_s=3.0) == [1, 2, 3, 3, 3]
    assert waits(READ) == waits(KEYED) == [10] * 5
    assert waits(WRITE) == [30] * 5
