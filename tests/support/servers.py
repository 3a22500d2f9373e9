"""Real object stores for tests: taken from the environment, or started by `scripts/services` for this session.

    MEMOTURN_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY     a real S3 server (else MinIO is started)
    MEMOTURN_TEST_S3_BUCKET, _REGION                        a bucket that is there already, and its region
    MEMOTURN_TEST_MOTO_..., MEMOTURN_TEST_RGW_...           the same for the emulator and for Ceph RGW

A server that cannot be had skips its tests and says why; with MEMOTURN_REQUIRE_SERVICES=1 that is a failure. Ceph
RGW has no tests unless MEMOTURN_TEST_RGW=1 or an endpoint asks for them: one real server is enough.
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from minio import Minio

from memoturnd.seams.object_store import ObjectStore
from memoturnd.stores.open import open_store

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services"
RGW = os.environ.get("MEMOTURN_TEST_RGW") == "1" or "MEMOTURN_TEST_RGW_ENDPOINT" in os.environ
REPORT: list[str] = []
"""What the end of the run says about object stores."""


@dataclass(frozen=True)
class S3Server:
    """A server with a bucket for this session. `witness` is a client of another make, which looks into it."""

    name: str
    endpoint: str
    access: str
    secret: str = field(repr=False)
    region: str
    bucket: str
    witness: Minio = field(compare=False)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the settings of the standard clients for this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            **changes,
        }

    def fresh_url(self) -> str:
        """Return a place that nobody has used."""
        return f"s3://{self.bucket}/t-{secrets.token_hex(8)}"

    def keys(self, url: str) -> dict[str, bytes]:
        """Return what the witness finds below a URL of this server, by key relative to it."""
        prefix = url.partition(f"{self.bucket}/")[2] + "/"
        found = {}
        for row in self.witness.list_objects(self.bucket, prefix=prefix, recursive=True):
            answer = self.witness.get_object(self.bucket, row.object_name)
            found[row.object_name.removeprefix(prefix)] = answer.read()
            answer.close()
            answer.release_conn()
        return found


class Servers:
    """The servers of one test session, each started at its first use and all stopped at the end."""

    def __init__(self) -> None:
        self._found: dict[str, S3Server | str] = {}
        self._folder: Path | None = None

    def get(self, kind: str) -> S3Server:
        """Return the server `minio`, `moto` or `rgw`, or skip the test with the reason."""
        found = self._look(kind)
        if isinstance(found, S3Server):
            return found
        if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1" and self._needed(kind):
            pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {kind} cannot be had: {found}", pytrace=False)
        pytest.skip(f"{kind}: {found}")

    def real(self) -> S3Server:
        """Return a real S3 server: MinIO, or Ceph RGW where only that is to be had."""
        return self.get("rgw" if RGW and isinstance(self._look("minio"), str) else "minio")

    def _needed(self, kind: str) -> bool:
        """One real server is enough, whichever."""
        other = {"minio": "rgw", "rgw": "minio"}.get(kind)
        return other is None or not (RGW and isinstance(self._look(other), S3Server))

    def _look(self, kind: str) -> S3Server | str:
        """Return the server, or why there is none; look once."""
        if kind not in self._found:
            found = self._found[kind] = self._find(kind)
            there = isinstance(found, S3Server)
            REPORT.append(
                f"object store {kind}: {found.name} at {found.endpoint}" if there else f"no {kind}: {found}"
            )
        return self._found[kind]

    def stop(self) -> None:
        """Stop what this session started."""
        if self._folder is not None:
            self._services("stop")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _find(self, kind: str) -> S3Server | str:
        prefix = {"minio": "MEMOTURN_TEST_S3_", "moto": "MEMOTURN_TEST_MOTO_", "rgw": "MEMOTURN_TEST_RGW_"}[
            kind
        ]
        given = os.environ
        if f"{prefix}ENDPOINT" not in given:
            started = self._services("start", "--quick", kind)
            given = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", started.stdout, flags=re.MULTILINE))
            if f"{prefix}ENDPOINT" not in given:
                return started.stderr.strip()
        return _reached(prefix, given, kind)

    def _services(self, *command: str) -> "subprocess.CompletedProcess[str]":
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="memoturn-test-services-"))
        return subprocess.run(
            [sys.executable, str(SCRIPT), *command],
            env=os.environ | {"MEMOTURN_SERVICES_DIR": str(self._folder)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def _reached(prefix: str, given: dict[str, str], kind: str) -> S3Server | str:
    endpoint = given[f"{prefix}ENDPOINT"]
    access = given.get(f"{prefix}ACCESS_KEY") or os.environ.get("AWS_ACCESS_KEY_ID", "")
    secret = given.get(f"{prefix}SECRET_KEY") or os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    region = given.get(f"{prefix}REGION", "us-east-1")
    parts = urlsplit(endpoint)
    witness = Minio(parts.netloc, access, secret, secure=parts.scheme == "https", region=region)
    bucket = given.get(f"{prefix}BUCKET") or f"memoturn-test-{secrets.token_hex(6)}"
    if f"{prefix}BUCKET" not in given:
        witness.make_bucket(bucket)
    name = {"minio": "MinIO or another S3 server", "moto": "moto (an emulator)", "rgw": "Ceph RGW"}[kind]
    return S3Server(name, endpoint, access, secret, region, bucket, witness)


@contextmanager
def settings_of(server: S3Server, **changes: str) -> Iterator[None]:
    """Put a server's settings into this process's environment, where every client reads them at its first request."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in server.environment(**changes).items():
            patch.setenv(name, value)
        yield


@contextmanager
def store_on(
    server: S3Server, client: str = "aiobotocore", url: str | None = None, **changes: str
) -> Iterator[ObjectStore]:
    """Return a store on a server that the environment names while the context lasts. The caller closes it."""
    with settings_of(server, **changes):
        yield open_store(url or server.fresh_url(), s3_client=client)
