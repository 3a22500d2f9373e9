"""compose.yaml is read by Compose's own reader, has no secret of its own, and its environment is one that the programs take and run with."""

import json
import re
import subprocess
from contextlib import ExitStack
from typing import Any

import pytest
import yaml
from etcd_server import fresh_prefix
from postgres_server import session_database
from service_programs import Compose

from chart.rendering import CHART, REPOSITORY, Objects, program
from chart.sandbox import Pod
from chart.test_chart_runs import EXTERNAL, ingest, recalled, token_of
from gateway.settings import GatewaySettings
from memoturnd.config import Settings

TEXT = (REPOSITORY / "compose.yaml").read_text()
EXAMPLE = (REPOSITORY / ".env.example").read_text()
KEYS = {f"MEMOTURN_{name}": value for name, value in EXTERNAL["keys"].items()}
GIVEN = KEYS | {"POSTGRES_PASSWORD": "postgres-password", "MINIO_PASSWORD": "minio-password"}
OWN = ("node-1", "node-2", "gateway", "migrate")


def model() -> dict[str, Any]:
    """The file with what .env has put in."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: GIVEN[found[1]], TEXT)
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def test_compose_reads_it(tmp_path):
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(model()))
    command = [program(Compose), "-format", "json", "compose.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)["services"]) == {*OWN, "etcd", "postgres", "minio"}


def test_that_reader_notices_what_is_misspelt(tmp_path):
    spoilt = model()
    spoilt["services"]["gateway"]["comand"] = ["x"]
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(spoilt))
    ran = subprocess.run(
        [program(Compose), "compose.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode != 0
    assert "comand" in ran.stderr


def test_example_names_every_secret_and_gives_none():
    needed = set(re.findall(r"\$\{(\w+):\?see \.env\.example\}", TEXT))
    example = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if re.match(r"\w+=", line))

    assert needed == set(example) == set(GIVEN)
    assert set(example.values()) == {""}
    assert ".env" in (REPOSITORY / ".gitignore").read_text().split()


def test_parts_are_hardened_and_have_time_to_stop():
    for name in OWN:
        service = model()["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp"]
        assert service["stop_grace_period"] == "20s"


def test_only_the_gateway_is_reached_and_from_this_machine_alone():
    ports = {name: one["ports"] for name, one in model()["services"].items() if "ports" in one}

    assert ports == {"gateway": ["127.0.0.1:8080:8080"]}


def test_images_are_those_of_the_chart():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    services = model()["services"]

    for name in ("etcd", "postgres", "minio"):
        assert services[name]["image"] == values[name]["image"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert {services[name]["image"] for name in OWN} == {f"memoturn/memoturnd:{version}"}


def test_everything_waits_for_what_it_needs():
    services = model()["services"]

    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            done = how["condition"] == "service_completed_successfully"
            assert done == (other == "migrate"), name
            assert done or "healthcheck" in services[other]


def test_programs_take_the_environment_of_compose():
    services = model()["services"]
    first, second = (
        Settings.from_env(services[name]["environment"], is_tty=False) for name in ("node-1", "node-2")
    )

    assert [one.node_id for one in (first, second)] == ["node-1", "node-2"]
    assert [one.advertise for one in (first, second)] == ["http://node-1:8080", "http://node-2:8080"]
    assert GatewaySettings.from_env(services["gateway"]["environment"], is_tty=False).auth == "on"
    assert Settings.from_env(services["migrate"]["environment"], is_tty=False).catalog is not None


def as_pod(name: str) -> Objects:
    """A service as the pod that would be like it."""
    service = model()["services"][name]
    container = {
        "name": name,
        "command": service["command"],
        "env": [{"name": key, "value": value} for key, value in service["environment"].items()],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready"}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 0}}},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "data", "mountPath": "/var/lib/memoturn"},
        ],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "data", "emptyDir": {}}],
        "terminationGracePeriodSeconds": int(service["stop_grace_period"].removesuffix("s")),
    }
    labels = {"app.kubernetes.io/component": name}
    return Objects([{"kind": "Pod", "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}}}])


@pytest.mark.soak
def test_it_runs(pods, installed, s3_server, etcd_url, postgres_server):
    """The parts with that environment, as real processes; etcd, Postgres and MinIO are those of the tests."""
    prefix, store = fresh_prefix(), s3_server.fresh_url()
    with ExitStack() as stack:
        catalog = stack.enter_context(session_database(postgres_server))
        made = {name: Pod(pods / "compose", installed, as_pod(name), name, name, {}) for name in OWN}
        for name, pod in made.items():
            stack.callback(pod.kill)
            pod.addresses[f"http://{name}:8080"] = pod.url
            if name != "migrate":
                pod.overrides = {"MEMOTURN_ETCD": etcd_url, "MEMOTURN_ETCD_PREFIX": prefix}
            if name != "gateway":
                pod.overrides |= {
                    "MEMOTURN_CATALOG": catalog,
                    "MEMOTURN_OBJECT_STORE": store,
                    **s3_server.environment(),
                }
        assert made["migrate"].run() == 0, made["migrate"].log()
        for name in ("node-1", "node-2", "gateway"):
            made[name].start()

        token = token_of(made["gateway"].url, {"PLATFORM_KEY": GIVEN["MEMOTURN_PLATFORM_KEY"]})
        ingest(made["gateway"].url, token)

        assert recalled(made["gateway"].url, token) == ["Alice is vegan"]
        for name in ("gateway", "node-1", "node-2"):
            assert made[name].stop() == 0, made[name].log()
