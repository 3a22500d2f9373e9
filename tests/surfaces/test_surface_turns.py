import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core.turn_text import words_in
from memoturnd.engine import schema
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import fields, sessions, transcripts, turn_search, turns
from memoturnd.surfaces.turns import Page


async def append(profile, session, content, *, role="user", embedding=None, at=None):
    turn = turns.parse_turn({"role": role, "content": content, "embedding": embedding, "at": at})
    return (await turns.append(profile, session, [turn])).value[0]


async def window(profile, session, last=20):
    return (await turns.read(profile, session, Page(limit=last))).value["turns"]


async def search(profile, session=None, **body):
    wanted = turn_search.parse_search(body)
    return (await turn_search.search(profile, wanted, session_id=session)).value


def seqs(found):
    return [turn["seq"] for turn in found]


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
    ("name", "body"),
    [
        ("turns is empty", {"turns": []}),
        ("turns must be an array", {"turns": None}),
        ("turns holds 1001", {"turns": [{"role": "user", "content": 1}] * 1001}),
        (r"turns\[1\]\.role", {"turns": [{"role": "user", "content": 1}, {"content": 1}]}),
        (r"turns\[0\]\.content is missing", {"turns": [{"role": "user"}]}),
        (r"turns\[0\]\.embedding\[0\]", {"turns": [{"role": "user", "content": 1, "embedding": ["a"]}]}),
        (r"turns\[0\]\.at", {"turns": [{"role": "user", "content": 1, "at": -1}]}),
        (r"turns\[0\] must be an object", {"turns": ["hello"]}),
        ("the body has both", {"turns": [], "role": "user"}),
    ],
)
def test_a_wrong_batch_is_named(name, body):
    with pytest.raises(InvalidRequestError, match=rf"^{name}"):
        turns.parse_turns(body)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"vector": []},
        {"vector": [1], "k": "5"},
        {"vector": [1], "k": -1},
        {"query": 1},
        {"query": "q" * 8193},
        {"query": "x", "role": 1},
        {"query": "x", "since": "now"},
        {"query": "x", "until": -1},
    ],
)
def test_a_wrong_search_is_refused(body):
    with pytest.raises(InvalidRequestError):
        turn_search.parse_search(body)


def test_k_of_a_search_is_5_by_default_and_bounded():
    parse = turn_search.parse_search
    assert [parse({"vector": [1], "k": k}).k for k in (None, 0, 7, 10**6)] == [5, 1, 7, 1000]


async def test_turns_are_numbered_within_their_session(profile):
    assert [await append(profile, "a", n) for n in range(3)] == [1, 2, 3]
    assert await append(profile, "b", 0) == 1
    assert await append(profile, "a", 3) == 4


async def test_a_batch_is_one_commit_in_order(profile, plain):
    await append(profile, "s", "before")
    parsed, batch = turns.parse_turns({"turns": [{"role": "user", "content": n} for n in range(1000)]})

    written = await turns.append(profile, "s", parsed)

    assert (batch, written.value, written.txid) == (True, list(range(2, 1002)), 2)
    assert [turn["content"] for turn in plain(await window(profile, "s", 1000))] == list(range(1000))
    assert profile.works[-2] == ("write", Work.HEAVY)


async def test_a_batch_that_fails_leaves_nothing(profile):
    turn = {"role": "user", "content": "x"}
    for size in range(transcripts.TABLES_LIMIT):
        await append(profile, "s", size, embedding=[1] * (size + 1))
    parsed, _ = turns.parse_turns({"turns": [turn, {**turn, "embedding": [1] * 100}]})

    with pytest.raises(
        InvalidRequestError, match=r"turns\[1\]\.embedding has 100 dimensions, .* 64 different"
    ):
        await turns.append(profile, "s", parsed)

    assert profile.count("__memoturn_messages") == transcripts.TABLES_LIMIT
    assert await append(profile, "s", "x") == transcripts.TABLES_LIMIT + 1


async def test_any_json_content_comes_back(profile, plain):
    contents = [None, "x\u0000", 1.5, [], {"b": 1, "a": [{}]}, False]
    for content in contents:
        await append(profile, "s", content, role="tool")

    found = plain(await window(profile, "s"))

    assert [turn["content"] for turn in found] == contents
    assert found[0] == {"seq": 1, "role": "tool", "content": None, "created_at": 1_000_000}


async def test_the_window_is_the_last_turns_oldest_first(profile):
    for n in range(30):
        await append(profile, "s", n)

    assert seqs(await window(profile, "s", 3)) == [28, 29, 30]
    assert len(await window(profile, "s")) == 20
    assert await window(profile, "s", 0) == []
    assert await window(profile, "none") == []


