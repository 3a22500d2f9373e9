"""Settings of a cluster: what they need of one another, and by which name and address a node is known to others."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import Address

if TYPE_CHECKING:
    from memoturnd.config import Settings

_INSTANCE_DIGITS = 8
_HOST_CHARACTERS = 100


def cluster_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what a node that shares etcd with others lacks, or says of itself that they cannot use."""
    if values.get("etcd") is None:
        return []
    problems = []
    if values.get("catalog") is None:
        problems.append(
            "MEMOTURN_ETCD takes a MEMOTURN_CATALOG that the nodes share: postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if (values.get("object_store") or "mem://").startswith("mem://"):
        problems.append(
            "MEMOTURN_ETCD takes a MEMOTURN_OBJECT_STORE that the nodes share: s3://BUCKET/PREFIX, gs://, az://, or "
            "file://PATH of a folder that all of them have"
        )
    if values.get("cluster_key") is None and values.get("cluster_key_file") is None:
        problems.append(
            "MEMOTURN_ETCD takes a MEMOTURN_CLUSTER_KEY or MEMOTURN_CLUSTER_KEY_FILE, the same on every node: "
            "nodes show it to one another"
        )
    signs = ("auth_key", "auth_key_file", "persist_auth_key")
    if values.get("auth") == "on" and not any(values.get(field) for field in signs):
        problems.append(
            "MEMOTURN_ETCD with MEMOTURN_AUTH='on' takes a MEMOTURN_AUTH_KEY or MEMOTURN_AUTH_KEY_FILE, the same on every "
            "node, or MEMOTURN_PERSIST_AUTH_KEY=1: a token of one node must be good on the others"
        )
    return problems + _unreachable(values.get("advertise"), values.get("listen"))


def standing(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the name and the address of a node by its settings alone; in a cluster `identified` finds what is left empty."""
    if values["etcd"] is None:
        return {"advertise": f"http://{values['listen']}", "node_id": f"node-{os.getpid()}"}
    return {"advertise": "", "node_id": ""}


def identified(settings: "Settings", instance: str, *, port: int) -> "Settings":
    """Return the settings with a name that no other node has, and an address that others reach, where none were set.

    `instance` is the data directory's own id, `port` the one that is listened on. Raises ConfigurationError.
    """
    advertise = settings.advertise or f"http://{Address(_host(settings), port)}"
    host = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())
    node_id = settings.node_id or f"{host[:_HOST_CHARACTERS]}-{instance[:_INSTANCE_DIGITS]}"
    return replace(settings, advertise=advertise, node_id=node_id)


def _unreachable(advertise: str | None, listen: Address | None) -> list[str]:
    """Return what is wrong with the address that others are told: it must lead to this machine from theirs."""
    if advertise is None or listen is None:
        return []
    host = urlsplit(advertise).hostname or ""
    if _is_unspecified(host):
        return [f"MEMOTURN_ADVERTISE={advertise!r} is no address to connect to; name this machine's own"]
    if _is_loopback(host) and not listen.is_loopback:
        problem = (
            f"MEMOTURN_ADVERTISE={advertise!r} leads every other machine to itself, while MEMOTURN_LISTEN='{listen}' "
            "serves them; name an address by which they reach this one"
        )
        return [problem]
    return []


def _host(settings: "Settings") -> str:
    """Return the host at which others reach what listens here. Raises ConfigurationError where none is found."""
    listen = settings.listen.host
    if not _is_unspecified(listen):
        return listen
    for found in (_towards_etcd(settings), _own_name()):
        if found and not _is_loopback(found):
            return found
    raise ConfigurationError(
        f"MEMOTURN_LISTEN='{settings.listen}' serves other machines, and none of this one's addresses is known by which "
        "they reach it: set MEMOTURN_ADVERTISE to http://HOST:PORT"
    )


def _towards_etcd(settings: "Settings") -> str:
    """Return the address that this machine has on its way to etcd, which other nodes reach as well. Nothing is sent."""
    if settings.etcd is None:
        return ""
    scheme, _, rest = settings.etcd.reveal().partition("://")
    first = urlsplit(f"{scheme}://{rest.rpartition('@')[2].split(',')[0]}")
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            first.hostname, first.port or 2379, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    except OSError:
        pass
    return ""


def _own_name() -> str:
    """Return this machine's name where it stands for an address that others reach, else nothing."""
    name = socket.gethostname()
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return ""
    return "" if any(_is_loopback(address) for address in found) else name


def _is_loopback(host: str) -> bool:
    return Address(host, 0).is_loopback


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
