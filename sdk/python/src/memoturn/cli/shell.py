"""`memoturn shell`: SQL and the rest of a database, entry by entry."""

import io
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memoturn.cli import config
from memoturn.cli.complete import specs
from memoturn.cli.exits import ExitCode
from memoturn.cli.failures import exit_code, hint
from memoturn.cli.output import is_terminal
from memoturn.cli.run import current, single
from memoturn.cli.shell_session import Leave, Session, completions, is_complete
from memoturn.errors import MemoturnError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History

_HISTORY = "shell_history"
_MORE = "...> "


def shell(
    ctx: typer.Context,
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="[SPEC]", help="Database, or DB@BRANCH; .use chooses another.", autocompletion=specs
        ),
    ] = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="From a pipe, end at the first error.")] = False,
) -> None:
    """Work on a database entry by entry: SQL up to its semicolon, and meta commands such as .recall and .at.

    .help lists the meta commands. Ctrl-C drops the line, Ctrl-D leaves. Reads stdin where that is no terminal;
    then the exit code is that of the first error.
    """
    session = Session(current(ctx), spec)
    if is_terminal(sys.stdin) and is_terminal(sys.stdout):
        _talk(session)
    else:
        code = _read(session, stop=stop)
        if code:
            raise typer.Exit(code)


def _talk(session: Session) -> None:
    """Ask for entries until the user leaves."""
    prompt = _prompt(session)
    session.run.out.note("memoturn shell: .help shows what there is, Ctrl-D leaves")
    while True:
        try:
            _done(session, prompt.prompt(session.prompt))
        except KeyboardInterrupt:
            continue  # the line is dropped, or what it asked for
        except (EOFError, Leave):
            return


def _read(session: Session, *, stop: bool) -> int:
    """Take entries from stdin; return the exit code of the first error."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(
            errors="surrogateescape"
        )  # an entry that is no text fails, and not those behind it
    first = 0
    entry = ""
    try:
        for line in sys.stdin:
            entry += line
            if not is_complete(entry):
                continue
            code = _done(session, entry)
            first = first or code
            entry = ""
            if first and stop:
                return first
        code = _done(session, entry)
        first = first or code
    except Leave:
        pass
    return first


def _done(session: Session, entry: str) -> int:
    """Do an entry; say what is wrong with it and return its exit code, 0 where nothing is."""
    try:
        session.execute(entry)
    except MemoturnError as error:
        session.run.out.error(error.message, hint(error))
        return exit_code(error)
    return ExitCode.OK


def _prompt(session: Session) -> "PromptSession[str]":
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        elif is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return PromptSession(
        history=_history(session),
        completer=_completer(session),
        complete_while_typing=False,
        multiline=True,
        prompt_continuation=lambda width, *_: _MORE.rjust(width)[-width:],
        key_bindings=keys,
        enable_history_search=True,
    )


def _completer(session: Session) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    class Names(Completer):
        """Completes by what the session knows; an error completes nothing."""

        def get_completions(self, document: Any, complete_event: Any) -> Any:
            del complete_event
            try:
                found, word = completions(session, document.text_before_cursor)
            except MemoturnError:
                return
            for name in found[:50]:
                yield Completion(name, start_position=-len(word))

    return Names()


def _history(session: Session) -> "History":
    """Return earlier entries, from a file that only its owner may read; where there can be none, those of this shell."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    where = config.folder("state") / _HISTORY
    try:
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(where, os.O_RDWR | os.O_CREAT, 0o600))
        where.chmod(0o600)
    except OSError as error:
        session.run.out.note(f"entries are not kept: {where}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(where))


app = single(shell, "memoturn shell app--alice", "memoturn shell app--alice@what-if < report.sql")
