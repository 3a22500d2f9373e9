"""Every route over a whole node: fields, statuses and headers of the wire contract."""

import asyncio

import pytest
from http_calls import (
    EMBEDDING_WRITES,
    FACT,
    FACT_ID,
    MEMORY,
    NOW,
    PAST,
    READS,
    REFUSING_AT,
    WRITES,
    created,
    failure,
    ingest,
    stamps,
)
from http_support import client_of, limits
from prometheus_client.parser import text_string_to_metric_families

from memoturnd import __version__
from memoturnd.http.app import create_app
from memoturnd.http.route import Body, Kind, Scope
from memoturnd.http.routes import ROUTES
from memoturnd.http.tree import Tree

# ---- operations


async def test_health_is_plain_text(client):
    answer = await client.get("/health")

    assert (answer.status_code, answer.text) == (200, "ok")
    assert answer.headers["content-type"].startswith("text/plain")


async def test_ready_names_what_answers(client):
    told = (await client.get("/ready")).json()

    assert {name: told[name] for name in ("store", "leases", "catalog")} == dict.fromkeys(
        ("store", "leases", "catalog"), "ok"
    )
    assert told["version"] == __version__
    assert (told["embedder"], told["language_models"]) == (None, ["extract", "ask"])


async def test_metrics_are_prometheus_text_with_the_nodes_bounds(client):
    await ingest(client, FACT)

    answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    for name in ("commit_rounds_total", "write_queue_capacity", "hot_handles_limit", "disk_budget_bytes"):
        assert f"\nmemoturn_{name} " in answer.text
    assert 'route="/v1/memory/{ns}/{profile}/memories"' in answer.text
    values = {
        value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        for value in sample.labels.values()
    }
    assert not any("ann" in value for value in values)


# ---- databases


async def test_database_is_created_listed_and_deleted(client):
    answer = await client.post("/v1/databases", json={"name": "notes", "region": "ignored"})

    assert (answer.status_code, set(answer.json())) == (
        201,
        {"name", "uuid", "created_at", "tenant"},
    )
    listed = (await client.get("/v1/databases")).json()
    assert listed == {"databases": [answer.json()], "next_cursor": None}
    assert failure(await client.post("/v1/databases", json={"name": "notes"})) == (409, "already_exists")
    assert (await client.delete("/v1/databases/notes")).status_code == 204
    assert failure(await client.delete("/v1/databases/notes")) == (404, "database_not_found")


