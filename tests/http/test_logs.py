"""What the log says of requests: ids, databases and txids by themselves, nothing without a bound, nothing of no use."""

import asyncio
import io
import json
import logging

import pytest
import structlog
from http_calls import FACT, ingest
from http_support import client_of, limits

from memoturnd import logs
from memoturnd.http.app import create_app
from memoturnd.logs import RequestContext, RequestLog, apart, request_context, request_id, set_up_logging
from memoturnd.peers import HttpPeers


@pytest.fixture
def lines(monkeypatch):
    """Reads what was logged since the last look, as it really comes: JSON on stderr."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    kept, handlers = structlog.get_config(), list(logging.root.handlers)
    logging.root.handlers.clear()
    settings = type("Settings", (), {"log_level": "debug", "log_format": "json"})()
    set_up_logging(settings)
    structlog.configure(cache_logger_on_first_use=False)

    def read():
        text = stderr.getvalue()
        stderr.seek(0)
        stderr.truncate()
        return [json.loads(line) for line in text.splitlines()]

    yield read
    structlog.configure(**kept)
    logging.root.handlers[:] = handlers


@pytest.fixture
async def logged(node, lines):
    """A client of a node that logs every request."""
    async with client_of(create_app(node, limits(request_log="all"))) as client:
        yield client


def of_requests(lines):
    return [line for line in lines if line["event"] == "request"]


# ---- lines of requests


async def test_a_request_has_a_line_with_all_that_is_known_of_it(logged, lines):
    answer = await ingest(logged, FACT)
    [line] = of_requests(lines())

    assert line["request_id"] == answer.headers["memoturn-request-id"]
    assert line["txid"] == int(answer.headers["memoturn-txid"])
    assert (line["db"], line["branch"]) == ("app--ann", "app--ann@main")
    assert (line["method"], line["route"]) == ("POST", "/v1/memory/{ns}/{profile}/memories")
    assert (line["status"], line["level"]) == (201, "info")
    assert 0 < line["ms"] < 5000


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/db/app--ann@draft/kv/ns/k", {"db": "app--ann", "branch": "app--ann@draft"}),
        ("/v1/db/app--ann/branches/draft/checkpoints", {"db": "app--ann", "branch": "app--ann@draft"}),
        ("/v1/databases/app--ann/usage", {"db": "app--ann"}),
        ("/v1/memory/app/ann/topics?branch=draft", {"db": "app--ann", "branch": "app--ann@draft"}),
        ("/v1/db/No%20Name/kv/ns/k", {}),
        ("/nowhere/at/all", {}),
        ("/health", {}),
    ],
)
async def test_a_line_names_the_database_and_branch_as_far_as_they_are_known(logged, lines, path, known):
    await logged.get(path, headers={"memoturn-request-id": "mine"})
    [line] = of_requests(lines())

    assert {name: line[name] for name in ("db", "branch") if name in line} == known
    assert line["request_id"] == "mine"
    assert "No" not in line["route"]


async def test_an_id_that_is_not_fit_to_be_logged_is_replaced(logged, lines):
    await logged.get("/health", headers={"memoturn-request-id": 'x" }\t{'})

    [line] = of_requests(lines())
    assert len(line["request_id"]) == 16


@pytest.mark.parametrize(("which", "written"), [("off", []), ("problems", [503]), ("all", [200, 404, 503])])
async def test_which_requests_have_a_line_is_a_setting(node, lines, monkeypatch, which, written):
    async with client_of(create_app(node, limits(request_log=which))) as client:
        await client.get("/health")
        await client.get("/nowhere")

        async def not_ready():
            raise logs_error()

        monkeypatch.setattr(node, "ready", not_ready)
        await client.get("/ready")

    assert [line["status"] for line in of_requests(lines())] == written


def logs_error():
    from memoturnd.errors import RetryableError

    return RetryableError("the store does not answer")


def test_slow_requests_are_problems_unless_they_may_wait(lines):
    log = RequestLog("problems", slow_s=0.5, now_s=lambda: 1.0)

    log.note("/a", "GET", 200, 0.4)
    log.note("/b", "GET", 200, 0.6)
    log.note("/c", "GET", 200, 60.0, may_wait=True)
    RequestLog("problems", slow_s=0, now_s=lambda: 1.0).note("/d", "GET", 200, 1e6)

    assert [(line["route"], line["level"]) for line in lines()] == [("/b", "warning")]


def test_a_flood_of_requests_is_counted(lines):
    now = [7.0]
    log = RequestLog("all", slow_s=0, now_s=lambda: now[0])

    for _ in range(logs.REQUESTS_PER_S + 50):
        log.note("/a", "GET", 200, 0.1)
    assert len(lines()) == logs.REQUESTS_PER_S
    now[0] = 8.0
    log.note("/a", "GET", 200, 0.1)

    assert [(line["event"], line.get("count")) for line in lines()] == [
        ("requests without a line of their own", 50),
        ("request", None),
    ]


# ---- every other line


async def test_a_failure_is_found_by_its_request_id_and_says_where_it_was(node, lines, monkeypatch):
    async def broken(*_, **__):
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(node, "profile", broken)
    async with client_of(create_app(node, limits())) as client:
        answer = await client.get("/v1/db/app--ann/kv/ns/k")
    failed, request = lines()

    assert answer.status_code == 500
    assert failed["request_id"] == request["request_id"] == answer.headers["memoturn-request-id"]
    assert (failed["event"], failed["branch"], failed["level"]) == (
        "request_failed",
        "app--ann@main",
        "error",
    )
    assert "ZeroDivisionError" in failed["exception"]


async def test_what_is_logged_amid_a_request_says_which_and_what_outlives_it_does_not(lines):
    log = structlog.get_logger("memoturn.test")

    async def work(event):
        log.warning(event)

    context = RequestContext(b"r1")
    context.about = lambda: ("app--ann", "main")
    with request_context(context):
        log.warning("amid", branch="app--ann@other")
        logging.getLogger("some.library").warning("of a %s", "library")
        await asyncio.create_task(work("a task of it"))
        assert request_id() == b"r1"
        outliving = asyncio.create_task(work("outlives it"), context=apart())
    await outliving
    log.warning("after", branch="app--bob@main")

    told = [(line["event"], line.get("request_id"), line.get("branch"), line.get("db")) for line in lines()]
    assert told == [
        ("amid", "r1", "app--ann@other", "app--ann"),
        ("of a library", "r1", "app--ann@main", "app--ann"),
        ("a task of it", "r1", "app--ann@main", "app--ann"),
        ("outlives it", None, None, None),
        ("after", None, "app--bob@main", "app--bob"),
    ]
    assert request_id() is None


async def test_tasks_that_the_node_starts_are_about_no_request(node):
    """Guard: memoturnd.node.running gives what it spawns a context of its own."""
    found = []

    async def look():
        found.append(request_id())

    with request_context(RequestContext(b"r1")):
        await node._services.spawn(look())

    assert found == [None]


def fail(text):
    raise ValueError(text)


def test_lines_have_a_bound(lines):
    log = structlog.get_logger("memoturn.test")
    log.warning("long", error="x" * 100_000, many=list(range(1000)))
    try:
        fail("y" * 100_000)
    except ValueError:
        log.exception("fails")
    logging.getLogger("some.library").error("z" * 100_000)

    assert max(len(json.dumps(line)) for line in lines()) < logs.TRACE_LENGTH + 1000


def test_tracebacks_of_libraries_are_lines_too(lines):
    try:
        fail("inside")
    except ValueError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")

    [line] = lines()
    assert (line["event"], line["level"], line["logger"]) == (
        "Task exception was never retrieved",
        "error",
        "asyncio",
    )
    assert "ValueError: inside" in line["exception"]


async def test_nodes_that_ask_one_another_pass_the_id_on():
    seen = []

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(
            [line for line in head.decode().splitlines() if line.lower().startswith("memoturn-request-id")]
        )
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    peers = HttpPeers(lambda: "key")
    with request_context(RequestContext(b"r9")):
        await peers.ask(url, "/internal/x", timeout_s=5)
    await peers.ask(url, "/internal/x", timeout_s=5)
    await peers.close()
    server.close()
    await server.wait_closed()

    assert seen == [["Memoturn-Request-Id: r9"], []]
