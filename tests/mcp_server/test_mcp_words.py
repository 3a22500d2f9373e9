"""What a model reads: small, complete, and equal to what the documentation says."""

import base64
import json
import logging
import re
import sys
from pathlib import Path

import memoturn.cli.mcp
import pytest
import typer
from memoturn.errors import BY_CODE
from memoturn.mcp.answers import NEXT_STEPS, fitted, readable
from memoturn.mcp.install.clients import CLIENTS
from memoturn.mcp.logs import JsonLines
from memoturn.mcp.metrics import Metrics
from memoturn.mcp.places import Place, default_place
from memoturn.mcp.server import INSTRUCTIONS, listed
from memoturn.mcp.settings import Pin, Settings
from memoturn.mcp.tools import TOOLS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
CHARACTERS_PER_TOKEN = 4
TOKENS_MAX = 4000
SETTINGS = Settings()


def shown(settings=SETTINGS):
    tools = listed(settings, default_place(settings, None))
    return [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in tools]


def table(heading):
    """The rows of the first table behind a heading, as lists of cells."""
    section = DOCUMENT.split(f"{heading}\n", 1)[1]
    lines = section[section.index("|") :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_all_tools_together_cost_a_model_less_than_four_thousand_tokens():
    text = json.dumps(shown(), ensure_ascii=False, separators=(",", ":"))
    assert len(text) / CHARACTERS_PER_TOKEN < TOKENS_MAX
    assert f"{len(text.encode()) / 1000:.1f} KB of `tools/list`" in DOCUMENT
    pinned = json.dumps(shown(Settings(namespace="a", profile="b", pin=Pin.BRANCH)), separators=(",", ":"))
    assert len(pinned) < len(text)
    assert len(INSTRUCTIONS) / CHARACTERS_PER_TOKEN < 200


def test_every_tool_says_when_to_use_it_and_what_its_answer_looks_like():
    for tool in shown():
        assert re.fullmatch(r"(memory|sessions|turns|docs|kv|branch)_[a-z]+", tool["name"])
        assert 60 < len(tool["description"]) < 500
        assert tool["inputSchema"]["type"] == "object"
        assert {"profile", "branch"} <= set(tool["inputSchema"]["properties"])
        assert tool["outputSchema"]["required"] == ["txid"]
        assert tool["annotations"]["openWorldHint"] is False
        assert "$ref" not in json.dumps(tool)


def test_the_documents_table_of_tools_is_the_tools():
    kinds = {
        tool.name: "reads" if tool.read_only else "destructive" if tool.destructive else "adds"
        for tool in TOOLS
    }
    assert {row[0].strip("`"): row[1] for row in table("## Tools")} == kinds


def test_the_documents_table_of_clients_is_the_clients():
    assert [row[0].strip("`") for row in table("### Clients")] == list(CLIENTS)


def test_the_documents_settings_are_the_commands():
    command = typer.main.get_command(memoturn.cli.mcp.app)
    told = set(re.findall(r"`(MEMOTURN_\w+)`", "".join(" ".join(row) for row in table("### Settings"))))
    own = {option.envvar for option in command.params if getattr(option, "envvar", None)}

    assert own <= told
    assert told - own == {"MEMOTURN_URL", "MEMOTURN_TOKEN"}, "those of every command"


def test_what_a_node_calls_its_errors_makes_no_series():
    metrics = Metrics()
    for number in range(100):
        metrics.called("memory_recall", f"code-{number}", 0.01)
    metrics.called("memory_recall", "overloaded", 0.01)

    told = metrics.text().decode()
    assert 'mcp_calls_total{outcome="other",tool="memory_recall"} 100.0' in told
    assert 'mcp_calls_total{outcome="overloaded",tool="memory_recall"} 1.0' in told


def test_every_error_has_a_next_step():
    assert set(BY_CODE) - {
        "method_not_allowed",
        "unsupported_media_type",
        "idempotency_key_reused",
        "changes_gone",
    } <= set(NEXT_STEPS)


@pytest.mark.parametrize("limit", [300, 1000, 5000, 20_000])
@pytest.mark.parametrize(
    "answer",
    [
        {"memories": [{"id": f"m{n}", "summary": "s" * 3000} for n in range(40)], "txid": 9},
        {"value": "v" * 90_000, "etag": "e", "txid": 9},
        {"memory": {"id": "m", "content": {str(n): "c" * 100 for n in range(900)}}, "txid": 9},
        {"docs": [{"é" * 40: "ü" * 40_000}], "txid": 9},
        {"memories": [], "txid": 9},
        {"value": "😀" * 40_000, "txid": 9},
        {"docs": [{"😀": '"\\\n' * 9000}, {}], "txid": 9},
    ],
)
def test_what_is_too_large_is_cut_to_fit_and_keeps_its_txid(answer, limit):
    cut = fitted(answer, limit)
    size = len(json.dumps(cut, ensure_ascii=False, separators=(",", ":")).encode())
    assert size <= limit
    assert cut["txid"] == 9
    assert ("truncated" in cut) is (cut != answer)


def test_a_page_that_is_cut_has_no_cursor_which_would_lead_past_what_was_left_out():
    rows = [{"id": f"m{n}", "summary": "s" * 500} for n in range(40)]
    page = {"memories": rows, "txid": 9, "next_cursor": "c"}
    cut = fitted(page, 8000)
    left = len(cut["memories"])

    assert cut["memories"] == rows[:left]
    assert 1 < left < 40
    assert "next_cursor" not in cut
    assert f"last {40 - left} of 40 memories" in cut["truncated"]
    assert f"ask for {left} at most" in cut["truncated"]
    assert fitted({**page, "memories": rows[:left]}, 8000)["next_cursor"] == "c"


def test_rows_are_shown_without_what_says_nothing():
    row = {
        "id": "m",
        "summary": "x",
        "content": {"summary": "x"},
        "topic_key": None,
        "keywords": "",
        "pinned": False,
    }
    row |= {"created_at": 1_764_000_000_000, "score": 0.123456, "channels": ["keyword"], "supersedes": []}
    assert readable(row) == {"id": "m", "summary": "x", "created_at": "2025-11-24T16:00:00Z", "score": 0.1235}
    assert readable({"created_at": 10**18}) == {"created_at": str(10**18)}


NESTED = "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c"


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJkYiI6MX0.c", "ä.ö.ü", "a.eyJkYiI6ICJ4In0.c", NESTED],
)
def test_a_token_that_says_nothing_means_the_default(token):
    assert default_place(Settings(), token) == Place("default", "default", "main")


def test_the_settings_go_before_what_a_token_says():
    token = "a.eyJkYiI6ICJhcHAtLWFsaWNlIn0.c"  # {"db": "app--alice"}
    assert str(default_place(Settings(), token)) == "app/alice"
    assert str(default_place(Settings(namespace="app"), token)) == "app/alice"
    assert str(default_place(Settings(namespace="other"), token)) == "other/default"
    assert str(default_place(Settings(profile="bob", branch="b"), token)) == "default/bob@b"


def test_logs_show_of_other_packages_neither_what_was_sent_nor_a_stack():
    secret = "eyJhbGciOiJFZERTQSJ9.c2VjcmV0.AAAA"  # pragma: allowlist secret
    try:
        json.loads(secret)
    except ValueError:
        record = logging.LogRecord(
            "mcp.server", logging.ERROR, __file__, 1, "dropped %r", (secret,), sys.exc_info()
        )
    line = json.loads(JsonLines().format(record))
    assert line["event"] == "dropped %r"
    assert line["error"] == "JSONDecodeError"
    assert secret not in json.dumps(line)