async def test_databases_are_listed_a_page_at_a_time(client):
    for name in ("b", "a", "c"):
        await created(client, name)

    first = (await client.get("/v1/databases?limit=2")).json()
    second = (await client.get("/v1/databases", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [row["name"] for row in first["databases"]] == ["a", "b"]
    assert [row["name"] for row in second["databases"]] == ["c"]
    assert second["next_cursor"] is None


async def test_profiles_of_a_namespace_are_listed_a_page_at_a_time(client):
    for profile in ("bob", "ann"):
        await ingest(client, FACT, path=f"/v1/memory/app/{profile}")
    await ingest(client, FACT, path="/v1/memory/apple/eve")

    first = (await client.get("/v1/memory/app?limit=1")).json()
    second = (await client.get("/v1/memory/app", params={"cursor": first["next_cursor"]})).json()

    assert (first["namespace"], [row["profile"] for row in first["profiles"]]) == ("app", ["ann"])
    assert [row["profile"] for row in second["profiles"]] == ["bob"]
    assert set(second["profiles"][0]) == {"profile", "created_at"}
    assert second["next_cursor"] is None


# ---- memories


async def test_memory_is_ingested_recalled_shown_and_forgotten(client):
    stored = await ingest(client, FACT)
    assert stored.json() == {
        "results": [{"id": FACT_ID, "status": "created", "superseded": []}],
        "txid": stamps(stored)[0],
    }
    assert stored.headers["memoturn-durability"] in {"local", "durable"}

    recalled = await client.post(f"{MEMORY}/recall", json={"query": "dark", "explain": True})
    hit = recalled.json()["memories"][0]
    assert (hit["id"], hit["content"], hit["channels"]) == (FACT_ID, {"v": "dark"}, ["keyword"])
    assert recalled.json()["txid"] == stamps(recalled)[0] == stamps(stored)[0]

    shown = await client.get(f"{MEMORY}/memories/{FACT_ID}")
    assert (shown.json()["summary"], shown.json()["supersedes"]) == ("likes dark", [])
    assert stamps(shown)[0] == stamps(stored)[0]

    gone = await client.delete(f"{MEMORY}/memories/{FACT_ID}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert stamps(gone)[0] > stamps(stored)[0]
    assert "content-length" not in gone.headers
    assert failure(await client.get(f"{MEMORY}/memories/{FACT_ID}")) == (404, "not_found")
    assert failure(await client.delete(f"{MEMORY}/memories/{FACT_ID}")) == (404, "not_found")


async def test_unknown_profile_recalls_nothing_and_has_no_sessions(client):
    recalled = await client.post(f"{MEMORY}/recall", json={"query": "x"})
    with_turns = await client.post(f"{MEMORY}/recall", json={"embedding": [1], "include_turns": True})
    sessions = await client.get(f"{MEMORY}/sessions")

    assert (recalled.status_code, recalled.json(), stamps(recalled)) == (
        200,
        {"memories": [], "txid": 0},
        (0, 0),
    )
    assert with_turns.json() == {"memories": [], "turns": [], "txid": 0}
    assert (sessions.json(), stamps(sessions)) == (
        {"sessions": [], "next_cursor": None, "txid": 0},
        (0, 0),
    )
    assert (await client.get("/v1/databases")).json()["databases"] == []


async def test_unknown_profile_below_a_read_floor_is_not_found(client):
    floor = {"memoturn-min-txid": "1"}

    recalled = await client.post(f"{MEMORY}/recall", json={"query": "x"}, headers=floor)
    assert failure(recalled) == (404, "not_found")
    assert failure(await client.get(f"{MEMORY}/sessions", headers=floor)) == (404, "not_found")


async def test_memories_of_an_unknown_profile_are_of_an_unknown_database(client):
    assert failure(await client.get(f"{MEMORY}/memories/{FACT_ID}")) == (404, "database_not_found")
    assert failure(await client.delete(f"{MEMORY}/memories/{FACT_ID}")) == (404, "database_not_found")
    assert failure(await client.delete(f"{MEMORY}/sessions/s")) == (404, "database_not_found")


async def test_refused_ingest_creates_no_profile(client):
    answer = await client.post(f"{MEMORY}/memories", json={"memories": [{"type": "fact"}]})
    assert failure(answer) == (400, "invalid_request")
    headers = {"memoturn-durability": "perhaps"}
    answer = await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=headers)
    assert failure(answer) == (400, "invalid_request")

    assert (await client.get("/v1/memory/app")).json()["profiles"] == []


async def test_ingest_into_a_branch_of_an_unknown_profile_creates_nothing(client):
    answer = await client.post(f"{MEMORY}/memories?branch=try", json={"memories": [FACT]})

    assert failure(answer) == (404, "database_not_found")
    assert (await client.get("/v1/memory/app")).json()["profiles"] == []


async def test_session_is_listed_and_ended(client):
    await ingest(
        client, {**FACT, "session_id": "a/b c"}, {"type": "task", "summary": "t", "session_id": "a/b c"}
    )

    listed = await client.get(f"{MEMORY}/sessions?limit=5")
    assert [row["id"] for row in listed.json()["sessions"]] == ["a/b c"]
    assert set(listed.json()["sessions"][0]) == {"id", "created_at", "last_active_at"}
    assert listed.json()["txid"] == stamps(listed)[0]
    ended = await client.delete(f"{MEMORY}/sessions/a%2Fb%20c?turns=true")
    assert (ended.status_code, "memoturn-txid" in ended.headers) == (204, True)
    assert (await client.get(f"{MEMORY}/sessions")).json()["sessions"] == []
    assert (await client.delete(f"{MEMORY}/sessions/unknown")).status_code == 204


async def test_branch_comes_from_the_query_before_the_header(client):
    await ingest(client, FACT)
    for branch in ("one", "two"):
        assert (await client.post("/v1/db/app--ann/branches", json={"name": branch})).status_code == 201
    other = {"type": "event", "summary": "seen on one"}

    await client.post(
        f"{MEMORY}/memories?branch=one", json={"memories": [other]}, headers={"memoturn-branch": "two"}
    )

    async def recalled(branch):
        answer = await client.post(
            f"{MEMORY}/recall", json={"query": "seen"}, headers={"memoturn-branch": branch}
        )
        return len(answer.json()["memories"])

    assert [await recalled(branch) for branch in ("main", "one", "two")] == [0, 1, 0]
    unknown = await client.post(f"{MEMORY}/recall?branch=none", json={"query": "x"})
    assert failure(unknown) == (404, "branch_not_found")


# ---- key-values


async def test_key_of_any_characters_is_put_read_listed_and_deleted(client):
    db = await created(client)
    key = "a%2Fb%20%25%3F%23c%C3%A9+"
    value = bytes(range(256))

    put = await client.put(f"{db}/kv/n%2Fs/{key}", content=value, headers={"content-type": "text/plain"})
    assert (put.status_code, put.json()) == (200, {"txid": stamps(put)[0]})
    read = await client.get(f"{db}/kv/n%2Fs/{key}")
    assert (read.content, read.headers["content-type"]) == (value, "application/octet-stream")
    assert stamps(read)[0] == stamps(put)[0]
    listed = await client.get(f"{db}/kv/n%2Fs", params={"prefix": "a/b"})
    assert (listed.json()["keys"], stamps(listed)[0]) == (["a/b %?#cé+"], stamps(put)[0])
    gone = await client.delete(f"{db}/kv/n%2Fs/{key}")
    assert gone.status_code == 204
    assert failure(await client.get(f"{db}/kv/n%2Fs/{key}")) == (404, "not_found")
    assert (await client.delete(f"{db}/kv/n%2Fs/{key}")).status_code == 204


async def test_key_with_no_time_to_live_is_expired_at_once_and_an_empty_value_is_one(client):
    db = await created(client)

    await client.put(f"{db}/kv/ns/k?ttl=0", content=b"x")
    await client.put(f"{db}/kv/ns/empty?ttl=60")

    assert failure(await client.get(f"{db}/kv/ns/k")) == (404, "not_found")
    assert (await client.get(f"{db}/kv/ns/empty")).content == b""
    assert (await client.get(f"{db}/kv/ns?limit=5000")).json()["keys"] == ["empty"]


# ---- turns and SQL


async def test_turns_are_appended_shown_and_searched(client):
    db = await created(client)
    for number, content in enumerate(("hello", {"rich": [1]})):
        turn = {"role": "user", "content": content, "embedding": [1, number]}
        added = await client.post(f"{db}/memory/s%2F1/turns", json=turn)
        assert (added.status_code, added.json()) == (201, {"seq": number + 1, "txid": stamps(added)[0]})

    window = await client.get(f"{db}/memory/s%2F1/turns?last=1")
    assert [(turn["seq"], turn["content"]) for turn in window.json()["turns"]] == [(2, {"rich": [1]})]
    found = await client.post(f"{db}/memory/s%2F1/search", json={"vector": [1, 0], "k": 1})
    assert [(turn["seq"], turn["session_id"]) for turn in found.json()["turns"]] == [(1, "s/1")]
    assert stamps(window)[0] == stamps(found)[0] == stamps(added)[0]


async def test_turns_are_appended_in_batches_paged_searched_and_deleted(client):
    db = await created(client)
    batch = [{"role": "user", "content": f"word{n} common", "at": n} for n in range(5)]
    added = await client.post(f"{db}/memory/s/turns", json={"turns": batch})
    assert (added.status_code, added.json()) == (201, {"seqs": [1, 2, 3, 4, 5], "txid": stamps(added)[0]})
    await client.post(f"{db}/memory/t/turns", json={"role": "assistant", "content": [{"text": "common"}]})

    page = (await client.get(f"{db}/memory/s/turns?after=1&limit=2")).json()
    assert ([turn["seq"] for turn in page["turns"]], page["older"], page["newer"]) == ([2, 3], 2, 3)
    page = (await client.get(f"{db}/memory/s/turns?before=5&limit=1")).json()
    assert ([turn["seq"] for turn in page["turns"]], page["older"], page["newer"]) == ([4], 4, 4)
    one = await client.get(f"{db}/memory/s/turns/4")
    assert one.json() == {"seq": 4, "role": "user", "content": "word3 common", "created_at": 3}
    everywhere = await client.post(f"{db}/memory/search", json={"query": "common", "k": 9})
    assert len(everywhere.json()["turns"]) == 6
    there = await client.post(f"{db}/memory/s/search", json={"query": "word2"})
    assert [(turn["session_id"], turn["seq"]) for turn in there.json()["turns"]] == [("s", 3)]

    gone = await client.delete(f"{db}/memory/s/turns/5")
    assert (gone.status_code, gone.content) == (204, b"")
    assert failure(await client.delete(f"{db}/memory/s/turns/5")) == (404, "not_found")
    assert failure(await client.get(f"{db}/memory/s/turns/5")) == (404, "not_found")
    some = await client.delete(f"{db}/memory/s/turns?from=2&to=3")
    assert (some.status_code, some.json()) == (200, {"deleted": 2, "more": False, "txid": stamps(some)[0]})
    again = await client.post(f"{db}/memory/s/turns", json={"role": "user", "content": "x"})
    assert again.json()["seq"] == 6
    rest = await client.delete(f"{db}/memory/s/turns?all=true")
    assert rest.json()["deleted"] == 3
    sessions = await client.post(f"{db}/sql", json={"stmts": [{"q": "SELECT 1"}]})
    assert sessions.status_code == 200


async def test_turns_that_many_clients_append_at_once_have_numbers_of_their_own(client):
    db = await created(client)

    async def one(n):
        if n % 3:
            return [
                (await client.post(f"{db}/memory/s/turns", json={"role": "a", "content": n})).json()["seq"]
            ]
        batch = [{"role": "a", "content": [n, at]} for at in range(5)]
        return (await client.post(f"{db}/memory/s/turns", json={"turns": batch})).json()["seqs"]

    given = await asyncio.gather(*(one(n) for n in range(60)))

    numbers = [number for seqs in given for number in seqs]
    assert sorted(numbers) == list(range(1, 40 + 20 * 5 + 1))
    for seqs in given:
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "s/turns?last=1&limit=2"),
        ("GET", "s/turns?before=1&after=2"),
        ("GET", "s/turns?before=x"),
        ("GET", "s/turns/first"),
        ("GET", "s/turns/-1"),
        ("DELETE", "s/turns/1.5"),
        ("DELETE", "s/turns/9999999999999999"),
        ("DELETE", "s/turns"),
        ("DELETE", "s/turns?form=3"),
        ("DELETE", "s/turns?from=3&to=2"),
        ("DELETE", "s/turns?all=true&from=1"),
    ],
)
async def test_turns_that_are_asked_for_wrongly_stay_as_they_are(client, method, path):
    db = await created(client)
    await client.post(f"{db}/memory/s/turns", json={"role": "user", "content": "x"})

    assert failure(await client.request(method, f"{db}/memory/{path}")) == (400, "invalid_request")
    assert len((await client.get(f"{db}/memory/s/turns")).json()["turns"]) == 1


