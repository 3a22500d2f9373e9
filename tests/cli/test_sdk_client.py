"""The client alone: what it puts on the wire, and what it makes of answers."""

import json
import socket
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import httpx
import memoturn
import pytest
from memoturn import Memoturn

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, **options) -> Memoturn:
    return Memoturn(
        "http://node",
        http_client=httpx.Client(transport=httpx.MockTransport(handler)),
        **{"retries": 0} | options,
    )


def answering(*answers: httpx.Response) -> tuple[Handler, list[httpx.Request]]:
    waiting, seen = list(answers), []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return waiting.pop(0)

    return handler, seen


@pytest.mark.parametrize(
    ("key", "on_the_wire"),
    [
        ("plain", b"plain"),
        ("a/b?c#d%20 e", b"a%2Fb%3Fc%23d%2520%20e"),
        ("..", b"%2E%2E"),
        (".", b"%2E"),
        ("...", b"..."),
        ("ключ", b"%D0%BA%D0%BB%D1%8E%D1%87"),
        ("a@b+c&d=e", b"a%40b%2Bc%26d%3De"),
    ],
)
def test_every_path_part_is_percent_encoded_whole(key, on_the_wire):
    handler, seen = answering(httpx.Response(200, content=b"v"))

    assert client(handler).db("app@dev").kv.get("ns", key) == b"v"

    assert seen[0].url.raw_path == b"/v1/db/app%40dev/kv/ns/" + on_the_wire


def test_an_empty_path_part_is_refused_before_it_can_reach_another_route():
    handler, seen = answering()

    with pytest.raises(memoturn.InvalidRequestError, match="empty"):
        client(handler).db("app").kv.delete("ns", "")

    assert seen == []


def test_query_values_are_encoded_and_main_is_left_out():
    handler, seen = answering(
        httpx.Response(200, json={"sessions": []}), httpx.Response(200, json={"keys": []})
    )
    node = client(handler)

    node.memory("ns", "p").sessions()
    node.db("app").kv.list("ns", prefix="a&b=c d")

    assert seen[0].url.params == httpx.QueryParams({"limit": "100"})
    assert seen[1].url.params["prefix"] == "a&b=c d"


def test_durability_floor_and_branch_travel_with_the_request():
    handler, seen = answering(
        httpx.Response(201, json={"results": [], "txid": 7}, headers={"Memoturn-Txid": "7"}),
        httpx.Response(200, json={"memories": [], "txid": 7}, headers={"Memoturn-Txid": "7"}),
    )
    profile = client(handler).memory("ns", "p").on_branch("try/1")

    profile.ingest([], durability="durable")
    profile.recall("x", min_txid=profile.last_txid)

    assert seen[0].headers["memoturn-durability"] == "durable"
    assert seen[0].url.params["branch"] == "try/1"
    assert seen[1].headers["memoturn-min-txid"] == "7"
    assert "memoturn-durability" not in seen[1].headers


def test_txids_of_the_headers_reach_the_result_and_the_profile():
    headers = {"Memoturn-Txid": "9", "Memoturn-Durable-Txid": "4"}
    handler, _ = answering(httpx.Response(200, json={"memories": [], "txid": 9}, headers=headers))
    profile = client(handler).memory("ns", "p")

    result = profile.recall("x")

    assert (result["txid"], result["durable_txid"]) == (9, 4)
    assert (profile.last_txid, profile.last_durable_txid) == (9, 4)
    assert profile.on_branch("other").last_txid == 0


def test_a_rewind_of_another_branch_does_not_raise_the_floor_of_this_one():
    body = {"rewound_to": 3, "undo_txid": 80, "epoch": 1}
    handler, _ = answering(httpx.Response(200, json=body, headers={"Memoturn-Txid": "90"}))
    db = client(handler).db("app")

    rewound = db.branch.rewind("dev", 3)

    assert rewound["txid"] == 90
    assert db.last_txid == 0


def test_source_fills_items_that_name_none():
    handler, seen = answering(httpx.Response(201, json={"results": [], "txid": 1}))
    items = [
        {"type": "fact", "summary": "a"},
        {"type": "fact", "summary": "b", "source": "mail"},
        {"type": "fact", "summary": "c", "source": None},
    ]

    client(handler, source="agent-1").memory("ns", "p").ingest(items)

    sent = json.loads(seen[0].content)["memories"]
    assert [item["source"] for item in sent] == ["agent-1", "mail", "agent-1"]
    assert "source" not in items[0]