async def test_the_window_has_at_most_1000_turns(profile):
    turn = turns.parse_turn({"role": "user", "content": 1})
    turns.apply_append(profile.conn, 0, "s", [turn] * 1005)

    assert len(await window(profile, "s", 10**9)) == 1000


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 100])
async def test_pages_lead_through_a_session_both_ways(profile, limit):
    turns.apply_append(profile.conn, 0, "s", [turns.parse_turn({"role": "user", "content": 1})] * 10)
    turns.apply_delete(profile.conn, "s", 4, 5)
    present = [1, 2, 3, 6, 7, 8, 9, 10]

    forwards, after = [], 0
    while after is not None:
        page = (await turns.read(profile, "s", Page(after=after, limit=limit))).value
        forwards += seqs(page["turns"])
        after = page["newer"]
    backwards, before = [], None
    while before != 0:
        page = (await turns.read(profile, "s", Page(before=before, limit=limit))).value
        backwards[:0] = seqs(page["turns"])
        before = page["older"] or 0

    assert forwards == backwards == present


async def test_a_page_says_what_lies_before_and_behind_it(profile):
    turns.apply_append(profile.conn, 0, "s", [turns.parse_turn({"role": "user", "content": 1})] * 5)

    async def page(**wanted):
        found = (await turns.read(profile, "s", Page(**wanted))).value
        return seqs(found["turns"]), found["older"], found["newer"]

    assert await page(limit=2) == ([4, 5], 4, None)
    assert await page(limit=5) == ([1, 2, 3, 4, 5], None, None)
    assert await page(before=4, limit=2) == ([2, 3], 2, 3)
    assert await page(before=1, limit=2) == ([], None, 0)
    assert await page(after=0, limit=2) == ([1, 2], None, 2)
    assert await page(after=5, limit=2) == ([], 6, None)
    with pytest.raises(InvalidRequestError, match="before"):
        await turns.read(profile, "s", Page(before=3, after=1))


async def test_neighbours_are_the_turns_around_one(profile):
    turns.apply_append(profile.conn, 0, "s", [turns.parse_turn({"role": "user", "content": 1})] * 9)
    turns.apply_delete(profile.conn, "s", 4, 4)

    def around(seq, before, after):
        return seqs(transcripts.read_neighbours(profile.conn, "s", seq, before, after))

    assert around(5, 2, 2) == [2, 3, 5, 6, 7]
    assert around(4, 1, 1) == [3, 5]
    assert around(1, 3, 0) == [1]
    assert around(9, 0, 3) == [9]
    assert around(50, 1, 1) == [9]


async def test_one_turn_is_shown_or_is_not_there(profile, plain):
    await append(profile, "s", "x", at=5)

    assert plain((await turns.get(profile, "s", 1)).value) == {
        "seq": 1,
        "role": "user",
        "content": "x",
        "created_at": 5,
    }
    for session, seq in (("s", 0), ("s", 2), ("t", 1)):
        with pytest.raises(NotFoundError, match=f"no turn {seq}"):
            await turns.get(profile, session, seq)


async def delete_range(profile, *, first=None, last=None, everything=False):
    written = await turns.delete_range(profile, "s", first=first, last=last, everything=everything)
    return written.value["deleted"], written.value["more"]


async def test_many_turns_are_deleted_some_at_a_time(profile, monkeypatch):
    monkeypatch.setattr(turns, "DELETE_LIMIT", 4)
    turns.apply_append(profile.conn, 0, "s", [turns.parse_turn({"role": "user", "content": "x"})] * 10)
    turns.apply_delete(profile.conn, "s", 3, 3)

    assert await delete_range(profile, everything=True) == (4, True)
    assert seqs(await window(profile, "s")) == [6, 7, 8, 9, 10]
    assert await delete_range(profile, first=7) == (4, False)
    assert await delete_range(profile, everything=True) == (1, False)


