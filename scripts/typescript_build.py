#!/usr/bin/env python3
"""Builds the TypeScript client into `sdk/typescript/dist`, with the packages of its lock file. It takes Node.js with npm."""

import shutil
import subprocess
import sys

from service_base import UnavailableError
from service_node import SDK, link_packages

WITHIN_S = 300


def main() -> int:
    """Build it, and return the exit code."""
    try:
        link_packages(SDK)
    except UnavailableError as error:
        print(f"the TypeScript client cannot be built: {error}", file=sys.stderr)
        return 3
    node = shutil.which("node") or "node"
    return subprocess.run([node, "scripts/build.mjs"], cwd=SDK, timeout=WITHIN_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
