"""What a page tells its reader to do, and a terminal to do it in.

with Shell(folder, environment) as shell:
    for command, said in steps(section(page, "A server and the command line")):
        check(command, said, shell.type(command))
"""

import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Self

_END = "\x1e"
"""Stands around the exit code behind each command's output: nothing that is printed has it."""


def section(page: Path, title: str) -> str:
    """Return what stands below a heading, up to the next one of its level or above. Fails without it."""
    text = page.read_text()
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no section {title!r}"
    return found[2]


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def steps(text: str) -> list[tuple[str, str]]:
    """Return the commands of console blocks, each with what it is said to print."""
    return [step for block in blocks(text, "console") for step in prompted(block)]


def prompted(block: str) -> list[tuple[str, str]]:
    """Return the commands of one block, which stand behind prompts, each with what it is said to print."""
    found = []
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = step.rstrip("\n").split("\n")
        size = next(at for at, line in enumerate(lines, 1) if not line.endswith("\\"))
        found.append(("\n".join(lines[:size]), "\n".join(lines[size:]).strip("\n")))
    return found


def check(command: str, said: str, shown: str) -> None:
    """Fail unless what was shown is what was said: `...` is anything in a line, and any lines where it is all of one."""
    lines = [".*".join(map(re.escape, line.split("..."))) for line in said.split("\n")]
    pattern = "".join("(?:.*\n)*" if line == ".*" else f"{line}\n" for line in lines)
    assert re.fullmatch(pattern, f"{shown}\n"), f"$ {command}\n{shown}\n--- but the page says\n{said}"


class Shell:
    """One bash on a terminal of 80 columns, which keeps its folder and its variables from command to command."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._reader, writer = pty.openpty()
        self._process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment | {"TERM": "dumb", "COLUMNS": "80"},
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=writer,
        )
        os.close(writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it. What it runs in the background goes on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        os.close(self._reader)

    def type(self, command: str) -> str:
        """Run a command, and return what it shows without blanks at the ends of lines. Fails when it fails."""
        assert self._process.stdin is not None
        line = f"{{ {command}\n}} </dev/null; printf '{_END}%s{_END}' $?\n"
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        shown = b""
        while shown.count(_END.encode()) < 2:
            shown += os.read(self._reader, 65536)  # an OSError: the shell itself has ended
        text, code, _ = shown.decode().split(_END)
        assert code == "0", f"$ {command}\n{text}"
        return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
