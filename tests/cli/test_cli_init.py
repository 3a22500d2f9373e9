"""`memoturn init`, the config file, and completion."""

import json
import os
import signal
import socket
import stat

import pytest
from memoturn import Memoturn
from memoturn.cli import config, init

PLATFORM_KEY = "platform-key-of-the-tests"


def test_init_makes_a_database_and_a_config_that_the_next_command_goes_by(cli, command, node_url, tmp_path):
    made = cli("init", "--db", "notes")
    again = cli("init", "--db", "notes", "--json")

    assert made.code == 0, made.stderr
    assert "database notes is created" in made.text
    assert "memoturn sql notes" in made.text
    assert again.json["created"] is False
    where = tmp_path / "config" / "memoturn" / "config.json"
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert json.loads(where.read_text()) == {"url": node_url}
    assert command("sql", "notes", "select 1").text == "1\n", "without --url"


def test_flags_win_over_the_environment_and_that_over_the_config(cli, command, node_url, monkeypatch):
    cli("init")
    assert command("db", "list").code == 0
    monkeypatch.setenv("MEMOTURN_URL", "http://127.0.0.1:9")
    assert command("db", "list").code == 6
    assert command("db", "list", "--url", node_url).code == 0


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a config file, and have the command go by it."""

    def write(text: bytes | str):
        where = tmp_path / "own.json"
        where.write_bytes(text if isinstance(text, bytes) else text.encode())
        where.chmod(0o600)
        monkeypatch.setenv("MEMOTURN_CONFIG", str(where))
        return where

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_config_may_be_written_by_any_editor(command, node_url, written, encoding, end):
    written(f'{{{end}  "url": "{node_url}"{end}}}{end}'.encode(encoding))

    assert command("db", "list").code == 0


@pytest.mark.parametrize(
    "text", ['{"url": "http://other",}', b"\xff\xfe\xff", "[]", '{"url": 1}', "", "[" * 100_000]
)
def test_a_config_that_says_nothing_is_not_taken_for_the_default(command, node_url, written, text):
    """A command that went to another node than the one meant might write there."""
    where = written(text)

    refused = command("memory", "ingest", "app", "ann", "--summary", "x")
    told = command("doctor", "--json")

    assert refused.code == 1
    assert str(where) in refused.stderr
    assert "mend it" in refused.stderr
    (config_check,) = [check for check in told.json["checks"] if check["part"] == "config"]
    assert config_check["state"] == "fail"
    assert "memoturn init" in config_check["mend"]
    assert command("db", "list", "--url", node_url).code == 0, "who says where is not held up"
    assert command("version").code == 0
    assert command("init", "--url", node_url).code == 0
    assert json.loads(where.read_text()) == {"url": node_url}, "it was written anew"


def test_a_credential_that_the_config_names_and_that_is_not_there_is_missed(
    command, node_url, written, tmp_path
):
    written(json.dumps({"url": node_url, "token_file": "none"}))

    refused = command("db", "list")

    assert refused.code == 1
    assert f"{tmp_path / 'none'}, which" in refused.stderr
    assert command("db", "list", "--token", "another").code == 0


def test_init_keeps_the_credentials_that_the_config_names_wherever_they_lie(
    command, node_url, written, tmp_path
):
    (tmp_path / "vault").mkdir()
    for name in ("mine", "key"):
        (tmp_path / "vault" / name).write_bytes(b"secret\r\n")
        (tmp_path / "vault" / name).chmod(0o600)
    said = {"url": node_url, "token_file": "vault/mine", "platform_key_file": str(tmp_path / "vault/key")}
    where = written(json.dumps(said))

    assert command("init").code == 0

    assert json.loads(where.read_text()) == said
    assert config.load().token == "secret"


def test_init_for_a_profile_says_how_its_first_memory_is_stored(cli):
    made = cli("init", "--db", "app--carl", "--no-save")

    assert "memoturn memory ingest app carl" in made.text
    assert "wrote" not in made.text


def test_a_token_is_kept_beside_the_config_and_is_read_by_its_owner_alone(command, guarded, tmp_path):
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        token = operator.create_namespace_token("kept", "write")["token"]

    made = command("init", "--token-stdin", "--url", guarded.url, stdin=token.encode() + b"\n")

    assert made.code == 0, made.stderr
    folder = tmp_path / "config" / "memoturn"
    assert token not in (folder / "config.json").read_text() + made.text
    assert (folder / "token").read_text().strip() == token
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    ingest = ("memory", "ingest", "kept", "ann", "--summary", "Ann is vegan")
    assert command(*ingest).code == 0
    assert command("init", "--db", "kept--ann", "--url", guarded.url).code == 0
    assert command(*ingest).code == 0, "the token that was there stays"


def test_without_a_node_init_says_so_and_writes_nothing(command, tmp_path):
    outcome = command("init", "--url", "http://127.0.0.1:9")

    assert outcome.code == 6
    assert not (tmp_path / "config").exists()
    far = command("init", "--start", "--url", "http://192.0.2.1:9", "--timeout", "0.2")
    assert far.code in {2, 5}


def test_init_starts_a_node_that_outlives_it(command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    made = command(
        "init", "--start", "--json", "--data-dir", str(tmp_path / "data"), "--url", f"http://127.0.0.1:{port}"
    )
    assert made.code == 0, made.stderr
    pid = made.json["node"]["pid"]
    try:
        assert command("memory", "ingest", "app", "ann", "--summary", "x").code == 0
        assert command("doctor").code == 0
    finally:
        os.kill(pid, signal.SIGTERM)
        assert init._nodes.pop().wait(20) == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "takes a JSON object"),
        ('{"url": 3}', "takes a JSON object"),
        ('{"token_file": "nowhere"}', "cannot be read"),
    ],
)
def test_a_config_that_is_wrong_is_left_out_and_named(tmp_path, monkeypatch, text, problem):
    where = tmp_path / "config.json"
    where.write_text(text)
    where.chmod(0o600)
    monkeypatch.setenv("MEMOTURN_CONFIG", str(where))

    known = config.load()

    assert (known.url, known.token) == (None, None)
    assert problem in " ".join(known.problems)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("memoturn bran", ["branch"]),
        ("memoturn branch rewind --d", ["--dry-run"]),
        ("memoturn sync completed", ["completed--ann"]),
        ("memoturn sync completed--ann@", ["completed--ann@main", "completed--ann@fork"]),
        ("memoturn branch rewind completed--ann f", ["fork"]),
        ("memoturn memory recall completed a", ["ann"]),
        ("memoturn completions f", ["fish"]),
        ("memoturn kv get no-such-thing", []),
    ],
)
def test_shells_complete_commands_options_and_names_that_the_node_knows(
    cli, command, node_url, monkeypatch, line, words
):
    cli("memory", "ingest", "completed", "ann", "--summary", "x")
    cli("branch", "create", "completed--ann", "fork")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    monkeypatch.setenv("_MEMOTURN_COMPLETE", "complete_bash")
    monkeypatch.setenv("MEMOTURN_URL", node_url)

    assert command().text.split() == words


def test_completion_speaks_of_the_names_of_the_tenant(command, guarded, monkeypatch):
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        operator.create_tenant("completing")
        operator.create_database("of-default")
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY, tenant="completing") as operator:
        operator.create_database("of-the-tenant")
    for name, value in {
        "COMP_WORDS": "memoturn db delete of-",
        "COMP_CWORD": "3",
        "_MEMOTURN_COMPLETE": "complete_bash",
        "MEMOTURN_URL": guarded.url,
        "MEMOTURN_PLATFORM_KEY": PLATFORM_KEY,
        "MEMOTURN_TENANT": "completing",
    }.items():
        monkeypatch.setenv(name, value)

    assert command().text.split() == ["of-the-tenant"]


def test_completion_without_a_node_is_quiet(command, monkeypatch):
    monkeypatch.setenv("COMP_WORDS", "memoturn sync a")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_MEMOTURN_COMPLETE", "complete_bash")
    monkeypatch.setenv("MEMOTURN_URL", "http://127.0.0.1:9")

    outcome = command()

    assert (outcome.text.strip(), outcome.stderr) == ("", "")
