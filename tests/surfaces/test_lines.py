"""A profile's memory as lines of JSON, out and in: exact, and nothing in them trusted."""

import base64
import io
import json

import numpy as np
import pytest
from conftest import FakeProfile

from memoturnd.errors import ConflictError, DiskFullError, InvalidRequestError
from memoturnd.surfaces import (
    lines,
    lines_in,
    memories,
    memory_edits,
    recall,
    reembed,
    sessions,
    topics,
    transcripts,
    turns,
)


def says(word, type_="fact", topic_key="t", **more):
    return {"type": type_, "topic_key": topic_key, "summary": word, "content": word, **more}


async def ingest(profile, *items):
    results = (await memories.ingest(profile, memories.parse_items({"memories": list(items)}))).value
    return [result["id"] for result in results]


async def exported(profile):
    file = io.BytesIO()
    await lines.export(profile, file)
    return file.getvalue()


async def taken(profile, raw, *, replace=False):
    file = io.BytesIO(raw)
    lines_in.check(file)
    return (await lines_in.take(profile, profile.branch_id, file, replace=replace)).value


def body(raw):
    """The lines without the header, which tells the txid."""
    return raw.partition(b"\n")[2]


@pytest.fixture
async def rich(profile):
    """A profile with everything that lines have, rows deleted in between."""
    content = {
        "b": [1, 2.5, -0.0, 1e300, None, True, "é\u0000\u2028 \U0001f600"],
        "a": {"": {}},
        "n": 2**64 - 1,
    }
    a, b = await ingest(
        profile, says("a", content=content, embedding=[1, 2]), says("b", reason='why "not"\n', pinned=True)
    )
    profile.now_ms += 1
    await ingest(
        profile,
        says("c", importance=1 / 3, keywords="k", embedding=[0.1, -7], source="s", session_id="s/1"),
        says("c", "instruction", embedding=[3, 4]),
        {
            "type": "event",
            "summary": "e1",
            "embedding": [0, 0],
            "source_turns": {"session_id": "s/1", "from_seq": 1},
        },
        {"type": "event", "summary": "e2"},
        {"type": "task", "summary": "t", "session_id": "s2", "ttl": 5},
        says("x", topic_key="other"),
        says("m", topic_key=None, embedding=[1, 2, 3], embedding_model="model/x"),
    )
    await memories.forget(profile, b)
    profile.now_ms += 1
    (d,) = await ingest(profile, says("d"))
    profile.now_ms += 1
    await topics.undo(profile, d, reason="wrong")
    await memory_edits.patch(profile, a, memory_edits.parse_patch({"keywords": "zebra", "ttl": 100}))
    batch, _ = turns.parse_turns(
        {
            "turns": [
                {"role": "user", "content": c, "embedding": e}
                for c, e in (("hi", [1, 0]), ({"t": "x"}, None))
            ]
        }
    )
    await turns.append(profile, "s/1", batch)
    await turns.append(profile, "é", [turns.parse_turn({"role": "r", "content": [], "embedding": [1, 2, 3]})])
    transcripts.delete(profile.conn, "s/1", 2, 2)
    return profile


@pytest.fixture
def other():
    fake = FakeProfile()
    yield fake
    fake.conn.execute(
        "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rank) VALUES ('integrity-check', 1)"
    )
    fake.conn.close()


def table(profile, name, columns="*"):
    return profile.conn.execute(f"SELECT {columns} FROM {name} ORDER BY 1, 2").fetchall()


# ---- the way there and back


