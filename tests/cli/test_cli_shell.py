"""`memoturn shell`: from a pipe, and on a terminal of its own."""

import os
import pty
import select
import stat
import subprocess
import sys
import time

import pytest
from memoturn.cli.shell_session import KEYWORDS, META, Session, completions, is_complete


@pytest.fixture
def profile(cli, request):
    name = request.node.name.partition("[")[0].replace("_", "-")[-40:].strip("-")
    cli("memory", "ingest", "shell", name, "--topic", "diet", "--summary", "Ann is vegan")
    return f"shell--{name}"


def piped(cli, profile: str, *lines: str, options: tuple[str, ...] = ()):
    return cli("shell", profile, *options, stdin="\n".join(lines).encode())


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True),
        ("  \n", True),
        (".help", True),
        ("select 1", False),
        ("select 1;", True),
        ("select ';", False),
        ("select 1; -- and so on", True),
        ("create trigger t after insert on a begin delete from b;", False),
        ("create trigger t after insert on a begin delete from b; end;", True),
    ],
)
def test_an_entry_is_whole_where_sqlite_says_so(text, whole):
    assert is_complete(text) is whole


def test_a_pipe_runs_statements_over_many_lines_and_meta_commands(cli, profile):
    outcome = piped(
        cli,
        profile,
        "create table t(a,",
        "  b);",
        "insert into t values (1, 'x;y'); insert into t values (2, null);",
        "select a, b from t order by a;",
        ".tables",
        ".schema t",
        ".recall what does Ann eat",
        ".timing on",
        "select 'the last needs no semicolon'",
    )

    assert outcome.code == 0, outcome.stderr
    assert outcome.text.startswith("1\tx;y\n2\t\nt\nCREATE TABLE t(a,\n  b);\n")
    assert "Ann is vegan" in outcome.text
    assert outcome.text.endswith("the last needs no semicolon\n")
    assert " ms\n" in outcome.stderr


def test_branches_checkpoints_and_the_past(cli, profile):
    outcome = piped(
        cli,
        profile,
        "create table t(a); insert into t values (1);",
        ".checkpoint one",
        "insert into t values (2);",
        ".at one",
        "select 'then', count(*) from t;",
        "insert into t values (9);",
        ".fork what-if",
        ".at head",
        "select 'now', count(*) from t;",
        ".branches",
        ".use @what-if",
        "select 'there', count(*) from t;",
        ".checkpoints",
        ".use @main",
        ".checkpoints",
        ".sync",
    )

    assert outcome.code == 1, "a past state can only be read"
    assert "can only be read" in outcome.stderr
    lines = outcome.lines
    assert ["then", "1"] in lines
    assert ["now", "2"] in lines
    assert ["there", "1"] in lines, "the fork is of the state that was shown"
    assert [line[0] for line in lines].count("one") == 1
    assert "object storage has everything" in outcome.text


def test_an_error_does_not_end_it_unless_it_is_to(cli, profile):
    lines = ("select nonsense;", ".nope", ".use", ".at 1 2", ".schema 'open", "select 'after';")

    outcome = piped(cli, profile, *lines)
    stopped = piped(cli, profile, *lines, options=("--stop",))

    assert (outcome.code, outcome.text) == (1, "after\n")
    assert "no such column" in outcome.stderr
    assert "there is no .nope" in outcome.stderr
    assert "use it as .use DB[@BRANCH]|@BRANCH" in outcome.stderr
    assert (stopped.code, stopped.text) == (1, "")


NONSENSE = [
    "select '\0';",
    "\0",
    ".\0",
    ". ",
    ".",
    "..",
    ".memories ²",
    ".memories -1",
    ".memories 99999999999999999999999",
    ".at \0",
    ".at ''",
    ".use @",
    ".use ''",
    ".use a@b@c",
    ".use ../../x",
    ".fork",
    ".fork '' x",
    ".checkpoint /",
    ".schema x y z",
    ".schema \\",
    ".recall",
    ".recall ???",
    ".recall " + "x" * 100_000,
    ".timing maybe",
    ".databases \0",
    ";;;;",
    "\\;",
    "begin;",
    "commit; rollback;",
    "pragma journal_mode = off;",
    "attach 'x' as y;",
    "select " + "(" * 5000 + "1" + ")" * 5000 + ";",
    "'" * 1000 + ";",
    "\N{ZERO WIDTH JOINER};",
    "/* */ ; -- ;",
    "select '\x1b[2J';",
]


def test_nonsense_is_answered_and_what_comes_behind_it_is_done(cli, profile):
    for number, line in enumerate(NONSENSE):
        outcome = piped(cli, profile, line, f"\n;\nselect 'behind', {number};")
        assert ["behind", str(number)] in outcome.lines, (line[:50], outcome.stderr)
        assert "Traceback" not in outcome.stderr
        assert "\x1b" not in outcome.text


def test_bytes_that_are_no_text_spoil_their_entry_alone(cli, profile):
    outcome = cli("shell", profile, stdin=b"select '\xff';\nselect 'behind';\n.recall \xfe\n.quit\n")

    assert (outcome.code, outcome.text) == (1, "behind\n")
    assert outcome.stderr.count("error:") == 2


def test_without_a_database_it_says_how_to_choose_one(cli, profile):
    outcome = cli(
        "shell", stdin=f".databases shell--\nselect 1;\n.use {profile}\nselect 1;\n.quit\nselect 2;".encode()
    )

    assert outcome.code == 1
    assert "say .use DB" in outcome.stderr
    assert profile in outcome.text
    assert outcome.text.endswith("1\n")


