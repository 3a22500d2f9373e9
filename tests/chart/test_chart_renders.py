"""The chart renders objects that the oldest and the newest Kubernetes take, whatever its values."""

import functools
import re

import kubernetes_validate
import pytest
import yaml

from chart.rendering import (
    CHART,
    CLUSTER,
    NEWEST,
    OLDEST,
    OUTSIDE,
    REPOSITORY,
    RefusedError,
    helm,
    merged,
    render,
)

ALL_OPTIONS = {
    "ipFamily": "IPv6",
    "image": {"digest": "sha256:" + "ab" * 32},
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/memories"}},
    "cluster": {
        "leaseTtlSecs": 15,
        "etcd": {"endpoints": "", "existingSecret": "etcd", "caSecret": "etcd-ca", "prefix": "/prod/"},
    },
    "dataplane": {
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
        "extraVolumes": [{"name": "models", "configMap": {"name": "models"}}],
        "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
        "podAnnotations": {"example.com/team": "agents"},
        "podLabels": {"example.com/team": "agents"},
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "agents", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
    },
    "gateway": {"autoscaling": {"enabled": True}, "hedgeMs": 50},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": ["memory.example"],
        "tls": [{"secretName": "tls", "hosts": ["memory.example"]}],
    },
    "networkPolicy": {
        "allowExternalIngress": False,
        "allowHttpsEgress": True,
        "extraIngressFrom": [{"namespaceSelector": {}}],
        "metricsFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 8443}]}],
        "objectStorageTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    },
    "podDisruptionBudget": {"minAvailable": "50%"},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "mcp": {"allowedHosts": ["mcp.example"]},
    "ai": {"existingSecret": "models", "extractModel": "claude-opus-4-8", "embedProvider": "voyage"},
}
MATRIX = {
    "a node alone": {},
    "a node without a bucket": {"objectStorage": {"backend": "file"}},
    "a node with Postgres": {"postgres": {"enabled": True}},
    "a cluster for trying out": CLUSTER,
    "the same without volumes": merged(
        CLUSTER, {part: {"persistence": {"enabled": False}} for part in ("minio", "etcd", "postgres")}
    ),
    "the same with everything of the chart": merged(
        CLUSTER, {"mcp": {"enabled": True}, "podMonitor": {"enabled": True}}
    ),
    "a real cluster": OUTSIDE,
    "a real cluster, all options": merged(OUTSIDE, ALL_OPTIONS),
    "nothing but nodes": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False, "name": "mine"},
    },
    "Google": {"objectStorage": {"backend": "gs", "gs": {"bucket": "memories", "existingSecret": "gcp"}}},
    "Azure": {"objectStorage": {"backend": "az", "az": {"container": "memories", "existingSecret": "az"}}},
    "a name of its own": {"fullnameOverride": "memory-of-all-the-agents-of-our-company"},
}
CUSTOM = {"PodMonitor"}


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once():
    """The validator parses a file of 2 MB for each object."""
    with pytest.MonkeyPatch.context() as patch:
        utils = kubernetes_validate.utils
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("name", MATRIX)
def test_objects_are_those_of_kubernetes(name):
    objects = render(MATRIX[name]).all

    for one in objects:
        for kube in (OLDEST, NEWEST):
            if one["kind"] not in CUSTOM:
                kubernetes_validate.validate(one, kube, strict=True)
    keys = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(keys) == len(set(keys))
    assert all(len(name) <= 63 for _, name in keys)


NUMBERS = merged(
    OUTSIDE,
    ALL_OPTIONS,
    {
        "fullnameOverride": "true",
        "nameOverride": "1e3",
        "auth": {"existingSecret": "123"},
        "catalog": {"existingSecret": "456"},
        "cluster": {"etcd": {"existingSecret": "789", "caSecret": "1.5"}},
        "objectStorage": {"s3": {"existingSecret": "false"}},  # pragma: allowlist secret
        "ai": {"existingSecret": "null"},  # pragma: allowlist secret
        "serviceAccount": {"name": "42"},
        "dataplane": {"priorityClassName": "1e9", "cacheSize": 2**34, "tmpSize": 2**26},
        "ingress": {"className": "0"},
        "image": {"digest": "", "repository": "1", "tag": "2"},
    },
)


def test_names_that_yaml_takes_for_something_else_stay_names():
    objects = render(NUMBERS, release="123", namespace="456")

    for one in objects.all:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, NEWEST, strict=True)
        assert one["metadata"]["namespace"] == "456"
        assert all(isinstance(value, str) for value in one["metadata"]["labels"].values())
    assert objects.one("StatefulSet", "true")
    for pod in objects.pods().values():
        assert isinstance(pod["spec"]["serviceAccountName"], str)


def test_it_says_which_kubernetes_it_needs():
    assert render(kube=OLDEST).pods() == render().pods()
    with pytest.raises(RefusedError, match="kubeVersion"):
        render(kube="1.29")


