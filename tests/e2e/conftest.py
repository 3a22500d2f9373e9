"""Real nodes for end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import NodeHome
from small_disk import small_disk

__all__ = ["home", "small_disk"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[NodeHome]:
    """A data directory, an object store, and the nodes on them."""
    with NodeHome(tmp_path / "home") as home:
        yield home
