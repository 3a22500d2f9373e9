"""The command against a real node: what each subcommand does, prints and leaves behind."""

import itertools
import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

_NUMBERS = itertools.count(1)


@pytest.fixture
def profile(cli):
    """A profile of its own with one superseded fact and an event."""
    name = f"p{next(_NUMBERS)}"
    ingest = ("memory", "ingest", "cli", name, "--type", "fact", "--topic", "user.diet")
    old = cli(*ingest, "--summary", "Eats everything", "--json").json["results"][0]["id"]
    new = cli(*ingest, "--summary", "Is vegan now", "--json").json["results"][0]["id"]
    event = (
        "memory",
        "ingest",
        "cli",
        name,
        "--type",
        "event",
        "--summary",
        "Ordered tofu",
        "--session",
        "s1",
    )
    cli(*event, "--keywords", "dinner")
    return name, old, new


def test_ingest_tells_what_it_superseded_and_the_txid(cli):
    first = cli("memory", "ingest", "cli", "ingest", "--summary", "A", "--topic", "t")
    second = cli("memory", "ingest", "cli", "ingest", "--summary", "B", "--topic", "t")

    created = dict(first.lines)
    assert first.code == 0
    assert created["status"] == "created"
    assert re.fullmatch(r"mem_[0-9a-f]{32}", created["id"])
    assert dict(second.lines)["superseded"] == created["id"]
    before, after = (
        int(re.fullmatch(r"txid (\d+) \(durable \d+\)\n", done.stderr)[1]) for done in (first, second)
    )
    assert 0 < before < after


def test_ingest_again_is_a_duplicate(cli):
    arguments = ("memory", "ingest", "cli", "twice", "--summary", "A", "--topic", "t")
    cli(*arguments)

    assert dict(cli(*arguments).lines)["status"] == "duplicate"


def test_durable_ingest_is_in_object_storage_when_it_returns(cli):
    outcome = cli("memory", "ingest", "cli", "durable", "--summary", "A", "--durable", "--json")

    assert outcome.json["durable_txid"] >= outcome.json["txid"] > 0
    assert outcome.stderr == f"txid {outcome.json['txid']} (durable {outcome.json['durable_txid']})\n"


def test_content_defaults_to_the_summary_and_takes_any_json(cli):
    plain = cli("memory", "ingest", "cli", "content", "--type", "event", "--summary", "A", "--json")
    given = cli(
        "memory",
        "ingest",
        "cli",
        "content",
        "--type",
        "event",
        "--summary",
        "B",
        "--content",
        "[1,null]",
        "--json",
    )

    def content(outcome):
        return cli("memory", "get", "cli", "content", outcome.json["results"][0]["id"], "--json").json[
            "content"
        ]

    assert content(plain) == {"summary": "A"}
    assert content(given) == [1, None]


def test_recall_by_words_finds_the_active_fact_only(cli, profile):
    name, old, new = profile

    ids = [line[-1] for line in cli("memory", "recall", "cli", name, "vegan").lines]
    by_topic = cli(
        "memory", "recall", "cli", name, "--topic", "user.diet", "--include-superseded", "--json"
    ).json

    assert ids == [new]
    assert {hit["id"] for hit in by_topic["memories"]} == {old, new}


def test_recall_filters_by_type_and_session(cli, profile):
    name, _, new = profile

    events = cli("memory", "recall", "cli", name, "vegan tofu", "--type", "event", "--json").json["memories"]
    both = cli(
        "memory", "recall", "cli", name, "vegan tofu", "--type", "event", "--type", "fact", "--json"
    ).json
    session = cli("memory", "recall", "cli", name, "vegan tofu", "--session", "s1", "--json").json["memories"]

    assert [hit["type"] for hit in events] == ["event"]
    assert {hit["type"] for hit in both["memories"]} == {"event", "fact"}
    assert new not in [hit["id"] for hit in session]


