"""Every command with arguments that nobody means: it says what is wrong, and never ends in a traceback."""

import random

import pytest
from memoturn.cli.exits import ExitCode
from memoturn.cli.lazy import load
from memoturn.cli.table import COMMANDS

ODD = [
    *(
        "",
        "a",
        "odd",
        "-",
        "..",
        "/",
        "a/b",
        "é",
        "漢字",
        "\0",
        "a\nb",
        "²",
        "1",
        "-1",
        "9" * 21,
        "1e400",
        "nan",
        ":",
    ),
    *(
        "{}",
        "[]",
        "null",
        '{"a":1}',
        "[1,2]",
        '{"puts":[5]}',
        "[" * 3000,
        "x" * 2000,
        "\udcff",
        "\u202e",
        "http://",
    ),
    *(
        "odd@",
        "@",
        "odd@x",
        "odd--a",
        "odd:1",
        "head~1",
        "2026-01-01",
        "2026-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
    ),
    *("9999-12-31T23:59:59Z", "$x", "*", "~", "--"),
]
STDIN = [
    b"",
    b"{}",
    b"x",
    b"\xff",
    b'{"a":1}\n{"b":2}',
    b"[1]",
    b'{"id":"a","embedding":5}',
    b"\xef\xbb\xbf[]",
]
ELSEWHERE = (
    "mcp",
    "init",
    "shell",
    "doctor",
    "backup",
    "restore-backup",
    "audit export",
    "key rotate",
    "tenant",
)
"""What serves, waits, writes folders, or changes what other tests stand on."""
NEVER = {"--help", "--follow", "--wait", "--force", "--save", "--keys"}
CODES = {int(code) for code in ExitCode}


def leaves():
    def below(command, name):
        if hasattr(command, "commands"):
            for part, sub in command.commands.items():
                yield from below(sub, f"{name} {part}")
        elif not name.startswith(ELSEWHERE):
            yield name, command

    return [leaf for entry in COMMANDS for leaf in below(load(entry.name), entry.name)]


def line_of(name, command, draw, folder) -> list[str]:
    line = name.split()
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            if parameter.name in {"file", "folder", "receipt"}:
                line.append(str(folder / "none" / "file"))
            elif parameter.required or draw.random() < 0.5:
                line.append(draw.choice(ODD))
        elif parameter.opts[0] not in NEVER and draw.random() < 0.25:
            line.append(parameter.opts[0])
            if not parameter.is_flag:
                line.append(draw.choice(ODD))
    return [*line, "--json"] if draw.random() < 0.3 else line


@pytest.mark.parametrize("seed", range(3))
def test_odd_arguments_are_answered(cli, tmp_path, seed):
    draw = random.Random(seed)
    for name, command in leaves():
        for _ in range(2):
            line, stdin = line_of(name, command, draw, tmp_path), draw.choice(STDIN)

            outcome = cli(*line, stdin=stdin)

            assert outcome.code in CODES, line
            if outcome.code:
                assert "rror" in outcome.stderr, (line, outcome)


def test_there_is_a_command_for_nearly_every_leaf():
    assert len(leaves()) > 85
