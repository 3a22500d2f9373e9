"""What the chart's MinIO and etcd are told is what these programs take, and its probes are answered by them.

Their images cannot be run here: their commands are, with folders and ports of this machine. compose.yaml says the same.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from minio import Minio
from processes import free_port
from service_base import MINIO, UnavailableError, go_binary
from service_etcd import Etcd

from chart.rendering import CLUSTER, REPOSITORY, render

UP_S = 30.0
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
USER, PASSWORD = "memoturn", "password-of-the-backing-test"  # pragma: allowlist secret


def needed(name, get):
    """What `get` gives, or a skip with the reason."""
    try:
        return get()
    except UnavailableError as error:
        if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
            pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {name} cannot be had: {error}", pytrace=False)
        pytest.skip(f"{name}: {error}")


def here(words: list[str], folder: Path, ports: dict[int, int]) -> list[str]:
    """A container's command with the folders and ports of this machine."""
    for there, port in ports.items():
        words = [re.sub(rf"(?<=:){there}\b", str(port), word) for word in words]
    return [re.sub(r"(?<![\w/])/(data|tmp)\b", rf"{folder}/\1", word) for word in words]


@contextlib.contextmanager
def running(words: list[str], folder: Path, health: str, **environment: str) -> Iterator[None]:
    """The command, once it answers at `health`."""
    log = folder / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            words, env={**os.environ, **environment}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline_s = time.monotonic() + UP_S
        while not is_well(health):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(UP_S)


def is_well(url):
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def probed(container):
    return {
        probe["httpGet"]["path"] for name in ("startup", "readiness") if (probe := container[f"{name}Probe"])
    }


@pytest.mark.parametrize("of", ["chart", "compose"])
def test_minio_has_the_bucket_at_once_and_keeps_it(of, tmp_path):
    binary = needed("MinIO", lambda: go_binary("minio", MINIO, quick=True))
    container = render().container("minio")
    told = container["command"] if of == "chart" else COMPOSE["minio"]["entrypoint"]
    port, console = free_port(), free_port()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "minio").symlink_to(binary)
    words = here(told, tmp_path, {9000: port, 9001: console})
    given = {one["name"]: one.get("value", "") for one in container["env"]} | {
        "MINIO_ROOT_USER": USER,
        "MINIO_ROOT_PASSWORD": PASSWORD,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    client = Minio(f"127.0.0.1:{port}", access_key=USER, secret_key=PASSWORD, secure=False)
    file = tmp_path / "file"
    file.write_text("kept")

    for first in (True, False):
        with running(words, tmp_path, f"http://127.0.0.1:{port}/minio/health/cluster", **given):
            assert [one.name for one in client.list_buckets()] == ["memoturn"]
            if first:
                client.fput_object("memoturn", "a/b", str(file))
            with contextlib.closing(client.get_object("memoturn", "a/b")) as answer:
                assert answer.read() == b"kept"
            assert all(is_well(f"http://127.0.0.1:{port}{path}") for path in probed(container))


@pytest.mark.parametrize("of", ["chart", "compose"])
def test_etcd_takes_its_options_and_answers_its_probes(of, tmp_path):
    needed("etcd", lambda: Etcd(tmp_path).get(quick=True))
    container = render(CLUSTER).container("etcd")
    told = container["command"] if of == "chart" else COMPOSE["etcd"]["command"]
    port, peer = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"

    with running(here(told, tmp_path, {2379: port, 2380: peer}), tmp_path, f"{url}/health"):
        assert all(is_well(f"{url}{path}") for path in probed(container))
        put = httpx.post(f"{url}/v3/kv/put", json={"key": "YQ==", "value": "Yg=="})
        test = COMPOSE["etcd"]["healthcheck"]["test"]
        asked = subprocess.run(
            [*test[1:], f"--endpoints={url}"],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert put.status_code == 200, "the JSON gateway is on unless it is turned off"
    assert test[0] == "CMD"
    assert asked.returncode == 0, asked.stderr
    assert shutil.which(test[1])