async def test_what_comes_in_again_is_exactly_what_went_out(rich, other):
    raw = await exported(rich)

    counts = await taken(other, raw)

    assert counts == {"model": 2, "session": 3, "transcript": 2, "memory": 9, "turn": 2}
    assert body(await exported(other)) == body(raw)
    columns = ", ".join(lines.MEMORY)
    for name, of in (
        ("__memoturn_memories", columns),
        ("__memoturn_memory_sessions", "*"),
        ("__memoturn_messages", "session_id, seq, role, content, created_at"),
        ("__memoturn_transcripts", "*"),
        ("__memoturn_models", "name, dimensions, created_at"),
    ):
        assert table(rich, name, of) == table(other, name, of)
    for name in ("__memoturn_memory_vectors_1", "__memoturn_memory_vectors_2"):
        ids = f"(SELECT id FROM __memoturn_memories AS m WHERE m.rid = {name}.rid), e"
        assert table(rich, name, ids) == table(other, name, ids)


async def test_what_came_in_behaves_as_what_went_out(rich, other, plain):
    await taken(other, await exported(rich))
    other.now_ms = rich.now_ms

    for query in (
        {"query": "zebra c e1"},
        {"embedding": [1, 2]},
        {"topic_key": "t", "include_superseded": True},
    ):
        parsed = recall.parse_query(query)
        got = [plain((await recall.recall(p, parsed)).value) for p in (rich, other)]
        assert got[0] == got[1]
    for profile in (rich, other):
        got = (await topics.topic(profile, "t", topics.Page())).value["chains"]
        assert [[v["summary"] for v in chain["versions"]] for chain in got] == [["c", "d", "a"], ["c"]]
        (again,) = (await memories.ingest(profile, memories.parse_items({"memories": [says("d")]}))).value
        assert again["status"] == "revived"
        assert (await topics.undo(profile, again["id"])).value["version"] == 7
        appended = await turns.append(profile, "s/1", [turns.parse_turn({"role": "r", "content": 1})])
        assert appended.value == [3]  # the number of the turn that was deleted stays taken
    assert body(await exported(rich)) == body(await exported(other))


async def test_an_empty_profile_goes_out_and_comes_in(profile, other):
    raw = await exported(profile)

    assert [json.loads(line)["kind"] for line in raw.splitlines()] == ["header", "end"]
    assert set((await taken(other, raw)).values()) == {0}
    assert body(await exported(other)) == body(raw)


async def test_memory_is_replaced_where_that_is_said_and_refused_otherwise(rich, other):
    raw = await exported(rich)
    await ingest(other, says("old", embedding=[1, 2, 3, 4]))
    before = await exported(other)

    with pytest.raises(ConflictError, match="import into a new one, or replace"):
        await taken(other, raw)
    assert await exported(other) == before
    await taken(other, raw, replace=True)
    assert body(await exported(other)) == body(raw)
    found = await recall.recall(other, recall.parse_query({"query": "old"}))
    assert found.value["memories"] == []
    await taken(other, before, replace=True)
    assert body(await exported(other)) == body(before)
    assert transcripts.vector_tables(other.conn) == []


@pytest.mark.parametrize("left", ["session", "transcript", "turn", "model"])
async def test_a_profile_with_any_memory_at_all_is_not_empty(profile, other, left):
    if left == "session":
        memories.touch_session(other.conn, 5, "s")
    elif left == "model":
        (id_,) = await ingest(other, says("x", embedding=[1]))
        await memories.forget(other, id_)
    else:
        await turns.append(other, "s", [turns.parse_turn({"role": "r", "content": 1})])
        await sessions.end(other, "s", turns=left == "transcript")

    with pytest.raises(ConflictError):
        await taken(other, await exported(profile))


async def test_copies_in_memory_are_told_that_all_is_new(profile, other):
    from memoturnd.engine import schema

    await ingest(profile, says("x"))
    other.txid = 6
    await taken(other, await exported(profile))

    assert schema.replaced_txid(other.conn) == 7


async def test_a_profile_that_is_being_embedded_again_takes_no_import(profile, other):
    raw = await exported(profile)
    wanted = reembed.parse({})
    reembed.apply_begin(other.conn, 5, other.branch_id, "job", "model/x", wanted)

    with pytest.raises(ConflictError, match="being embedded again"):
        await taken(other, raw, replace=True)