async def test_memories_say_which_turns_they_came_from(client):
    origin = {"session_id": "s", "from_seq": 2, "to_seq": 4}
    await ingest(client, {**FACT, "source_turns": origin}, {"type": "event", "summary": "likes nothing"})

    shown = (await client.get(f"{MEMORY}/memories/{FACT_ID}")).json()
    hits = (await client.post(f"{MEMORY}/recall", json={"query": "likes"})).json()["memories"]

    assert shown["source_turns"] == origin
    assert {hit["type"]: hit["source_turns"] for hit in hits} == {"fact": origin, "event": None}
    for bad in (
        1,
        {},
        {"session_id": "s"},
        {"session_id": "", "from_seq": 1},
        {"session_id": "s", "from_seq": 3, "to_seq": 2},
        {"session_id": "s", "from_seq": -1},
    ):
        body = {"memories": [{"type": "event", "summary": "x", "source_turns": bad}]}
        assert failure(await client.post(f"{MEMORY}/memories", json=body)) == (400, "invalid_request")


async def test_sql_batch_is_one_transaction(client):
    db = await created(client)
    stmts = [
        {"q": "CREATE TABLE t (a, b)"},
        {"q": "INSERT INTO t VALUES (?, ?) RETURNING a", "params": [1, {"$base64": "AAE="}]},
    ]

    wrote = await client.post(f"{db}/sql", json={"stmts": stmts})
    read = await client.post(f"{db}/sql", json={"stmts": [{"q": "SELECT a, b FROM t"}]})

    assert wrote.json()["results"][1] == {"columns": ["a"], "rows": [[1]], "rows_affected": 1}
    assert wrote.json()["txid"] == stamps(wrote)[0] > 0
    assert wrote.headers["memoturn-durability"] == "local"
    assert read.json()["results"] == [
        {"columns": ["a", "b"], "rows": [[1, {"$base64": "AAE="}]], "rows_affected": 0}
    ]
    assert "memoturn-durability" not in read.headers
    assert stamps(read)[0] == stamps(wrote)[0]


