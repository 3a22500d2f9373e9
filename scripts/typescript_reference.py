#!/usr/bin/env python3
"""Writes the API reference of the TypeScript client into `build/reference/typescript`, by typedoc. It takes Node.js with npm.

What it is given goes to typedoc: `--out FOLDER` puts it elsewhere, `--json FILE` writes it for programs, too.
"""

import shutil
import subprocess
import sys

from service_base import UnavailableError
from service_node import SDK, packages_of

FOLDER = SDK / "reference"
WITHIN_S = 300


def main(arguments: list[str]) -> int:
    """Write it, and return the exit code."""
    try:
        packages = packages_of(FOLDER)
    except UnavailableError as error:
        print(f"the reference cannot be written: {error}", file=sys.stderr)
        return 3
    node = shutil.which("node") or "node"
    typedoc = packages / "typedoc" / "bin" / "typedoc"
    command = [node, str(typedoc), "--options", str(FOLDER / "typedoc.json"), *arguments]
    return subprocess.run(command, cwd=FOLDER, timeout=WITHIN_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
