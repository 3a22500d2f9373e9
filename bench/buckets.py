"""The object stores to measure: a local directory, and MinIO through each S3 client where MinIO can be had."""

import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.nodes import Child, child_node, temporary_folder

_SCRIPT: Final = Path(__file__).parent.parent / "scripts" / "services"
_START_S: Final = 120.0
_VARIABLE: Final = "MEMOTURN_TEST_S3_"
CLIENTS: Final = ("aiobotocore", "obstore")


@dataclass(frozen=True, slots=True)
class Backing:
    """An object store, its name in tables, and what makes a node use it: settings without prefix, and environment."""

    name: str
    url: str
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def fresh(self) -> "Backing":
        """Return a place in the same store that nobody has used."""
        return replace(self, url=f"{self.url}/{secrets.token_hex(6)}")

    def node(self, folder: Path, **settings: str) -> AbstractContextManager[Child]:
        """Return a node on this store, as `child_node` does."""
        chosen = {**self.settings, "OBJECT_STORE": self.url, **settings}
        return child_node(folder, module=("memoturnd",), outside=self.environment, **chosen)


@dataclass(frozen=True, slots=True)
class Backings:
    """What there is to measure, and what there is to say about it. The first one is the local directory."""

    all: list[Backing]
    notes: list[str]

    @property
    def dearest(self) -> Backing:
        """Return the one whose requests cost something: MinIO through the default client, else the directory."""
        return self.all[min(1, len(self.all) - 1)]


@contextmanager
def backings() -> Iterator[Backings]:
    """Yield the stores: MinIO runs until the block ends. Where it cannot be had, a note says why."""
    with temporary_folder() as folder:
        local = Backing("local directory", f"file://{folder / 'objects'}")
        try:
            server = _start(folder)
            buckets, note = _buckets(server), f"{_version(server)} on loopback, its data on the same disk."
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            buckets, note = [], f"Not measured on MinIO: {error}"
        try:
            yield Backings([local, *buckets], [note])
        finally:
            _services(folder, "stop")


def _start(folder: Path) -> dict[str, str]:
    """Return where MinIO is and how to sign in. Raises RuntimeError where it cannot be had."""
    done = _services(folder, "start", "--quick", "minio")
    found = dict(re.findall(rf"^export {_VARIABLE}(\w+)=(.*)$", done.stdout, re.MULTILINE))
    if done.returncode or not found:
        raise RuntimeError(" ".join((done.stderr or "scripts/services started nothing").split())[-300:])
    return {name: shlex.split(value)[0] for name, value in found.items()}


def _services(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(_SCRIPT), *arguments],
        env=os.environ | {"MEMOTURN_SERVICES_DIR": str(folder / "services")},
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )


def _buckets(server: dict[str, str]) -> list[Backing]:
    """Make a bucket, and return it as each client opens it."""
    from minio import Minio

    bucket = f"bench-{secrets.token_hex(4)}"
    address = urlsplit(server["ENDPOINT"])
    Minio(
        address.netloc, access_key=server["ACCESS_KEY"], secret_key=server["SECRET_KEY"], secure=False
    ).make_bucket(bucket)
    environment = {
        "AWS_ENDPOINT_URL": server["ENDPOINT"],
        "AWS_ACCESS_KEY_ID": server["ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": server["SECRET_KEY"],
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return [
        Backing(f"MinIO, {client}", f"s3://{bucket}", {"S3_CLIENT": client}, environment)
        for client in CLIENTS
    ]


def _version(server: dict[str, str]) -> str:
    """Return which MinIO it is."""
    pinned = re.search(r"minio/minio@\S+?-(\d{4})(\d{2})(\d{2})\d+-", _SCRIPT.read_text())
    return f"MinIO built from source of {'-'.join(pinned.groups())}" if pinned and server else "MinIO"
