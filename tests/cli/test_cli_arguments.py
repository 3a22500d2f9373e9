"""The pure parts of the command: splitting SQL, hoisting global options, spelling out control characters."""

import pytest
from memoturn.cli.app import hoisted
from memoturn.cli.output import visible, when
from memoturn.cli.statements import split

TRIGGER = "create trigger t after insert on a begin update a set x = 1; delete from b; end;"


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("select 1", ["select 1"]),
        ("select 1; select 2;", ["select 1;", "select 2;"]),
        ("insert into t values ('a;b')", ["insert into t values ('a;b')"]),
        (
            "insert into t values ('it''s; fine'); select 2",
            ["insert into t values ('it''s; fine');", "select 2"],
        ),
        ('select ";" from "a;b"; select 1', ['select ";" from "a;b";', "select 1"]),
        ("select 1 -- one; two\n; select 2", ["select 1 -- one; two\n;", "select 2"]),
        ("select /* a; b */ 1; select 2", ["select /* a; b */ 1;", "select 2"]),
        (f"{TRIGGER} select 1;", [TRIGGER, "select 1;"]),
        (";;  ; select 1;;", ["select 1;"]),
        ("-- a comment; only", []),
        ("/* open", []),
        ("  \n", []),
        ("select 'open; literal", ["select 'open; literal"]),
    ],
)
def test_statements_end_where_sqlite_ends_them(text, statements):
    assert split(text) == statements


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["db", "list", "--json"], ["--json", "db", "list"]),
        (["db", "--url", "u", "list"], ["--url", "u", "db", "list"]),
        (["db", "list", "--timeout=3"], ["--timeout=3", "db", "list"]),
        (["sync", "a", "--durable", "--token", "--json"], ["--durable", "--token", "--json", "sync", "a"]),
        (["kv", "put", "a", "n", "k", "--", "--json"], ["kv", "put", "a", "n", "k", "--", "--json"]),
        (["db", "list", "--url"], ["--url", "db", "list"]),
    ],
)
def test_global_options_stand_anywhere_before_a_double_dash(given, ordered):
    assert hoisted(given) == ordered


def test_control_characters_and_direction_overrides_are_spelled_out():
    assert visible("\x1b[2Jred\x07 \u202eevil\x9b0m\r") == "\\x1b[2Jred\\x07 \\u202eevil\\x9b0m\\r"
    assert visible("é\t漢字\n😀") == "é\t漢字\n😀"


def test_times_are_utc_to_the_second():
    assert when(1_700_000_000_999) == "2023-11-14 22:13:20Z"
    assert when(None) is None
