"""A bar on stderr for what takes its time, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memoturn.cli.output import Output, is_terminal, visible

Count = Callable[[str, int, int], None]
"""Takes what it is about, how much is done, and how much there is."""
Report = Callable[[int, int], None]
"""Takes how much is done, and how much there is."""


@contextmanager
def counted(out: Output) -> Iterator[Count | None]:
    """Give what reports progress in profiles; None where nobody looks on."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out.errors, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, whole: int) -> None:
            bar.update(task, description=visible(what), completed=done, total=whole)

        yield report


@contextmanager
def shown(out: Output, what: str) -> Iterator[Report | None]:
    """Give what reports progress in bytes; None where nobody looks on."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out.errors, transient=True) as bar:
        task = bar.add_task(visible(what), total=None)

        def report(moved: int, whole: int) -> None:
            bar.update(task, completed=moved, total=whole)

        yield report
