"""Bad input: each a clear error, nothing half-written, the node still serving."""

import json

import pytest

MEMORY = "/v1/memory/app/ann"
DB = "/v1/db/notes"
FACT = {"type": "fact", "topic_key": "t", "summary": "known", "content": {"v": 1}, "embedding": [1, 0, 0]}
EVENT = {"type": "event", "summary": "x"}
DEEP = b'{"memories": [{"type": "event", "summary": "x", "content": %s}]}'
WRONG = (None, True, 7, 1.5, "text", [1], {"a": 1})


@pytest.fixture
async def state(client):
    """A profile and a database with something in them, and how to see whether it has changed."""
    assert (await client.post(f"{MEMORY}/memories", json={"memories": [FACT]})).status_code == 201
    assert (await client.post("/v1/databases", json={"name": "notes"})).status_code == 201
    assert (await client.put(f"{DB}/kv/ns/k", content=b"kept")).status_code == 200

    async def shown():
        recalled = await client.post(f"{MEMORY}/recall", json={"topic_key": "t", "include_superseded": True})
        keys = await client.get(f"{DB}/kv/ns")
        databases = await client.get("/v1/databases")
        branches = [await client.get(f"/v1/db/{name}/branches") for name in ("notes", "app--ann")]
        answers = [recalled, keys, databases, *branches]
        assert [answer.status_code for answer in answers] == [200] * 5
        return [answer.json() for answer in answers]

    return shown


async def assert_refused(client, state, status, method, path, **request):
    before = await state()

    answer = await client.request(method, path, **request)

    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "code"}
    assert answer.json()["error"]
    assert await state() == before


RAW_BODIES = {
    "empty": b"",
    "not JSON": b"{memories: []}",
    "cut off": b'{"memories": [',
    "trailing text": b'{"memories": []} x',
    "invalid UTF-8": b'{"memories": [{"type": "event", "summary": "\xff"}]}',
    "half a surrogate pair": b'{"memories": [{"type": "event", "summary": "\\ud800"}]}',
    "NUL": b'{"memories": [{"type": "event", "summary": "a\\u0000b"}]}',
    "deep array": DEEP % (b"[" * 100_000 + b"]" * 100_000),
    "deep object": DEEP % (b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "130 deep": DEEP % (b"[" * 130 + b"]" * 130),
    "deep where no field is": b"[" * 100_000 + b"]" * 100_000,
    "NaN": DEEP % b"NaN",
    "Infinity": DEEP % b"-Infinity",
    "beyond a double": DEEP % b"1e999",
    "beyond 64 bits": DEEP % b"18446744073709551616",
    "array": b"[]",
    "null": b"null",
}


@pytest.mark.parametrize("body", RAW_BODIES.values(), ids=RAW_BODIES)
async def test_body_that_is_not_a_batch_of_memories_is_refused(client, state, body):
    await assert_refused(client, state, 400, "POST", f"{MEMORY}/memories", content=body)


JSON_ROUTES = {
    "database": "/v1/databases",
    "recall": f"{MEMORY}/recall",
    "sql": f"{DB}/sql",
    "branch": f"{DB}/branches",
    "checkpoint": f"{DB}/branches/main/checkpoint",
    "rewind": f"{DB}/branches/main/rewind",
    "sync": f"{DB}/sync",
    "turn": f"{DB}/memory/s/turns",
    "turn search": f"{DB}/memory/s/search",
}


@pytest.mark.parametrize("path", JSON_ROUTES.values(), ids=JSON_ROUTES)
@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b"7", b'{"a":' * 100_000, b"NaN"], ids=range(6))
async def test_every_json_route_refuses_what_is_not_an_object(client, state, path, body):
    await assert_refused(client, state, 400, "POST", path, content=body)


@pytest.mark.parametrize("path", [path for name, path in JSON_ROUTES.items() if name != "sync"])
async def test_every_json_route_but_sync_needs_a_body(client, state, path):
    await assert_refused(client, state, 400, "POST", path)


@pytest.mark.parametrize("path", JSON_ROUTES.values(), ids=JSON_ROUTES)
async def test_every_json_route_refuses_another_content_type(client, state, path):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    await assert_refused(client, state, 415, "POST", path, content=b"a=1", headers=headers)