async def test_an_export_that_is_tried_again_begins_anew(rich):
    file = io.BytesIO(b"x" * 1_000_000)
    await lines.export(rich, file)

    assert file.getvalue() == await exported(rich)


async def test_a_full_disk_is_said_to_be_one(rich):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(DiskFullError, match="No space left"):
        await lines.export(rich, Full())


# ---- what is refused


async def refused(other, raw, match):
    before = await exported(other)
    with pytest.raises(InvalidRequestError, match=match):
        await taken(other, raw)
    assert await exported(other) == before


async def test_lines_cut_off_anywhere_change_nothing(rich, other):
    raw = await exported(rich)
    ends = [at for at, byte in enumerate(raw) if byte == 10]
    for cut in [*range(0, len(raw) - 1, 97), *(end + 1 for end in ends[:-1])]:
        with pytest.raises(InvalidRequestError, match=r"break off|not valid|not a|line \d+"):
            lines_in.check(io.BytesIO(raw[:cut]))
    assert lines_in.check(io.BytesIO(raw[:-1]))["memory"] == 9  # the last line may lack its end


def changed(raw, kind, change):
    """The lines with the first of a kind changed; a value of `...` removes the field."""
    out, done = [], False
    for line in raw.splitlines():
        value = json.loads(line)
        if value["kind"] == kind and not done:
            done = True
            value.update(change)
            value = {name: field for name, field in value.items() if field is not ...}
        out.append(json.dumps(value))
    assert done
    return "\n".join(out).encode() + b"\n"


def b64(*numbers):
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        ("header", {"format": "x"}, "not the header"),
        ("header", {"kind": "memory"}, "not the header"),
        ("header", {"txid": ...}, "has no txid"),
        ("header", {"more": 1}, "field 'more'"),
        ("model", {"kind": "document"}, "of kind 'document'"),
        ("model", {"name": "a b"}, "line 2.name"),
        ("model", {"name": "model/x"}, "second time"),
        ("model", {"dimensions": 0}, "line 2.dimensions"),
        ("model", {"dimensions": 3}, "none of its model"),
        ("session", {"id": ""}, "session_id"),
        ("session", {"id": "a\n"}, "session_id"),
        ("session", {"created_at": -1}, "created_at"),
        ("session", {"created_at": 2**60}, "created_at"),
        ("transcript", {"session": "xy"}, "hexadecimal"),
        ("transcript", {"session": "ab"}, "no hash"),
        ("memory", {"kind": 5}, "kind"),
        ("memory", {"id": "mem_0"}, "not that of what it says"),
        ("memory", {"content": "other"}, "not that of what it says"),
        ("memory", {"topic_key": "other"}, "not that of what it says"),
        ("memory", {"type": "event"}, "topic"),
        ("memory", {"type": "thought"}, "type 'thought'"),
        ("memory", {"summary": " "}, "blank"),
        ("memory", {"summary": "a\0"}, "summary"),
        ("memory", {"summary": ...}, "has no summary"),
        ("memory", {"keywords": None}, "keywords"),
        ("memory", {"version": 0}, "version"),
        ("memory", {"version": 4}, "version of another"),
        ("memory", {"pinned": 1}, "pinned"),
        ("memory", {"importance": 7}, "importance"),
        ("memory", {"reason": "r" * 1025}, "reason"),
        ("memory", {"superseded_by": "mem_0"}, "no later version"),
        ("memory", {"superseded_by": None, "superseded_at": None}, "not the newest version"),
        ("memory", {"superseded_at": None}, "at no time"),
        ("memory", {"superseded_at": "x"}, "superseded_at"),
        ("memory", {"source_turns": {"session_id": "s"}}, "source_turns"),
        ("memory", {"vectors": []}, "vectors"),
        ("memory", {"vectors": {"other": b64(1, 0)}}, "no line before it names"),
        ("memory", {"vectors": {"": "x!"}}, "not base64"),
        ("memory", {"vectors": {"": 5}}, "vectors"),
        ("memory", {"vectors": {"": ""}}, "none of its model"),
        ("memory", {"vectors": {"": b64(1)}}, "none of its model"),
        ("memory", {"vectors": {"": b64(float("nan"), 0)}}, "longer than 1"),
        ("memory", {"vectors": {"": b64(3e38, 0)}}, "longer than 1"),
        ("memory", {"extra": 1}, "field 'extra'"),
        ("turn", {"session_id": ""}, "session_id"),
        ("turn", {"seq": 0}, "seq"),
        ("turn", {"role": ""}, "role"),
        ("turn", {"role": "r" * 257}, "role"),
        ("turn", {"content": ...}, "has no content"),
        ("turn", {"vectors": {}}, "vectors"),
        ("turn", {"vectors": [[None]]}, "pairs"),
        ("turn", {"vectors": [[5, b64(1)]]}, "pairs"),
        ("turn", {"vectors": [[None, b64(1)], [None, b64(0.5)]]}, "two vectors"),
        ("turn", {"vectors": [["none", b64(1)]]}, "no line before it names"),
        ("end", {"memory": 8}, "says 8 lines"),
        ("end", {"turn": ...}, "has no turn"),
        ("end", {"more": 1}, "field 'more'"),
    ],
)
async def test_a_line_that_no_export_has_is_refused_and_named(rich, other, kind, change, match):
    await refused(other, changed(await exported(rich), kind, change), match)


