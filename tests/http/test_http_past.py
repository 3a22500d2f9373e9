"""The past over HTTP: every read shows it, every other route refuses, and restore points say what can be had."""

from datetime import datetime, timedelta, timezone

import pytest
from http_calls import (
    FACT_ID,
    MEMORY,
    PAST,
    REFUSING_AT,
    created,
    failure,
    stamps,
)

from memoturnd.core import revisions
from memoturnd.engine.past import admission_keys


async def rewrite(client):
    """Change or remove everything that `READS` look at; return the txid of the last commit."""
    assert (await client.delete("/v1/db/app--ann/memory/old/turns/1")).status_code == 204
    await client.delete(f"/v1/memory/app/ann/memories/{FACT_ID}")
    await client.delete("/v1/memory/app/ann/sessions/s?turns=true")
    await client.put("/v1/db/app--ann/kv/ns/old", content=b"changed")
    await client.put("/v1/db/app--ann/kv/ns/new", content=b"x")
    await client.delete("/v1/db/app--ann/docs/c")
    await client.post("/v1/db/app--ann/timelines/t/rows", json={"key": "k"})
    turn = {"role": "user", "content": "later", "embedding": [1]}
    answer = await client.post("/v1/db/app--ann/memory/s/turns", json=turn)
    assert answer.status_code == 201
    return stamps(answer)[0]


@pytest.mark.parametrize("read", PAST.values(), ids=PAST)
async def test_every_read_shows_the_past_that_it_asks_for(client, written, read):
    method, path, rest = read
    before = await client.request(method, path, **rest)
    assert before.status_code == 200, before.text

    rewritten = await rewrite(client)
    by_query = await client.request(method, path, params={"at": str(written)}, **rest)
    by_header = await client.request(method, path, headers={"Memoturn-At": f" {written} "}, **rest)
    query_first = await client.request(
        method, path, params={"at": f"head~{rewritten - written}"}, headers={"Memoturn-At": "head"}, **rest
    )

    for answer in (by_query, by_header, query_first):
        assert (answer.status_code, answer.content) == (200, before.content)
        assert stamps(answer)[0] == written <= stamps(answer)[1]


@pytest.mark.parametrize("read", PAST.values(), ids=PAST)
async def test_every_read_refuses_a_revision_that_means_nothing(client, written, read):
    method, path, rest = read

    for bad in ("", " ", "2026-11-24T09:30", "9" * 17, "head~x", "na\u00efve", "\u0663", "a b", "x" * 200):
        answer = await client.request(method, path, params={"at": bad}, **rest)
        assert failure(answer) == (400, "invalid_request")
        assert "head~N" in answer.json()["error"]
    twice = await client.request(method, f"{path}?at=1&at=2", **rest)
    assert failure(twice) == (400, "invalid_request")
    raw = await client.request(method, f"{path}?at=%ff", **rest)
    assert failure(raw) == (400, "invalid_request")


@pytest.mark.parametrize("read", PAST.values(), ids=PAST)
async def test_every_read_says_what_is_wrong_with_a_state_that_is_not_to_be_had(client, written, read):
    method, path, rest = read

    async def failed(at):
        return failure(await client.request(method, path, params={"at": at}, **rest))

    assert await failed("999") == (409, "conflict")
    assert await failed("999999999999") == (409, "conflict")
    assert await failed("0") == (409, "conflict")
    assert await failed("head~100") == (409, "conflict")
    assert await failed("1990-01-01T00:00:00Z") == (409, "conflict")
    assert await failed("no-such-checkpoint") == (404, "branch_not_found")
    floor = {"Memoturn-Min-Txid": str(written)}
    below = await client.request(method, path, params={"at": "head~1"}, headers=floor, **rest)
    assert failure(below) == (412, "precondition_failed")
    reached = await client.request(method, path, params={"at": "head"}, headers=floor, **rest)
    assert (reached.status_code, stamps(reached)[0]) == (200, written)


@pytest.mark.parametrize("write", REFUSING_AT.values(), ids=REFUSING_AT)
async def test_routes_that_show_no_past_refuse_to_be_asked_and_change_nothing(client, written, write):
    method, path, rest = write

    by_query = await client.request(method, path, params={"at": str(written)}, **rest)
    by_header = await client.request(method, path, headers={"Memoturn-At": "head"}, **rest)

    assert failure(by_query) == failure(by_header) == (400, "invalid_request")
    assert stamps(await client.get("/v1/memory/app/ann/sessions"))[0] == written
    assert [row["name"] for row in (await client.get("/v1/databases")).json()["databases"]] == ["app--ann"]


async def test_past_of_a_profile_that_does_not_exist_is_not_found(client):
    for method, path, rest in PAST.values():
        answer = await client.request(method, path, params={"at": "head"}, **rest)
        assert failure(answer) == (404, "database_not_found")


async def test_operators_routes_let_a_revision_pass(client):
    for path in ("/health", "/ready", "/metrics"):
        assert (await client.get(f"{path}?at=nonsense at all")).status_code == 200


