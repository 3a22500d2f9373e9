"""Whether an embedder's address is the operator's own, as far as its host tells. Pure."""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

_OWN_SUFFIXES = (".svc.cluster.local", ".internal")


def is_self_hosted(base_url: str, hosts: Collection[str]) -> bool:
    """Return whether what is sent to `base_url` stays with the operator; `hosts` are those that the operator names.

    Besides these: this machine, addresses of private networks, names within a cluster, and names without a dot.
    """
    host = (urlsplit(base_url).hostname or "").rstrip(".").lower()
    if not host:
        return False
    if host in {name.rstrip(".").lower() for name in hosts} or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Some resolvers read digits, `0x` and the like as an IPv4 address: a name does not end so.
        last = host.rpartition(".")[2]
        return last[:1].isalpha() and ("." not in host or host.endswith(_OWN_SUFFIXES))
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_loopback
    return any(address in network for network in _OWN_NETWORKS)


_OWN_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
)
