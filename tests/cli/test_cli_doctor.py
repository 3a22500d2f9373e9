"""`memoturn doctor`: what it finds, on a live node and on what is wrong."""

import json
import os
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from memoturn import Memoturn
from memoturn.cli.checks import backlog, claims, skew, version
from memoturn.cli.doctor import local

PLATFORM_KEY = "platform-key-of-the-tests"


def found(outcome) -> dict[str, list[dict]]:
    parts: dict[str, list[dict]] = {}
    for check in outcome.json["checks"]:
        parts.setdefault(check["part"], []).append(check)
    return parts


def states(outcome) -> dict[str, str]:
    return {part: checks[-1]["state"] for part, checks in found(outcome).items()}


def test_a_node_that_is_well_passes_without_credentials_where_it_asks_for_none(cli):
    outcome = cli("doctor", "--json")

    assert outcome.code == 0, outcome.text
    told = states(outcome)
    for part in ("server", "store", "leases", "catalog", "version", "clock", "authentication", "backlog"):
        assert told[part] == "ok", outcome.text
    assert "is off" in found(outcome)["authentication"][0]["says"]
    assert cli("doctor").text.startswith("ok    config")


def test_credentials_are_told_apart_and_what_they_may_is_said(command, guarded):
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        operator.create_database("doctored")
        of_db = operator.create_token("doctored", "read", expires_in=7200)["token"]
        of_ns = operator.create_namespace_token("doctors", "admin", expires_in=600)["token"]
        narrow = operator.create_namespace_token("doctors", "write", surfaces=["kv"], expires_in=7200)[
            "token"
        ]
        revoked = operator.create_namespace_token("doctors", "read")
        operator.revoke_namespace_token("doctors", revoked["id"])
    ask = ("doctor", "--json", "--url", guarded.url)

    none = command(*ask)
    both = command(*ask, "--platform-key", PLATFORM_KEY, "--token", of_db)
    soon = command(*ask, "--token", of_ns)
    partly = command(*ask, "--token", narrow)
    gone = command(*ask, "--token", revoked["token"])
    wrong = command(*ask, "--platform-key", "wrong", "--token", "x.y.z")

    assert (none.code, states(none)["authentication"]) == (5, "fail")
    assert "--token or --platform-key" in found(none)["authentication"][0]["mend"]
    assert (both.code, states(both)["token"], states(both)["platform key"]) == (0, "ok", "ok")
    assert "read on database doctored, for 2 hours" in found(both)["token"][0]["says"]
    assert "(flag)" in found(both)["token"][0]["says"]
    assert (soon.code, states(soon)["token"]) == (0, "warn")
    assert "10 more minutes" in found(soon)["token"][0]["says"]
    assert (partly.code, states(partly)["token"]) == (0, "ok")
    assert (gone.code, states(gone)["token"]) == (5, "fail")
    assert (wrong.code, states(wrong)["token"], states(wrong)["platform key"]) == (5, "fail", "fail")
    assert "embeds with" in found(both)["embeddings"][0]["says"]
    assert "extract and ask" in found(both)["language model"][0]["says"]
    for outcome in (none, both, soon, gone, wrong):
        for secret in (of_db, of_ns, PLATFORM_KEY, revoked["token"]):
            assert secret not in outcome.text + outcome.stderr


def test_no_connection_says_where_the_url_comes_from_and_exits_6(command, monkeypatch):
    monkeypatch.setenv("MEMOTURN_URL", "http://127.0.0.1:9")
    outcome = command("doctor")

    assert outcome.code == 6
    assert "fail  server" in outcome.text
    assert "which comes from MEMOTURN_URL" in outcome.text
    assert "1 failed" in outcome.stderr
    assert command("doctor", "--url", "nonsense").code == 6


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://h:b", "http://h:99999", "http://h:0", "http://", "h:80", "//", "http:///x", " "],
)
def test_what_is_no_url_of_a_node_is_told_as_that(command, url):
    outcome = command("doctor", "--url", url)

    assert outcome.code == 6
    assert "fail  url             " in outcome.text
    assert "give http://HOST:PORT" in outcome.text


def test_a_node_that_takes_connections_and_does_not_answer_is_told_from_none(command):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outcome = command("doctor", "--url", url, "--timeout", "0.2")

    assert outcome.code == 6
    assert "takes connections, and does not answer" in outcome.text
    assert "look at its process" in outcome.text


def test_https_where_http_is_spoken_says_so(command, node_url):
    url = node_url.replace("http://", "https://")

    for arguments in (("doctor",), ("db", "list")):
        outcome = command(*arguments, "--url", url)
        assert outcome.code == 6
        assert "speaks no TLS: write http://" in outcome.text + outcome.stderr


