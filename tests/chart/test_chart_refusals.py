"""What cannot work is refused before anything is installed, with the next step; what can work is not."""

import pytest

from chart.rendering import CLUSTER, OUTSIDE, RefusedError, merged, render

S3 = {"objectStorage": {"backend": "s3", "s3": {"bucket": "memories"}}}
FILE = {"objectStorage": {"backend": "file"}}
REFUSED = {
    "nodes without etcd": (
        S3 | {"dataplane": {"replicas": 2}},
        "dataplane.replicas=2 takes cluster.etcd.enabled=true",
    ),
    "a folder for several nodes": (
        merged(CLUSTER, FILE),
        "objectStorage.backend=file is a folder of one pod",
    ),
    "a folder for a control plane": (
        merged(FILE, {"postgres": {"enabled": True}, "controlPlane": {"enabled": True}}),
        "objectStorage.backend=file is a folder of one pod",
    ),
    "etcd from nowhere": (
        {"cluster": {"etcd": {"enabled": True}}, "postgres": {"enabled": True}},
        "takes exactly one of cluster.etcd.endpoints, cluster.etcd.existingSecret and etcd.enabled=true; 0 are set",
    ),
    "etcd from two places": (
        merged(CLUSTER, {"cluster": {"etcd": {"existingSecret": "etcd"}}}),
        "exactly one of",
    ),
    "etcd for nobody": ({"etcd": {"enabled": True}}, "are for cluster.etcd.enabled=true"),
    "endpoints for nobody": (
        {"cluster": {"etcd": {"endpoints": "http://a:2379"}}},
        "are for cluster.etcd.enabled=true",
    ),
    "a start that ends before the lease of the pod before": (
        merged(CLUSTER, {"cluster": {"leaseTtlSecs": 60}}),
        "dataplane.probes.startup lets a start take 60 s, and a pod that is made anew waits for the lease",
    ),
    "a CA for the chart's etcd": (merged(CLUSTER, {"cluster": {"etcd": {"caSecret": "ca"}}}), "has no TLS"),
    "a cluster without Postgres": (
        merged(CLUSTER, {"postgres": {"enabled": False}, "controlPlane": {"enabled": False}}),
        "takes a catalog that the nodes share",
    ),
    "two catalogs": (merged(CLUSTER, {"catalog": {"existingSecret": "catalog"}}), "take one of them"),
    "a control plane without Postgres": (
        {"controlPlane": {"enabled": True}},
        "controlPlane.enabled=true takes a catalog",
    ),
    "a gateway without etcd": (
        {"gateway": {"enabled": True}},
        "gateway.enabled=true takes cluster.etcd.enabled=true",
    ),
    "no authentication": ({"auth": {"enabled": False}}, "so it would not start"),
    "MinIO that is not there": (
        {"minio": {"enabled": False}},
        "objectStorage.backend=minio is the MinIO of this chart",
    ),
    "no bucket": (
        {"objectStorage": {"backend": "s3", "s3": {"bucket": ""}}},
        "takes objectStorage.s3.bucket",
    ),
    "no Google bucket": ({"objectStorage": {"backend": "gs"}}, "takes objectStorage.gs.bucket"),
    "no container": ({"objectStorage": {"backend": "az"}}, "takes objectStorage.az.container"),
    "an account without a name": ({"serviceAccount": {"create": False}}, "takes a serviceAccount.name"),
    "too little memory": ({"dataplane": {"resources": {"limits": {"memory": "256Mi"}}}}, "is below 384Mi"),
    "too small a cache": ({"dataplane": {"cacheSize": "3Gi"}}, "leaves 805306368 bytes beside the cache"),
    "no room for audit events": ({"controlPlane": {"cacheSize": "100Mi"}}, "is below 256Mi"),
    "a budget above the limit": ({"server": {"memoryBudgetBytes": 2**32}}, "the pod would be killed"),
    "a cache above its folder": ({"server": {"diskBudgetBytes": 2**40}}, "the pod would be evicted"),
    "no time to stop": (
        {"dataplane": {"preStopSleepSeconds": 15}},
        "dataplane.terminationGracePeriodSeconds=20 is below 25",
    ),
    "cold before warm": (
        {"server": {"coldAfterSecs": 30}},
        "server.coldAfterSecs is below server.warmAfterSecs",
    ),
    "every page and some": (
        {"server": {"corsOrigins": ["*", "https://app.example"]}},
        "server.corsOrigins is either * or origins",
    ),
    "windows the wrong way round": (
        {"server": {"pitrSnapshotRetentionSecs": 3600}},
        "server.pitrSnapshotRetentionSecs is below server.pitrRetentionSecs",
    ),
    "an embedder without a key": (
        {"ai": {"embedProvider": "voyage"}},
        "with EMBED_API_KEY, or the ai.embedBaseUrl",
    ),
    "a model without a name": (
        {"ai": {"extractProvider": "openai", "existingSecret": "models"}},
        "ai.extractProvider=openai takes ai.extractModel",
    ),
    "another local model": (
        {"ai": {"embedProvider": "local", "embedModel": "bge-m3"}},
        "ai.embedProvider=local is all-minilm-l6-v2",
    ),
    "an ingress for no name": ({"ingress": {"enabled": True}}, "ingress.enabled=true takes ingress.hosts"),
    "a range the wrong way round": (
        {"gateway": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}},
        "gateway.autoscaling.maxReplicas is below",
    ),
    "a budget of nothing": (
        {"podDisruptionBudget": {"maxUnavailable": None}},
        "takes minAvailable or maxUnavailable",
    ),
    "pods that nobody would find": (
        {"gateway": {"podLabels": {"app.kubernetes.io/component": "web"}}},
        "gateway.podLabels: app.kubernetes.io/component is set by the chart",
    ),
    "a monitor of something else": (
        {"podMonitor": {"labels": {"app.kubernetes.io/instance": "prometheus"}}},
        "podMonitor.labels: app.kubernetes.io/instance is set by the chart",
    ),
    "two folders of one name": (
        {"dataplane": {"extraVolumes": [{"name": "data", "emptyDir": {}}]}},
        "dataplane.extraVolumes: data is a volume of the chart",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused(name):
    values, why = REFUSED[name]

    with pytest.raises(RefusedError) as refused:
        render(values)
    said = str(refused.value)
    assert "these values cannot work:" in said
    assert why in said
    assert said.count("  - ") == 1, "one fault is told once, and nothing else with it"


@pytest.mark.parametrize("release", ["7up", "acme.agents"])
def test_a_release_whose_name_no_service_can_have_is_refused(release):
    """Helm takes such names, and the API would refuse the services after everything else was made."""
    with pytest.raises(RefusedError, match=f"{release}-memoturn, which follows from .* set fullnameOverride"):
        render(release=release)

    assert render({"fullnameOverride": "mine"}, release=release).one("Service", "mine")


def test_long_names_are_cut_to_names():
    release = "abcdefghij" * 3 + "abcdefghi--x"
    names = {one["metadata"]["name"] for one in render(release=release).of("Service")}

    assert {name.removesuffix("-nodes").removesuffix("-minio") for name in names} == {release[:39]}


def test_all_faults_are_told_at_once():
    with pytest.raises(RefusedError) as refused:
        render({"auth": {"enabled": False}, "gateway": {"enabled": True}, "minio": {"enabled": False}})

    assert str(refused.value).count("  - ") == 3


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"gateway": None}, "missing property 'gateway'"),
        ({"dataplane": {"probes": None}}, "missing property 'probes'"),
        ({"etcd": {"enabled": None}}, "missing property 'enabled'"),
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"dataplane": {"replica": 3}}, "/dataplane"),
        ({"dataplane": {"replicas": 0}}, "/dataplane/replicas"),
        ({"dataplane": {"replicas": "two"}}, "/dataplane/replicas"),
        ({"dataplane": {"cacheSize": "10GB"}}, "/dataplane/cacheSize"),
        ({"dataplane": {"resources": {"limit": {}}}}, "/dataplane/resources"),
        ({"dataplane": {"resources": {"limits": {"memory": "2 Gi"}}}}, "/dataplane/resources/limits/memory"),
        ({"dataplane": {"probes": {"liveness": {"period": 3}}}}, "/dataplane/probes/liveness"),
        ({"dataplane": {"extraEnv": {"A": "b"}}}, "/dataplane/extraEnv"),
        ({"dataplane": {"extraEnv": [{"name": "A", "value": 1}]}}, "/dataplane/extraEnv/0/value"),
        ({"server": {"durability": "eventual"}}, "/server/durability"),
        ({"server": {"gcGraceSecs": 5}}, "/server/gcGraceSecs"),
        ({"server": {"drillIntervalSecs": 0.5}}, "/server/drillIntervalSecs"),
        ({"server": {"tenantQuotas": "much"}}, "/server/tenantQuotas"),
        ({"ai": {"embedBaseUrl": "https://user:secret@llm.example"}}, "/ai/embedBaseUrl"),
        ({"cluster": {"etcd": {"endpoints": "http://root:secret@etcd:2379"}}}, "/cluster/etcd/endpoints"),
        ({"cluster": {"etcd": {"endpoints": "etcd:2379"}}}, "/cluster/etcd/endpoints"),
        ({"cluster": {"etcd": {"endpoints": "http://a:1,https://b:1"}}}, "/cluster/etcd/endpoints"),
        ({"objectStorage": {"backend": "ftp"}}, "/objectStorage/backend"),
        ({"auth": {"existingSecret": "Not A Name"}}, "/auth/existingSecret"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"service": {"port": 0}}, "/service/port"),
        ({"fullnameOverride": "x" * 41}, "/fullnameOverride"),
        ({"fullnameOverride": "My-Name"}, "/fullnameOverride"),
        ({"fullnameOverride": "1st"}, "/fullnameOverride"),
        ({"nameOverride": "My Name!"}, "/nameOverride"),
        ({"image": {"tag": "0.1.0 "}}, "/image/tag"),
        ({"image": {"repository": "memoturn/memoturnd@sha256:00"}}, "/image/repository"),
    ],
)
def test_values_that_are_none_are_refused_by_the_schema(values, where):
    with pytest.raises(RefusedError, match="don't meet the specifications") as refused:
        render(values)

    assert where in str(refused.value)


