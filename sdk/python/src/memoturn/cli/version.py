"""`memoturn version`."""

import typer

from memoturn import __version__
from memoturn.cli.run import current, single


def version(ctx: typer.Context) -> None:
    """Print the version of this command."""
    current(ctx).out.done({"version": __version__}, f"memoturn {__version__}")


app = single(version, "memoturn version --json")