def test_control_calls_take_the_platform_key_and_data_calls_the_token():
    handler, seen = answering(
        httpx.Response(201, json={"name": "a", "uuid": "0", "created_at": 0}),
        httpx.Response(200, json={"keys": []}),
    )
    node = client(handler, token="tok", platform_key="key")

    node.create_database("a")
    node.db("a").kv.list("ns")

    assert [request.headers["authorization"] for request in seen] == ["Bearer key", "Bearer tok"]


def test_blobs_travel_as_base64_both_ways():
    rows = [[None, 1, 1.5, "é", {"$base64": "AP8="}]]
    result = {"columns": ["a", "b", "c", "d", "e"], "rows": rows, "rows_affected": 0}
    handler, seen = answering(httpx.Response(200, json={"results": [result], "txid": 1}))

    answer = client(handler).db("app").sql("select ?", [b"\x00\xff"])

    assert json.loads(seen[0].content) == {"stmts": [{"q": "select ?", "params": [{"$base64": "AP8="}]}]}
    assert answer["rows"] == [[None, 1, 1.5, "é", b"\x00\xff"]]


def test_listing_follows_the_cursor_to_the_end():
    row = {"uuid": "0", "created_at": 0}
    handler, seen = answering(
        httpx.Response(200, json={"databases": [{"name": "a", **row}], "next_cursor": "a"}),
        httpx.Response(200, json={"databases": [{"name": "b", **row}], "next_cursor": None}),
    )

    assert [database["name"] for database in client(handler).list_databases(prefix="x")] == ["a", "b"]

    assert "cursor" not in seen[0].url.params
    assert seen[1].url.params["cursor"] == "a"
    assert seen[1].url.params["prefix"] == "x"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "invalid_request", memoturn.InvalidRequestError),
        (401, "unauthorized", memoturn.UnauthorizedError),
        (403, "forbidden", memoturn.ForbiddenError),
        (404, "not_found", memoturn.NotFoundError),
        (404, "database_not_found", memoturn.DatabaseNotFoundError),
        (404, "branch_not_found", memoturn.BranchNotFoundError),
        (405, "method_not_allowed", memoturn.InvalidRequestError),
        (408, "request_timeout", memoturn.RequestTimeoutError),
        (409, "already_exists", memoturn.AlreadyExistsError),
        (409, "conflict", memoturn.ConflictError),
        (412, "precondition_failed", memoturn.PreconditionFailedError),
        (413, "payload_too_large", memoturn.InvalidRequestError),
        (415, "unsupported_media_type", memoturn.InvalidRequestError),
        (429, "overloaded", memoturn.OverloadedError),
        (500, "internal", memoturn.ServerError),
        (500, "not_durable", memoturn.NotDurableError),
        (503, "unavailable", memoturn.UnavailableError),
        (503, "unconfigured", memoturn.UnconfiguredError),
        (418, "brand_new_code", memoturn.InvalidRequestError),
        (503, "brand_new_code", memoturn.UnavailableError),
    ],
)
def test_errors_are_typed_by_code(status, code, error):
    handler, _ = answering(
        httpx.Response(status, json={"error": "what failed", "code": code}, headers={"Retry-After": "3"})
    )

    with pytest.raises(memoturn.MemoturnError) as raised:
        client(handler).db("app").sync()

    assert type(raised.value) is error
    assert (raised.value.status, raised.value.code, raised.value.message) == (status, code, "what failed")
    assert raised.value.retry_after == 3.0
    assert str(raised.value) == "what failed"


def test_a_write_that_is_not_durable_is_never_sent_again():
    handler, seen = answering(httpx.Response(500, json={"error": "applied", "code": "not_durable"}))

    with pytest.raises(memoturn.NotDurableError) as raised:
        client(handler).db("app").kv.put("ns", "k", b"v")

    assert not isinstance(raised.value, memoturn.RetryableError)
    assert raised.value.retry_after is None
    assert len(seen) == 1


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[]", b'{"error": "x"}', b"\xff\xfe"])
def test_an_error_without_an_envelope_is_typed_by_status(body):
    handler, _ = answering(httpx.Response(502, content=body))

    with pytest.raises(memoturn.RetryableError, match="502") as raised:
        client(handler).db("app").sync()

    assert raised.value.code == "unavailable"
    assert raised.value.retry_after is None