def test_recall_explain_shows_the_rank_in_every_channel(cli):
    for summary, embedding in (("red apples", "[1, 0]"), ("green pears", "[0, 1]")):
        cli(
            "memory",
            "ingest",
            "cli",
            "explain",
            "--type",
            "event",
            "--summary",
            summary,
            "--embedding",
            embedding,
        )

    asked = ("memory", "recall", "cli", "explain", "apples", "--embedding", "[0.9, 0.1]", "--explain")
    best = cli(*asked).lines[0]

    assert best[3] == "red apples"
    assert "keyword #1" in best[4]
    assert "vector #1 (distance 0.006" in best[4]


def test_recall_of_an_unknown_profile_is_empty_and_fine(cli):
    outcome = cli("memory", "recall", "cli", "nobody", "anything")

    assert (outcome.code, outcome.stdout) == (0, b"")
    assert "nothing recalled" in outcome.stderr


def test_get_shows_the_chain_both_ways(cli, profile):
    name, old, new = profile

    assert dict(cli("memory", "get", "cli", name, old).lines)["superseded by"] == new
    assert dict(cli("memory", "get", "cli", name, new).lines)["supersedes"] == old


def test_forget_removes_it_and_a_second_time_exits_3(cli, profile):
    name, old, new = profile

    assert cli("memory", "forget", "cli", name, old).code == 0
    again = cli("memory", "forget", "cli", name, old)

    assert again.code == 3
    assert f"cli/{name} has no memory {old}" in again.stderr
    assert cli("memory", "get", "cli", name, old).code == 3
    assert "supersedes" not in dict(cli("memory", "get", "cli", name, new).lines)


def test_ending_a_session_deletes_its_tasks_only(cli, profile):
    name, _, _ = profile
    cli(
        "memory",
        "ingest",
        "cli",
        name,
        "--type",
        "task",
        "--summary",
        "call tofu shop",
        "--session",
        "s1",
        "--ttl",
        "600",
    )

    assert [line[0] for line in cli("memory", "sessions", "cli", name).lines] == ["s1"]
    assert cli("memory", "end-session", "cli", name, "s1").text == "ended session s1\n"

    assert cli("memory", "sessions", "cli", name, "--json").json["sessions"] == []
    found = cli("memory", "recall", "cli", name, "tofu", "--json").json["memories"]
    assert [hit["summary"] for hit in found] == ["Ordered tofu"]


def test_profiles_lists_the_namespace_alone(cli):
    cli("memory", "ingest", "lone", "b", "--summary", "x")
    cli("memory", "ingest", "lone", "a", "--summary", "x")
    cli("memory", "ingest", "lone2", "c", "--summary", "x")

    assert [line[0] for line in cli("memory", "profiles", "lone").lines] == ["a", "b"]


def test_databases_are_created_listed_and_deleted(cli):
    made = cli("db", "create", "cli-app", "--json").json

    assert made["name"] == "cli-app"
    assert re.fullmatch(r"[0-9a-f]{32}", made["uuid"])
    assert ["cli-app", made["uuid"]] in [
        [line[0], line[2]] for line in cli("db", "list", "--prefix", "cli-").lines
    ]
    assert cli("db", "create", "cli-app").code == 4
    assert cli("db", "delete", "cli-app").text == "deleted database cli-app\n"
    assert cli("db", "delete", "cli-app").code == 3
    assert cli("db", "list", "--prefix", "cli-app", "--json").json == {"databases": []}


