"""Bad input to a real node over real connections: each a clear 4xx in the envelope, nothing changed, still serving.

The cases are made from the route table, so that a new route is tried as well.
"""

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from calls import Profile, assert_refused, ok
from fake_model import serving_model_beside, settings_of
from processes import NodeHome, RunningNode

from memoturnd.http.app import SMALL_BODY_BYTES
from memoturnd.http.route import Body, Kind, Route, Scope
from memoturnd.http.routes import ROUTES

LARGE_BODY_BYTES = 2 << 20
GOOD_PATH = {
    "ns": "app",
    "profile": "ann",
    "db": "app--ann",
    "branch": "main",
    "id": "mem_0",
    "sid": "s",
    "topic_key": "t",
    "session": "s",
    "seq": "1",
    "timeline": "t",
    "key": "k",
    "name": "v1",
    "coll": "c",
    "tenant": "default",
    "path": "n",
}
FACT = {"type": "fact", "topic_key": "t", "summary": "known", "content": {"v": 1}, "embedding": [1, 0, 0]}
_POLICY = {
    "retention": {"pitr_secs": 86400, "pitr_snapshot_secs": 86400},
    "memory": {"task_ttl_max_secs": 86400, "event_max_age_secs": 86400, "superseded_max_count": 1000},
    "erasure": {"purge_on_forget": False, "grace_secs": 86400},
    "audit": {"enabled": False, "include_reads": False},
    "ai_egress": {"extract": "allow", "ask": "allow", "embed": "allow"},
}
_TOKEN = {"scope": "read", "expires_in": 60, "branches": ["main"], "surfaces": ["kv"], "subject": "x"}
GOOD_BODIES = {
    "/v1/databases": {"name": "new"},
    "/v1/namespaces/{ns}/quotas": {"requests_per_s": 1000.5, "databases": 9},
    "/v1/tenants/{tenant}/quotas": {"bytes": 1000000000000},
    "/v1/databases/{db}/undelete": {"uuid": "0" * 32},
    "/v1/db/{db}/settings": {"durability": {"default": "local"}},
    "/v1/tenants": {"name": "new"},
    "/v1/databases/{db}/tokens": _TOKEN,
    "/v1/namespaces/{ns}/tokens": _TOKEN,
    "/v1/databases/{db}/tokens/revoke": {"token": "x"},
    "/v1/namespaces/{ns}/tokens/revoke": {"token": "x"},
    "/v1/tokens/revoke": {"token": "x"},
    "/v1/memory/{ns}/{profile}/memories": {"memories": [{"type": "event", "summary": "x"}]},
    "/v1/memory/{ns}/{profile}/memories/forget": {"ids": ["mem_0"]},
    "/v1/memory/{ns}/{profile}/memories/{id}": {"pinned": True},
    "/v1/memory/{ns}/{profile}/memories/{id}/undo": {"reason": "x"},
    "/v1/memory/{ns}/{profile}/erasures": {
        "targets": [{"session_id": "none", "turns": True}],
        "grace_secs": 86400,
    },
    "/v1/db/{db}/erasures": {"kv": {"ns": "none", "key": "none"}},
    "/v1/memory/{ns}/{profile}/recall": {"query": "x"},
    "/v1/memory/{ns}/{profile}/reembed": {"scope": "all"},
    "/v1/memory/{ns}/{profile}/ask": {"question": "known"},
    "/v1/memory/{ns}/{profile}/extract": {"turns": [{"role": "user", "content": "x"}], "dry_run": True},
    "/v1/namespaces/{ns}/policy": {"policy": _POLICY},
    "/v1/memory/{ns}/{profile}/policy": {"policy": _POLICY},
    "/v1/db/{db}/sql": {"stmts": [{"q": "CREATE TABLE u (x)"}]},
    "/v1/db/{db}/sync": {},
    "/v1/db/{db}/branches": {"name": "new"},
    "/v1/db/{db}/branches/{branch}/checkpoint": {"name": "new"},
    "/v1/db/{db}/branches/{branch}/rewind": {"to": "1"},
    "/v1/db/{db}/kv/{ns}": {"puts": [{"key": "new", "value": "x"}], "deletes": [{"key": "old"}]},
    "/v1/db/{db}/kv/{ns}/{key}/increment": {"by": 1},
    "/v1/db/{db}/docs/{coll}/insert": {"docs": [{"_id": "new", "n": 1}]},
    "/v1/db/{db}/docs/{coll}/find": {"filter": {"n": 1}, "sort": {"n": 1}, "projection": {"n": 1}},
    "/v1/db/{db}/docs/{coll}/count": {"filter": {"n": 1}},
    "/v1/db/{db}/docs/{coll}/distinct": {"path": "n", "filter": {"n": 1}},
    "/v1/db/{db}/docs/{coll}/update": {"filter": {"n": 1}, "update": {"$set": {"n": 2}}, "sort": {"n": 1}},
    "/v1/db/{db}/docs/{coll}/delete": {"filter": {"n": 1}, "sort": {"n": 1}},
    "/v1/db/{db}/docs/{coll}/indexes": {"path": "n"},
    "/v1/db/{db}/vectors/{coll}": {"vectors": [{"id": "v", "embedding": [1, 0], "metadata": {}}]},
    "/v1/db/{db}/vectors/{coll}/search": {"vector": [1, 0], "filter": {"a": 1}},
    "/v1/db/{db}/vectors/{coll}/delete": {"ids": ["v"]},
    "/v1/db/{db}/memory/{session}/turns": {"role": "user", "content": "x"},
    "/v1/db/{db}/memory/{session}/search": {"vector": [1, 0, 0]},
    "/v1/db/{db}/memory/search": {"query": "x"},
    "/v1/db/{db}/timelines/{timeline}": {"retention_s": 60},
    "/v1/db/{db}/timelines/{timeline}/rows": {"rows": [{"key": "k", "data": {"n": 1}}]},
    "/v1/db/{db}/timelines/{timeline}/query": {"key": "k", "aggregate": {"path": "n"}},
}
UNCONFIGURED = {"/v1/memory/{ns}/{profile}/reembed"}
"""What takes an embedder, which the node of these tests does not have."""
NULL = type(None)
_OF_POLICIES = {
    "policy.retention": {NULL, dict},
    "policy.retention.pitr_secs": {NULL},
    "policy.retention.pitr_snapshot_secs": {NULL},
    "policy.memory": {NULL, dict},
    "policy.memory.task_ttl_max_secs": {NULL},
    "policy.memory.event_max_age_secs": {NULL},
    "policy.memory.superseded_max_age_secs": {NULL},
    "policy.memory.superseded_max_count": {NULL, int},
    "policy.erasure": {NULL, dict},
    "policy.erasure.purge_on_forget": {NULL, bool},
    "policy.erasure.grace_secs": {NULL},
    "policy.audit": {NULL, dict},
    "policy.audit.enabled": {NULL, bool},
    "policy.audit.include_reads": {NULL, bool},
    "policy.ai_egress": {NULL, dict},
    "policy.ai_egress.extract": {NULL},
    "policy.ai_egress.ask": {NULL},
    "policy.ai_egress.embed": {NULL},
}
_OF_TOKENS = {
    "scope": set(),
    "expires_in": {NULL},
    "branches": {NULL},
    "branches.0": {str},
    "surfaces": {NULL},
    "surfaces.0": set(),
    "subject": {NULL, str},
}
FIELDS = {
    "/v1/namespaces/{ns}/policy": {"policy": {dict}, "policy.audit.retention_secs": {NULL}, **_OF_POLICIES},
    "/v1/memory/{ns}/{profile}/policy": {"policy": {NULL, dict}, **_OF_POLICIES},
    "/v1/memory/{ns}/{profile}/reembed": {
        "model": {NULL, str},
        "scope": {NULL},
        "only_missing": {bool, NULL},
    },
    "/v1/databases": {"name": {str}},
    "/v1/namespaces/{ns}/quotas": {"requests_per_s": {int, float, NULL}, "databases": {int, NULL}},
    "/v1/tenants/{tenant}/quotas": {"bytes": {int, NULL}},
    "/v1/databases/{db}/undelete": {"uuid": {NULL}},
    "/v1/db/{db}/settings": {"durability": set(), "durability.default": set()},
    "/v1/tenants": {"name": {str}},
    "/v1/databases/{db}/tokens": _OF_TOKENS,
    "/v1/namespaces/{ns}/tokens": _OF_TOKENS,
    "/v1/databases/{db}/tokens/revoke": {"token": {str}},
    "/v1/namespaces/{ns}/tokens/revoke": {"token": {str}},
    "/v1/tokens/revoke": {"token": {str}},
    "/v1/memory/{ns}/{profile}/memories": {
        "memories": set(),
        "on_error": {NULL},
        "memories.0": set(),
        "memories.0.type": set(),
        "memories.0.summary": {str},
        "memories.0.topic_key": {NULL, str},
        "memories.0.keywords": {str, NULL},
        "memories.0.embedding": {NULL},
        "memories.0.embedding_model": {NULL},
        "memories.0.session_id": {str, NULL},
        "memories.0.source": {str, NULL},
        "memories.0.ttl": {NULL},
        "memories.0.source_turns": {NULL},
        "memories.0.pinned": {bool, NULL},
        "memories.0.importance": {NULL},
        "memories.0.reason": {NULL},
    },
    "/v1/memory/{ns}/{profile}/memories/forget": {
        "ids": {NULL},
        "all": {NULL},
        "types": {NULL},
        "topic_key": {NULL},
        "source": {NULL},
        "pinned": {NULL},
        "since": {NULL},
        "include_superseded": {bool, NULL},
        "dry_run": {bool, NULL},
        "limit": {int, NULL},
    },
    "/v1/memory/{ns}/{profile}/erasures": {
        "targets": set(),
        "targets.0": set(),
        "targets.0.session_id": {str},
        "targets.0.turns": {bool, NULL},
        "targets.0.memories": {bool, NULL},
        "targets.0.memory_id": {NULL},
        "targets.0.turn": {NULL},
        "targets.0.document": {NULL},
        "grace_secs": {int, NULL},
    },
    "/v1/db/{db}/erasures": {
        "kv": set(),
        "kv.ns": {str},
        "kv.key": {str},
        "kv.prefix": {NULL},
        "vector": {NULL},
        "timeline": {NULL},
        "grace_secs": {int, NULL},
    },
    "/v1/memory/{ns}/{profile}/memories/{id}": {
        "pinned": {bool, NULL},
        "importance": {NULL},
        "keywords": {str, NULL},
        "ttl": {int, NULL},
        "expires_at": {int, NULL},
    },
    "/v1/memory/{ns}/{profile}/memories/{id}/undo": {"reason": {str, NULL}},
    "/v1/memory/{ns}/{profile}/recall": {
        "query": {str, NULL},
        "embedding": {NULL},
        "embedding_model": {NULL},
        "topic_key": {str, NULL},
        "types": {NULL},
        "session_id": {str, NULL},
        "source": {str, NULL},
        "k": {int, NULL},
        "include_superseded": {bool, NULL},
        "include_turns": {bool, NULL},
        "explain": {bool, NULL},
        "since": {int, NULL},
        "until": {int, NULL},
        "weights": {NULL},
        "decay": {NULL},
        "min_score": {int, float, NULL},
        "pinned_first": {bool, NULL},
        "include_context": {bool, NULL},
        "fusion": {NULL},
    },
    "/v1/memory/{ns}/{profile}/ask": {
        "question": {str},
        "types": {NULL},
        "session_id": {str, NULL},
        "source": {str, NULL},
        "k": {int, NULL},
        "include_superseded": {bool, NULL},
        "stream": {bool, NULL},
    },
    "/v1/memory/{ns}/{profile}/extract": {
        "turns": set(),
        "turns.0": set(),
        "turns.0.role": {str},
        "turns.0.seq": {int, NULL},
        "session_id": {str, NULL},
        "source": {str, NULL},
        "dry_run": {bool, NULL},
        "from_seq": {NULL},
        "to_seq": {NULL},
    },
    "/v1/db/{db}/sql": {"stmts": set(), "stmts.0": set(), "stmts.0.q": set(), "stmts.0.params": {NULL}},
    "/v1/db/{db}/sync": {"txid": {int, NULL}},
    "/v1/db/{db}/branches": {
        "name": {str},
        "from": {str, NULL},
        "at": {str, NULL},
        "checkpoint": {str, NULL},
        "ttl": {int, NULL},
    },
    "/v1/db/{db}/branches/{branch}/checkpoint": {"name": {str}},
    "/v1/db/{db}/branches/{branch}/rewind": {"to": {str}},
    "/v1/db/{db}/kv/{ns}": {
        "gets": {NULL},
        "puts": {NULL},
        "puts.0": set(),
        "puts.0.key": {str},
        "puts.0.value": {str},
        "puts.0.ttl": {int, NULL},
        "puts.0.metadata": {dict, NULL},
        "puts.0.if_match": {str, NULL},
        "puts.0.if_none_match": {str, NULL},
        "deletes": {NULL},
        "deletes.0": {str},
        "deletes.0.key": {str},
        "partial": {bool, NULL},
    },
    "/v1/db/{db}/kv/{ns}/{key}/increment": {"by": {int, NULL}, "ttl": {int, NULL}},
    "/v1/db/{db}/docs/{coll}/insert": {"docs": set(), "docs.0": {dict}, "docs.0._id": {str}},
    "/v1/db/{db}/docs/{coll}/find": {
        "filter": {dict, NULL},
        "sort": {dict, NULL},
        "sort.n": set(),
        "projection": {dict, NULL},
        "projection.n": {bool},
        "limit": {int, NULL},
        "skip": {int, NULL},
        "cursor": {NULL},
    },
    "/v1/db/{db}/docs/{coll}/count": {"filter": {dict, NULL}},
    "/v1/db/{db}/docs/{coll}/distinct": {"path": {str}, "filter": {dict, NULL}, "limit": {int, NULL}},
    "/v1/db/{db}/docs/{coll}/update": {
        "filter": {dict},
        "update": set(),
        "update.$set": {dict},
        "multi": {bool, NULL},
        "sort": {dict, NULL},
        "sort.n": set(),
        "upsert": {bool, NULL},
    },
    "/v1/db/{db}/docs/{coll}/delete": {
        "filter": {dict},
        "multi": {bool, NULL},
        "sort": {dict, NULL},
        "sort.n": set(),
    },
    "/v1/db/{db}/docs/{coll}/indexes": {"path": {str}, "unique": {bool, NULL}},
    "/v1/db/{db}/memory/{session}/turns": {
        "role": {str},
        "embedding": {list, NULL},
        "embedding_model": {NULL},
        "at": {int, NULL},
        "turns": set(),
    },
    "/v1/db/{db}/memory/{session}/search": {
        "vector": {list},
        "query": {str, NULL},
        "mode": {NULL},
        "embedding_model": {str, NULL},
        "k": {int, NULL},
        "role": {str, NULL},
        "since": {int, NULL},
        "until": {int, NULL},
    },
    "/v1/db/{db}/memory/search": {
        "query": {str},
        "vector": {list, NULL},
        "mode": {NULL},
        "embedding_model": {NULL},
        "k": {int, NULL},
        "role": {str, NULL},
        "since": {int, NULL},
        "until": {int, NULL},
    },
    "/v1/db/{db}/vectors/{coll}": {
        "vectors": set(),
        "vectors.0": set(),
        "vectors.0.id": {str},
        "vectors.0.embedding": {list},
        "vectors.0.metadata": {dict, NULL},
    },
    "/v1/db/{db}/vectors/{coll}/search": {
        "vector": {list},
        "k": {int, NULL},
        "filter": {dict, NULL},
        "max_distance": {int, float, NULL},
        "min_score": {int, float, NULL},
        "include_metadata": {bool, NULL},
        "include_embedding": {bool, NULL},
    },
    "/v1/db/{db}/vectors/{coll}/delete": {"ids": set(), "ids.0": {str}, "filter": {NULL}},
    "/v1/db/{db}/timelines/{timeline}": {"retention_s": {int, NULL}, "retention_rows": {int, NULL}},
    "/v1/db/{db}/timelines/{timeline}/rows": {
        "rows": set(),
        "rows.0": set(),
        "rows.0.key": {str},
        "rows.0.at": {int, NULL},
    },
    "/v1/db/{db}/timelines/{timeline}/query": {
        "key": {str, NULL},
        "keys": {NULL},
        "since": {int, NULL},
        "until": {int, NULL},
        "filter": {dict, NULL},
        "order": {NULL},
        "limit": {int, NULL},
        "cursor": {NULL},
        "aggregate": {dict, NULL},
        "aggregate.path": {str, NULL},
        "aggregate.window_ms": {int, NULL},
        "aggregate.by_key": {bool, NULL},
    },
}
"""Types that a field takes, of the values in WRONG; the others must be refused."""
WRONG = (None, True, 7, 1.5, 2**63, -(2**70), "text", "", "\ud800", [1], [None], {"a": 1})
NEVER = (2**63, -(2**70), "\ud800", [None])
"""Values that no field takes, whatever its type."""
NAMES = {
    "empty": "",
    "blank": "%20",
    "over-long": "a" * 2000,
    "dots": "%2e%2e",
    "up and over": "..%2f..%2fetc",
    "slash": "a%2fb",
    "upper case": "App",
    "Cyrillic look-alike": "%d0%b0pp",
    "full width": "%ef%bd%81pp",
    "dotless i": "%c4%b1",
    "NUL": "a%00",
    "newline": "a%0a",
    "not UTF-8": "%ff%fe",
    "cut-off UTF-8": "a%c3",
    "surrogate": "%ed%a0%80",
    "too many hyphens": "a----b",
    "control": "%7f",
    "quote": "'--",
}
ANYTHING = {"key", "session", "sid", "id", "topic_key"}
"""Path parts that are the user's own words: most of NAMES are fine there, or simply nothing that exists."""
ALLOWED = {
    "branch": {"too many hyphens"},
    "coll": {"too many hyphens", "upper case"},
    "path": {"too many hyphens", "upper case"},
    "timeline": {"too many hyphens", "upper case"},
}
"""Those of NAMES that these path parts may be."""
NEVER_A_WORD = {"NUL", "not UTF-8", "cut-off UTF-8", "surrogate", "empty"}