async def test_sql_failure_names_the_statement_and_changes_nothing(client):
    db = await created(client)
    stmts = [{"q": "CREATE TABLE t (a)"}, {"q": "INSERT INTO missing VALUES (1)"}]

    answer = await client.post(f"{db}/sql", json={"stmts": stmts})

    assert failure(answer) == (400, "invalid_request")
    assert "stmts[1]" in answer.json()["error"]
    reserved = await client.post(f"{db}/sql", json={"stmts": [{"q": "SELECT * FROM __memoturn_kv"}]})
    assert failure(reserved) == (403, "forbidden")


# ---- branches and history


async def test_branch_is_forked_listed_and_deleted(client):
    db = await created(client)
    txid, _ = stamps(await client.put(f"{db}/kv/ns/k", content=b"1"))

    forked = await client.post(f"{db}/branches", json={"name": "try", "ttl": 60})
    await client.put(f"{db}@try/kv/ns/k", content=b"2")

    assert forked.status_code == 201
    made = forked.json()
    ttl_at = made.pop("ttl_at")
    assert made == {"branch": "try", "parent": "main", "fork_txid": txid, "spec": "notes@try"}
    assert (stamps(forked), forked.headers["memoturn-durability"]) == ((txid, txid), "durable")
    listed = await client.get(f"{db}/branches")
    row = listed.json()["branches"][0]
    assert (row["db_name"], row["branch"], row["ttl_at"], row["parent"]) == ("notes", "try", ttl_at, "main")
    assert stamps(listed) == (txid, txid)
    assert (await client.get(f"{db}/kv/ns/k")).content == b"1"
    assert (await client.get(f"{db}@try/kv/ns/k")).content == b"2"
    assert failure(await client.post(f"{db}/branches", json={"name": "try"})) == (409, "already_exists")
    assert (await client.delete(f"{db}/branches/try")).status_code == 204
    assert (await client.delete(f"{db}/branches/try")).status_code == 204
    assert failure(await client.get(f"{db}@try/kv/ns/k")) == (404, "branch_not_found")
    assert failure(await client.delete(f"{db}/branches/main")) == (400, "invalid_request")