def ill_typed(good, takes):
    """Every field of a good body with every value of a type that it does not take."""
    return [
        pytest.param({**good, field: value}, id=f"{field}={json.dumps(value)}")
        for field, kinds in takes.items()
        for value in WRONG
        if type(value) not in kinds
    ]


none = type(None)


@pytest.mark.parametrize(
    "item",
    ill_typed(
        EVENT,
        {
            "type": {str},
            "summary": {str},
            "topic_key": {str, none},
            "keywords": {str, none},
            "embedding": {list, none},
            "session_id": {str, none},
            "source": {str, none},
            "ttl": {none},
        },
    ),
)
async def test_ill_typed_memory_fails_its_whole_batch(client, state, item):
    batch = {"memories": [{**FACT, "summary": "other", "content": 2}, item]}

    await assert_refused(client, state, 400, "POST", f"{MEMORY}/memories", json=batch)


ILL_TYPED = {
    f"{MEMORY}/recall": (
        {"query": "x"},
        {
            "query": {str, none},
            "embedding": {list, none},
            "topic_key": {str, none},
            "types": {none},
            "session_id": {str, none},
            "source": {str, none},
            "k": {int, none},
            "include_superseded": {bool, none},
            "include_turns": {bool, none},
            "explain": {bool, none},
        },
    ),
    "/v1/databases": ({"name": "x"}, {"name": {str}}),
    f"{DB}/branches": (
        {"name": "x"},
        {
            "name": {str},
            "from": {str, none},
            "at": {str, none},
            "checkpoint": {str, none},
            "ttl": {int, none},
        },
    ),
    f"{DB}/branches/main/checkpoint": ({"name": "x"}, {"name": {str}}),
    f"{DB}/branches/main/rewind": ({"to": "x"}, {"to": {str}}),
    f"{DB}/sync": ({}, {"txid": {int, none}}),
    f"{DB}/sql": ({}, {"stmts": set()}),
    f"{DB}/memory/s/turns": ({"role": "u", "content": 1}, {"role": {str}, "embedding": {list, none}}),
    f"{DB}/memory/s/search": ({"vector": [1]}, {"vector": {list}, "k": {int, none}}),
}
ILL_TYPED_CASES = [
    pytest.param(path, case.values[0], id=f"{path} {case.id}")
    for path, (good, takes) in ILL_TYPED.items()
    for case in ill_typed(good, takes)
]


@pytest.mark.parametrize(("path", "body"), ILL_TYPED_CASES)
async def test_ill_typed_field_is_refused(client, state, path, body):
    await assert_refused(client, state, 400, "POST", path, json=body)


async def test_unknown_fields_are_ignored(client):
    item = {**EVENT, "later": {"a": [1]}}
    assert (await client.post(f"{MEMORY}/memories", json={"memories": [item], "later": 1})).status_code == 201
    assert (await client.post(f"{MEMORY}/recall", json={"query": "x", "later": 1})).status_code == 200
    assert (await client.post("/v1/databases", json={"name": "notes", "later": 1})).status_code == 201
    assert (await client.post(f"{DB}/sync", json={"later": 1})).status_code == 200


