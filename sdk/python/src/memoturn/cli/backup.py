"""`memoturn backup` and `memoturn restore-backup`."""

from pathlib import Path
from typing import Annotated

import typer

from memoturn.backup import back_up, restore_backup
from memoturn.cli.progress import counted
from memoturn.cli.run import current, single

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.", show_default=False)]


def backup(
    ctx: typer.Context,
    ns: Annotated[str, typer.Argument(metavar="NS", help="Namespace to save.", show_default=False)],
    folder: _Folder,
) -> None:
    """Save every branch of every profile of a namespace; run again, it goes on where it was cut off."""
    run = current(ctx)
    with counted(run.out) as report:
        made = back_up(run.client, ns, folder, report=report)
    profiles = len({entry["profile"] for entry in made["files"]})
    size_bytes = sum(entry["size_bytes"] for entry in made["files"])
    run.out.done(
        {"folder": str(folder), "profiles": profiles, "files": len(made["files"]), "size_bytes": size_bytes},
        f"saved {profiles} profiles of {ns} to {folder}: {len(made['files'])} files, {size_bytes} bytes",
    )


def restore(
    ctx: typer.Context,
    folder: _Folder,
    *,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", metavar="NS", help="Another namespace than it was made of.", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what is there already, to go on with a restore.")
    ] = False,
) -> None:
    """Bring back a backup, after every file was held against its hash; nothing that exists is replaced."""
    run = current(ctx)
    with counted(run.out) as report:
        done = restore_backup(run.client, folder, into=into, resume=resume, report=report)
    for name in done.expired:
        run.out.note(f"{name} is left out: its time is over")
    shown = {
        "folder": str(folder),
        "files": done.files,
        "size_bytes": done.size_bytes,
        "there": done.there,
        "expired": done.expired,
    }
    left = f"; {len(done.there)} were there already" if done.there else ""
    run.out.done(shown, f"brought back {done.files} branches, {done.size_bytes} bytes{left}")


app = single(backup, "memoturn backup app backups/app")
restore_app = single(restore, "memoturn restore-backup backups/app --into app-restored")
