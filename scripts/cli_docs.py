"""Writes docs/cli.md, the reference of the command line, from the commands themselves: python scripts/cli_docs.py."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memoturn.cli.exits import HELP
from memoturn.cli.lazy import load
from memoturn.cli.table import COMMANDS

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
INTRO = """\
# The command line

`memoturn`, of the [extra](quickstart.md) `memoturn[cli]`, reaches everything that the server does. This page is made from the commands' own
help by `scripts/cli_docs.py`, and a test keeps the two equal; `memoturn COMMAND --help` shows the same.

## What holds for every command

- **Output.** Tables and colour on a terminal (`NO_COLOR` switches colour off), tab-separated lines without a header in a pipe, JSON
  with `--json`, and JSON Lines where things come one by one (`docs find`, `changes`). Data goes to stdout and nothing else does: txids, notes,
  progress and errors go to stderr. Control characters in stored text are spelled out, and so is what the encoding of stdout does not have. A reader
  that closes the pipe (`| head -1`) is no failure.
- **Where and who.** `--url`, `--token`, `--platform-key` and `--tenant` may stand anywhere on the line; then come `MEMOTURN_URL`,
  `MEMOTURN_TOKEN`, `MEMOTURN_PLATFORM_KEY` and `MEMOTURN_TENANT`, then the config file that `memoturn init` writes, mode 0600, into the
  user's config folder (`~/.config/memoturn/config.json`, or what `MEMOTURN_CONFIG` names). Credentials stand in files of their own beside it.
  A config that cannot be read is an error, and not the default node, unless something else says where the node is.
- **`--durable`** returns from a write once object storage has it. **`--timeout SECONDS`** is the longest wait for an answer. **`--at REVISION`**
  reads a [past state](concepts.md#branches-and-history).
- **What destroys** asks first on a terminal, unless `--yes` is given, and takes `--dry-run`: it asks the server what would go, says it, and changes nothing.
- **JSON arguments** take `-` for stdin. Those that take many objects take one, an array, or one a line.
- **Completion** of commands, options, databases and branches: `eval "$(memoturn completions bash)"`, and so for zsh and fish.

"""


def document() -> str:
    """Return the page."""
    parts = [INTRO, "## Exit codes\n\n", _codes(), "\n## Commands\n\n"]
    leaves = [leaf for entry in COMMANDS for leaf in _leaves((entry.name,), load(entry.name))]
    parts.append("| command | does |\n| --- | --- |\n")
    parts += [
        f"| [`{' '.join(words)}`](#{_anchor(words)}) | {_first(command)} |\n" for words, command in leaves
    ]
    for words, command in leaves:
        parts.append("\n" + _section(words, command))
    return "".join(parts)


def _codes() -> str:
    rows = [part.split(" ", 1) for part in HELP.removeprefix("Exit codes: ").rstrip(".").split("; ")]
    return "| code | meaning |\n| --- | --- |\n" + "".join(f"| {code} | {text} |\n" for code, text in rows)


def _leaves(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None) or {}
    if not below or getattr(command, "invoke_without_command", False):
        yield words, command
    for name, one in below.items():
        yield from _leaves((*words, name), one)


def _anchor(words: tuple[str, ...]) -> str:
    return "memoturn-" + "-".join(words)


def _first(command: Any) -> str:
    return _escaped(" ".join((command.help or "").split("\n\n")[0].split()))


def _section(words: tuple[str, ...], command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    options = [one for one in options if one.name != "help"]
    usage = " ".join(
        ["memoturn", *words, *(_metavar(one) for one in arguments), *["[OPTIONS]"] * bool(options)]
    )
    text = f"### memoturn {' '.join(words)}\n\n`{usage}`\n\n{_prose(command.help or '')}\n"
    rows = [(f"`{_metavar(one)}`", one.help or "") for one in arguments]
    rows += [(f"`{_option(one)}`", _told(one)) for one in options]
    if rows:
        text += "\n| argument or option | is |\n| --- | --- |\n"
        text += "".join(f"| {name} | {_escaped(said)} |\n" for name, said in rows)
    return text + "\n" + "".join(f"    {line}\n" for line in _examples(command.epilog or ""))


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _option(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    if option.secondary_opts:
        names += f" / {', '.join(option.secondary_opts)}"
    if option.is_flag:
        return names
    return f"{names} {option.metavar or option.name.upper().strip('_')}".replace("|", "\\|")


def _told(option: Any) -> str:
    default = getattr(option.default, "value", option.default)
    said = str(option.help or "")
    if option.is_flag or default in {None, "", ()} or not isinstance(default, str | int | float | Path):
        return said
    return f"{said} [default: {default}]".strip()


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _examples(epilog: str) -> list[str]:
    found = re.search(r"Examples?:\n(.*?)(?:\n\n|\Z)", epilog, flags=re.DOTALL)
    return [] if found is None else [line.strip() for line in found[1].splitlines()]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(
            0
            if TARGET.read_text(encoding="utf-8") == document()
            else f"{TARGET} is old: run scripts/cli_docs.py"
        )
    TARGET.write_text(document(), encoding="utf-8")