OTHER_BODIES = {
    "too many memories": (f"{MEMORY}/memories", {"memories": [EVENT] * 1001}),
    "blank summary": (f"{MEMORY}/memories", {"memories": [{**EVENT, "summary": " \n"}]}),
    "unknown type": (f"{MEMORY}/memories", {"memories": [{**EVENT, "type": "thought"}]}),
    "topic on an event": (f"{MEMORY}/memories", {"memories": [{**EVENT, "topic_key": "t"}]}),
    "negative ttl": (f"{MEMORY}/memories", {"memories": [{"type": "task", "summary": "x", "ttl": -1}]}),
    "huge ttl": (f"{MEMORY}/memories", {"memories": [{"type": "task", "summary": "x", "ttl": 10**30}]}),
    "empty embedding": (f"{MEMORY}/memories", {"memories": [{**EVENT, "embedding": []}]}),
    "embedding of strings": (f"{MEMORY}/memories", {"memories": [{**EVENT, "embedding": ["1", "2", "3"]}]}),
    "embedding of another size": (f"{MEMORY}/memories", {"memories": [{**EVENT, "embedding": [1, 0]}]}),
    "embedding over float32": (f"{MEMORY}/memories", {"memories": [{**EVENT, "embedding": [1e300, 0, 0]}]}),
    "recall of another size": (f"{MEMORY}/recall", {"embedding": [1, 0]}),
    "recall of nothing": (f"{MEMORY}/recall", {"k": 3}),
    "recall of turns without a vector": (f"{MEMORY}/recall", {"query": "x", "include_turns": True}),
    "negative k": (f"{MEMORY}/recall", {"query": "x", "k": -1}),
    "unknown type in recall": (f"{MEMORY}/recall", {"query": "x", "types": ["thought"]}),
    "two statements in one": (f"{DB}/sql", {"stmts": [{"q": "SELECT 1; SELECT 2"}]}),
    "no statement": (f"{DB}/sql", {"stmts": [{"q": " "}]}),
    "transaction control": (f"{DB}/sql", {"stmts": [{"q": "COMMIT"}]}),
    "integer beyond SQLite": (f"{DB}/sql", {"stmts": [{"q": "SELECT ?", "params": [2**63]}]}),
    "bad base64": (f"{DB}/sql", {"stmts": [{"q": "SELECT ?", "params": [{"$base64": "*"}]}]}),
    "negative txid": (f"{DB}/sync", {"txid": -1}),
    "txid beyond 2^53": (f"{DB}/sync", {"txid": 2**53}),
    "negative branch ttl": (f"{DB}/branches", {"name": "x", "ttl": -1}),
    "branch ttl beyond 2^53": (f"{DB}/branches", {"name": "x", "ttl": 2**53}),
    "branch ttl beyond the end of time": (f"{DB}/branches", {"name": "x", "ttl": 8_000_000_000_001}),
    "branch ttl of 1.5": (f"{DB}/branches", {"name": "x", "ttl": 1.5}),
    "checkpoint of digits": (f"{DB}/branches/main/checkpoint", {"name": "12"}),
}


@pytest.mark.parametrize(("path", "body"), OTHER_BODIES.values(), ids=OTHER_BODIES)
async def test_body_that_asks_for_too_much_or_nonsense_is_refused(client, state, path, body):
    await assert_refused(client, state, 400, "POST", path, content=json.dumps(body))


BAD_NAMES = {
    "empty": "",
    "space": " ",
    "over-long": "a" * 65,
    "dots": "..",
    "slash": "a/b",
    "double hyphen": "a--b",
    "upper case": "Notes",
    "look-alike": "nоtes",  # a Cyrillic o
    "full width": "ｎｏｔｅｓ",
    "dotless i": "ı",
    "NUL": "a\0b",
    "newline": "a\n",
    "at": "a@b",
    "trailing hyphen": "a-",
    "leading underscore": "_a",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
async def test_bad_database_namespace_or_profile_is_refused_wherever_one_is_given(client, state, name):
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())

    await assert_refused(client, state, 400, "POST", "/v1/databases", json={"name": name})
    await assert_refused(client, state, 400, "GET", f"/v1/memory/{quoted}")
    for ns, profile in ((quoted, "ann"), ("app", quoted)):
        path = f"/v1/memory/{ns}/{profile}/memories"
        await assert_refused(client, state, 400, "POST", path, json={"memories": [EVENT]})


@pytest.mark.parametrize("name", [name for name in BAD_NAMES.values() if name != "a--b"])
async def test_bad_branch_is_refused_wherever_one_is_given(client, state, name):
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())

    await assert_refused(client, state, 400, "POST", f"{DB}/branches", json={"name": name})
    path = f"{MEMORY}/memories?branch={quoted}"
    await assert_refused(client, state, 400, "POST", path, json={"memories": [EVENT]})
    await assert_refused(client, state, 400, "POST", f"{DB}/branches/{quoted}/checkpoint", json={"name": "v"})
    await assert_refused(client, state, 400, "PUT", f"{DB}%40{quoted}/kv/ns/k", content=b"x")