def test_a_fork_changes_nothing_on_main(cli, profile):
    name, _, new = profile
    db = f"cli--{name}"

    fork = cli("branch", "create", db, "what-if", "--json").json
    cli("memory", "forget", "cli", name, new, "--branch", "what-if")

    assert (fork["spec"], fork["parent"]) == (f"{db}@what-if", "main")
    assert cli("memory", "get", "cli", name, new, "--branch", "what-if").code == 3
    assert cli("memory", "get", "cli", name, new).code == 0
    assert [line[:2] for line in cli("branch", "list", db).lines] == [["what-if", "main"]]
    assert cli("branch", "create", db, "what-if").code == 4
    assert cli("branch", "delete", db, "what-if").code == 0
    assert cli("branch", "undelete", db, "what-if").text == f"branch {db}@what-if is there again\n"
    assert cli("branch", "undelete", db, "what-if").code != 0
    assert cli("branch", "delete", db, "what-if").code == 0
    assert cli("branch", "list", db).lines == []


def test_a_fork_at_a_checkpoint_or_txid_has_that_state(cli):
    cli("db", "create", "at")
    cli("sql", "at", "create table t(n); insert into t values (1)")
    early = cli("branch", "checkpoint", "at", "main", "early", "--json").json["txid"]
    cli("sql", "at", "insert into t values (2)")

    cli("branch", "create", "at", "by-name", "--at", "early")
    cli("branch", "create", "at", "by-txid", "--at", str(early), "--ttl", "3600")

    assert cli("sql", "at@by-name", "select n from t").text == "1\n"
    assert cli("sql", "at@by-txid", "select n from t").text == "1\n"
    assert cli("sql", "at", "select n from t").text == "1\n2\n"
    burner = {line[0]: line for line in cli("branch", "list", "at").lines}["by-txid"]
    assert burner[2] == str(early)
    assert burner[4].endswith("Z")
    assert cli("branch", "create", "at", "nope", "--at", "no-such-checkpoint").code == 3


def test_rewind_brings_a_state_back_and_undo_takes_it_away_again(cli, profile):
    name, _, new = profile
    db = f"cli--{name}"
    good = cli("branch", "checkpoint", db, "main", "good", "--json").json["txid"]
    cli("memory", "forget", "cli", name, new)

    rewound = cli("branch", "rewind", db, "main", "good", "--json").json

    assert rewound["rewound_to"] == good
    assert rewound["txid"] > good
    assert cli("memory", "get", "cli", name, new).code == 0

    undone = cli("branch", "undo", db, "main", "--json").json

    assert undone["txid"] > rewound["txid"]
    assert cli("memory", "get", "cli", name, new).code == 3
    assert cli("branch", "rewind", db, "main", "never-made").code == 3
    assert cli("branch", "rewind", db, "main", "999999").code in {3, 4}


def test_checkpoints_are_listed_and_dropped(cli, profile):
    db = f"cli--{profile[0]}"
    cli("branch", "checkpoint", db, "main", "one")

    assert [line[0] for line in cli("branch", "checkpoints", db, "main").lines] == ["one"]
    assert cli("branch", "delete-checkpoint", db, "main", "one").code == 0
    assert cli("branch", "checkpoints", db, "main", "--json").json == {"checkpoints": []}
    assert cli("branch", "delete-checkpoint", db, "main", "one").code == 3


def test_sql_runs_a_script_from_stdin_as_one_transaction(cli):
    cli("db", "create", "script")
    script = b"create table t(a, b);\n-- a; comment\ninsert into t values ('x;y', x'00ff'), (null, 1.5);\nselect * from t;"

    outcome = cli("sql", "script", stdin=script)

    assert outcome.text == "x;y\tx'00ff'\n\t1.5\n"
    assert "2 rows affected" in outcome.stderr
    assert cli("sql", "script", "insert into t values (1,2); select * from missing").code == 1
    assert cli("sql", "script", "select count(*) from t").text == "2\n"


def test_sql_takes_parameters_and_prints_json(cli):
    cli("db", "create", "params")

    outcome = cli("sql", "params", "select ? as a, ? as b", "--params", r'[1, "x\ty"]', "--json")

    assert outcome.json["results"] == [{"columns": ["a", "b"], "rows": [[1, "x\ty"]], "rows_affected": 0}]
    assert cli("sql", "params", "select ?", "--params", '["x\\ty\\nz"]').text == "x\\ty\\nz\n"