async def test_deleted_branch_is_undeleted_with_what_was_written_unless_its_name_is_taken(client):
    db = await created(client)
    await client.post(f"{db}/branches", json={"name": "try"})
    txid, _ = stamps(await client.put(f"{db}@try/kv/ns/k", content=b"kept"))
    await client.delete(f"{db}/branches/try")

    back = await client.post(f"{db}/branches/try/undelete")

    assert back.status_code == 200
    assert back.json() == {
        "branch": "try",
        "parent": "main",
        "fork_txid": 1,
        "ttl_at": None,
        "spec": "notes@try",
    }
    read = await client.get(f"{db}@try/kv/ns/k")
    assert (read.content, stamps(read)[0]) == (b"kept", txid)
    assert failure(await client.post(f"{db}/branches/try/undelete")) == (409, "already_exists")
    assert failure(await client.post(f"{db}/branches/other/undelete")) == (404, "branch_not_found")
    assert failure(await client.post(f"{db}/branches/main/undelete")) == (400, "invalid_request")


async def test_branch_is_forked_at_a_checkpoint_and_from_the_addressed_branch(client):
    db = await created(client)
    txid, _ = stamps(await client.put(f"{db}/kv/ns/k", content=b"1"))
    named = await client.post(f"{db}/branches/main/checkpoint", json={"name": "v1"})
    await client.put(f"{db}/kv/ns/k", content=b"2")

    at_name = await client.post(f"{db}/branches", json={"name": "a", "checkpoint": "v1"})
    at_txid = await client.post(f"{db}/branches", json={"name": "b", "at": str(txid)})
    nested = await client.post(f"{db}@a/branches", json={"name": "c"})
    from_b = await client.post(f"{db}@a/branches", json={"name": "d", "from": "b"})

    assert (named.json()["checkpoint"], named.json()["txid"], stamps(named)) == ("v1", txid, (txid, txid))
    assert [answer.json()["fork_txid"] for answer in (at_name, at_txid)] == [txid, txid]
    assert [answer.json()["parent"] for answer in (nested, from_b)] == ["a", "b"]
    for branch in "abcd":
        assert (await client.get(f"{db}@{branch}/kv/ns/k")).content == b"1"
    both = await client.post(f"{db}/branches", json={"name": "e", "checkpoint": "v1", "at": "1"})
    assert failure(both) == (400, "invalid_request")
    unknown = await client.post(f"{db}/branches", json={"name": "e", "checkpoint": "v2"})
    assert failure(unknown) == (404, "branch_not_found")