@pytest.mark.parametrize("name", ["", "..", "nоtes", "Notes", "a%00b", "%ff", "a" * 65, "a%2F..%2Fb"])
async def test_bad_database_in_a_path_is_refused_or_not_found(client, state, name):
    answer = await client.get(f"/v1/db/{name.replace('о', '%D0%BE')}/kv/ns")

    assert answer.status_code in {400, 404}
    assert set(answer.json()) == {"error", "code"}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 129, "a\0", "\ud800"])
async def test_bad_checkpoint_name_is_refused(client, state, name):
    body = json.dumps({"name": name}).encode()

    await assert_refused(client, state, 400, "POST", f"{DB}/branches/main/checkpoint", content=body)


BAD_PATHS = {
    "empty key": ("PUT", f"{DB}/kv/ns/"),
    "over-long key": ("PUT", f"{DB}/kv/ns/{'k' * 1025}"),
    "NUL in a key": ("PUT", f"{DB}/kv/ns/a%00"),
    "key that is not UTF-8": ("PUT", f"{DB}/kv/ns/%ff"),
    "empty key namespace": ("PUT", f"{DB}/kv//k"),
    "control character in a key namespace": ("PUT", f"{DB}/kv/a%0a/k"),
    "fractional ttl": ("PUT", f"{DB}/kv/ns/k?ttl=1.5"),
    "negative ttl": ("PUT", f"{DB}/kv/ns/k?ttl=-1"),
    "huge ttl": ("PUT", f"{DB}/kv/ns/k?ttl=99999999999999999999"),
    "ttl beyond the end of time": ("PUT", f"{DB}/kv/ns/k?ttl=9007199254740991"),
    "two ttls": ("PUT", f"{DB}/kv/ns/k?ttl=1&ttl=2"),
    "empty ttl": ("PUT", f"{DB}/kv/ns/k?ttl="),
    "odd limit": ("GET", f"{DB}/kv/ns?limit=abc"),
    "negative limit": ("GET", f"{MEMORY}/sessions?limit=-1"),
    "odd limit of databases": ("GET", "/v1/databases?limit=1.5"),
    "over-long cursor": ("GET", f"/v1/memory/app?cursor={'a' * 300}"),
    "odd window": ("GET", f"{DB}/memory/s/turns?last=all"),
    "odd flag": ("DELETE", f"{MEMORY}/sessions/s?turns=maybe"),
    "prefix that is not UTF-8": ("GET", f"{DB}/kv/ns?prefix=%c3%28"),
    "NUL in a prefix": ("GET", f"{DB}/kv/ns?prefix=%00"),
    "over-long prefix": ("GET", f"{DB}/kv/ns?prefix={'p' * 1025}"),
    "two branches": ("GET", f"{MEMORY}/sessions?branch=main&branch=main"),
    "over-long session": ("GET", f"{DB}/memory/{'s' * 257}/turns"),
    "over-long session to end": ("DELETE", f"{MEMORY}/sessions/{'s' * 257}"),
    "empty session": ("DELETE", f"{MEMORY}/sessions/"),
}


@pytest.mark.parametrize(("method", "path"), BAD_PATHS.values(), ids=BAD_PATHS)
async def test_bad_path_or_query_is_refused(client, state, method, path):
    await assert_refused(client, state, 400, method, path, content=b"x" if method == "PUT" else None)


async def test_oversized_body_is_refused_and_nothing_of_it_stored(client, state):
    big = b"x" * ((4 << 20) + 1)

    await assert_refused(client, state, 413, "PUT", f"{DB}/kv/ns/big", content=big)
    await assert_refused(client, state, 413, "POST", f"{MEMORY}/memories", content=big)
    await assert_refused(client, state, 413, "POST", f"{MEMORY}/recall", content=b" " * ((1 << 20) + 1))


async def test_memory_of_an_odd_id_is_not_found(client, state):
    for odd in ("%00", "%ff"):
        await assert_refused(client, state, 400, "GET", f"{MEMORY}/memories/{odd}")
    for odd in ("", "mem_x", "..", "a" * 5000, "%27%3B--"):
        await assert_refused(client, state, 404, "DELETE", f"{MEMORY}/memories/{odd.replace('..', '%2e%2e')}")
