"""Key-values over HTTP: conditions, metadata, numbers, batches and pages."""

import asyncio
import json

import pytest
from http_calls import created, failure, stamps


@pytest.fixture
async def kv(client):
    return f"{await created(client)}/kv/ns"


async def test_every_answer_with_a_value_names_it_by_its_etag(client, kv):
    put = await client.put(f"{kv}/k", content=b"1")
    got = await client.get(f"{kv}/k")
    head = await client.head(f"{kv}/k")

    assert put.json() == {"txid": stamps(put)[0]}
    assert put.headers["etag"] == got.headers["etag"] == head.headers["etag"]
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "1")
    again = await client.put(f"{kv}/k", content=b"1")
    assert again.headers["etag"] != put.headers["etag"]


async def test_a_value_that_is_known_is_not_sent_again(client, kv):
    tag = (await client.put(f"{kv}/k", content=b"1")).headers["etag"]

    for known in (tag, f'"x", W/{tag}', "*"):
        answer = await client.get(f"{kv}/k", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert stamps(answer) == stamps(await client.get(f"{kv}/k"))
        assert "content-length" not in answer.headers
    other = await client.get(f"{kv}/k", headers={"If-None-Match": '"x"', "If-Match": tag})
    assert (other.status_code, other.content) == (200, b"1")
    unmet = await client.get(f"{kv}/k", headers={"If-Match": '"x"'})
    assert failure(unmet) == (412, "precondition_failed")
    absent = await client.get(f"{kv}/none", headers={"If-Match": '"x"'})
    assert failure(absent) == (404, "not_found")


async def test_a_write_whose_condition_does_not_hold_changes_nothing(client, kv):
    new = await client.put(f"{kv}/k", content=b"1", headers={"If-None-Match": "*"})
    tag = new.headers["etag"]
    unmet = [
        await client.put(f"{kv}/k", content=b"2", headers={"If-None-Match": "*"}),
        await client.put(f"{kv}/k", content=b"2", headers={"If-Match": '"0011223344556677"'}),
        await client.put(f"{kv}/k", content=b"2", headers={"If-Match": f"W/{tag}"}),
        await client.put(f"{kv}/new", content=b"2", headers={"If-Match": "*"}),
        await client.delete(f"{kv}/k", headers={"If-Match": '"0011223344556677"'}),
        await client.delete(f"{kv}/new", headers={"If-Match": "*"}),
    ]

    assert [failure(answer) for answer in unmet] == [(412, "precondition_failed")] * 6
    got = await client.get(f"{kv}/k")
    assert (got.content, stamps(got)[0]) == (b"1", stamps(new)[0])
    assert (await client.put(f"{kv}/k", content=b"2", headers={"If-Match": tag})).status_code == 200
    assert (await client.delete(f"{kv}/k", headers={"If-Match": tag})).status_code == 412
    assert (await client.delete(f"{kv}/k", headers={"If-Match": "*"})).status_code == 204


@pytest.mark.parametrize("value", ["", '"a', "*, a", 'a"b"'])
async def test_conditions_that_say_nothing_are_refused(client, kv, value):
    for header in ("If-Match", "If-None-Match"):
        for send in (client.put, client.delete):
            assert failure(await send(f"{kv}/k", headers={header: value})) == (400, "invalid_request")
    twice = await client.put(f"{kv}/k", headers=[("If-Match", '"a"'), ("If-Match", '"b"')])
    assert failure(twice) == (400, "invalid_request")


async def test_of_many_clients_that_found_one_value_one_replaces_it(client, kv):
    tag = (await client.put(f"{kv}/k", content=b"0")).headers["etag"]

    answers = await asyncio.gather(
        *(client.put(f"{kv}/k", content=b"%d" % n, headers={"If-Match": tag}) for n in range(1, 21))
    )

    won = [n for n, answer in enumerate(answers, start=1) if answer.status_code == 200]
    assert len(won) == 1
    assert sorted({answer.status_code for answer in answers}) == [200, 412]
    assert (await client.get(f"{kv}/k")).content == b"%d" % won[0]


async def test_an_etag_from_before_a_rewind_or_of_a_fork_matches_nothing_newer(client, kv):
    db = kv.removesuffix("/kv/ns")
    old = await client.put(f"{kv}/k", content=b"same")
    await client.post(f"{db}/branches", json={"name": "f"})
    newer = await client.put(f"{kv}/k", content=b"same")
    on_fork = await client.put(f"{db}@f/kv/ns/k", content=b"other")
    await client.post(f"{db}/branches/main/rewind", json={"to": str(stamps(old)[0])})
    assert (await client.get(f"{kv}/k")).headers["etag"] == old.headers["etag"]
    last = await client.put(f"{kv}/k", content=b"same")

    tags = {answer.headers["etag"] for answer in (old, newer, on_fork, last)}

    assert stamps(newer)[0] == stamps(on_fork)[0]
    assert len(tags) == 4
    for stale in (old, newer, on_fork):
        headers = {"If-Match": stale.headers["etag"]}
        assert (await client.put(f"{kv}/k", content=b"x", headers=headers)).status_code == 412


async def test_metadata_comes_back_with_the_value(client, kv):
    meta = {"kind": "é\x7f", "n": [1, 2.5, None]}
    await client.put(f"{kv}/k?ttl=60", content=b"1", headers={"Memoturn-Meta": json.dumps(meta)})

    got, head = await client.get(f"{kv}/k"), await client.head(f"{kv}/k")
    listed = (await client.get(f"{kv}?metadata=true")).json()

    assert json.loads(got.headers["memoturn-meta"]) == json.loads(head.headers["memoturn-meta"]) == meta
    assert got.headers["memoturn-meta"].isascii()
    assert got.headers["memoturn-meta"].isprintable()
    assert int(got.headers["memoturn-expires-at"]) == listed["entries"][0]["expires_at"]
    assert listed["entries"][0]["metadata"] == meta
    assert "value" not in listed["entries"][0]
    await client.put(f"{kv}/k", content=b"1")
    bare = await client.get(f"{kv}/k")
    assert "memoturn-meta" not in bare.headers
    assert "memoturn-expires-at" not in bare.headers


@pytest.mark.parametrize("value", ["", "x", "1", "[]", "{", '{"a": NaN}', json.dumps({"a": "x" * 5000})])
async def test_metadata_that_is_no_small_object_is_refused(client, kv, value):
    answer = await client.put(f"{kv}/k", content=b"1", headers={"Memoturn-Meta": value})

    assert failure(answer) == (400, "invalid_request")
    assert failure(await client.get(f"{kv}/k")) == (404, "not_found")


async def test_a_number_is_counted_by_many_at_once(client, kv):
    answers = await asyncio.gather(*(client.post(f"{kv}/n/increment") for _ in range(20)))
    last = await client.post(f"{kv}/n/increment", json={"by": -5, "ttl": 60})

    assert sorted(answer.json()["value"] for answer in answers) == list(range(1, 21))
    assert set(last.json()) == {"value", "etag", "txid"}
    got = await client.get(f"{kv}/n")
    assert (got.content, got.headers["etag"]) == (b"15", last.headers["etag"])
    assert "memoturn-expires-at" in got.headers


async def test_what_cannot_be_counted_stays(client, kv):
    await client.put(f"{kv}/k", content=b"text")
    await client.put(f"{kv}/most", content=b"%d" % (2**63 - 1))

    assert failure(await client.post(f"{kv}/k/increment")) == (409, "conflict")
    assert failure(await client.post(f"{kv}/most/increment")) == (409, "conflict")
    for body in ({"by": 1.5}, {"by": 2**63}, {"by": "1"}, {"ttl": -1}, []):
        assert failure(await client.post(f"{kv}/most/increment", json=body)) == (400, "invalid_request")
    assert (await client.get(f"{kv}/k")).content == b"text"


async def test_a_batch_is_applied_as_a_whole(client, kv):
    done = await client.post(
        kv, json={"puts": [{"key": "a/b", "value": "1"}, {"key": "b", "value": "2"}], "deletes": ["c"]}
    )
    unmet = await client.post(
        kv, json={"puts": [{"key": "b", "value": "3"}], "deletes": [{"key": "a/b", "if_match": "x"}]}
    )

    assert [put["status"] for put in done.json()["puts"]] == ["stored", "stored"]
    assert done.json()["txid"] == stamps(done)[0]
    assert failure(unmet) == (412, "precondition_failed")
    assert "deletes[0]" in unmet.json()["error"]
    assert (await client.get(f"{kv}/a%2Fb")).headers["etag"] == f'"{done.json()["puts"][0]["etag"]}"'
    listed = (await client.get(f"{kv}?values=true")).json()
    assert [entry["value"] for entry in listed["entries"]] == ["1", "2"]


async def test_pages_of_keys_are_joined_by_their_cursor(client, kv):
    keys = ["a", "b/c&d", "ä"]
    await client.post(kv, json={"puts": [{"key": key, "value": key} for key in keys]})

    seen, cursor = [], {}
    while cursor.get("cursor", "") is not None:
        page = (await client.get(kv, params={"limit": 1, "values": "true", **cursor})).json()
        assert set(page) == {"keys", "entries", "next_cursor"}
        seen += page["keys"]
        cursor = {"cursor": page["next_cursor"]}

    assert seen == keys
    assert (await client.get(kv)).json() == {"keys": keys, "next_cursor": None}
    assert failure(await client.get(kv, params={"cursor": ""})) == (400, "invalid_request")


async def test_a_repeated_write_with_a_key_answers_as_it_did_before_its_condition(client, kv):
    first = {"Idempotency-Key": "1", "If-None-Match": "*"}
    put = await client.put(f"{kv}/k", content=b"1", headers=first)
    again = await client.put(f"{kv}/k", content=b"1", headers=first)
    other = await client.put(f"{kv}/k", content=b"1", headers={"Idempotency-Key": "1"})
    numbers = [
        await client.post(f"{kv}/n/increment", json={"by": 2}, headers={"Idempotency-Key": "2"})
        for _ in range(2)
    ]
    body = {"gets": ["k"], "puts": [{"key": "b", "value": "1", "metadata": {"a": [1]}}], "deletes": ["k"]}
    batches = [await client.post(kv, json=body, headers={"Idempotency-Key": "3"}) for _ in range(2)]

    for one, two in ((put, again), numbers, batches):
        assert one.status_code == two.status_code == 200
        assert one.json() == two.json()
        assert one.headers.get("etag") == two.headers.get("etag")
        assert two.headers["idempotent-replayed"] == "true"
    assert failure(other) == (422, "idempotency_key_reused")
    assert (await client.get(f"{kv}/n")).content == b"2"
