"""The chart as helm renders it: objects, or the reason why it renders none."""

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from service_base import UnavailableError
from service_programs import Helm, Program

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "memoturn"
OLDEST, NEWEST = "1.30", "1.37"
"""Of Kubernetes: the first whose preStop hooks sleep without a shell, and the last whose schemas are there."""
RELEASE, NAMESPACE = "memoturn", "agents"
CLUSTER = yaml.safe_load((CHART / "values-cluster.yaml").read_text())
OUTSIDE: dict[str, Any] = {
    "cluster": {"etcd": {"enabled": True, "endpoints": "https://etcd-0.example:2379,etcd-1.example:12379"}},
    "catalog": {"existingSecret": "catalog", "port": 6432},
    "objectStorage": {
        "backend": "s3",
        "prefix": "prod",
        "s3": {
            "bucket": "memories",
            "region": "eu-north-1",
            "endpoint": "https://s3.example:9443",
            "existingSecret": "bucket",
        },
    },
    "auth": {"existingSecret": "keys"},
    "dataplane": {"replicas": 3},
    "gateway": {"enabled": True},
    "controlPlane": {"enabled": True},
    "mcp": {"enabled": True},
}
"""A real cluster: everything of its own is elsewhere."""


class RefusedError(Exception):
    """Helm rendered nothing; the message is what it said."""


class Objects:
    """What one rendering gave."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.all = documents

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.all if one["kind"] == kind]

    def one(self, kind: str, name: str = RELEASE) -> dict[str, Any]:
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    def pods(self) -> dict[str, dict[str, Any]]:
        """The template of each part's pods, by part."""
        found = [one["spec"]["template"] for one in self.all if "template" in one.get("spec", {})]
        return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}

    def container(self, part: str) -> dict[str, Any]:
        (container,) = self.pods()[part]["spec"]["containers"]
        return container

    def env(self, part: str) -> dict[str, Any]:
        """The variables of a part's container: text, or where it comes from."""
        named = self.container(part).get("env", [])
        assert len({one["name"] for one in named}) == len(named), "a variable is there twice"
        return {one["name"]: one.get("value", one.get("valueFrom")) for one in named}


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Values, the later over the earlier."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def render(
    *layers: dict[str, Any], kube: str = NEWEST, release: str = RELEASE, namespace: str = NAMESPACE
) -> Objects:
    """Render the chart with these values over its own. Raises RefusedError."""
    return Objects(list(_documents(json.dumps(merged(*layers), sort_keys=True), kube, release, namespace)))


@functools.lru_cache(maxsize=256)
def _documents(values: str, kube: str, release: str, namespace: str) -> tuple[dict[str, Any], ...]:
    text = helm(
        "template", release, str(CHART), "--namespace", namespace, "--kube-version", kube, values=values
    )
    return tuple(one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one)


def helm(*arguments: str, values: str = "{}", **environment: str) -> str:
    """Run helm with values as JSON, and return what it prints. Raises RefusedError."""
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [program(Helm), *arguments, "--values", "-"],
            input=values,
            env={"PATH": os.environ["PATH"], "HOME": folder, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if ran.returncode != 0:
        raise RefusedError(ran.stdout + ran.stderr)
    return ran.stdout


@functools.cache
def program(kind: type[Program]) -> str:
    """Return the path of a program, or skip with the reason."""
    try:
        return str(kind.binary(quick=True))
    except UnavailableError as error:
        if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
            pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {kind.name} cannot be had: {error}", pytrace=False)
        pytest.skip(f"{kind.name}: {error}")


def leaves(values: Any, schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Walk the values as the schema describes them: each place that has a description, with its default."""
    if "description" in schema or "properties" not in schema:
        yield path, values, schema
        return
    for name, below in schema["properties"].items():
        if name != "global":
            yield from leaves(values[name], below, f"{path}.{name}" if path else name)