async def test_lines_in_another_order_or_number_are_refused(rich, other):
    raw = await exported(rich)
    all_lines = raw.splitlines(keepends=True)
    memory = next(at for at, line in enumerate(all_lines) if b'"kind":"memory"' in line)
    end = json.loads(all_lines[-1])

    def ending(**more):
        return json.dumps({**end, **more}).encode()

    twice = [*all_lines[: memory + 1], all_lines[memory], *all_lines[memory + 1 : -1], ending(memory=10)]
    await refused(other, b"".join(twice), rf"line {memory + 2} comes twice")
    models_last = [all_lines[0], *all_lines[3:-1], *all_lines[1:3], all_lines[-1]]
    await refused(other, b"".join(models_last), "no line before it names")
    await refused(other, b"".join([*all_lines, all_lines[memory]]), "behind the end")
    await refused(other, b"".join([*all_lines, b"\n"]), "not valid JSON")
    await refused(other, b"".join(all_lines[1:]), "not the header")
    await refused(other, b"".join([all_lines[0], all_lines[0], all_lines[-1]]), "of kind 'header'")
    await refused(other, b"", "break off after 0")
    for junk in (b"{", b"[]\n", b"null\n", b"\xff\n", b'{"kind":[]}\n', b"\x00" * 100, b"[" * 100_000):
        await refused(other, junk, "line 1")


async def test_a_line_is_bounded(profile, other, monkeypatch):
    await ingest(profile, says("x" * 5000))
    monkeypatch.setattr(lines_in, "LINE_LIMIT_BYTES", 4000)

    await refused(other, await exported(profile), "line 2 is over 4000 bytes")


def test_lines_of_a_newer_release_are_refused():
    with pytest.raises(ConflictError, match="upgrade the node"):
        lines_in.check(io.BytesIO(b'{"kind":"header","format":"memoturn-memory","version":2,"txid":1}\n'))


async def test_too_many_models_are_refused(profile, other):
    header, end = (await exported(profile)).splitlines(keepends=True)
    models = [
        json.dumps({"kind": "model", "name": f"m{n}", "dimensions": 2, "created_at": 1}).encode() + b"\n"
        for n in range(17)
    ]
    await refused(other, b"".join([header, *models, end]), "one model more than the 16")


async def test_links_in_a_circle_do_not_come_in(profile, other):
    a, b = await ingest(profile, says("a"), says("b"))
    profile.conn.execute(
        "UPDATE __memoturn_memories SET superseded_by = ?, superseded_at = 1 WHERE id = ?", (a, b)
    )

    await refused(other, await exported(profile), "no later version")
