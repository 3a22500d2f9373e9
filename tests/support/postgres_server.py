"""A Postgres for tests: MEMOTURN_TEST_POSTGRES_URL, or one that `scripts/services` starts for this session.

The URL is a superuser's; each session makes a database of its own in it. Where no Postgres can be had, tests skip and
say why; with MEMOTURN_REQUIRE_SERVICES=1 that is a failure.
"""

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
import service_postgres
from service_base import UnavailableError, free_port

from control_plane.catalogs.postgres import open_postgres
from control_plane.migrating import migrate_postgres
from control_plane.schema import FIRST_ROWS, metadata

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services"
VARIABLE = "MEMOTURN_TEST_POSTGRES_URL"
REPORT: list[str] = []
"""What the end of the run says about it."""


@contextmanager
def session_server() -> Iterator[str]:
    """Give the URL of a server, started unless there is one; skip where none can be had."""
    folder = None
    given = os.environ.get(VARIABLE)
    if not given:
        folder = tempfile.mkdtemp(prefix="memoturn-test-services-")
        started = _services(folder, "start", "--quick", "postgres")
        found = re.search(rf"^export {VARIABLE}='?([^'\n]*)'?$", started.stdout, flags=re.MULTILINE)
        given = found and found[1]
    try:
        if not given:
            REPORT.append(f"no Postgres: {started.stderr.strip()}")
            if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
                pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {REPORT[-1]}", pytrace=False)
            pytest.skip(REPORT[-1])
        REPORT.append(f"Postgres at {given.rpartition('@')[2]}")
        yield given
    finally:
        if folder is not None:
            _services(folder, "stop")
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def session_database(server: str) -> Iterator[str]:
    """Give the URL of a new database, which goes at the end."""
    name = f"memoturn_test_{secrets.token_hex(6)}"
    url = f"{server.rpartition('/')[0]}/{name}"

    async def made():
        await on_server(server, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        await migrate_postgres(url)

    with ThreadPoolExecutor(1) as apart:  # a test's event loop may be running
        apart.submit(asyncio.run, made()).result()
        try:
            yield url
        finally:
            apart.submit(asyncio.run, on_server(server, f"DROP DATABASE {name} WITH (FORCE)")).result()


async def on_server(url: str, statement: str) -> None:
    """Run one statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def emptied(url: str, **options):
    """Return a catalog on the session's database, as new."""
    catalog = await open_postgres(url, **options)
    tables = ", ".join(table.name for table in metadata.sorted_tables)
    await on_server(url, f"TRUNCATE {tables}")
    for row in FIRST_ROWS:
        await catalog.backend.run(row)
    return catalog


class OwnPostgres:
    """A server of one test alone, which may be killed, stopped and started again on the same data."""

    def __init__(self) -> None:
        self.port, self.password = free_port(), secrets.token_hex(16)
        self.data = service_postgres.make_data_folder(self.password)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"postgresql://{service_postgres.USER}:{self.password}@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        self.process = subprocess.Popen(
            service_postgres.server_command(self.data, self.port, fsync=True),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.data,
        )
        deadline = time.monotonic() + 30
        while not service_postgres.is_ready(self.port):
            assert time.monotonic() < deadline, "Postgres did not come up"
            assert self.process.poll() is None, "Postgres has ended"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: the children of the server see that it is gone, and end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it at once but in order (SIGINT is Postgres' fast shutdown)."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Run a server for one test; skip where Postgres is not installed."""
    try:
        server = OwnPostgres()
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.data, ignore_errors=True)


def _services(folder: str, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *command],
        env=os.environ | {"MEMOTURN_SERVICES_DIR": folder},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
