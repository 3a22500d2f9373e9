"""The network policies let exactly the needed traffic through."""

import pytest

from chart.reach import Place, lets, may_reach
from chart.rendering import CLUSTER, NAMESPACE, OUTSIDE, Objects, merged, render

NAMESPACES = {
    name: {"kubernetes.io/metadata.name": name} for name in (NAMESPACE, "kube-system", "apps", "monitoring")
}
INTERNET, HOST_DNS = Place(address="198.51.100.7"), Place(address="169.254.20.10")
OTHER = Place({"app": "agent"}, NAMESPACES["apps"])
NEIGHBOUR = Place({"app": "agent"}, NAMESPACES[NAMESPACE])
PROMETHEUS = Place({"app": "prometheus"}, NAMESPACES["monitoring"])
DNS = Place({"k8s-app": "kube-dns"}, NAMESPACES["kube-system"])
PORTS = {
    **dict.fromkeys(("dataplane", "gateway", "control-plane"), 8080),
    "mcp": 8765,
    "minio": 9000,
    "etcd": 2379,
    "postgres": 5432,
    "migrate": 8080,
}
ALL = merged(CLUSTER, {"mcp": {"enabled": True}})


def places(objects: Objects) -> dict[str, Place]:
    return {
        part: Place(
            pod["metadata"]["labels"],
            NAMESPACES[NAMESPACE],
            {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", [])},
        )
        for part, pod in objects.pods().items()
    }


def reached(objects: Objects, *, extra: dict[str, Place] | None = None) -> set[tuple[str, str]]:
    """Every pair of parts (and of others) of which the first may reach the second at its port."""
    policies, parts = objects.of("NetworkPolicy"), places(objects)
    outside = {"outside": INTERNET, "other": OTHER, "neighbour": NEIGHBOUR, **(extra or {})}
    return {
        (source, target)
        for source, where in {**parts, **outside}.items()
        for target, there in parts.items()
        if may_reach(policies, where, there, PORTS[target])
    }


def test_within_a_cluster_each_reaches_what_it_needs_and_nothing_else():
    clients = ("outside", "other", "neighbour")

    assert reached(render(ALL)) == {
        ("dataplane", "dataplane"),
        ("dataplane", "etcd"),
        ("dataplane", "postgres"),
        ("dataplane", "minio"),
        ("gateway", "dataplane"),
        ("gateway", "etcd"),
        ("control-plane", "dataplane"),
        ("control-plane", "postgres"),
        ("control-plane", "minio"),
        ("migrate", "postgres"),
        ("mcp", "gateway"),
        *((client, part) for client in clients for part in ("gateway", "control-plane", "mcp")),
    }


def test_both_ends_say_the_same():
    """What one end lets through and the other does not is more than is needed."""
    objects = render(ALL)
    policies, parts = objects.of("NetworkPolicy"), places(objects)

    for target in ("dataplane", "minio", "etcd", "postgres"):
        for source, there in parts.items():
            ends = (("Egress", there, parts[target]), ("Ingress", parts[target], there))
            out, into = (
                lets(policies, way, own, other, parts[target], PORTS[target], "TCP")
                for way, own, other in ends
            )
            assert out == into, (source, target)


def test_a_node_alone_is_reached_by_clients_and_reaches_its_bucket():
    found = reached(render({"mcp": {"enabled": True}}))

    assert found == {
        ("dataplane", "minio"),
        ("mcp", "dataplane"),
        *((client, part) for client in ("outside", "other", "neighbour") for part in ("dataplane", "mcp")),
    }


def test_without_external_ingress_only_named_peers_come_in():
    closed = {
        "networkPolicy": {
            "allowExternalIngress": False,
            "extraIngressFrom": [{"namespaceSelector": {"matchLabels": NAMESPACES["apps"]}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": NAMESPACES["monitoring"]}}],
        }
    }
    found = reached(render(ALL, closed), extra={"prometheus": PROMETHEUS})

    assert {pair for pair in found if pair[0] in {"outside", "neighbour"}} == set()
    assert {target for source, target in found if source == "other"} == {"gateway", "control-plane", "mcp"}
    assert {target for source, target in found if source == "prometheus"} == {
        *("gateway", "control-plane", "dataplane", "mcp"),
    }
    assert ("mcp", "gateway") in found


@pytest.mark.parametrize(
    ("part", "open_ports"),
    [
        ("dataplane", {2379, 12379, 6432, 9443}),
        ("gateway", {2379, 12379}),
        ("control-plane", {6432, 9443}),
        ("migrate", {6432}),
        ("mcp", set()),
    ],
)
def test_services_outside_are_reached_at_their_ports(part, open_ports):
    objects = render(OUTSIDE)
    policies, own = objects.of("NetworkPolicy"), places(objects)[part]
    asked = {22, 53, 80, 443, 2379, 12379, 5432, 6432, 8080, 9000, 9443}

    assert {port for port in asked if may_reach(policies, own, INTERNET, port)} == open_ports


@pytest.mark.parametrize(
    ("etcd", "open_ports"),
    [
        ({"endpoints": "http://a:2379,http://b:3379"}, {2379, 3379}),
        ({"endpoints": "https://a:2379,b:3379"}, {2379, 3379}),
        ({"endpoints": "http://a,b"}, {80}),
        ({"endpoints": "https://a,https://[fd00::1]:4379"}, {443, 4379}),
        ({"endpoints": "", "existingSecret": "etcd", "port": 4379}, {4379}),  # pragma: allowlist secret
    ],
)
def test_etcd_is_reached_at_the_ports_that_the_program_asks(etcd, open_ports):
    objects = render(OUTSIDE, {"cluster": {"etcd": etcd}})
    policies, own = objects.of("NetworkPolicy"), places(objects)["gateway"]
    asked = {80, 443, 2379, 3379, 4379}

    assert {port for port in asked if may_reach(policies, own, INTERNET, port)} == open_ports


def test_names_are_looked_up_in_the_cluster_alone():
    objects = render(ALL)
    policies = objects.of("NetworkPolicy")

    for part, place in places(objects).items():
        asks = part in {"dataplane", "gateway", "control-plane", "migrate", "mcp"}
        for protocol in ("UDP", "TCP"):
            assert may_reach(policies, place, DNS, 53, protocol) is asks, part
            assert may_reach(policies, place, HOST_DNS, 53, protocol) is asks, part
            assert not may_reach(policies, place, INTERNET, 53, protocol), part


@pytest.mark.parametrize(
    ("ai", "open_ports"),
    [
        ({}, set()),
        ({"embedProvider": "local"}, set()),
        ({"existingSecret": "models"}, {443}),
        ({"embedProvider": "openai", "embedBaseUrl": "http://llm.example:11434/v1"}, {11434}),
        (
            {
                "existingSecret": "models",
                "extractProvider": "openai",
                "extractBaseUrl": "http://llm.example",
                "extractModel": "qwen3",
                "embedProvider": "off",
                "assistantProvider": "off",
            },
            {80},
        ),
    ],
)
def test_models_are_reached_once_they_are_set(ai, open_ports):
    objects = render({"ai": ai})
    policies, own = objects.of("NetworkPolicy"), places(objects)["dataplane"]

    assert {port for port in (80, 443, 11434) if may_reach(policies, own, INTERNET, port)} == open_ports


def test_a_peer_narrows_where_the_bucket_is():
    store = {"networkPolicy": {"objectStorageTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}}
    objects = render(OUTSIDE, store)
    policies, own = objects.of("NetworkPolicy"), places(objects)["dataplane"]

    assert may_reach(policies, own, Place(address="192.0.2.9"), 9443)
    assert not may_reach(policies, own, INTERNET, 9443)


@pytest.mark.parametrize(
    ("store", "agents"),
    [
        ({"backend": "gs", "gs": {"bucket": "b"}}, {("169.254.169.254", 80), ("169.254.169.252", 988)}),
        ({"backend": "gs", "gs": {"bucket": "b", "existingSecret": "key"}}, set()),
        ({"backend": "s3"}, {("169.254.170.23", 80)}),
        ({"backend": "s3", "s3": {"existingSecret": "key"}}, set()),
        ({"backend": "minio"}, set()),
    ],
)
def test_a_role_is_asked_for_where_the_bucket_takes_one_and_nowhere_else(store, agents):
    """Of the machine's own addresses: what stands there gives credentials to whoever reaches it."""
    objects = render(
        {"objectStorage": store, "postgres": {"enabled": True}, "controlPlane": {"enabled": True}}
    )
    policies = objects.of("NetworkPolicy")
    asked = [(f"169.254.{end}", port) for end in ("169.254", "169.252", "170.23") for port in (80, 988)]

    for part, place in places(objects).items():
        reaches = {pair for pair in asked if may_reach(policies, place, Place(address=pair[0]), pair[1])}
        assert reaches == (agents if part in {"dataplane", "control-plane"} else set()), part


def test_every_pod_is_under_a_policy_for_both_ways():
    for values in ({}, ALL, OUTSIDE):
        objects = render(values)
        chosen = [
            (one["spec"]["podSelector"]["matchLabels"], one["spec"]["policyTypes"])
            for one in objects.of("NetworkPolicy")
        ]
        for part, pod in objects.pods().items():
            under = [types for labels, types in chosen if labels.items() <= pod["metadata"]["labels"].items()]
            assert under == [["Ingress", "Egress"]], part


def test_the_judge_of_policies_knows_their_rules():
    """It decides the tests above, so it is held to cases whose answer Kubernetes' own documentation gives."""
    pod = Place({"role": "db"}, NAMESPACES[NAMESPACE], {"sql": 6379})
    policy = {
        "metadata": {"namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"role": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                        {"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["apps"]}]}},
                        {"podSelector": {"matchLabels": {"role": "frontend"}}},
                    ],
                    "ports": [{"protocol": "TCP", "port": "sql"}],
                }
            ],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"port": 5978}]}],
        },
    }  # fmt: skip
    frontend = {"role": "frontend"}

    def come(place: Place, port: int = 6379, protocol: str = "TCP") -> bool:
        return may_reach([policy], place, pod, port, protocol)

    assert come(Place(address="172.17.0.5"))
    assert not come(Place(address="172.17.1.5"))
    assert come(Place({}, NAMESPACES["apps"]))
    assert come(Place(frontend, NAMESPACES[NAMESPACE]))
    assert not come(Place(frontend, NAMESPACES["monitoring"]))
    assert not come(Place(frontend, NAMESPACES[NAMESPACE]), 22)
    assert not come(Place(frontend, NAMESPACES[NAMESPACE]), 6379, "UDP")
    assert may_reach([policy], pod, Place(address="10.0.0.9"), 5978)
    assert not may_reach([policy], pod, Place(address="10.0.1.9"), 5978)
    assert may_reach([policy], Place(frontend, NAMESPACES[NAMESPACE]), INTERNET, 1), "no policy selects it"
