"""The `memoturn` command; everything behind it needs the extra `memoturn[cli]`, and `memoturn mcp` the extra `memoturn[mcp]`."""

import sys

_HINT = (
    "The command line needs more packages than the client, those of the extra memoturn[cli]: "
    "in a checkout, pip install './sdk/python[cli]'"
)
MCP_HINT = (
    "The MCP server needs more packages than the client, those of the extra memoturn[mcp]: "
    "in a checkout, pip install './sdk/python[mcp]'"
)
_USAGE = 2


def main() -> None:
    """Run the command line and exit with its code; see `memoturn --help`."""
    try:
        from memoturn.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        print(MCP_HINT if "mcp" in sys.argv[1:] else _HINT, file=sys.stderr)
        sys.exit(_USAGE)
    sys.exit(run(sys.argv[1:]))