async def test_checkpoints_are_listed_and_dropped(client):
    db = await created(client)
    txid, _ = stamps(await client.put(f"{db}/kv/ns/k", content=b"1"))
    await client.post(f"{db}/branches/main/checkpoint", json={"name": "v1"})

    listed = await client.get(f"{db}/branches/main/checkpoints")
    dropped = await client.delete(f"{db}/branches/main/checkpoints/v1")

    assert [(row["checkpoint"], row["txid"]) for row in listed.json()["checkpoints"]] == [("v1", txid)]
    assert (dropped.status_code, stamps(dropped)) == (204, (txid, txid))
    assert (await client.get(f"{db}/branches/main/checkpoints")).json() == {"checkpoints": []}
    again = await client.delete(f"{db}/branches/main/checkpoints/v1")
    assert failure(again) == (404, "branch_not_found")


async def test_rewind_and_its_undo_are_new_commits(client):
    db = await created(client)
    first, second = [stamps(await client.put(f"{db}/kv/ns/k", content=value))[0] for value in (b"1", b"2")]

    back = await client.post(f"{db}/branches/main/rewind", json={"to": str(first)})
    value_back = (await client.get(f"{db}/kv/ns/k")).content
    undone = await client.post(f"{db}/branches/main/rewind/undo")
    value_undone = (await client.get(f"{db}/kv/ns/k")).content

    assert (back.status_code, back.json()["rewound_to"], back.json()["txid"]) == (200, first, stamps(back)[0])
    assert stamps(back) == (stamps(back)[0], stamps(back)[0])
    assert isinstance(back.json()["epoch"], int)
    assert back.json()["txid"] > back.json()["undo_txid"] == second
    assert undone.json()["txid"] > back.json()["txid"]
    assert (value_back, value_undone) == (b"1", b"2")
    unknown = await client.post(f"{db}/branches/main/rewind", json={"to": "never"})
    assert failure(unknown) == (404, "branch_not_found")
    beyond = await client.post(f"{db}/branches/main/rewind", json={"to": "99"})
    assert failure(beyond) == (409, "conflict")


async def test_sync_makes_a_local_write_durable(client):
    db = await created(client)
    txid, _ = stamps(await client.put(f"{db}/kv/ns/k", content=b"1"))

    synced = await client.post(f"{db}/sync")
    named = await client.post(f"{db}/sync", json={"txid": txid})

    for answer in (synced, named):
        assert (answer.status_code, answer.json()["txid"], stamps(answer)) == (200, txid, (txid, txid))
        assert answer.headers["memoturn-durability"] == "durable"


