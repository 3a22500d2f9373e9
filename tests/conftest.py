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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a Postgres server, as its superuser."""
    from postgres_server import session_server

    with session_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of this session's own database there; `postgres_server.emptied` opens it as a new catalog."""
    from postgres_server import session_database

    with session_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[str]:
    """The address of an etcd server, which tests share: each takes a prefix of its own."""
    from etcd_server import session_etcd

    with session_etcd() as url:
        yield url


@pytest.fixture
def etcd_url(etcd_server: str) -> str:
    """The same, for one test."""
    return etcd_server


def pytest_terminal_summary(terminalreporter) -> None:
    """Say which services and which model were really there."""
    if "servers" in sys.modules:
        for line in sys.modules["servers"].REPORT:
            terminalreporter.write_line(line)
    if "postgres_server" in sys.modules:
        for line in sys.modules["postgres_server"].REPORT:
            terminalreporter.write_line(line)
    if "etcd_server" in sys.modules:
        for line in sys.modules["etcd_server"].REPORT:
            terminalreporter.write_line(line)
    if "local_model" in sys.modules:
        terminalreporter.write_line(sys.modules["local_model"].REPORT)
