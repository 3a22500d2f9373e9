"""Whether the model of the local embedder is installed here, for tests that run it."""

import os

import pytest

from memoturnd.embedders import files, local

INSTALLED = files.find_files() is not None and local.can_run()
REPORT = (
    "local embedder: all-MiniLM-L6-v2 on numpy"
    if INSTALLED
    else f"local embedder: not installed, its tests are skipped; {local.how_to_install()}"
)
REQUIRED = bool(os.environ.get("MEMOTURN_REQUIRE_SERVICES"))
needs_model = pytest.mark.skipif(not INSTALLED and not REQUIRED, reason=REPORT)
