"""The report that a whole run leaves behind."""

from collections.abc import Sequence

from bench.stats import Table

_HEAD = """# Results

Written by `python -m bench` (`make bench`), never by hand. p50 and p99 follow the index rules of the original
system's harnesses; "published" is what the original published, on hardware that it did not name. Compare
figures only with others from the same machine.
"""


def render(machine: Sequence[tuple[str, str]], taken: Sequence[str], tables: Sequence[Table]) -> str:
    """Return the report as Markdown: the machine, how the run went, then every table."""
    lines = [_HEAD, "## Machine", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in machine]
    lines += ["", "## The run", "", *(f"- {line}" for line in taken), ""]
    missed = [
        f"- {table.title}: {row[1] if table.columns[0] == '#' else row[0]}"
        for table in tables
        for row in table.rows
        if any("MISSED" in cell for cell in row)
    ]
    lines += ["## Targets missed", "", *(missed or ["- none"]), ""]
    return "\n".join(lines) + "\n" + "\n".join(table.markdown() for table in tables)
