"""The vectors that the clients share (sdk/vectors), run by both Python clients."""

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import memoturn
import pytest
from memoturn import AsyncMemoturn, Memoturn, MemoturnError
from memoturn._core.answers import error_of
from memoturn._core.paths import path
from memoturn._core.retries import wait_s
from memoturn.errors import UnknownOutcomeError, UnreachableError, error_for
from scripted import ScriptedServer

VECTORS = Path(__file__).parents[2] / "sdk/vectors"
CLIENTS = ["sync", "async"]


def vectors(topic: str) -> Any:
    """Return a parameter for each case of a file."""
    cases = json.loads((VECTORS / f"{topic}.json").read_text(encoding="utf-8"))
    return pytest.mark.parametrize(
        ("given", "expect"), [pytest.param(case["given"], case["expect"], id=case["name"]) for case in cases]
    )


def only(members: dict[str, Any], *known: str) -> None:
    """Fail on a member that this runner does not know: the case would be half run."""
    assert members.keys() <= set(known), f"unknown: {members.keys() - set(known)}"


# ---- functions


@vectors("paths")
def test_paths(given, expect):
    only(given, "parts")
    only(expect, "path", "error")
    if "error" in expect:
        with pytest.raises(getattr(memoturn, expect["error"])):
            path(*given["parts"])
    else:
        assert path(*given["parts"]) == expect["path"]


@vectors("errors")
def test_errors(given, expect):
    only(given, "status", "headers", "text")
    only(expect, "error", "code", "message", "retry_after_s")
    error = error_of(given["status"], given.get("headers", {}), given.get("text", "").encode())

    found = {
        "error": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "retry_after_s": error.retry_after,
    }
    assert {name: found[name] for name in expect} == expect


@vectors("decisions")
def test_decisions(given, expect):
    only(given, "outcome", "repeatable", "repeats", "retries", "random", "left_ms")
    only(expect, "wait_ms")
    wait = wait_s(
        outcome(**given["outcome"]),
        given["repeatable"],
        repeats=given["repeats"],
        retries=given["retries"],
        jitter=given["random"],
        left_s=given["left_ms"] / 1000,
    )

    assert (wait if wait is None else pytest.approx(wait * 1000)) == expect["wait_ms"]


def outcome(
    *, status: int = 0, code: str = "", retry_after_s: float | None = None, failure: str = ""
) -> MemoturnError:
    failures = {"connect": UnreachableError, "broken": UnknownOutcomeError, "timeout": UnknownOutcomeError}
    return failures[failure]("failed") if failure else error_for(status, code, "failed", retry_after_s)


# ---- scripts

OPS = {
    "ingest": {"ns", "profile", "branch", "summary", "idempotency_key"},
    "recall": {"ns", "profile", "branch", "query", "min_txid", "at", "consistency"},
    "kv_put": {"db", "ns", "key", "value"},
    "kv_get": {"db", "ns", "key", "min_txid"},
    "create_database": {"name"},
    "delete_database": {"name"},
}


def calling(client: Any, op: str, arguments: dict[str, Any]) -> Any:
    """Make one call of a script; what it returns has to be awaited where the client is asynchronous."""
    only(arguments, *OPS[op])
    rest = dict(arguments)
    if op in {"ingest", "recall"}:
        profile = client.memory(rest.pop("ns"), rest.pop("profile")).on_branch(rest.pop("branch", "main"))
        if op == "recall":
            return profile.recall(rest.pop("query"), **rest)
        return profile.ingest([{"type": "fact", "summary": rest.pop("summary")}], **rest)
    if op == "kv_put":
        return client.db(rest["db"]).kv.put(rest["ns"], rest["key"], rest["value"].encode())
    if op == "kv_get":
        kv = client.db(rest.pop("db")).kv
        return kv.get(rest.pop("ns"), rest.pop("key"), **rest)
    return getattr(client, op)(rest["name"])


def run_script(kind: str, given: dict[str, Any], expect: dict[str, Any]) -> None:
    only(given, "client", "calls", "answers")
    only(expect, "requests", "outcomes", "waits_ms")
    only(given.get("client", {}), "retries", "read_your_writes")
    waits_ms: list[float] = []
    with ScriptedServer(given["answers"]) as server:
        run = run_sync if kind == "sync" else run_async
        outcomes = run(server.url, given, waits_ms)
        server.finish()
    assert outcomes == expect["outcomes"]
    server.compare(expect["requests"])
    if "waits_ms" in expect:
        assert len(waits_ms) == len(expect["waits_ms"])
        for waited, (least, most) in zip(waits_ms, expect["waits_ms"], strict=True):
            assert least <= waited <= most


