"""Fixtures of the audit tests."""

import pytest

from memoturnd.stores.memory import MemoryStore


@pytest.fixture
def store():
    return MemoryStore()
