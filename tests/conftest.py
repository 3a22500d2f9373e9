"""Fixtures that every room of the tests may use: real object stores."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers import S3Server, Servers


@pytest.fixture(scope="session")
def servers() -> Iterator["Servers"]:
    """Every object store of this run, each started when a test first asks for it."""
    from servers import Servers

    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture
def s3_server(servers: "Servers") -> "S3Server":
    """A real S3 server."""
    return servers.real()


def pytest_terminal_summary(terminalreporter) -> None:
    """Say which object stores and which model were really there."""
    if "servers" in sys.modules:
        for line in sys.modules["servers"].REPORT:
            terminalreporter.write_line(line)
    if "local_model" in sys.modules:
        terminalreporter.write_line(sys.modules["local_model"].REPORT)