@pytest.mark.parametrize("gone", [1, 5, 12])
async def test_an_index_that_is_made_anew_has_what_stays_and_nothing_of_what_went(profile, monkeypatch, gone):
    monkeypatch.setattr(transcripts, "REBUILD_FROM", 2)
    monkeypatch.setattr(transcripts, "REBUILD_FACTOR", 2)
    said = [f"{letter}qjx common" for letter in "abcdefghiklm"]
    turns.apply_append(
        profile.conn, 0, "s", [turns.parse_turn({"role": "user", "content": text}) for text in said]
    )
    await append(profile, "s", 7)
    assert in_index(profile, "aqjx") == 1

    assert await delete_range(profile, last=gone) == (gone, False)

    assert sorted(seqs(await search(profile, query="common", k=50))) == list(range(gone + 1, 13))
    assert in_index(profile, "aqjx") == 0
    assert await search(profile, query="aqjx") == []
    assert seqs(await search(profile, query="mqjx")) == ([12] if gone < 12 else [])
    await append(profile, "s", "zqjx")
    await turns.delete(profile, "s", 14)
    assert in_index(profile, "zqjx") == 0  # the index still forgets for good
    profile.conn.execute(
        "INSERT INTO __memoturn_messages_fts(__memoturn_messages_fts) VALUES ('integrity-check')"
    )


async def test_deleted_turns_are_gone_with_their_words_and_vectors_and_their_numbers_stay_taken(profile):
    for n in range(5):
        await append(profile, "s", f"zyzzyva{n} common", embedding=[1, n])
    await append(profile, "other", "zyzzyva9 common", embedding=[1, 0])

    await turns.delete(profile, "s", 5)
    assert await delete_range(profile, first=2, last=3) == (2, False)
    with pytest.raises(NotFoundError):
        await turns.delete(profile, "s", 3)

    assert seqs(await window(profile, "s")) == [1, 4]
    assert seqs(await search(profile, "s", query="common")) == [1, 4]
    assert seqs(await search(profile, "s", vector=[1, 0])) == [1, 4]
    assert in_index(profile, "zyzzyva1") == in_index(profile, "zyzzyva4") == 0
    assert await append(profile, "s", "next") == 6
    assert await delete_range(profile, everything=True) == (3, False)
    assert await delete_range(profile, everything=True) == (0, False)
    assert await append(profile, "s", "and on") == 7
    assert seqs(await search(profile, query="common")) == [1]


def in_index(profile, word):
    return profile.conn.execute(
        "SELECT count(*) FROM __memoturn_messages_fts_data WHERE instr(block, ?)", (word,)
    ).get


async def test_a_session_that_ended_with_its_turns_gives_no_number_twice(profile):
    await append(profile, "private name", "zyzzyva", embedding=[1])
    await sessions.end(profile, "private name", turns=True)

    assert await window(profile, "private name") == []
    assert in_index(profile, "zyzzyva") == 0
    assert profile.count("__memoturn_turn_vectors_0_1") == 0
    kept = profile.conn.execute("SELECT hex(session) FROM __memoturn_transcripts").get
    assert len(kept) == 32
    assert b"private name".hex() not in kept.lower()
    assert await append(profile, "private name", "x") == 2


@pytest.mark.parametrize(
    "wanted",
    [
        {"first": None, "last": None, "everything": False},
        {"first": 1, "last": None, "everything": True},
        {"first": 3, "last": 2, "everything": False},
    ],
)
async def test_a_deletion_that_does_not_say_what_is_refused(profile, wanted):
    await append(profile, "s", 1)
    with pytest.raises(InvalidRequestError):
        await turns.delete_range(profile, "s", **wanted)
    assert len(await window(profile, "s")) == 1


async def test_appending_registers_the_session_and_keeps_it_active(profile):
    await append(profile, "s", 1)
    profile.now_ms += 7
    await append(profile, "s", 2)

    assert (await sessions.recent(profile)).value == [
        {"id": "s", "created_at": 1_000_000, "last_active_at": 1_000_007}
    ]


async def test_a_transcript_of_old_says_when_it_was(profile):
    batch, _ = turns.parse_turns({"turns": [{"role": "user", "content": 1, "at": at} for at in (500, 900)]})
    await turns.append(profile, "old", batch)

    assert (await sessions.recent(profile)).value == [{"id": "old", "created_at": 500, "last_active_at": 900}]
    assert [turn["created_at"] for turn in await window(profile, "old")] == [500, 900]


async def test_search_is_by_cosine_within_the_session_and_dimension(profile, plain):
    await append(profile, "s", "far", embedding=[0, 1])
    await append(profile, "s", "near", embedding=[5, 1])
    await append(profile, "s", "none")
    await append(profile, "s", "longer", embedding=[1, 0, 0])
    await append(profile, "other", "exact", embedding=[1, 0])

    found = plain(await search(profile, "s", vector=[1, 0]))

    assert [turn["content"] for turn in found] == ["near", "far"]
    assert found[0] == {
        "session_id": "s",
        "seq": 2,
        "role": "user",
        "content": "near",
        "created_at": 1_000_000,
        "distance": pytest.approx(1 - 5 / math.sqrt(26), abs=1e-6),
    }
    assert profile.works[-1] == ("read", Work.SCAN)
    assert len(await search(profile, "s", vector=[1, 0], k=1)) == 1
    everywhere = plain(await search(profile, vector=[1, 0]))
    assert [turn["content"] for turn in everywhere] == ["exact", "near", "far"]
    assert await search(profile, "s", vector=[1, 0, 0, 0]) == []