@pytest.mark.parametrize("answer", [httpx.Response(200, content=b"ok"), httpx.Response(200, json=[1])])
def test_an_answer_that_is_no_json_object_is_a_server_error(answer):
    handler, _ = answering(answer)

    with pytest.raises(memoturn.ServerError, match="Memoturn node"):
        client(handler).memory("ns", "p").recall("x")


def test_a_redirect_is_not_taken_for_an_answer():
    handler, _ = answering(httpx.Response(302, headers={"Location": "http://elsewhere/"}))

    with pytest.raises(memoturn.ServerError, match="302"):
        client(handler).db("app").kv.get("ns", "k")


def test_missing_memories_and_keys_are_none_and_missing_branches_are_not():
    missing = [httpx.Response(404, json={"error": "no", "code": "not_found"}) for _ in range(3)]
    no_branch = [httpx.Response(404, json={"error": "no", "code": "branch_not_found"}) for _ in range(3)]
    handler, _ = answering(*missing, *no_branch)
    node = client(handler)
    profile, kv = node.memory("ns", "p"), node.db("app").kv

    assert profile.get("mem_1") is None
    assert profile.forget("mem_1") is False
    assert kv.get("ns", "k") is None

    for call in (lambda: profile.get("m"), lambda: profile.forget("m"), lambda: kv.get("ns", "k")):
        with pytest.raises(memoturn.BranchNotFoundError):
            call()


@pytest.mark.parametrize("content", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_what_is_not_json_is_refused_before_it_is_sent(content):
    handler, seen = answering()

    with pytest.raises(memoturn.InvalidRequestError, match="not valid JSON"):
        client(handler).memory("ns", "p").ingest([{"type": "fact", "summary": "s", "content": content}])

    assert seen == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (httpx.ConnectError("refused"), memoturn.UnreachableError),
        (httpx.ConnectTimeout("slow"), memoturn.UnreachableError),
        (httpx.ReadTimeout("slow"), memoturn.UnknownOutcomeError),
        (httpx.WriteTimeout("slow"), memoturn.UnknownOutcomeError),
        (httpx.RemoteProtocolError("cut"), memoturn.UnknownOutcomeError),
        (httpx.ReadError("reset"), memoturn.UnknownOutcomeError),
    ],
)
def test_a_lost_reply_is_told_from_a_request_that_never_left(fault, error):
    def handler(request: httpx.Request) -> httpx.Response:
        raise fault

    with pytest.raises(error, match="http://node") as raised:
        client(handler).db("app").kv.put("ns", "k", b"v")

    assert raised.value.status == 0


@pytest.mark.parametrize("url", ["not a url", "ftp://node", "http://no\nde", "http://:bad"])
def test_a_wrong_url_is_an_invalid_request(url):
    with Memoturn(url) as node, pytest.raises(memoturn.InvalidRequestError):
        node.ready()


@pytest.mark.parametrize("secret", ["abc\n", "abc\r\n", " abc", "abc\x00", "ключ", "\N{NO-BREAK SPACE}abc"])
@pytest.mark.parametrize("kind", ["token", "platform_key"])
def test_a_credential_that_no_header_holds_is_refused_and_not_repeated_in_the_error(secret, kind):
    with pytest.raises(memoturn.InvalidRequestError, match="with nothing around it") as refused:
        Memoturn("http://node", **{kind: secret})

    assert secret.strip() not in str(refused.value)
    Memoturn("http://node", **{kind: ""}).close()


@pytest.mark.parametrize("key", ["a\nb", " ", "ключ", "\x00"])
def test_a_write_that_cannot_be_written_down_is_told_to_be_unsent_and_is_not_sent_again(key):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Memoturn(url, retries=3) as node:
            node._http.sleep = pytest.fail
            with pytest.raises(memoturn.InvalidRequestError):
                node.db("app").kv.put("ns", "k", b"v", idempotency_key=key)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("-inf")])
def test_a_timeout_that_cannot_be_kept_is_refused(timeout_s):
    handler, seen = answering()

    with pytest.raises(memoturn.InvalidRequestError, match="number above 0"):
        client(handler).db("app").kv.get("ns", "k", timeout_s=timeout_s)
    with pytest.raises(memoturn.InvalidRequestError, match="number above 0"):
        Memoturn("http://node", timeout_s=timeout_s)

    assert seen == []


