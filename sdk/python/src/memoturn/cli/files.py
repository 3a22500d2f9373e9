"""What commands that write files share."""

from pathlib import Path

import typer


def refuse_existing(file: Path, *, force: bool) -> None:
    """Raise typer.BadParameter when the file would be replaced, or has no folder."""
    if file.is_dir() or (file.exists() and not force):
        raise typer.BadParameter(f"{file} exists; choose another name, or give --force", param_hint="FILE")
    if not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.absolute().parent}", param_hint="FILE")
