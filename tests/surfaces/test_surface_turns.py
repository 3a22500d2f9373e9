import math

import pytest

from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import memories, turns


async def append(profile, session, content, *, role="user", embedding=None):
    turn = turns.parse_turn({"role": role, "content": content, "embedding": embedding})
    return (await turns.append(profile, session, turn)).value


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("the body", None),
        ("role", {"content": 1}),
        ("role", {"role": 1, "content": 1}),
        ("role", {"role": " ", "content": 1}),
        ("role", {"role": "a\0", "content": 1}),
        ("role", {"role": "r" * 257, "content": 1}),
        ("content", {"role": "user"}),
        ("content", {"role": "user", "content": math.inf}),
        ("embedding", {"role": "user", "content": 1, "embedding": []}),
        ("embedding", {"role": "user", "content": 1, "embedding": [1, "a"]}),
    ],
)
def test_a_wrong_field_is_named(name, body):
    with pytest.raises(InvalidRequestError, match=rf"^{name}"):
        turns.parse_turn(body)


@pytest.mark.parametrize(
    "body", [None, {}, {"vector": []}, {"vector": [1], "k": "5"}, {"vector": [1], "k": -1}]
)
def test_a_wrong_search_is_refused(body):
    with pytest.raises(InvalidRequestError):
        turns.parse_search(body)


def test_k_of_a_search_is_5_by_default_and_bounded():
    assert [turns.parse_search({"vector": [1], "k": k})[1] for k in (None, 0, 7, 10**6)] == [5, 1, 7, 1000]


async def test_turns_are_numbered_within_their_session(profile):
    assert [await append(profile, "a", n) for n in range(3)] == [1, 2, 3]
    assert await append(profile, "b", 0) == 1
    assert await append(profile, "a", 3) == 4


async def test_any_json_content_comes_back(profile, plain):
    contents = [None, "x\u0000", 1.5, [], {"b": 1, "a": [{}]}, False]
    for content in contents:
        await append(profile, "s", content, role="tool")

    window = plain((await turns.window(profile, "s")).value)

    assert [turn["content"] for turn in window] == contents
    assert window[0] == {"seq": 1, "role": "tool", "content": None, "created_at": 1_000_000}


async def test_the_window_is_the_last_turns_oldest_first(profile):
    for n in range(30):
        await append(profile, "s", n)

    assert [turn["seq"] for turn in (await turns.window(profile, "s", last=3)).value] == [28, 29, 30]
    assert len((await turns.window(profile, "s")).value) == 20
    assert (await turns.window(profile, "s", last=0)).value == []
    assert (await turns.window(profile, "none")).value == []


async def test_the_window_has_at_most_1000_turns(profile):
    turn = turns.parse_turn({"role": "user", "content": 1})
    for _ in range(1005):
        turns.apply_append(profile.conn, 0, "s", turn)

    assert len((await turns.window(profile, "s", last=10**9)).value) == 1000


async def test_appending_registers_the_session_and_keeps_it_active(profile):
    await append(profile, "s", 1)
    profile.now_ms += 7
    await append(profile, "s", 2)

    assert (await memories.sessions(profile)).value == [
        {"id": "s", "created_at": 1_000_000, "last_active_at": 1_000_007}
    ]


async def test_search_is_by_cosine_within_the_session_and_dimension(profile, plain):
    await append(profile, "s", "far", embedding=[0, 1])
    await append(profile, "s", "near", embedding=[5, 1])
    await append(profile, "s", "none")
    await append(profile, "s", "longer", embedding=[1, 0, 0])
    await append(profile, "other", "exact", embedding=[1, 0])
    vector, k = turns.parse_search({"vector": [1, 0]})

    found = plain((await turns.search(profile, "s", vector, k)).value)

    assert [turn["content"] for turn in found] == ["near", "far"]
    assert found[0] == {
        "session_id": "s",
        "seq": 2,
        "role": "user",
        "content": "near",
        "distance": pytest.approx(1 - 5 / math.sqrt(26), abs=1e-6),
    }
    assert profile.works[-1] == ("read", Work.SCAN)
    assert len((await turns.search(profile, "s", vector, 1)).value) == 1


async def test_bad_sessions_are_refused(profile):
    vector, k = turns.parse_search({"vector": [1]})
    turn = turns.parse_turn({"role": "user", "content": 1})
    for bad in ("", "a\n", "s" * 257):
        with pytest.raises(InvalidRequestError):
            await turns.append(profile, bad, turn)
        with pytest.raises(InvalidRequestError):
            await turns.window(profile, bad)
        with pytest.raises(InvalidRequestError):
            await turns.search(profile, bad, vector, k)
