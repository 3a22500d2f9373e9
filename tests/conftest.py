"""Fixtures that every room of the tests may use: real services, and the built packages."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers import S3Server, Servers


ALONE = {"cluster"}
"""Folders whose tests run one after the other."""
REPORTING = ("servers", "postgres_server", "etcd_server", "local_model")
"""Modules that say what they found."""
SEEN_BY_WORKERS: list[str] = []


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


@pytest.fixture(scope="session")
def packages_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and sdist of both Python packages."""
    from python_packages import built

    return built(tmp_path_factory)


@pytest.fixture(scope="session")
def wheels(packages_folder: Path) -> list[Path]:
    """Both wheels, built as the image builds them."""
    return sorted(packages_folder.glob("*.whl"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep in one worker of pytest-xdist what must not run beside itself: a cluster's faults are timed."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        if item.path.parent.name in ALONE:
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))


def pytest_configure(config: pytest.Config) -> None:
    """See that pytest-xdist can group tests: it writes a group into this attribute, and nobody tells where that has no effect."""
    if getattr(config.option, "dist", "no") == "loadgroup" and not hasattr(pytest.Item, "_nodeid"):
        raise pytest.UsageError(
            f"with pytest {pytest.__version__} pytest-xdist groups no tests: run `make setup`"
        )


def services_seen() -> list[str]:
    """Return what the tests of this process found of services and models."""
    found = [sys.modules[name].REPORT for name in REPORTING if name in sys.modules]
    return [line for report in found for line in ([report] if isinstance(report, str) else report)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist: hand them to the process that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["services"] = services_seen()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """In the process that reports: take them."""
    SEEN_BY_WORKERS.extend(getattr(node, "workeroutput", {}).get("services", []))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say which services and which model were really there."""
    for line in dict.fromkeys([*services_seen(), *sorted(SEEN_BY_WORKERS)]):
        terminalreporter.write_line(line)
