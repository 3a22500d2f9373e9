"""Fixtures of the tests of embedders."""

import pytest
from fake_embedder import fake_endpoint


@pytest.fixture
async def fake():
    """An embedding endpoint over real HTTP."""
    async with fake_endpoint() as fake:
        yield fake
