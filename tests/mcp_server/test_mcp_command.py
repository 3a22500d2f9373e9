"""`memoturn mcp` and `memoturn mcp install` as commands."""

import json
import os
import re
import socket
from pathlib import Path

import pytest
from memoturn.cli import mcp as command
from memoturn.cli.app import run
from typer.main import get_command

from memoturnd.config import CLIENT_VARIABLES

DOCUMENT = Path(__file__).parents[2] / "docs" / "mcp.md"
TOKEN = "eyJ.secret.token"


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run the command with a home folder of its own; return its exit code, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith(("MEMOTURN_", "XDG_", "CODEX_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def call(*arguments):
        code = run(arguments)
        captured = capsys.readouterr()
        return int(code), captured.out, " ".join(captured.err.split())

    return call


def test_what_it_cannot_start_with_is_said_and_nothing_is_served(cli, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for arguments, env, said in (
        ((), {"MEMOTURN_TOKEN": "${MEMOTURN_TOKEN}"}, "has not put a value there"),
        (("--token-file", "/nowhere/token"), {}, "/nowhere/token cannot be read"),
        (("--token-file", str(empty)), {}, "is empty"),
        (("--pin", "profile"), {}, "name it with --namespace and --profile"),
        (("--pin", "branch", "--namespace", "app"), {}, "name it with --profile"),
        (("--log-level", "loud"), {}, "takes one of"),
        (("--http", "70000"), {}, "65535"),
    ):
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            code, out, err = cli("mcp", *arguments)
        assert code not in {0, None}, arguments
        assert out == ""
        assert said in err


def test_a_port_that_is_taken_is_said(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments in (("--http", port), ("--http", f"--port={port}"), (f"--http={port}",)):
            code, _, err = cli("mcp", *arguments)
            assert code != 0
            assert f"cannot listen on 127.0.0.1:{port}" in err


def test_without_the_extra_it_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    for arguments in ((), ("install", "cursor", "--print")):
        code, _, err = cli("mcp", *arguments)
        assert code != 0
        assert "pip install './sdk/python[mcp]'" in err


def test_install_writes_once_prints_what_it_would_and_takes_it_out_again(cli, tmp_path):
    path = tmp_path / ".cursor" / "mcp.json"
    code, printed, _ = cli("mcp", "install", "cursor", "--print", "--profile", "alice")
    assert code == 0
    assert not path.exists()
    assert str(path) in printed
    code, _, _ = cli("mcp", "install", "cursor", "--profile", "alice")
    assert code == 0
    written = path.read_text()
    assert written.rstrip("\n") in printed
    assert json.loads(written)["mcpServers"]["memoturn"]["args"][-2:] == ["--profile", "alice"]

    _, again, _ = cli("mcp", "install", "cursor", "--profile", "alice")
    assert "nothing was changed" in again
    _, shown, _ = cli("--json", "mcp", "install", "cursor", "--uninstall")
    assert json.loads(shown)["changed"] is True
    assert json.loads(path.read_text())["mcpServers"] == {}


def test_install_shows_and_writes_no_token(cli, tmp_path):
    for shown in (
        cli("--token", TOKEN, "mcp", "install", "zed", "--print"),
        cli("--token", TOKEN, "mcp", "install", "zed"),
    ):
        assert shown[0] == 0
        assert TOKEN not in shown[1] + shown[2]
    settings = (tmp_path / ".config" / "zed" / "settings.json").read_text()
    assert TOKEN not in settings
    secret = json.loads(settings)["context_servers"]["memoturn"]["env"]["MEMOTURN_TOKEN_FILE"]
    assert Path(secret).read_text().strip() == TOKEN
    _, out, _ = cli("mcp", "install", "zed", "--uninstall")
    assert "no more in" in out
    assert not Path(secret).exists()


def test_install_without_a_client_names_them_and_which_are_here(cli, tmp_path):
    (tmp_path / ".gemini").mkdir()
    code, out, _ = cli("--json", "mcp", "install")
    rows = {row["client"]: row["found"] for row in json.loads(out)["clients"]}
    assert code == 0
    assert rows["gemini"] is True
    assert rows["cursor"] is False
    assert rows["claude-code"] is False


def test_every_variable_is_told_of_and_may_stand_in_a_nodes_environment():
    told = set(re.findall(r"`(MEMOTURN_\w+)`", DOCUMENT.read_text()))
    variables = {name for option in get_command(command.app).params for name in [option.envvar] if name}

    assert len(variables) > 15
    assert variables - told == set()
    assert variables - CLIENT_VARIABLES == {"MEMOTURN_LOG_LEVEL"}  # a node has it, too
