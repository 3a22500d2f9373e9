"""What network policies let through: may pod A reach pod B on port P?

A pod or a place is a `Place`: labels of a pod and its namespace, or an address outside. As in Kubernetes, a pod that no policy selects
for a direction is open in it; else one rule of one policy has to allow it, at both ends.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Place:
    """A pod (labels, named ports), or somewhere outside of the cluster (an address)."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    address: str = ""


def may_reach(
    policies: list[dict[str, Any]], source: Place, target: Place, port: int, protocol: str = "TCP"
) -> bool:
    """Tell whether the policies of one namespace let `source` open a connection to `target`."""
    return lets(policies, "Egress", source, target, target, port, protocol) and lets(
        policies, "Ingress", target, source, target, port, protocol
    )


def lets(
    policies: list[dict[str, Any]],
    direction: str,
    own: Place,
    other: Place,
    target: Place,
    port: int,
    protocol: str,
) -> bool:
    """Tell whether the policies of `own` for a direction let it speak with `other`; the port is that of `target`."""
    if own.address:
        return True
    home = {one["metadata"]["namespace"] for one in policies}
    selecting = [
        one["spec"]
        for one in policies
        if own.namespace.get("kubernetes.io/metadata.name") in home
        and direction in one["spec"]["policyTypes"]
        and _selects(one["spec"]["podSelector"], own.labels)
    ]
    key, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return not selecting or any(
        _has_port(rule, target, port, protocol) and _has_peer(rule.get(peers), own, other)
        for spec in selecting
        for rule in spec.get(key) or []
    )


def _has_port(rule: dict[str, Any], target: Place, port: int, protocol: str) -> bool:
    if not rule.get("ports"):
        return True
    return any(
        one.get("protocol", "TCP") == protocol
        and one.get("port", port)
        in {port, *(name for name, number in target.ports.items() if number == port)}
        for one in rule["ports"]
    )


def _has_peer(peers: list[dict[str, Any]] | None, own: Place, other: Place) -> bool:
    return not peers or any(_is_peer(peer, own, other) for peer in peers)


def _is_peer(peer: dict[str, Any], own: Place, other: Place) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return _is_in(other.address, block["cidr"]) and not any(
            _is_in(other.address, hole) for hole in block.get("except", [])
        )
    if other.address:
        return False
    in_namespace = (
        _selects(peer["namespaceSelector"], other.namespace)
        if "namespaceSelector" in peer
        else own.namespace == other.namespace
    )
    return in_namespace and _selects(peer.get("podSelector", {}), other.labels)


def _is_in(address: str, network: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    by_labels = selector.get("matchLabels", {}).items() <= labels.items()
    return by_labels and all(_meets(one, labels) for one in selector.get("matchExpressions", []))


def _meets(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case _:
            return value is None
