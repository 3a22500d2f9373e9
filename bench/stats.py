"""Percentiles by the original's index rules, rows held against their targets, and plain tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

US, MS = 1e-6, 1e-3


def percentile(samples: Sequence[float], p: float) -> float:
    """Return the sample at index floor((n-1)·p) of the sorted samples."""
    return sorted(samples)[int((len(samples) - 1) * p)]


def middle(samples: Sequence[float]) -> float:
    """Return the sample at index n // 2 of the sorted samples: the p50 of the HTTP harness."""
    return sorted(samples)[len(samples) // 2]


def duration(seconds: float | None) -> str:
    """Return a duration with three significant digits in the unit that fits, `-` for None."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", MS)):
        if seconds >= size:
            return f"{seconds / size:#.3g} {unit}".replace(". ", " ")
    return f"{seconds / US:#.3g} us".replace(". ", " ")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured operation. Times are seconds; `published_s` is the original's p50, `target_s` bounds ours."""

    key: str
    name: str
    n: int
    p50_s: float
    p99_s: float
    published_s: float | None = None
    target_s: float | None = None

    @classmethod
    def of(
        cls,
        key: str,
        name: str,
        samples: Sequence[float],
        *,
        published_s: float | None = None,
        target_s: float | None = None,
        p50: Callable[[Sequence[float]], float] | None = None,
    ) -> "Row":
        """Return the row of `samples`; `p50` overrides the rule for the median."""
        median = p50(samples) if p50 is not None else percentile(samples, 0.5)
        return cls(key, name, len(samples), median, percentile(samples, 0.99), published_s, target_s)

    @property
    def mark(self) -> str:
        """Return whether the p50 is within the target."""
        if self.target_s is None:
            return "-"
        return "met" if self.p50_s <= self.target_s else "MISSED"

    @property
    def ratio(self) -> str:
        """Return our p50 over the published one."""
        return "-" if self.published_s is None else f"{self.p50_s / self.published_s:.2f}"

    def cells(self) -> list[str]:
        """Return the row for a table with the columns ROW_COLUMNS."""
        return [
            self.key,
            self.name,
            f"{self.n:,}",
            duration(self.p50_s),
            duration(self.p99_s),
            duration(self.published_s),
            self.ratio,
            duration(self.target_s),
            self.mark,
        ]


ROW_COLUMNS: Final = ("#", "operation", "n", "p50", "p99", "published p50", "ours/published", "target", "")


@dataclass(slots=True)
class Table:
    """A titled table with notes under it."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_rows(cls, title: str, rows: Sequence[Row], notes: list[str]) -> "Table":
        """Return the table of measured rows."""
        return cls(title, ROW_COLUMNS, [row.cells() for row in rows], notes)

    def text(self) -> str:
        """Return the table for a terminal."""
        lines = [list(self.columns), *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        drawn = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        drawn.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, "", *(line.rstrip() for line in drawn), "", *self.notes]) + "\n"

    def markdown(self) -> str:
        """Return the table as Markdown, under a heading of the second level."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cells) + " |"

        table = [line(self.columns), line(["---"] * len(self.columns)), *map(line, self.rows)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *table, "", *notes]) + "\n"