def test_sql_on_reserved_tables_is_refused(cli, profile):
    outcome = cli("sql", f"cli--{profile[0]}", "select * from __memoturn_memories")

    assert outcome.code == 1
    assert "reserved" in outcome.stderr


@pytest.mark.parametrize("key", ["plain", "a/b", "..", "sp ace", "ключ?#%2F"])
def test_kv_returns_the_very_bytes_under_any_key(cli, key):
    cli("db", "create", "kv")
    value = bytes(range(256))

    put = cli("kv", "put", "kv", "ns", key, "-", stdin=value)
    got = cli("kv", "get", "kv", "ns", key)

    assert put.code == 0
    assert got.stdout == value
    assert [key] in cli("kv", "list", "kv", "ns").lines
    assert cli("kv", "delete", "kv", "ns", key).code == 0
    assert cli("kv", "get", "kv", "ns", key).code == 3


def test_kv_prints_json_expires_and_lists_by_prefix(cli):
    cli("db", "create", "kv2")
    cli("kv", "put", "kv2", "ns", "user:1", "é")
    cli("kv", "put", "kv2", "ns", "user:2", "gone", "--ttl", "0")
    cli("kv", "put", "kv2", "ns", "other", "x")

    assert cli("kv", "get", "kv2", "ns", "user:1", "--json").json["value"] == "é"
    assert cli("kv", "list", "kv2", "ns", "--prefix", "user:").text == "user:1\n"
    assert cli("kv", "get", "kv2", "ns", "user:2").code == 3


def test_sync_makes_everything_durable(cli):
    cli("db", "create", "synced")
    txid = cli("kv", "put", "synced", "ns", "k", "v", "--json").json["txid"]

    assert cli("sync", "synced", "--txid", str(txid), "--json").json["txid"] >= txid
    assert cli("sync", "synced").text == f"synced is in object storage up to txid {txid}\n"
    assert cli("sync", "no-such-database").code == 3


@pytest.mark.parametrize("name", ["UPPER", "a--b", "-a", "ü"])
def test_bad_names_are_refused_with_the_servers_words(cli, name):
    outcome = cli("memory", "ingest", "--summary", "x", "--", "cli", name)

    assert outcome.code == 1
    assert "error: " in outcome.stderr


def on_a_terminal(
    node_url: str, *arguments: str, answer: bytes = b"", columns: int = 160, **variables: str
) -> tuple[int, str]:
    """Run the command on a terminal of its own and return its exit code and all that the terminal showed."""
    terminal, inner = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": str(columns), "MEMOTURN_URL": node_url}
    environment.pop("NO_COLOR", None)
    environment |= variables
    process = subprocess.Popen(
        [sys.executable, "-m", "memoturn", *arguments],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env=environment,
    )
    os.close(inner)
    os.write(terminal, answer)
    shown = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and select.select([terminal], [], [], 20)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # Linux says EIO once the other side is closed
            break
    os.close(terminal)
    return process.wait(10), shown.decode()


def test_a_terminal_gets_a_coloured_table_and_no_control_characters_of_memories(cli, node_url):
    cli("memory", "ingest", "cli", "tty", "--summary", "clear \x1b[2J screen", "--type", "event")

    code, shown = on_a_terminal(node_url, "memory", "recall", "cli", "tty", "screen")

    assert code == 0
    assert "\x1b[1m" in shown
    assert "summary" in shown
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J" in shown


def test_a_narrow_terminal_still_shows_whole_ids(profile, node_url):
    name, _, new = profile

    code, shown = on_a_terminal(node_url, "memory", "recall", "cli", name, "vegan", "--explain", columns=80)

    assert code == 0
    assert new in shown
    assert "keyword #1" in shown


