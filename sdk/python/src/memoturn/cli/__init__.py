"""The `memoturn` command; everything behind it needs the extra `memoturn[cli]`."""

import sys

_HINT = "The command line needs more packages than the client: pip install 'memoturn[cli]'"
_USAGE = 2


def main() -> None:
    """Run the command line and exit with its code; see `memoturn --help`."""
    try:
        from memoturn.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        print(_HINT, file=sys.stderr)
        sys.exit(_USAGE)
    sys.exit(run(sys.argv[1:]))