BODIED = [route for route in ROUTES if route.body is not Body.NONE and route.scope is not Scope.INTERNAL]
JSON_ROUTES = [route for route in BODIED if route.body not in {Body.RAW, Body.FILE}]


def named(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=lambda r: f"{r.method} {r.template}")


def path_of(route: Route, **parts: str) -> str:
    return route.template.format(**{**GOOD_PATH, **parts})


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[RunningNode]:
    with (
        serving_model_beside() as model,
        NodeHome(
            tmp_path_factory.mktemp("bad-input"),
            **settings_of(model),
            MAX_BODY_BYTES=str(LARGE_BODY_BYTES),
            MAX_IMPORT_BYTES=str(LARGE_BODY_BYTES),
        ) as home,
    ):
        node = home.start()
        with httpx.Client(base_url=node.url) as client:
            ann = Profile(client, "ann")
            ok(client.post(f"{ann.memory}/memories", json={"memories": [FACT]}))
            ok(ann.put("k", b"kept"))
            ok(
                client.post(
                    f"{ann.db}/memory/s/turns", json={"role": "user", "content": 1, "embedding": [1, 0, 0]}
                )
            )
            ok(client.post(f"{ann.db}/branches/main/checkpoint", json={"name": "v1"}))
        yield node
        assert node.stop() == 0
        assert "Traceback" not in home.log()