@pytest.mark.parametrize("session", [None, "a"])
async def test_search_by_vector_equals_brute_force(profile, session):
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(3000, 24)).astype("f4")
    batch = [turns.Turn("user", b"1", fields.vector([float(x) for x in vector], "v")) for vector in vectors]
    turns.apply_append(profile.conn, 0, "a", batch[:2000])
    turns.apply_append(profile.conn, 0, "b", batch[2000:])
    those = vectors if session is None else vectors[:2000]
    lengths = np.linalg.norm(those.astype("f8"), axis=1)
    for _ in range(5):
        query = rng.normal(size=24)
        distances = 1 - those.astype("f8") @ query / (lengths * np.linalg.norm(query))
        nearest = np.argsort(distances)[:50]

        found = await search(profile, session, vector=[float(x) for x in query], k=50)

        places = [turn["seq"] - 1 + (2000 if turn["session_id"] == "b" else 0) for turn in found]
        assert places == nearest.tolist()
        assert [turn["distance"] for turn in found] == pytest.approx(distances[nearest].tolist(), abs=1e-5)


async def test_words_are_found_in_strings_and_in_the_parts_of_messages(profile):
    await append(profile, "s", "My dog is called Rufus")
    await append(
        profile,
        "s",
        [
            {"type": "text", "text": "Rufus needs walking"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "Rufus"}},
        ],
        role="assistant",
    )
    await append(profile, "s", {"type": "tool_use", "id": "toolu_rufus", "input": {"pet": {"name": "Rufus"}}})
    await append(profile, "s", {"tool_use_id": "rufus", "type": "rufus", "url": "rufus"})
    await append(profile, "t", "Rufus again", at=5)

    assert sorted(seqs(await search(profile, "s", query="rufus?"))) == [1, 2, 3]
    assert seqs(await search(profile, "s", query="walks")) == [2]
    assert seqs(await search(profile, "s", query="base64 png")) == []
    assert [(t["session_id"], t["seq"]) for t in await search(profile, query="rufus", until=10)] == [("t", 1)]
    assert seqs(await search(profile, query="rufus", role="assistant")) == [2]
    assert len(await search(profile, query="rufus", since=6)) == 3
    assert await search(profile, query="...") == []
    hit = (await search(profile, "t", query="again"))[0]
    assert (hit["channels"], hit["distance"], hit["created_at"]) == (["keyword"], None, 5)


async def test_words_that_most_turns_have_are_left_out_beside_rare_ones_and_change_next_to_nothing(profile):
    said = [f"common {'rare' if n % 7 == 0 else 'other'} {'x ' * (n % 11)}{n}" for n in range(700)]
    turns.apply_append(
        profile.conn, 0, "s", [turns.parse_turn({"role": "user", "content": text}) for text in said]
    )
    ranks = profile.conn.execute(
        "SELECT rowid, rank FROM __memoturn_messages_fts('common OR rare') ORDER BY rank LIMIT 40"
    ).fetchall()

    found = await search(profile, query="common rare", k=40)
    filling = await search(profile, query="common rare", k=300)

    exact = dict(ranks)
    assert {turn["seq"] for turn in found} <= {n + 1 for n in range(0, 700, 7)}
    worst = max(exact.values())
    for turn in found:  # in the same place, or one whose score is the same but for 1e-4 of it
        one = profile.conn.execute(
            "SELECT rank FROM __memoturn_messages_fts('common OR rare') WHERE rowid = ?", (turn["seq"],)
        ).get
        assert one <= worst * (1 - 1e-4)
    assert len(filling) == 300