@pytest.mark.parametrize(
    ("part", "env", "why"),
    [
        (
            "dataplane",
            {"MEMOTURN_ADVERTISE": "http://127.0.0.1:8080"},
            "MEMOTURN_ADVERTISE is set by the chart",
        ),
        ("dataplane", {"MEMOTURN_NODE_ID": "node-1"}, "MEMOTURN_NODE_ID is set by the chart"),
        ("dataplane", {"MEMOTURN_AUTH": "off"}, "MEMOTURN_AUTH is set by the chart"),
        (
            "controlPlane",
            {"MEMOTURN_CATALOG": "postgresql://a:b@c/d"},
            "MEMOTURN_CATALOG is set by the chart",
        ),
        ("gateway", {"MEMOTURN_GATEWAY_LISTEN": "0.0.0.0:1"}, "MEMOTURN_GATEWAY_LISTEN is set by the chart"),
        ("dataplane", {"MEMOTURN_SHIP_RAET": "5"}, "MEMOTURN_SHIP_RAET is no setting"),
        ("dataplane", {"MEMOTURN_LOG_FORMAT": "console"}, "MEMOTURN_LOG_FORMAT is set by server.logFormat"),
        (
            "dataplane",
            {"MEMOTURN_MEMORY_BUDGET_BYTES": "1"},
            "MEMOTURN_MEMORY_BUDGET_BYTES is set by the chart; server.memoryBudgetBytes goes before that",
        ),
        (
            "gateway",
            {"MEMOTURN_GATEWAY_BODY_BYTES": "1"},
            "MEMOTURN_GATEWAY_BODY_BYTES is set by the chart; gateway.bodyBytes goes before that",
        ),
        ("dataplane", {"POD_IP": "127.0.0.1"}, "POD_IP is set by the chart"),
        ("controlPlane", {"AWS_REGION": "eu-north-1"}, "AWS_REGION is set by the chart"),
        ("mcp", {"MEMOTURN_URL": "http://other:8080"}, "MEMOTURN_URL is set by the chart"),
        ("mcp", {"MEMOTURN_MCP_READ_ONLY": "1"}, "MEMOTURN_MCP_READ_ONLY is set by the chart"),
        ("mcp", {"MEMOTURN_MCP_PINN": "profile"}, "MEMOTURN_MCP_PINN is no setting"),
    ],
)
def test_variables_that_would_end_the_start_are_refused(part, env, why):
    extra = [{"name": name, "value": value} for name, value in env.items()]

    with pytest.raises(RefusedError) as refused:
        render({part: {"extraEnv": extra}})
    assert f"{part}.extraEnv: {why}" in str(refused.value)


