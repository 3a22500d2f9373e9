"""A real node with authentication on, one for all tests of the clients, and tokens for it."""

from collections.abc import Callable, Iterator

import pytest
from memoturn import Memoturn
from processes import NodeHome, RunningNode

PLATFORM_KEY = "platform-key-of-the-tests"

Mint = Callable[[str], str]


@pytest.fixture(scope="session")
def guarded(tmp_path_factory) -> Iterator[RunningNode]:
    """A node that asks for credentials; it has to stop well at the end."""
    with NodeHome(tmp_path_factory.mktemp("guarded"), AUTH="on", PLATFORM_KEY=PLATFORM_KEY) as home:
        node = home.start()
        yield node
        assert node.stop() == 0, home.log()


@pytest.fixture(scope="session")
def mint(guarded) -> Iterator[Mint]:
    """Make an admin token of a namespace."""
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        yield lambda ns: operator.create_namespace_token(ns, "admin")["token"]


@pytest.fixture(scope="session")
def platform_key() -> str:
    return PLATFORM_KEY
