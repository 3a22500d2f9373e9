"""Postgres, as a service of `scripts/services`. It refuses to run as root, so root runs it as another user."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from service_base import Service, UnavailableError, free_port, install_debian

USER = "memoturn"
USERS = ("postgres", "nobody")
"""Who runs it where we are root."""


class Postgres(Service):
    """One server with its data in a folder of its own, without fsync: nothing in it outlives the tests."""

    name = "postgres"

    def get(self, *, quick: bool = False) -> None:
        if shutil.which("postgres", path=search_path()):
            return
        install_debian("Postgres", ["postgresql"], quick=quick)

    def launch(self) -> None:
        port, password = free_port(), secrets.token_hex(16)
        data = make_data_folder(password)
        state = {
            "processes": [],
            "endpoint": f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres",
            "data": str(data),
            "port": port,
        }
        self.spawn(state, server_command(data, port))
        self.wait(state, lambda: self.answers(state), "Postgres")

    def answers(self, state: dict) -> bool:
        return is_ready(state["port"])

    def stop(self) -> None:
        state = self.state()
        super().stop()
        if state is not None:
            shutil.rmtree(state["data"], ignore_errors=True)

    def environment(self, state: dict) -> dict[str, str]:
        return {"MEMOTURN_TEST_POSTGRES_URL": state["endpoint"]}


def search_path() -> str:
    """Return where the programs are: Debian keeps those of the server out of the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return os.pathsep.join([*map(str, reversed(versions)), os.environ.get("PATH", "")])


def program(name: str) -> str:
    found = shutil.which(name, path=search_path())
    if found is None:
        raise UnavailableError(f"{name} is not installed: `scripts/services get postgres`")
    return str(Path(found).resolve())


def as_owner() -> list[str]:
    """Return what goes before a command of Postgres: nothing unless we are root."""
    if os.getuid() != 0:
        return []
    owner = _owner()
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]


def make_data_folder(password: str) -> Path:
    """Return a new folder with the data of a server whose superuser is USER."""
    data = Path(tempfile.mkdtemp(prefix="memoturn-postgres-"))
    secret = data / "password"
    secret.write_text(password)
    if os.getuid() == 0:
        for path in (data, secret):
            os.chown(path, _owner().pw_uid, _owner().pw_gid)
    command = [program("initdb"), "-D", str(data / "data"), "-U", USER, f"--pwfile={secret}"]
    made = subprocess.run(
        [*as_owner(), *command, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
        cwd=data,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    secret.unlink()
    if made.returncode != 0:
        shutil.rmtree(data, ignore_errors=True)
        raise UnavailableError(f"initdb failed:\n{made.stderr[-2000:]}")
    return data


def server_command(data: Path, port: int, *, fsync: bool = False) -> list[str]:
    """Return the command that runs a server on that data, in the foreground."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "on" if fsync else "off",
        "max_connections": "60",
        "shared_buffers": "32MB",
    }
    command = [*as_owner(), program("postgres"), "-D", str(data / "data")]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def is_ready(port: int) -> bool:
    """Return whether it takes connections: while it starts, it takes them and says that it does not yet."""
    ready = subprocess.run(
        [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "2"], check=False, timeout=5
    )
    return ready.returncode == 0


def _owner() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise UnavailableError(f"there is none of the users {', '.join(USERS)} to run it as")
