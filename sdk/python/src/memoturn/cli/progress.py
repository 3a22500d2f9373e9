"""A bar on stderr for what takes its time, on a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from memoturn import Progress as Report
from memoturn.backup import Report as Count
from memoturn.cli.output import Output, visible


@contextmanager
def counted(out: Output) -> Iterator[Count | None]:
    """Give what reports progress in profiles; None where nobody looks on."""
    if not out.errors.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out.errors, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, whole: int) -> None:
            bar.update(task, description=visible(what), completed=done, total=whole)

        yield report


@contextmanager
def shown(out: Output, what: str) -> Iterator[Report | None]:
    """Give what reports progress in bytes; None where nobody looks on."""
    if not out.errors.is_terminal:
        yield None
        return
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
