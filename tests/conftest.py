"""Fixtures that every room of the tests may use: real object stores."""

from collections.abc import Iterator

import pytest
from servers import REPORT, S3Server, Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture
def s3_server(servers: Servers) -> S3Server:
    """The real S3 server of this run."""
    return servers.get("minio")


def pytest_terminal_summary(terminalreporter) -> None:
    for line in REPORT:
        terminalreporter.write_line(line)