def test_a_variable_twice_is_refused():
    with pytest.raises(RefusedError, match="AWS_PROFILE is there twice"):
        render(
            {
                "dataplane": {
                    "extraEnv": [{"name": "AWS_PROFILE", "value": "a"}, {"name": "AWS_PROFILE", "value": "b"}]
                }
            }
        )


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("dataplane", "MEMOTURN_SHIP_RATE"),
        ("dataplane", "HTTPS_PROXY"),
        ("controlPlane", "MEMOTURN_AUDIT"),
        ("gateway", "MEMOTURN_GATEWAY_HEDGE_MS"),
        ("mcp", "MEMOTURN_MCP_PIN"),
    ],
)
def test_any_other_variable_may_be_added(part, name):
    objects = render(
        CLUSTER, {"mcp": {"enabled": True}}, {part: {"extraEnv": [{"name": name, "value": "5"}]}}
    )

    assert objects.env("control-plane" if part == "controlPlane" else part)[name] == "5"


@pytest.mark.parametrize(
    "values",
    [
        merged(OUTSIDE, {"dataplane": {"replicas": 1}}),
        merged(OUTSIDE, {"gateway": {"enabled": False}, "controlPlane": {"enabled": False}}),
        {"server": {"pitrRetentionSecs": 0, "pitrSnapshotRetentionSecs": 0}},
        {
            "ai": {
                "existingSecret": "models",
                "extractProvider": "openai",
                "extractModel": "m",
                "assistantProvider": "openai",
            }
        },
        {"ai": {"embedProvider": "openai", "embedBaseUrl": "http://llm:11434/v1", "embedModel": "bge-m3"}},
        {"dataplane": {"resources": {}}},
        {"dataplane": {"resources": None, "podLabels": None, "affinity": None, "extraEnv": None}},
        {"networkPolicy": {"metricsFrom": None, "dnsTo": None}, "objectStorage": {"prefix": None}},
        {"server": {"logFormat": None}, "podMonitor": {"labels": None}},
        {"dataplane": {"cacheSize": "1Gi"}, "server": {"maxImportBytes": 2**24}},
        {"postgres": {"enabled": True}},
        merged(
            CLUSTER,
            {
                "cluster": {"leaseTtlSecs": 60},
                "dataplane": {"probes": {"startup": {"failureThreshold": 40}}},
            },
        ),
    ],
)
def test_what_can_work_is_not_refused(values):
    assert render(values).all