@pytest.mark.parametrize("timeout_s", [1e9, 1e300, float("inf")])
def test_a_timeout_without_an_end_is_one_that_sockets_take(timeout_s):
    handler, seen = answering(*(httpx.Response(200, content=b"v") for _ in range(2)))

    client(handler, deadline_s=timeout_s).db("app").kv.get("ns", "k", timeout_s=timeout_s)
    client(handler, timeout_s=timeout_s, deadline_s=timeout_s).db("app").kv.get("ns", "k")

    assert [request.extensions["timeout"]["read"] for request in seen] == [1e8, 1e8]


@pytest.mark.parametrize("value", [bytearray(b"v"), memoryview(b"v"), b"v", "v"])
def test_values_are_text_or_anything_that_holds_bytes(value):
    result = {"columns": [], "rows": [], "rows_affected": 1}
    handler, seen = answering(
        httpx.Response(200, json={"txid": 1}, headers={"ETag": '"e"'}),
        httpx.Response(200, json={"gets": [], "puts": [], "deletes": [], "txid": 1}),
        httpx.Response(200, json={"results": [result], "txid": 1}),
    )
    db = client(handler).db("app")

    db.kv.put("ns", "k", value)
    db.kv.batch("ns", puts=[{"key": "k", "value": value}])
    db.sql("insert into t values (?)", [value])

    assert seen[0].content == b"v"
    as_json = "v" if isinstance(value, str) else {"$base64": "dg=="}
    assert json.loads(seen[1].content)["puts"][0]["value"] == as_json
    assert json.loads(seen[2].content)["stmts"][0]["params"] == [as_json]


def test_items_that_lack_something_are_sent_as_they_are_for_the_node_to_refuse():
    refusal = httpx.Response(400, json={"error": "embedding is missing", "code": "invalid_request"})
    handler, seen = answering(*(refusal for _ in range(4)))
    db = client(handler).db("app")

    for send in (
        lambda: db.vectors.upsert_many("c", [{"id": "a"}]),
        lambda: db.vectors.upsert_many("c", [7, {"id": "a", "embedding": 5}, {"embedding": (1, 2)}]),
        lambda: db.kv.batch("ns", puts=[{"key": "k"}]),
        lambda: db.kv.batch("ns", puts=[7]),
    ):
        with pytest.raises(memoturn.InvalidRequestError, match="embedding is missing"):
            send()

    bodies = [json.loads(request.content) for request in seen]
    assert bodies[0]["vectors"] == [{"id": "a"}]
    assert bodies[1]["vectors"] == [7, {"id": "a", "embedding": 5}, {"embedding": [1, 2]}]
    assert [body["puts"] for body in bodies[2:]] == [[{"key": "k"}], [7]]


@pytest.mark.parametrize("value", [None, 5, [1], object()])
def test_other_values_and_names_that_are_no_text_are_refused_before_they_are_sent(value):
    handler, seen = answering()
    kv = client(handler).db("app").kv

    with pytest.raises(memoturn.InvalidRequestError, match="text or bytes"):
        kv.put("ns", "k", value)
    with pytest.raises(memoturn.InvalidRequestError, match="name in the request"):
        kv.get("ns", value)

    assert seen == []


def test_a_floor_that_a_copy_could_not_meet_is_lowered_only_where_the_owner_is_below_it():
    unmet = httpx.Response(412, json={"error": "not yet", "code": "precondition_failed"})

    def at(txid: int) -> httpx.Response:
        return httpx.Response(200, content=b"v", headers={"Memoturn-Txid": str(txid)})

    handler, seen = answering(at(5), unmet, at(9), unmet, at(2))
    db = client(handler).db("app")

    def meanwhile(request: httpx.Request) -> httpx.Response:
        db._address.http.positions.see(("app", "main"), 12 if len(seen) == 2 else 0, 0)
        return handler(request)

    db = client(meanwhile).db("app")
    positions = []
    for _ in range(3):
        db.kv.get("ns", "k")
        positions.append(db.last_txid)

    assert positions == [5, 12, 2], "what another thread wrote meanwhile stays the floor"


def test_a_given_http_client_stays_open():
    http_client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={})))

    Memoturn("http://node", http_client=http_client).close()

    assert not http_client.is_closed
    http_client.close()