# ---- durability and read floors


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_every_write_honours_the_durability_that_it_asks_for(client, written, write):
    method, path, rest = write

    answer = await client.request(method, path, headers={"Memoturn-Durability": "Durable"}, **rest)

    assert answer.status_code < 300, answer.text
    txid, durable_txid = stamps(answer)
    assert txid == durable_txid == written + 1
    assert answer.headers["memoturn-durability"] == "durable"


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_every_write_says_that_it_reached_only_the_nodes_log(client, written, write):
    method, path, rest = write

    answer = await client.request(method, path, headers={"Memoturn-Durability": "local"}, **rest)

    txid, durable_txid = stamps(answer)
    assert (txid, answer.headers["memoturn-durability"]) == (written + 1, "local")
    assert durable_txid < txid


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_every_write_refuses_a_durability_that_it_does_not_know(client, written, write):
    method, path, rest = write

    answer = await client.request(method, path, headers={"Memoturn-Durability": "eventual"}, **rest)

    assert failure(answer) == (400, "invalid_request")
    assert stamps(await client.get("/v1/memory/app/ann/sessions"))[0] == written


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_every_read_honours_its_floor(client, written, read):
    method, path, rest = read

    reached = await client.request(method, path, headers={"Memoturn-Min-Txid": str(written)}, **rest)
    odd = await client.request(method, path, headers={"Memoturn-Min-Txid": "two"}, **rest)

    assert (reached.status_code, stamps(reached)[0]) == (200, written)
    assert failure(odd) == (400, "invalid_request")


async def test_read_below_its_floor_fails_after_waiting_and_destroys_nothing(client, written):
    floor = {"Memoturn-Min-Txid": str(written + 1)}
    answer = await client.get("/v1/db/app--ann/kv/ns/old", headers=floor)

    assert failure(answer) == (412, "precondition_failed")
    assert (await client.get("/v1/db/app--ann/kv/ns/old")).content == b"x"


# ---- the table itself


def test_every_route_that_writes_or_reads_a_branch_is_tried_for_its_headers():
    tree = Tree(ROUTES)

    def found(calls):
        return {tree.find(path.partition("?")[0].encode())[0][method] for method, path, _ in calls.values()}

    always_durable = {
        route
        for route in ROUTES
        if "/branches" in route.template or route.template.endswith(("/sync", "/erasures"))
    }
    of_no_branch = {
        route for route in ROUTES if route.template == "/v1/memory/{ns}" or "/erasures" in route.template
    }
    assert found(PAST) == {route for route in ROUTES if route.takes_at}
    of_nodes = {route for route in ROUTES if route.scope is Scope.INTERNAL}  # see test_http_internal
    assert (
        found(REFUSING_AT)
        >= {route for route in ROUTES if not route.takes_at and route.kind is not Kind.OPEN} - of_nodes
    )
    of_now = found({name: READS[name] for name in NOW}) | of_no_branch
    reads_now = {route for route in ROUTES if route.kind is Kind.READ and not route.takes_at}
    assert reads_now == of_now & {route for route in ROUTES if route.kind is Kind.READ}
    assert (
        found(WRITES) | found(EMBEDDING_WRITES)
        == {route for route in ROUTES if route.kind is Kind.WRITE} - always_durable - of_nodes
    )
    assert found(READS) >= {route for route in ROUTES if route.kind is Kind.READ} - of_no_branch


def test_only_the_operators_routes_need_no_scope():
    assert {route.template for route in ROUTES if route.scope is Scope.NONE} == {
        "/health",
        "/openapi.json",
        "/ready",
        "/metrics",
        "/.well-known/jwks.json",
    }
    assert {route.template for route in ROUTES if route.kind is Kind.OPEN} == {
        "/health",
        "/openapi.json",
        "/ready",
        "/metrics",
        "/.well-known/jwks.json",
    }


def test_routes_without_a_body_are_those_whose_method_has_none():
    for route in ROUTES:
        bodiless = route.method in {"GET", "DELETE"} or route.template.endswith(
            (
                "/rewind/undo",
                "/branches/{branch}/undelete",
                "/verify",
                "/keys/rotate",
                "/tail/read",
                "/tail/forget",
                "/{branch_id}/release",
                "/{branch_id}/ship",
            )
        )
        assert (route.body is Body.NONE) is bodiless, route.template


async def test_routes_that_are_not_built_answer_the_envelope(client):
    for path in ("/v1/nothing", "/internal/replica/nothing"):
        assert failure(await client.post(path, json={})) == (404, "not_found")


async def test_control_routes_are_limited_and_data_routes_are_not(node):
    async with client_of(create_app(node, limits(control_rate=1))) as client:
        statuses = [(await client.get("/v1/databases")).status_code for _ in range(3)]
        data = await client.get("/v1/memory/app")

    assert statuses == [200, 200, 429]
    assert data.status_code == 200
