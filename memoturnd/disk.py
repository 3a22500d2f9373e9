"""The one thing about files that Python leaves out."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive power loss (fsync of the folder itself). Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