def test_a_database_that_is_no_profile_has_no_memories(cli):
    cli("db", "create", "shell-plain")
    outcome = piped(cli, "shell-plain", ".recall x", ".memories", ".use shell-none")

    assert outcome.code == 1
    assert outcome.stderr.count("is no profile") == 2
    assert "shell-none" in outcome.stderr


def test_every_meta_command_is_in_the_help_and_json_is_json(cli, profile):
    outcome = piped(cli, profile, ".help", options=("--json",))

    assert {row[0].split()[0] for row in outcome.json["commands"]} == set(META)


def test_no_connection_exits_6(command):
    assert command("shell", "x", "--url", "http://127.0.0.1:9", stdin=b"select 1;").code == 6


# ---- completion


class Known(Session):
    """A session that asks nobody."""

    def tables(self):
        return ["orders", "people"]

    def columns(self):
        return ["age", "name"]

    def branches(self):
        return ["main", "what-if"]

    def checkpoints(self):
        return ["monday"]

    def databases(self, prefix):
        return [name for name in ("app--ann", "app--bob") if name.startswith(prefix)]


@pytest.mark.parametrize(
    ("text", "found", "word"),
    [
        ("sel", ["select"], "sel"),
        ("SEL", ["SELECT"], "SEL"),
        ("select na", ["name"], "na"),
        ("select * from peo", ["people"], "peo"),
        ("select * from ", [], ""),
        (".ta", [".tables"], ".ta"),
        (".use app--a", ["app--ann"], "app--a"),
        (".use app--ann@w", ["app--ann@what-if"], "app--ann@w"),
        (".use @w", ["@what-if"], "@w"),
        (".use other@w", [], "other@w"),
        (".at mon", ["monday"], "mon"),
        (".fork x mon", ["monday"], "mon"),
        (".schema o", ["orders"], "o"),
        (".timing o", ["on", "off"], "o"),
        (".nope x", [], "x"),
    ],
)
def test_completion(text, found, word):
    session = Known(run=None, spec="app--ann")
    session.run = type(
        "Run",
        (),
        {"client": type("Client", (), {"db": lambda _, spec: type("Db", (), {"name": "app--ann"})()})()},
    )()

    assert completions(session, text) == (found, word) or (list(completions(session, text)[0]), word) == (
        found,
        word,
    )


def test_keywords_are_words_of_their_own():
    assert len(set(KEYWORDS)) == len(KEYWORDS) > 50


# ---- on a terminal


class Terminal:
    """The shell on a terminal: type into it, and wait for what it shows."""

    def __init__(self, url: str, state: str, *arguments: str) -> None:
        self.outer, inner = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
        environment |= {
            "TERM": "xterm-256color",
            "MEMOTURN_URL": url,
            "XDG_STATE_HOME": state,
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "memoturn", "shell", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=environment,
            start_new_session=True,
        )
        os.close(inner)
        self.shown = ""
        self.seen = 0

    def type(self, text: str) -> None:
        os.write(self.outer, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until it shows the text, behind what was waited for before."""
        deadline = time.monotonic() + 20
        while (at := self.shown.find(text, self.seen)) < 0:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.outer], [], [], left)[0], f"no {text!r} in\n{self.shown[self.seen :]}"
            try:
                self.shown += os.read(self.outer, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended without {text!r}\n{self.shown}") from None
        self.seen = at + len(text)

    def leave(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            os.close(self.outer)


def test_where_entries_cannot_be_kept_it_works_without(node_url, profile, tmp_path):
    (tmp_path / "file").write_text("")
    terminal = Terminal(node_url, str(tmp_path / "file" / "state"), profile)
    try:
        terminal.wait_for("entries are not kept")
        terminal.wait_for(f"{profile}>")
        terminal.type("select upper('there');\r")
        terminal.wait_for("THERE")
        terminal.wait_for(f"{profile}>")
        terminal.type("\x04")
        assert terminal.leave() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_on_a_terminal_it_edits_completes_remembers_and_outlives_errors_and_ctrl_c(
    cli, node_url, profile, tmp_path
):
    state = tmp_path / "state"
    terminal = Terminal(node_url, str(state), profile)
    try:
        terminal.wait_for(f"{profile}>")
        terminal.type("create table fruits(kind);\r")
        terminal.wait_for("rows affected")
        terminal.type("insert into fruits\r")
        terminal.wait_for("...>")
        terminal.type("values ('apple');\r")
        terminal.wait_for("1 rows affected")
        terminal.wait_for(f"{profile}>")
        terminal.type("select 'dropped' \x03")
        terminal.type("select nonsense;\r")
        terminal.wait_for("no such column")
        terminal.type("select upper(kind) as loud from fru")
        terminal.wait_for("fru")
        terminal.type("\t")
        terminal.wait_for("its")
        terminal.type(";\r")
        terminal.wait_for("APPLE")
        assert "\x1b[1m" in terminal.shown, "tables as `sql` prints them"
        terminal.wait_for(f"{profile}>")
        terminal.type("\x1b[A\x1b[A\r")  # two entries back
        terminal.wait_for("no such column")
        terminal.wait_for(f"{profile}>")  # before it asks again, the terminal itself takes Ctrl-C and Ctrl-D
        terminal.type("\x04")
        assert terminal.leave() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()

    history = state / "memoturn" / "shell_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+create table fruits(kind);" in history.read_text()
    assert "dropped" not in history.read_text()