@pytest.fixture
def client(node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=20) as client:
        yield client


@pytest.fixture
def refused(client) -> Iterator[Callable[..., None]]:
    """Send a request that must be refused; at the end of the test nothing may have changed."""
    before = state(client)

    def send(method: str, path: str, *statuses: int, **request: object) -> None:
        answer = client.request(method, path, **request)
        assert_refused(answer, *(statuses or (400,)))
        assert "memoturn-txid" not in answer.headers

    yield send
    assert state(client) == before


def state(client: httpx.Client) -> list[object]:
    ann = Profile(client, "ann")
    paths = ["/v1/databases", "/v1/memory/app", f"{ann.db}/branches", f"{ann.db}/branches/main/checkpoints"]
    paths += [f"{ann.db}/kv/{ns}" for ns in ("n", "app")] + [
        f"{ann.memory}/sessions",
        f"{ann.db}/memory/s/turns",
    ]
    return [ann.txid(), ann.recall("t"), *(ok(client.get(path)).json() for path in paths)]


RAW = {
    "empty": b"",
    "cut off": b'{"name": "x"',
    "trailing": b'{"name": "x"} {}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "not UTF-8 in an unknown field": b'{"name": "y", "later": "\xff"}',
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep in an unknown field": b'{"later":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"later": NaN}',
    "Infinity": b'{"later": -Infinity}',
    "array": b"[]",
    "string": b'"x"',
    "number": b"1e400",
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "NUL": b'{"name": "a\\u0000b"}\x00',
}