async def test_words_and_vector_together_find_what_either_finds(profile):
    await append(profile, "s", "the harbour at dawn", embedding=[0, 1])
    await append(profile, "s", "something else", embedding=[1, 0.1])
    await append(profile, "s", "harbour lights", embedding=[1, 0])

    found = await search(profile, "s", query="harbour", vector=[1, 0], k=3)

    assert seqs(found)[0] == 3
    assert sorted(seqs(found)) == [1, 2, 3]
    assert {turn["seq"]: turn["channels"] for turn in found} == {
        1: ["keyword", "vector"],
        2: ["vector"],
        3: ["keyword", "vector"],
    }
    assert all(turn["distance"] is not None for turn in found)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_transcript_is_what_a_list_would_be(new_profile, data):
    fake = new_profile()
    conn, model, last = fake.conn, {}, 0
    conn.execute("BEGIN")
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()):
            words = data.draw(
                st.lists(st.sampled_from(["red", "green", "blue", "ünï", "\U0001f600"]), max_size=4)
            )
            batch = [turns.Turn("user", fake_json(word), b"\0\0\x80?") for word in words or ["red"]]
            numbers, _ = turns.apply_append(conn, 0, "s", batch)
            assert numbers == list(range(last + 1, last + 1 + len(batch)))
            last += len(batch)
            model.update(zip(numbers, words or ["red"], strict=True))
        else:
            low, high = sorted((data.draw(st.integers(0, last + 1)), data.draw(st.integers(0, last + 1))))
            gone = [seq for seq in model if low <= seq <= high]
            assert turns.apply_delete(conn, "s", low, high)[0] == {"deleted": len(gone), "more": False}
            for seq in gone:
                del model[seq]
    after, limit = data.draw(st.integers(0, last + 1)), data.draw(st.integers(1, 5))
    page = turns.read_page(conn, "s", Page(after=after, limit=limit))
    above = sorted(seq for seq in model if seq > after)
    assert seqs(page["turns"]) == above[:limit]
    assert (page["newer"] is not None) == (len(above) > limit)
    for word in ("red", "green", "blue", "ünï"):
        wanted = turn_search.parse_search({"query": word, "k": 100})
        assert sorted(seqs(turn_search.read_search(conn, wanted))) == sorted(
            seq for seq, said in model.items() if said == word
        )
    conn.execute("INSERT INTO __memoturn_messages_fts(__memoturn_messages_fts) VALUES ('integrity-check')")
    assert fake.count("__memoturn_messages") == len(model)
    assert sum(fake.count(table) for table in transcripts.vector_tables(conn)) == len(model)
    conn.close()


def fake_json(word):
    return f'"{word}"'.encode()


def test_content_that_no_reader_takes_has_no_words():
    assert words_in('"\\ud800"') == ""
    assert words_in("[" * 100_000 + "]" * 100_000) == ""
    assert words_in('{"a": "x' + "y" * 300 + '"}') == ""
    assert words_in('["a b", {"c": "d"}]') == "a b\nd"
    assert len(words_in('"' + "word " * 50_000 + '"')) == 100_000


async def test_turns_of_version_1_keep_their_numbers_words_and_vectors(tmp_path):
    from memoturnd.engine.connection import open_connection

    old = open_connection(str(tmp_path / "old.db"), read_only=False, sync="normal", cache_kib=256)
    old.execute("BEGIN")
    schema.create_anywhere(old, version=1)
    rows = [
        ("a", 1, '"red fox"', b"\0\0\x80?"),
        ("a", 3, '{"t":"blue"}', b"\0\0\x80?\0\0\0\0"),
        ("b", 1, "1", None),
    ]
    for session, seq, content, embedding in rows:
        old.execute(
            "INSERT INTO __memoturn_messages VALUES (?, ?, 'user', ?, ?, 5)",
            (session, seq, content, embedding),
        )
    schema.migrate(old, schema.read_meta(old))

    def found(**body):
        hits = turn_search.read_search(old, turn_search.parse_search(body))
        return [(hit["session_id"], hit["seq"]) for hit in hits]

    assert found(query="red blue") == [("a", 1), ("a", 3)] or found(query="red blue") == [("a", 3), ("a", 1)]
    assert (found(vector=[1]), found(vector=[1, 0])) == ([("a", 1)], [("a", 3)])
    one = [turns.parse_turn({"role": "user", "content": 1})]
    assert turns.apply_append(old, 0, "a", one)[0] == [4]
    assert turns.apply_append(old, 0, "b", one)[0] == [2]
    assert turns.apply_delete(old, "a", 0, 9)[0]["deleted"] == 3
    assert found(query="red blue") == []
    old.execute("COMMIT")
    old.close()


async def test_bad_sessions_are_refused(profile):
    turn = turns.parse_turn({"role": "user", "content": 1})
    for bad in ("", "a\n", "s" * 257):
        with pytest.raises(InvalidRequestError):
            await turns.append(profile, bad, [turn])
        with pytest.raises(InvalidRequestError):
            await turns.read(profile, bad, Page())
        with pytest.raises(InvalidRequestError):
            await turns.get(profile, bad, 1)
        with pytest.raises(InvalidRequestError):
            await turns.delete(profile, bad, 1)
        with pytest.raises(InvalidRequestError):
            await search(profile, bad, vector=[1])
