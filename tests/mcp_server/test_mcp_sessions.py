"""Which sessions end for whom: the decisions alone."""

from hypothesis import given, settings
from hypothesis import strategies as st
from memoturn.mcp.sessions import Sessions


def sessions(**bounds):
    return Sessions(lambda: 0.0, **{"sessions_max": 3, "sessions_per_token": 2, "idle_s": 60.0, **bounds})


def opened(registry, session_id, token):
    leaving = registry.admit(token)
    if leaving is None:
        return None
    registry.add(session_id, token, None)
    registry.settle(token)
    return [session.id for session in leaving]


def test_a_busy_session_is_never_displaced():
    registry = sessions(sessions_max=1)
    opened(registry, "a", "one")
    registry.begin(registry.get("a"))
    assert opened(registry, "b", "two") is None
    assert opened(registry, "b", "one") is None
    registry.end(registry.get("a"))
    assert opened(registry, "b", "two") == ["a"]


def test_sessions_that_are_being_opened_count():
    registry = sessions()
    assert registry.admit("one") == registry.admit("two") == registry.admit("two") == []
    assert registry.admit("three") is None
    registry.settle("two")
    assert registry.admit("two") == []
    assert registry.admit("two") is None


def test_no_token_is_an_owner_like_any_other():
    registry = sessions()
    opened(registry, "a", None)
    assert registry.owned_by(registry.get("a"), None)
    assert not registry.owned_by(registry.get("a"), "")
    assert not registry.owned_by(registry.get("a"), "one")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["open", "begin", "end", "remove"]), st.integers(0, 9)
        )
    )
)
def test_the_bounds_hold_whatever_happens(steps):
    registry, made = sessions(), []
    for number, (token, step, index) in enumerate(steps):
        if step == "open":
            if opened(registry, str(number), token) is not None:
                made.append((str(number), token))
        elif made:
            session_id, _ = made[index % len(made)]
            session = registry.get(session_id)
            if session is None:
                continue
            if step == "begin":
                registry.begin(session)
            elif step == "end" and session.busy:
                registry.end(session)
            elif step == "remove":
                registry.remove(session_id)
        here = [token for session_id, token in made if registry.get(session_id)]
        assert len(registry) == len(here) <= 3
        assert all(here.count(token) <= 2 for token in here)
    assert not registry._opening