def test_a_certificate_that_is_not_trusted_says_so(command, tmp_path):
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost")
    subprocess.run(
        ["openssl", *made, "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    class Silent(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        server.handle_error = lambda *_: None  # it is told of each refusal
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        outcome = command("doctor", "--url", f"https://localhost:{server.server_port}")
        server.shutdown()
        thread.join()

    assert outcome.code == 6
    assert "SSL_CERT_FILE" in outcome.text


def test_a_credential_that_no_request_can_carry_does_not_hide_the_rest(command, node_url, monkeypatch):
    monkeypatch.setenv("MEMOTURN_PLATFORM_KEY", "ключ")
    outcome = command("doctor", "--json", "--url", node_url, "--token", "very-secret\n")

    told = states(outcome)
    assert outcome.code == 5
    assert (told["token"], told["platform key"], told["server"], told["store"]) == (
        "fail",
        "fail",
        "ok",
        "ok",
    )
    assert "(flag)" in found(outcome)["token"][0]["says"]
    assert "very-secret" not in outcome.text


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"pid": "x"}', '{"pid": 99999999999999999999}', "\x00"]
)
def test_a_lock_that_says_nothing_is_no_crash(cli, tmp_path, text):
    (tmp_path / ".lock").write_text(text)

    assert found(cli("doctor", "--json", "--data-dir", str(tmp_path)))["data"][0]["state"] in {"ok", "warn"}


def test_a_store_that_does_not_answer_is_named_and_the_others_are_not(command, scripted):
    scripted(503, {"error": "not ready: store: no answer", "code": "unavailable"}, path="/ready")
    outcome = command("doctor", "--json", "--url", scripted.url)

    told = states(outcome)
    assert outcome.code == 5
    assert (told["store"], told["leases"], told["catalog"]) == ("fail", "ok", "ok")
    assert "MEMOTURN_OBJECT_STORE" in found(outcome)["store"][0]["mend"]


@pytest.fixture
def scripted():
    """A server that is well, but for one path."""
    answers: dict[str, tuple[int, object]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(
                self.path.partition("?")[0], (200, {"databases": [], "next_cursor": None})
            )
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def script(status: int, body: object, *, path: str) -> None:
            answers[path] = (status, body)

        script.url = f"http://127.0.0.1:{server.server_port}"
        yield script
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("there", "state", "words"),
    [
        (100.0, "ok", "agree"),
        (99.0, "ok", "agree"),
        (103.5, "warn", "ahead of"),
        (95.0, "warn", "behind"),
        (200.0, "fail", "100 s ahead of"),
        (10.0, "fail", "89 s behind"),
    ],
)
def test_a_clock_is_judged_by_whole_seconds_and_the_time_of_the_question(there, state, words):
    check = skew(there, before=100.0, after=100.2)
    assert (check.state, words in check.says) == (state, True), check
    assert bool(check.mend) == (state != "ok")


@pytest.mark.parametrize(
    ("server", "state", "words"),
    [
        ("0.1.0", "ok", ""),
        ("0.1.9", "ok", ""),
        ("0.2.0", "warn", "pip install ./sdk/python"),
        ("0.0.9", "warn", "update the server"),
    ],
)
def test_versions_of_one_minor_release_go_together(server, state, words):
    check = version(server, "0.1.0")
    assert (check.state, words in check.mend) == (state, True)


def test_a_backlog_is_judged_by_its_age():
    assert [backlog(size, age).state for size, age in ((0, 0), (9, 1), (9, 20), (9, 100))] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.e30", "a.W10.c", "a.!!.c"])
def test_what_is_no_token_has_no_claims(token):
    assert claims(token) in (None, {})


def test_the_data_directory_of_a_node_here_is_looked_at(command, cli, node_url, tmp_path):
    held, left, none = tmp_path / "held", tmp_path / "left", tmp_path / "none"
    for folder, pid in ((held, os.getpid()), (left, 2**22 - 3)):
        folder.mkdir()
        listen = node_url.removeprefix("http://")
        (folder / ".lock").write_text(json.dumps({"pid": pid, "listen": listen}))

    assert states(cli("doctor", "--json", "--data-dir", str(held)))["data"] == "ok"
    gone = cli("doctor", "--json", "--data-dir", str(left))
    assert "which is gone" in found(gone)["data"][0]["says"]
    missing = cli("doctor", "--json", "--data-dir", str(none))
    assert (missing.code, states(missing)["data"]) == (5, "fail")
    other = command("doctor", "--json", "--data-dir", str(held), "--url", "http://127.0.0.1:9")
    assert "you ask 127.0.0.1:9" in found(other)["data"][0]["says"]
    assert local is not None


def test_a_config_that_others_can_read_and_a_bad_setting_are_warned_of(cli, tmp_path, monkeypatch):
    config = tmp_path / "config.json"
    config.write_text('{"urls": "x"}')
    config.chmod(0o644)
    monkeypatch.setenv("MEMOTURN_CONFIG", str(config))
    monkeypatch.setenv("MEMOTURN_TOKEN", "")

    told = found(cli("doctor", "--json"))

    says = " ".join(check["says"] for check in told["config"])
    assert "unknown member 'urls'" in says
    assert "chmod 600" in says
    assert "MEMOTURN_TOKEN is set and empty" in " ".join(check["says"] for check in told["environment"])