def test_timeout_is_sent_with_each_request():
    handler, seen = answering(httpx.Response(200, json={}), httpx.Response(200, json={}))

    client(handler, timeout_s=0.5).ready()
    client(handler).ready()

    assert seen[0].extensions["timeout"]["read"] == 0.5
    assert seen[1].extensions["timeout"]["read"] == 5.0


def test_fork_names_the_branch_that_it_stands_on():
    made = {"branch": "b", "parent": "dev", "fork_txid": 3, "ttl_at": None, "spec": "ns--p@b"}
    handler, seen = answering(httpx.Response(201, json=made))

    fork = client(handler).memory("ns", "p").on_branch("dev").fork("b", at=3, ttl=60)

    assert fork["spec"] == "ns--p@b"
    assert seen[0].url.path == "/v1/db/ns--p/branches"
    assert json.loads(seen[0].content) == {"name": "b", "from": "dev", "at": "3", "ttl": 60}


NOON = datetime(2026, 11, 24, 14, 30, 0, 250_999, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("at", "sent"),
    [(7, "7"), ("head~2", "head~2"), (NOON, "2026-11-24T12:30:00.250+00:00"), ("a b&c", "a b&c")],
)
def test_every_read_sends_the_revision_that_it_is_given(at, sent):
    empty = {"memories": [], "sessions": [], "keys": [], "results": [{"rows": []}]}
    handler, seen = answering(*(httpx.Response(200, json=empty) for _ in range(7)))
    node = client(handler)
    alice, db = node.memory("app", "alice"), node.db("app--alice")

    alice.recall("x", at=at)
    alice.get("mem_1", at=at)
    alice.sessions(at=at)
    db.sql("select 1", at=at)
    db.batch([("select 1", ())], at=at)
    db.kv.get("ns", "k", at=at)
    db.kv.list("ns", at=at)

    assert [request.url.params["at"] for request in seen] == [sent] * 7


def test_forks_and_rewinds_take_times_and_a_time_needs_a_zone():
    handler, seen = answering(httpx.Response(201, json={}), httpx.Response(200, json={}))
    alice = client(handler).memory("app", "alice")

    alice.fork("f", at=NOON)
    alice.rewind(NOON)
    with pytest.raises(memoturn.InvalidRequestError, match="zone"):
        alice.rewind(NOON.replace(tzinfo=None))

    assert [
        json.loads(request.content).get(name) for request, name in zip(seen, ("at", "to"), strict=True)
    ] == ["2026-11-24T12:30:00.250+00:00"] * 2


def test_restore_points_follow_the_cursor_up_to_the_limit():
    pages = [
        {"restore_points": [{"txid": n} for n in range(1500, 500, -1)], "next_cursor": "n501"},
        {"restore_points": [{"txid": n} for n in range(500, 300, -1)], "next_cursor": "n301"},
    ]
    handler, seen = answering(*(httpx.Response(200, json=page) for page in pages))

    rows = client(handler).db("app@f").branch.restore_points("f", limit=1200, since=NOON, until=1500)

    assert [row["txid"] for row in rows] == list(range(1500, 300, -1))
    assert seen[0].url.raw_path.startswith(b"/v1/db/app%40f/restore-points?")
    assert [dict(request.url.params) for request in seen] == [
        {"since": "2026-11-24T12:30:00.250+00:00", "until": "1500", "limit": limit} | more
        for limit, more in (("1000", {}), ("200", {"cursor": "n501"}))
    ]


def test_checkpoints_follow_the_cursor_to_their_end_and_an_earlier_node_gives_all_at_once():
    pages = [
        {"checkpoints": [{"txid": n} for n in range(1000)], "next_cursor": "999.c"},
        {"checkpoints": [{"txid": 1000}], "next_cursor": None},
        {"checkpoints": [{"txid": n} for n in range(1001)]},
    ]
    handler, seen = answering(*(httpx.Response(200, json=page) for page in pages))
    branch = client(handler).db("app").branch

    for _ in range(2):
        assert [row["txid"] for row in branch.checkpoints()] == list(range(1001))

    assert [dict(request.url.params) for request in seen] == [
        {"limit": "1000"},
        {"limit": "1000", "cursor": "999.c"},
        {"limit": "1000"},
    ]