def told(error: MemoturnError) -> dict[str, str]:
    return {"error": type(error).__name__, "code": error.code}


def run_sync(url: str, given: dict[str, Any], waits_ms: list[float]) -> list[Any]:
    outcomes: list[Any] = []
    with Memoturn(url, **given.get("client", {})) as client:
        client._http.sleep = lambda wait: waits_ms.append(wait * 1000)
        for call in given["calls"]:
            try:
                calling(client, call["op"], {k: v for k, v in call.items() if k != "op"})
                outcomes.append("ok")
            except MemoturnError as error:
                outcomes.append(told(error))
    return outcomes


def run_async(url: str, given: dict[str, Any], waits_ms: list[float]) -> list[Any]:
    async def wait(wait_s: float) -> None:
        waits_ms.append(wait_s * 1000)

    async def run() -> list[Any]:
        outcomes: list[Any] = []
        async with AsyncMemoturn(url, **given.get("client", {})) as client:
            client._http.sleep = wait
            for call in given["calls"]:
                try:
                    await calling(client, call["op"], {k: v for k, v in call.items() if k != "op"})
                    outcomes.append("ok")
                except MemoturnError as error:
                    outcomes.append(told(error))
        return outcomes

    return asyncio.run(run())


@pytest.mark.parametrize("kind", CLIENTS)
@vectors("retries")
def test_retries(kind, given, expect):
    run_script(kind, given, expect)


@pytest.mark.parametrize("kind", CLIENTS)
@vectors("floors")
def test_floors(kind, given, expect):
    run_script(kind, given, expect)


def test_a_runner_fails_where_the_script_and_the_client_differ():
    given = {
        "calls": [{"op": "kv_get", "db": "a", "ns": "n", "key": "k"}],
        "answers": [{"status": 200}, {"status": 200}],
    }
    for answers, requests in (
        (given["answers"], [{"method": "GET", "path": "/v1/db/a/kv/n/k"}]),
        (given["answers"][:1], [{"method": "GET", "path": "/v1/db/b/kv/n/k"}]),
        (given["answers"][:1], [{"method": "GET", "path": "/v1/db/a/kv/n/k", "headers": {"X": True}}]),
    ):
        with pytest.raises(AssertionError):
            run_script("sync", given | {"answers": answers}, {"requests": requests, "outcomes": ["ok"]})


# ---- against a node


@pytest.fixture(scope="module")
def node(guarded, mint):
    """A client of a namespace whose profiles no other test uses."""
    with Memoturn(guarded.url, token=mint("vectors")) as client:
        yield client


def fresh() -> str:
    return uuid.uuid4().hex


@vectors("ids")
def test_ids(node, given, expect):
    only(given, "items")
    only(expect, "ids", "error")
    profile = node.memory("vectors", fresh())

    def ingest() -> list[str]:
        return [profile.ingest([item])["results"][0]["id"] for item in given["items"]]

    if "error" in expect:
        with pytest.raises(getattr(memoturn, expect["error"])):
            ingest()
    else:
        assert ingest() == expect["ids"]


@pytest.fixture(scope="module")
def collections(node):
    """The collections of one profile."""
    node.memory("vectors", "documents").ingest([{"type": "fact", "summary": "it is there"}])
    return node.db("vectors--documents").collection


@vectors("values")
def test_values(collections, given, expect):
    only(given, "document")
    only(expect)
    collection = collections(fresh())

    collection.insert([given["document"]])

    assert collection.find({"_id": given["document"]["_id"]}) == [given["document"]]


@vectors("filters")
def test_filters(collections, given, expect):
    only(given, "docs", "filter", "sort", "limit", "skip")
    only(expect, "ids", "error")
    collection = collections(fresh())
    collection.insert(given["docs"])
    how = {name: given[name] for name in ("sort", "limit", "skip") if name in given}

    if "error" in expect:
        with pytest.raises(getattr(memoturn, expect["error"])):
            collection.find(given["filter"], **how)
    else:
        found = collection.find(given["filter"], **how)
        assert [document["_id"] for document in found] == expect["ids"]


def test_the_client_waits_as_it_says():
    answers = [{"status": 429, "headers": {"Retry-After": "1"}}, {"status": 200}]
    with ScriptedServer(answers) as server, Memoturn(server.url) as client:
        began = time.monotonic()
        client.db("a").kv.get("n", "k")

        assert 1.0 <= time.monotonic() - began < 5.0