@named(JSON_ROUTES)
def test_body_that_is_not_the_json_of_the_route_is_refused(refused, route):
    for name, body in RAW.items():
        if route.template.endswith(("/sync", "/increment", "/{id}/undo", "/undelete")) and name == "empty":
            continue  # the routes whose body may be left out
        refused(route.method, path_of(route), content=body)


@named(BODIED)
def test_body_over_its_limit_is_refused_whether_or_not_it_says_its_length(refused, route):
    limit = SMALL_BODY_BYTES if route.body is Body.SMALL else LARGE_BODY_BYTES
    body = b'{"name": "x", "pad": "' + b" " * limit + b'"}'
    path = path_of(route, **({"db": "fresh"} if route.body is Body.FILE else {}))

    refused(route.method, path, 413, content=body)
    refused(route.method, path, 413, content=itertools.repeat(b" " * 65_536, limit // 65_536 + 1))


def test_body_of_a_small_route_may_not_be_as_large_as_that_of_a_large_one(refused):
    body = b'{"query": "x", "pad": "' + b" " * (SMALL_BODY_BYTES + 1) + b'"}'

    refused("POST", "/v1/memory/app/ann/recall", 413, content=body)


def ill_typed(template: str) -> Iterator[object]:
    for path, takes in FIELDS[template].items():
        for value in WRONG:
            clamped = path in {"k", "limit", "skip"} and value == 2**63
            if clamped or (type(value) in takes and value not in NEVER):
                continue
            body = json.loads(json.dumps(GOOD_BODIES[template]))
            *parents, last = path.split(".")
            place = body
            for step in parents:
                place = place[int(step)] if step.isdigit() else place[step]
            place[int(last) if last.isdigit() else last] = value
            yield path, value, body


@named(JSON_ROUTES)
def test_every_field_refuses_values_of_other_types(refused, route):
    for _path, _value, body in ill_typed(route.template):
        refused(route.method, path_of(route), content=json.dumps(body))


def test_every_json_route_and_each_field_has_its_cases():
    assert {route.template for route in JSON_ROUTES} == set(FIELDS) == set(GOOD_BODIES)


PARTS = [
    (route, name)
    for route in ROUTES
    if route.scope
    is not Scope.INTERNAL  # nobody but nodes gets that far; see tests/http/test_http_internal.py
    for name in route.parameters
]


@pytest.mark.parametrize(
    ("route", "part"), PARTS, ids=[f"{r.method} {r.template} {name}" for r, name in PARTS]
)
def test_bad_name_in_a_path_is_refused_or_nothing_that_exists(refused, client, route, part):
    body = GOOD_BODIES.get(route.template)
    request = (
        {"json": body}
        if body is not None
        else {"content": b"x"}
        if route.body in {Body.RAW, Body.FILE}
        else {}
    )
    for name, value in NAMES.items():
        free = part in ANYTHING or (part == "ns" and "kv" in route.template)
        if (free and name not in NEVER_A_WORD) or name in ALLOWED.get(part, ()):
            continue
        refused(route.method, path_of(route, **{part: value}), 400, 404, **request)


def test_raw_bytes_in_a_request_line_are_refused_and_the_node_goes_on(node, client):
    for target in (
        b"/v1/db/\xff\xfe/kv/n",
        b"/v1/db/a\x00b/kv/n",
        b"/v1/db/\xd0\xb0/kv/n",
        b"x",
        b"/" * 9000,
    ):
        with socket.create_connection(address(node), 5) as connection:
            connection.sendall(
                b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            status = connection.recv(4096).split(b" ")[1:2]
            assert status in ([b"400"], [b"404"], [b"431"]), (target[:20], status)
    assert ok(client.get("/health")).text == "ok"


HEADERS = {
    "durability": ("memoturn-durability", "forever"),
    "branch": ("memoturn-branch", "../x"),
}


def test_headers_that_say_nonsense_are_refused(refused):
    for name, value in HEADERS.values():
        refused(
            "POST",
            "/v1/memory/app/ann/memories",
            json=GOOD_BODIES["/v1/memory/{ns}/{profile}/memories"],
            headers={name: value},
        )
    for value in ("-1", "1.5", "x", "9" * 30, "9007199254740992", "", "٣"):
        refused("GET", "/v1/db/app--ann/kv/n", headers=[(b"memoturn-min-txid", value.encode())])


def test_embedding_of_another_dimension_is_refused(refused):
    fact = {**FACT, "summary": "other", "topic_key": "u"}
    for embedding in ([1, 0], [1, 0, 0, 0], [], [1] * 5000):
        refused("POST", "/v1/memory/app/ann/memories", json={"memories": [{**fact, "embedding": embedding}]})
    for number in (b"1e400", b"NaN", b"Infinity", b"1e39", b'"1"', b"null", b"true"):
        body = (
            b'{"memories": [{"type": "fact", "topic_key": "u", "summary": "o", "embedding": [%s, 0, 0]}]}'
            % number
        )
        refused("POST", "/v1/memory/app/ann/memories", content=body)
    refused("POST", "/v1/memory/app/ann/recall", json={"embedding": [1, 0]})


def test_bad_item_at_the_end_of_a_batch_undoes_the_whole_batch(refused):
    good = [{"type": "event", "summary": f"event {n}"} for n in range(999)]
    refused("POST", "/v1/memory/app/ann/memories", json={"memories": [*good, {"type": "event"}]})
    refused("POST", "/v1/memory/app/ann/memories", json={"memories": [*good, *good]})
    stmts = [
        {"q": "CREATE TABLE v (x UNIQUE)"},
        {"q": "INSERT INTO v VALUES (1)"},
        {"q": "INSERT INTO v VALUES (1)"},
    ]
    refused("POST", "/v1/db/app--ann/sql", json={"stmts": stmts})


def test_unknown_fields_are_ignored_on_every_route_but_where_they_would_make_it_forget_or_allow_more(client):
    spare = Profile(client, "spare")
    first = {"type": "fact", "topic_key": "t", "summary": "first", "content": 1}
    corrected = {**first, "content": 2}
    batch = {"memories": [first, corrected]}
    id_ = ok(client.post(f"{spare.memory}/memories", json=batch)).json()["results"][1]["id"]
    for number, route in enumerate(r for r in JSON_ROUTES if "rewind" not in r.template):
        body = {**GOOD_BODIES[route.template], "later": {"a": [1, None]}}
        if "name" in body:
            body["name"] = f"spare{number}"
        path = path_of(route, profile="spare", db="app--spare", id=id_)
        answer = client.request(route.method, path, json=body)
        if route.template in UNCONFIGURED:
            assert_refused(answer, 503)
        elif route.template.endswith(
            ("/memories/forget", "/quotas", "/erasures", "/tokens", "/tokens/revoke", "/settings")
        ):  # a slip would lift a limit, let something stay, or make writes less safe
            assert_refused(answer, 400)
        elif route.template.endswith("/undelete"):
            assert_refused(answer, 404)  # none is deleted
        else:
            ok(answer)


def address(node: RunningNode) -> tuple[str, int]:
    host, _, port = node.url.removeprefix("http://").partition(":")
    return host, int(port)


PARTIAL = [
    b"",
    b"POST /v1/memory/app/ann/mem",
    b"POST /v1/memory/app/ann/memories HTTP/1.1\r\nHost: localhost\r\nX-Slow:",
    b"POST /v1/memory/app/ann/memories HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    b"PUT /v1/db/app--ann/kv/n/slow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
]


def test_slow_and_half_closed_clients_neither_stop_nor_slow_the_node_nor_its_end(tmp_path):
    with NodeHome(tmp_path / "home") as home:
        node = home.start()
        with httpx.Client(base_url=node.url) as client:
            ann = Profile(client, "ann")
            ok(ann.ingest("first"))
            connections = []
            for index in range(200):
                connection = socket.create_connection(address(node), 5)
                connection.sendall(PARTIAL[index % len(PARTIAL)])
                if index % 3 == 0:
                    connection.shutdown(socket.SHUT_WR)
                connections.append(connection)
            started_s = time.monotonic()

            for number in range(50):
                ok(ann.put(f"k{number}"))
            assert time.monotonic() - started_s < 5
            for connection in connections[::2]:
                connection.close()
            ok(client.get("/health"))
            ann.assert_kept()

            assert node.stop() == 0
            for connection in connections:
                connection.close()
        with httpx.Client(base_url=home.start().url) as client:
            ann.client = client
            ann.assert_kept()
        assert "Traceback" not in home.log()


def test_garbage_on_a_connection_is_answered_and_ends_only_that_connection(node, client):
    with socket.create_connection(address(node), 5) as connection:
        connection.sendall(b"\x00\x01GARBAGE\r\n\r\n")
        received = b""
        while part := connection.recv(4096):
            received += part
    assert received.startswith(b"HTTP/1.1 400")
    ok(client.get("/health"))


def test_operators_routes_take_no_body_and_stay_up(client):
    for route in ROUTES:
        if route.kind is Kind.OPEN:
            assert client.request("GET", route.template, content=b"x" * 100).status_code == 200