async def test_time_is_taken_as_it_comes_in_urls(client, written):
    times = [row["last_active_at"] for row in (await client.get(f"{MEMORY}/sessions")).json()["sessions"]]
    moment = datetime.fromtimestamp(times[0] / 1000, timezone(timedelta(hours=2))).isoformat(
        timespec="milliseconds"
    )

    for sent in (moment.replace("+", "%2B"), moment, str(times[0])):
        answer = await client.get(f"{MEMORY}/sessions?at={sent}")
        assert (answer.status_code, 1 < stamps(answer)[0] <= written) == (200, True)
    ahead = await client.get(f"{MEMORY}/sessions?at=2199-01-01T00:00:00Z")
    assert stamps(ahead)[0] == written


async def test_too_many_past_states_are_429_with_the_time_to_come_back(client, node, written):
    past, branch = node.tiers.past, await node.profile("app--ann")
    keys = admission_keys(branch, "")
    for _ in range(10):
        past._admission.enter(keys)

    answer = await client.get(f"{MEMORY}/sessions?at=head~1")

    assert failure(answer) == (429, "overloaded")
    assert answer.headers["retry-after"] == "1"


# ---- restore points


async def points(client, db, query=""):
    answer = await client.get(f"{db}/restore-points{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["restore_points"], answer.json()["next_cursor"]


async def test_restore_points_are_listed_with_their_times_kinds_and_names(client, node):
    db = await created(client)
    assert await points(client, db) == ([], None)
    txids = [stamps(await client.put(f"{db}/kv/ns/k", content=b"%d" % n))[0] for n in range(4)]
    for name in ("b", "a"):
        await client.post(f"{db}/branches/main/checkpoint", json={"name": name})
    await (await node.profile("notes")).owned.shipper.snapshot()
    await client.put(f"{db}/kv/ns/k", content=b"x")
    await client.delete(f"{db}/branches/main/checkpoints/b")

    rows, cursor = await points(client, db)

    assert cursor is None
    assert [row["txid"] for row in rows] == list(range(txids[-1] + 1, 0, -1))
    assert [(row["kind"], row["checkpoints"]) for row in rows[:3]] == [
        ("commit", []), ("checkpoint", ["a"]), ("commit", []),
    ]  # fmt: skip
    assert set(rows[0]) == {"txid", "created_at", "time", "kind", "checkpoints"}
    for row in rows:
        assert revisions.parse(row["time"]) == revisions.AtTime(row["created_at"])
        assert stamps(await client.get(f"{db}/kv/ns?at={row['txid']}"))[0] == row["txid"]
    await client.delete(f"{db}/branches/main/checkpoints/a")
    assert (await points(client, db))[0][1]["kind"] == "snapshot"
    assert (await points(client, db))[0] == (await points(client, db, "?order=oldest"))[0][::-1]


async def test_restore_points_come_a_page_at_a_time_and_commits_in_between_move_nothing(client):
    db = await created(client)
    last = [stamps(await client.put(f"{db}/kv/ns/k", content=b"%d" % n))[0] for n in range(6)][-1]
    for order, expected in (("newest", range(last, 0, -1)), ("oldest", range(1, last + 1))):
        found, query = [], f"?order={order}&limit=3"
        while query:
            rows, cursor = await points(client, db, query)
            found += [row["txid"] for row in rows]
            query = f"?order={order}&limit=3&cursor={cursor}" if cursor else None
            if len(found) == 3:
                await client.put(f"{db}/kv/ns/k", content=order.encode())
        assert found[:last] == list(expected)
        assert len(found) == len(set(found))


async def test_restore_points_of_a_span(client):
    db = await created(client)
    for n in range(5):
        await client.put(f"{db}/kv/ns/k", content=b"%d" % n)
    rows, _ = await points(client, db)
    middle = rows[2]

    since, _ = await points(client, db, f"?since={middle['txid']}")
    until, _ = await points(client, db, f"?until={middle['txid']}&since=1")
    by_time, _ = await points(client, db, f"?since={middle['time']}&until={middle['created_at']}")

    assert since == rows[:3]
    assert until == rows[2:]
    assert middle in by_time
    assert {row["created_at"] for row in by_time} == {middle["created_at"]}
    assert await points(client, db, "?since=2199-01-01T00:00:00Z") == ([], None)


@pytest.mark.parametrize(
    "query",
    ["order=sideways", "limit=x", "cursor=n", "cursor=o4", "cursor=", "cursor=n99999999999999999", "since=head",
     "until=monday", "since=yes no", "since=1&since=2"],
)  # fmt: skip
async def test_restore_points_refuse_what_they_do_not_take(client, written, query):
    assert failure(await client.get(f"/v1/db/app--ann/restore-points?{query}")) == (400, "invalid_request")


async def test_restore_points_of_a_fork_reach_below_it(client):
    db = await created(client)
    txids = [stamps(await client.put(f"{db}/kv/ns/k", content=b"%d" % n))[0] for n in range(3)]
    await client.post(f"{db}/branches/main/checkpoint", json={"name": "c"})
    await client.post(f"{db}/branches", json={"name": "f", "at": str(txids[1])})

    rows, _ = await points(client, f"{db}@f")

    assert [row["txid"] for row in rows] == list(range(txids[1], 0, -1))
    assert all(not row["checkpoints"] for row in rows), "checkpoints are not inherited"