def test_an_object_that_is_none_is_noticed():
    spoilt = merged(render().one("StatefulSet"), {"spec": {"replica": 2}})

    for kube in (OLDEST, NEWEST):
        with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
            kubernetes_validate.validate(spoilt, kube, strict=True)


def test_lint_has_nothing_to_say():
    said = helm("lint", str(CHART), "--strict", "--kube-version", NEWEST)

    assert "1 chart(s) linted, 0 chart(s) failed" in said


def test_every_part_is_there_once_it_is_asked_for():
    assert set(render().pods()) == {"dataplane", "minio"}
    assert set(render(OUTSIDE).pods()) == {"dataplane", "gateway", "control-plane", "mcp", "migrate"}
    assert set(render(CLUSTER).pods()) == {
        *("dataplane", "gateway", "control-plane", "migrate"),
        *("minio", "etcd", "postgres"),
    }


@pytest.mark.parametrize("values", [{}, CLUSTER, OUTSIDE], ids=["alone", "cluster", "outside"])
def test_services_lead_to_pods_that_are_there(values):
    objects = render(values)
    pods = {part: pod["metadata"]["labels"] for part, pod in objects.pods().items()}

    for service in objects.of("Service"):
        selector = service["spec"]["selector"]
        chosen = [part for part, labels in pods.items() if selector.items() <= labels.items()]
        assert len(chosen) == 1, service["metadata"]["name"]
        ports = {port["name"] for port in objects.container(chosen[0])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_clients_speak_to_gateways_where_there_are_some():
    component = "app.kubernetes.io/component"

    assert render().one("Service")["spec"]["selector"][component] == "dataplane"
    assert render(OUTSIDE).one("Service")["spec"]["selector"][component] == "gateway"


def test_pods_are_made_of_selectors_that_never_change_with_the_version():
    for one in render(OUTSIDE).all:
        if one["kind"] in {"StatefulSet", "Deployment"}:
            labels = one["spec"]["selector"]["matchLabels"]
            assert set(labels) == {f"app.kubernetes.io/{what}" for what in ("name", "instance", "component")}


def test_identity_and_address_come_from_the_pod():
    env = render(OUTSIDE).env("dataplane")

    assert env["MEMOTURN_NODE_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env["MEMOTURN_ADVERTISE"] == "http://$(POD_IP):8080"
    assert list(env).index("POD_IP") < list(env).index("MEMOTURN_ADVERTISE"), "it is not filled in else"
    assert (
        render(OUTSIDE, {"ipFamily": "IPv6"}).env("dataplane")["MEMOTURN_ADVERTISE"]
        == "http://[$(POD_IP)]:8080"
    )


def test_no_part_of_the_data_plane_has_a_volume():
    objects = render(OUTSIDE)

    assert "volumeClaimTemplates" not in objects.one("StatefulSet")["spec"]
    for pod in objects.pods().values():
        for volume in pod["spec"]["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "secret"}, volume


def test_schema_is_migrated_before_anything_where_postgres_is_there_already():
    annotations = render(OUTSIDE).one("Job", "memoturn-migrate")["metadata"]["annotations"]
    account = render(OUTSIDE).one("ServiceAccount", "memoturn-migrate")["metadata"]["annotations"]

    assert annotations["helm.sh/hook"] == account["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(account["helm.sh/hook-weight"]) < int(annotations["helm.sh/hook-weight"])
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation", "the next one has its name"


def test_schema_is_migrated_beside_the_rest_where_postgres_comes_with_it():
    job = render(CLUSTER).one("Job", "memoturn-migrate-1")

    assert "annotations" not in job["metadata"], "a hook would wait for a Postgres that comes after it"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"


def test_migration_knows_the_catalog_and_nothing_else():
    env = render(OUTSIDE).env("migrate")

    assert set(env) == {"MEMOTURN_CATALOG", "MEMOTURN_DATA_DIR", "MEMOTURN_LOG_FORMAT"}


def test_monitor_names_a_job_that_the_alert_rules_look_for():
    """The operator would call it NAMESPACE/NAME, for which no rule that names jobs ever fires."""
    rules = (REPOSITORY / "docs" / "monitoring" / "alerts.yaml").read_text()
    looked_for = set(re.findall(r'job=~"([^"]+)"', rules))
    values = {"podMonitor": {"enabled": True}, "nameOverride": "brain", "fullnameOverride": "brain"}
    (endpoint,) = render(values).one("PodMonitor", "brain")["spec"]["podMetricsEndpoints"]
    (job,) = [one["replacement"] for one in endpoint["relabelings"] if one["targetLabel"] == "job"]

    assert job == "memoturn/agents/brain"
    assert looked_for
    assert all(re.fullmatch(pattern, job) for pattern in looked_for)


def test_versions_move_together():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    from memoturnd import __version__

    assert chart["version"] == chart["appVersion"] == __version__
    assert render().container("dataplane")["image"] == f"memoturn/memoturnd:{__version__}"
