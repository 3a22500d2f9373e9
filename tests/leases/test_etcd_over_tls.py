"""Leases on an etcd that is reached over TLS alone: with its authority they work as ever, with another nothing is said to it."""

import asyncio
import datetime as dt
import ipaddress
import subprocess
import time

import pytest
import service_etcd
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from etcd_server import fresh_prefix, own_etcd
from service_base import free_port

from memoturnd.leases.etcd import CALL_SHARE, EtcdLeases, Identity
from memoturnd.leases.etcd_client import EtcdClient, endpoints
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.leases import LiveNode, Placements

TTL_S = 2


class Authority:
    """A certificate authority in a folder, and what it signs."""

    def __init__(self, folder, name):
        folder.mkdir()
        self.folder, self.ca_file = folder, folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.ca_file.write_bytes(ca)

    def server(self):
        """Return the files (certificate, key) of a server on 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd")])
        cert_file, key_file = self.folder / "server.pem", self.folder / "server.key"
        cert_file.write_bytes(self._signed(name, key, address))
        form = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        )
        return cert_file, key_file

    def _signed(self, name, key, extension):
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        )
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours", "ours")


@pytest.fixture
def tls_url(tmp_path, authority):
    """An etcd whose clients come over TLS."""
    with own_etcd() as plain:  # says whether etcd can be had
        plain.stop()
    cert_file, key_file = authority.server()
    port, peer = free_port(), free_port()
    command = [
        part.replace(f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}")
        for part in service_etcd.member_command("one", tmp_path, port, {"one": peer})
    ]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, f"--cert-file={cert_file}", f"--key-file={key_file}"], stdout=log, stderr=log
        )
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def leases_on(url, ca_file, node_id="a"):
    client = EtcdClient(endpoints(url, ca_file), timeout_s=CALL_SHARE * TTL_S)
    identity = Identity(node_id, f"http://{node_id}", node_id)
    return EtcdLeases(client, identity, SystemClock(), ttl_s=TTL_S, prefix=fresh_prefix())


async def started(url, ca_file):
    until_s = time.monotonic() + 30
    while True:
        leases = leases_on(url, ca_file)
        try:
            await leases.start()
        except Exception:
            await leases.close()
            if time.monotonic() > until_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return leases


async def test_leases_renewals_and_watches_go_over_tls(tls_url, authority):
    leases = await started(tls_url, authority.ca_file)
    changes = leases.watch()
    assert await anext(changes) == Placements((), (LiveNode("a", "http://a"),))
    lease = await leases.acquire("branch")
    assert (await anext(changes)).branch_id == "branch"
    before_s = leases.deadline()
    await leases._renew()
    assert leases.holds(lease)
    assert leases.deadline() > before_s
    await changes.aclose()
    await leases.close()


async def test_a_server_of_another_authority_is_not_spoken_to(tls_url, authority, tmp_path):
    await (await started(tls_url, authority.ca_file)).close()  # it is there
    for ca_file in (Authority(tmp_path / "other", "other").ca_file, None):
        leases = leases_on(tls_url, ca_file)
        with pytest.raises(Exception, match=r"(?i)certificate") as refused:
            await leases.start()
        assert tls_url in str(refused.value), "the message names the endpoint"
        await leases.close()
