"""What the command says and how it exits when something is wrong; the server here answers from a script."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


class Scripted(BaseHTTPRequestHandler):
    """Answers every request with the status and body that the test has set on the server."""

    def answer(self) -> None:
        status, body = self.server.script
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "2")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Scripted) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid_request", 1),
        (401, "unauthorized", 1),
        (403, "forbidden", 1),
        (404, "not_found", 3),
        (404, "database_not_found", 3),
        (404, "branch_not_found", 3),
        (408, "request_timeout", 5),
        (409, "already_exists", 4),
        (409, "conflict", 4),
        (412, "precondition_failed", 4),
        (413, "payload_too_large", 1),
        (429, "overloaded", 5),
        (500, "internal", 5),
        (500, "not_durable", 5),
        (503, "unavailable", 5),
        (503, "unconfigured", 1),
    ],
)
def test_exit_code_follows_the_servers_code(command, server, status, code, exit_code):
    server.script = (status, json.dumps({"error": "what failed", "code": code}).encode())

    outcome = command("--url", f"http://127.0.0.1:{server.server_port}", "sync", "app")

    assert outcome.code == exit_code
    assert outcome.stdout == b""
    assert "error: what failed" in outcome.stderr


def test_hint_names_the_wait_that_the_server_asks_for(command, server):
    server.script = (429, b'{"error": "the write queue is full", "code": "overloaded"}')

    outcome = command("--url", f"http://127.0.0.1:{server.server_port}", "sync", "app")

    assert "hint: Nothing was changed; try again. The server asks to wait 2 s." in outcome.stderr


def test_hint_for_a_write_that_is_not_durable_is_to_wait_and_not_to_repeat_it(command, server):
    server.script = (500, b'{"error": "txid 7 is not in object storage yet", "code": "not_durable"}')

    outcome = command("--url", f"http://127.0.0.1:{server.server_port}", "kv", "put", "app", "ns", "k", "v")

    assert outcome.code == 5
    assert "do not repeat it, run `memoturn sync DB`" in " ".join(outcome.stderr.split())
    assert "try again" not in outcome.stderr


def test_no_node_exits_6_and_says_how_to_start_one(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    outcome = command("--url", f"http://127.0.0.1:{port}", "db", "list")

    assert outcome.code == 6
    assert outcome.stdout == b""
    assert "cannot connect" in outcome.stderr
    assert "make run" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("timeout", ["inf", "1e300", "nan"])
def test_a_timeout_is_a_number_that_sockets_take_or_is_refused(command, server, timeout):
    server.script = (200, b'{"databases": [], "next_cursor": null}')

    outcome = command("--url", f"http://127.0.0.1:{server.server_port}", "db", "list", "--timeout", timeout)

    assert outcome.code == (0 if timeout != "nan" else 2)
    assert "Traceback" not in outcome.stderr


def test_a_credential_with_a_line_break_is_named_and_never_shown(command, monkeypatch):
    monkeypatch.setenv("MEMOTURN_TOKEN", "very-secret\n")

    outcome = command("--url", "http://127.0.0.1:9", "db", "list")

    assert outcome.code == 1
    assert "the token has a line break" in outcome.stderr
    assert "very-secret" not in outcome.stderr


def test_something_else_than_a_node_is_named_as_such(command, server):
    server.script = (200, b"<html>hello</html>")

    outcome = command("--url", f"http://127.0.0.1:{server.server_port}", "db", "list")

    assert outcome.code == 5
    assert "is the URL that of a Memoturn node?" in outcome.stderr


def test_a_silent_server_exits_5_after_the_timeout(command, server):
    held = threading.Event()

    class Silent(Scripted):
        def do_GET(self) -> None:
            held.wait(10)
            self.close_connection = True

    server.RequestHandlerClass = Silent
    outcome = command("--url", f"http://127.0.0.1:{server.server_port}", "db", "list", "--timeout", "0.2")
    held.set()

    assert outcome.code == 5
    assert "did not answer" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("memory", "ingest", "ns", "p"),
        ("memory", "ingest", "ns", "p", "--summary", "x", "--type", "rumour"),
        ("memory", "ingest", "ns", "p", "--summary", "x", "--content", "{"),
        ("memory", "ingest", "ns", "p", "--summary", "x", "--embedding", '["a"]'),
        ("memory", "recall", "ns", "p"),
        ("memory", "recall", "ns", "p", "x", "--k", "0"),
        ("sql", "app", " -- nothing but a comment"),
        ("sql", "app", "select ?; select ?", "--params", "[1]"),
        ("sql", "app", "select ?", "--params", "{}"),
        ("kv", "put", "app", "ns", "k"),
        ("--timeout", "0", "db", "list"),
        ("db", "list", "--timeout"),
        ("memory", "list", "ns", "p", "--since", "²"),
        ("docs", "find", "app", "c", "--filter", "[" * 5000),
        ("docs", "insert", "app", "c", "[" * 5000),
        ("turns", "append", "app", "s", "user", "[" * 5000, "--value"),
        ("erase", "request", "app", "5", "--yes"),
        ("erase", "request", "app", "[]", "--yes"),
        ("timelines", "aggregate", "app", "t", "--window", "²s"),
        ("audit", "export", "ns", "folder", "--action", "memory."),
    ],
)
def test_wrong_usage_exits_2_without_a_request(command, arguments):
    outcome = command(*arguments)

    assert outcome.code == 2
    assert outcome.stdout == b""
    assert "Traceback" not in outcome.stderr


def test_an_interrupted_command_exits_130_without_a_traceback(node_url):
    running = subprocess.Popen(
        [sys.executable, "-m", "memoturn", "--url", node_url, "shell"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running.stdin.write(b".help\n")
    running.stdin.flush()
    assert running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)

    assert (running.returncode, b"Traceback" in errors) == (130, False)


def test_help_documents_the_exit_codes(command):
    outcome = command("--help")

    assert outcome.code == 0
    for part in ("Exit codes:", "3 not found", "6 no connection"):
        assert part in " ".join(outcome.text.split())


def test_version_needs_no_node(command):
    assert command("version").text == "memoturn 0.1.0\n"
    assert command("version", "--json").json == {"version": "0.1.0"}
    assert command("--json", "version").json == {"version": "0.1.0"}


def test_without_its_extra_the_command_says_what_to_install():
    hide = "import sys; sys.modules['typer'] = None; from memoturn.cli import main; main()"

    outcome = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)

    assert outcome.returncode == 2
    assert outcome.stderr.strip().splitlines() == [
        "The command line needs more packages than the client, those of the extra memoturn[cli]: in a checkout, pip install './sdk/python[cli]'"
    ]
