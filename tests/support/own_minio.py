"""A MinIO of one test alone, which may be killed, started again on the same data, and given certificates and users."""

import datetime as dt
import ipaddress
import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from processes import free_port
from servers import S3Server
from service_base import MINIO, UnavailableError, go_binary

ACCESS, SECRET = "own-access", "own-minio-secret"


class OwnMinio:
    """One process. `certificate` is a file to trust where it serves TLS, None where it does not."""

    def __init__(self, folder: Path, binary: str, *, tls: bool = False) -> None:
        self.port = free_port()
        self.folder = folder
        self.command = [binary, "server", str(folder / "minio"), "--address", f"127.0.0.1:{self.port}"]
        self.command += ["--console-address", f"127.0.0.1:{free_port()}"]
        self.certificate: Path | None = None
        if tls:
            self.certificate = make_certificate(folder / "certs")
            self.command += ["--certs-dir", str(folder / "certs")]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def server(self) -> S3Server:
        return S3Server("MinIO", self.endpoint, ACCESS, SECRET, "us-east-1", "bucket", self._witness())

    def start(self) -> None:
        """Start it, and return when it takes writes."""
        self.process = subprocess.Popen(
            self.command,
            env=os.environ
            | {"MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        trust = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(
                    f"{self.endpoint}/minio/health/cluster", timeout=2, context=trust
                ):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("MinIO did not come up")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def add_user(self, access: str, secret: str, policy: dict) -> None:
        """Make a user who may do what the policy says."""
        admin = MinioAdmin(
            endpoint=f"127.0.0.1:{self.port}", credentials=StaticProvider(ACCESS, SECRET), secure=False
        )
        admin.policy_add(f"policy-{access}", policy=policy)
        admin.user_add(access, secret)
        admin.policy_set(f"policy-{access}", user=access)

    def _witness(self) -> Minio:
        pool = urllib3.PoolManager(ca_certs=str(self.certificate)) if self.certificate else None
        return Minio(
            f"127.0.0.1:{self.port}",
            ACCESS,
            SECRET,
            secure=self.certificate is not None,
            region="us-east-1",
            http_client=pool,
        )


@contextmanager
def running_minio(folder: Path, *, tls: bool = False) -> Iterator[OwnMinio]:
    """Run a MinIO with one bucket; skip the test where it is not built."""
    try:
        binary = go_binary("minio", MINIO, quick=True)
    except UnavailableError as error:
        pytest.skip(str(error))
    minio = OwnMinio(folder, str(binary), tls=tls)
    minio.start()
    try:
        minio.server.witness.make_bucket("bucket")
        yield minio
    finally:
        minio.kill()


def make_certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 with its key, as MinIO wants them, and return that of its authority."""
    folder.mkdir(parents=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certify("memoturn test authority", authority_key, "memoturn test authority", authority_key)
    certificate = certify("memoturn tests", key, "memoturn test authority", authority_key)
    pem = serialization.Encoding.PEM
    (folder / "public.crt").write_bytes(certificate.public_bytes(pem))
    (folder / "private.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    trusted = folder.parent / "authority.pem"
    trusted.write_bytes(authority.public_bytes(pem))
    return trusted


def certify(
    name: str, key: ec.EllipticCurvePrivateKey, by: str, by_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return a certificate that lasts a day; one that certifies itself is an authority."""
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=key is by_key, path_length=None), critical=True)
        .sign(by_key, hashes.SHA256())
    )