def test_a_terminal_is_asked_before_something_is_destroyed(cli, node_url):
    cli("db", "create", "asked")

    refused, shown = on_a_terminal(node_url, "db", "delete", "asked", answer=b"n\n")
    still_there = cli("kv", "list", "asked", "ns").code
    agreed, _ = on_a_terminal(node_url, "db", "delete", "asked", "--yes")

    assert "Delete database asked with all its branches, for good?" in shown
    assert (refused, still_there, agreed) == (1, 0, 0)
    assert cli("kv", "list", "asked", "ns").code == 3


def test_json_is_valid_on_every_listing(cli, profile):
    name, _, new = profile
    db = f"cli--{name}"
    for arguments in (
        ("memory", "recall", "cli", name, "vegan"),
        ("memory", "get", "cli", name, new),
        ("memory", "sessions", "cli", name),
        ("memory", "profiles", "cli"),
        ("db", "list"),
        ("branch", "list", db),
        ("branch", "checkpoints", db, "main"),
        ("kv", "list", db, "ns"),
        ("sql", db, "select 1"),
        ("sync", db),
    ):
        outcome = cli("--json", *arguments)
        assert outcome.code == 0, (arguments, outcome.stderr)
        assert isinstance(json.loads(outcome.stdout), dict)


def test_every_read_command_shows_the_past(cli, profile):
    name, _, new = profile
    db = f"cli--{name}"
    cli("sql", db, "create table t(n); insert into t values (1)")
    cli("kv", "put", db, "ns", "k", "before")
    before = cli("branch", "checkpoint", db, "main", "before", "--json").json["txid"]
    cli("memory", "forget", "cli", name, new)
    cli("memory", "end-session", "cli", name, "s1")
    cli("sql", db, "insert into t values (2)")
    cli("kv", "put", db, "ns", "k", "after")
    cli("kv", "put", db, "ns", "k2", "after")

    recalled = cli("memory", "recall", "cli", name, "vegan", "--at", "before")
    assert [line[-1] for line in recalled.lines] == [new]
    assert f"txid {before} " in recalled.stderr
    assert cli("memory", "get", "cli", name, new, "--at", str(before)).code == 0
    assert [line[0] for line in cli("memory", "sessions", "cli", name, "--at", "head~5").lines] == ["s1"]
    assert cli("sql", db, "select n from t", "--at", "before").text == "1\n"
    assert cli("kv", "get", db, "ns", "k", "--at", "before").text == "before"
    assert cli("kv", "list", db, "ns", "--at", "before").text == "k\n"
    assert cli("kv", "list", db, "ns").text == "k\nk2\n"
    refused = cli("sql", db, "insert into t values (3)", "--at", "before")
    assert (refused.code, "can only be read" in refused.stderr) == (1, True)
    assert cli("kv", "get", db, "ns", "k", "--at", "yesterday noon").code == 1
    assert cli("kv", "get", db, "ns", "k", "--at", "99999").code == 4
    assert cli("kv", "get", db, "ns", "k", "--at", "no-such").code == 3


def test_restore_points_are_listed_newest_first_and_can_be_gone_back_to(cli, profile):
    db = f"cli--{profile[0]}"
    named = cli("branch", "checkpoint", db, "main", "here", "--json").json["txid"]
    cli("kv", "put", db, "ns", "k", "v")

    lines = cli("branch", "restore-points", db).lines
    oldest = cli("branch", "restore-points", db, "main", "--oldest-first", "--limit", "2", "--json").json
    since = cli("branch", "restore-points", db, "--since", lines[1][1], "--until", str(named)).lines

    assert [int(line[0]) for line in lines] == list(range(named + 1, 0, -1))
    assert lines[1][2:] == ["checkpoint", "here"]
    assert [row["txid"] for row in oldest["restore_points"]] == [1, 2]
    assert lines[1] in since
    for line in lines[:2]:
        assert cli("kv", "list", db, "ns", "--at", line[1]).code == 0
    assert cli("branch", "rewind", db, "main", "head~1", "--json").json["rewound_to"] == named
