"""A profile's memory as lines of JSON over a whole node."""

import asyncio
import json

import pytest
from http_calls import FACT, MEMORY, NO_MEMORY, OLD_FACT, append, failure, ingest, stamps
from http_support import client_of, limits

from memoturnd.http.app import create_app

OTHER = "/v1/memory/app/bob"


async def filled(client):
    await ingest(client, OLD_FACT, {**FACT, "embedding": [1, 2], "reason": "said so", "session_id": "s"})
    return stamps(await append(client))[0]


async def exported(client, path=MEMORY, **more):
    answer = await client.get(f"{path}/export", **more)
    assert answer.status_code == 200, answer.text
    return answer


def body(raw):
    return raw.partition(b"\n")[2]


async def test_memory_goes_out_and_comes_into_a_new_profile(client):
    txid = await filled(client)

    out = await exported(client)
    taken = await client.post(f"{OTHER}/import", content=out.content)

    assert (out.headers["content-type"], stamps(out)[0]) == ("application/x-ndjson", txid)
    assert json.loads(out.content.splitlines()[0])["txid"] == txid
    assert (taken.status_code, taken.json()["imported"]["memory"]) == (201, 2)
    assert taken.json()["txid"] == stamps(taken)[0]
    assert body((await exported(client, OTHER)).content) == body(out.content)
    history = (await client.get(f"{OTHER}/topics/user.theme")).json()["chains"][0]["versions"]
    assert [version["reason"] for version in history] == ["said so", None]
    turns = await client.get("/v1/db/app--bob/memory/s/turns")
    assert turns.json()["turns"] == (await client.get("/v1/db/app--ann/memory/s/turns")).json()["turns"]


async def test_a_profile_with_memory_is_only_replaced_where_that_is_said(client):
    await filled(client)
    out = (await exported(client)).content
    own = await ingest(client, {"type": "event", "summary": "own"}, path=OTHER)

    assert failure(await client.post(f"{OTHER}/import", content=out)) == (409, "conflict")
    assert failure(await client.post(f"{OTHER}/import?replace=x", content=out)) == (400, "invalid_request")
    replaced = await client.post(f"{OTHER}/import?replace=true", content=out)

    assert (replaced.status_code, stamps(replaced)[0]) == (201, stamps(own)[0] + 1)
    assert body((await exported(client, OTHER)).content) == body(out)
    rewound = await client.post("/v1/db/app--bob/branches/main/rewind", json={"to": str(stamps(own)[0])})
    assert rewound.status_code == 200
    listed = (await client.get(f"{OTHER}/memories")).json()["memories"]
    assert [memory["summary"] for memory in listed] == ["own"]


async def test_what_is_refused_creates_no_profile(client):
    await filled(client)
    out = (await exported(client)).content
    for raw in (b"", b"x", out[:-1000], out + b"\n", body(out), NO_MEMORY * 2):
        assert failure(await client.post(f"{OTHER}/import", content=raw)) == (400, "invalid_request")
    profiles = (await client.get("/v1/memory/app")).json()["profiles"]
    assert [row["profile"] for row in profiles] == ["ann"]
    assert failure(await client.post("/v1/memory/app/A/import", content=out)) == (400, "invalid_request")
    assert failure(await client.get(f"{OTHER}/export")) == (404, "database_not_found")


async def test_a_past_state_and_a_fork_go_out_as_they_were(client):
    txid = await filled(client)
    out = (await exported(client)).content
    assert (await client.post("/v1/db/app--ann/branches", json={"name": "kept"})).status_code == 201
    await client.post(f"{MEMORY}/memories/forget", json={"all": True})

    past = await exported(client, params={"at": str(txid)})
    fork = await exported(client, params={"branch": "kept"})

    assert (past.content, stamps(past)[0]) == (out, txid)
    assert body(fork.content) == body(out)
    into = await client.post(f"{MEMORY}/import?branch=kept&replace=true", content=past.content)
    assert into.status_code == 201
    assert body((await exported(client, params={"branch": "kept"})).content) == body(out)


async def test_an_import_that_is_sent_again_is_applied_once(client):
    await filled(client)
    out = (await exported(client)).content
    key = {"idempotency-key": "import-1"}

    answers = [await client.post(f"{OTHER}/import", content=out, headers=key) for _ in range(2)]
    other = await client.post(f"{OTHER}/import", content=NO_MEMORY, headers=key)

    assert answers[0].content == answers[1].content
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert failure(other) == (422, "idempotency_key_reused")


async def test_files_take_places_and_give_them_back(client, node):
    await filled(client)
    spools = [node.transfers.spool() for _ in range(4)]
    for method, path in (("GET", "export"), ("POST", "import")):
        answer = await client.request(method, f"{MEMORY}/{path}")
        assert failure(answer) == (429, "overloaded")
    for spool in spools:
        spool.close()
        spool.close()
    for _ in range(6):
        await exported(client)
        await client.head(f"{MEMORY}/export")
        await client.post(f"{OTHER}/import", content=b"x")
        assert failure(await client.get(f"{MEMORY}/export", params={"at": "999"})) == (409, "conflict")
    assert node.transfers._running == 0
    assert list(node.transfers._folder.iterdir()) == []


async def test_lines_over_what_is_taken_are_refused(node):
    async with client_of(create_app(node, limits(max_import_bytes=1000))) as client:
        await filled(client)
        answer = await client.post(f"{OTHER}/import", content=b" " * 1001)
        assert failure(answer) == (413, "payload_too_large")
        assert (await client.post(f"{OTHER}/import", content=NO_MEMORY)).status_code == 201


async def test_of_many_imports_at_once_one_is_applied(client):
    await filled(client)
    out = (await exported(client)).content

    answers = await asyncio.gather(*(client.post(f"{OTHER}/import", content=out) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert body((await exported(client, OTHER)).content) == body(out)


async def test_an_import_whose_client_leaves_changes_nothing(client, node):
    await filled(client)
    raw = (await exported(client)).content
    app = create_app(node, limits())
    scope = {
        "type": "http", "method": "POST", "path": f"{OTHER}/import", "raw_path": f"{OTHER}/import".encode(),
        "query_string": b"", "headers": [(b"host", b"localhost")], "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    for cut in (0, 10, len(raw) - 1, len(raw)):
        pieces = [{"type": "http.request", "body": raw[:cut], "more_body": True}, {"type": "http.disconnect"}]
        sent = []

        async def receive(pieces=pieces):
            return pieces.pop(0)

        async def send(message, sent=sent):
            sent.append(message)

        await app(scope, receive, send)
        assert sent == []

    assert [row["profile"] for row in (await client.get("/v1/memory/app")).json()["profiles"]] == ["ann"]
    assert node.transfers._running == 0
    assert (await client.post(f"{OTHER}/import", content=raw)).status_code == 201


@pytest.mark.parametrize("count", [3000])
async def test_a_large_memory_is_written_and_read_beside_others(client, count):
    for at in range(0, count, 1000):
        batch = [{"type": "event", "summary": f"event {n}", "content": n} for n in range(at, at + 1000)]
        await ingest(client, *batch)

    async def writing():
        for n in range(20):
            await client.put(f"/v1/db/app--ann/kv/ns/{n}", content=b"x")

    out, *_ = await asyncio.gather(exported(client), writing())
    taken = await client.post(f"{OTHER}/import", content=out.content)

    assert taken.json()["imported"]["memory"] == count
    assert body((await exported(client, OTHER)).content) == body(out.content)
