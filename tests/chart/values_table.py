"""The table of values in the chart's README, made of values.yaml and values.schema.json. Run it to write the table anew."""

import json
import re
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "memoturn"
README = CHART / "README.md"
BEGIN, END = "<!-- values -->", "<!-- end of values -->"


def table() -> str:
    """Return the table, with the comments around it."""
    from chart.rendering import leaves

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    rows = [
        f"| `{path}` | {_shown(default)} | {below['description'].replace('|', '/')} |"
        for path, default, below in leaves(values, schema)
    ]
    return "\n".join([BEGIN, "| value | default | meaning |", "| --- | --- | --- |", *rows, END])


def _shown(default: object) -> str:
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(CHART.parents[1] / "scripts")]
    text = README.read_text()
    README.write_text(
        re.sub(f"{BEGIN}.*{END}", lambda _: table(), text, flags=re.DOTALL) if BEGIN in text else text
    )
