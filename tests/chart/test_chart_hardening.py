"""What the pods may do, hold, and take with them when they end."""

import pytest
import yaml

from chart.rendering import CHART, CLUSTER, OUTSIDE, RefusedError, merged, render

EVERYTHING = merged(CLUSTER, {"mcp": {"enabled": True}})
OWN = ("dataplane", "gateway", "control-plane", "mcp", "migrate")
SERVING = ("dataplane", "gateway", "control-plane", "mcp")
STOPS_S = {"dataplane": 10, "gateway": 5, "control-plane": 10, "mcp": 20}
"""How long a stop takes at most: docs/operations.md."""


def every_pod():
    for values in (EVERYTHING, OUTSIDE, {"fullnameOverride": "mine"}):
        yield from render(values).pods().items()


def test_no_container_is_root_or_may_become_more_than_it_is():
    for part, pod in every_pod():
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert "initContainers" not in spec
        assert spec["securityContext"]["runAsNonRoot"] is True, part
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, part
        assert spec["securityContext"]["runAsUser"] == (999 if part == "postgres" else 65532), part
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsUser"], part
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, part
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), part


@pytest.mark.parametrize(
    "looser",
    [
        {"securityContext": {"readOnlyRootFilesystem": False}},
        {"securityContext": {"allowPrivilegeEscalation": True}},
        {"securityContext": {"capabilities": {"drop": []}}},
        {"securityContext": {"privileged": True}},
        {"podSecurityContext": {"runAsNonRoot": False}},
        {"podSecurityContext": {"runAsUser": 0}},
        {"podSecurityContext": {"seccompProfile": {"type": "Unconfined"}}},
    ],
)
def test_values_cannot_loosen_that(looser):
    with pytest.raises(RefusedError, match="don't meet the specifications"):
        render(looser)


def test_pods_have_no_token_for_the_api_and_accounts_of_their_own():
    objects = render(EVERYTHING)
    accounts = {one["metadata"]["name"]: one for one in objects.of("ServiceAccount")}
    used = {part: pod["spec"]["serviceAccountName"] for part, pod in objects.pods().items()}

    assert all(one["automountServiceAccountToken"] is False for one in accounts.values())
    assert all(pod["spec"]["automountServiceAccountToken"] is False for _, pod in every_pod())
    assert set(used.values()) == set(accounts)
    shared = {used.pop("dataplane"), used.pop("control-plane")}
    assert shared == {"memoturn"}, "both reach the bucket by the account's role"
    assert len(set(used.values()) | shared) == len(used) + 1
    assert not objects.of("Role")
    assert not objects.of("ClusterRole")


def test_names_of_services_do_not_become_settings():
    """With service links a service `memoturn` would set MEMOTURN_PORT, which the programs refuse as a setting."""
    assert all(pod["spec"]["enableServiceLinks"] is False for _, pod in every_pod())


def test_only_the_folders_that_are_written_can_be_written():
    writable = {
        "dataplane": {"/tmp", "/var/lib/memoturn"},
        "control-plane": {"/tmp", "/var/lib/memoturn"},
        "gateway": {"/tmp"},
        "mcp": {"/tmp"},
        "migrate": {"/tmp"},
        "minio": {"/tmp", "/data"},
        "etcd": {"/tmp", "/data"},
        "postgres": {"/tmp", "/var/run/postgresql", "/var/lib/postgresql/data"},
    }
    for part, pod in every_pod():
        (container,) = pod["spec"]["containers"]
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        mounts = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
        assert mounts == writable[part], part
        for volume in volumes.values():
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), (part, volume)


def test_secrets_are_named_and_never_shown():
    for values in (EVERYTHING, OUTSIDE):
        objects = render(values)
        hidden = {value for one in objects.of("Secret") for value in one["data"].values()}
        text = yaml.safe_dump([one for one in objects.all if one["kind"] != "Secret"])
        assert not [value for value in hidden if value in text]
        for part in objects.pods():
            for name, value in objects.env(part).items():
                if any(word in name for word in ("PASSWORD", "SECRET_ACCESS", "CATALOG", "API_KEY")):
                    assert "secretKeyRef" in value, (part, name)
    assert not render(OUTSIDE).of("Secret"), "all of its secrets are the operator's"


def test_keys_are_files_so_that_they_change_without_a_restart():
    objects = render(OUTSIDE)
    (keys,) = [v for v in objects.pods()["dataplane"]["spec"]["volumes"] if v["name"] == "keys"]

    assert keys["secret"]["secretName"] == "keys"
    assert keys["secret"]["defaultMode"] == 0o440
    assert objects.env("dataplane")["MEMOTURN_PLATFORM_KEY_FILE"] == "/run/secrets/memoturn/platform"
    assert not [name for name in objects.env("gateway") if "KEY" in name], "a gateway asks nobody"


def test_a_key_that_the_bucket_keeps_is_not_asked_for():
    objects = render(OUTSIDE, {"server": {"persistAuthKey": True}})
    (keys,) = [v for v in objects.pods()["dataplane"]["spec"]["volumes"] if v["name"] == "keys"]

    assert {item["key"] for item in keys["secret"]["items"]} == {"PLATFORM_KEY", "CLUSTER_KEY"}
    assert objects.env("dataplane")["MEMOTURN_PERSIST_AUTH_KEY"] == "1"
    assert "MEMOTURN_AUTH_KEY_FILE" not in objects.env("dataplane")


def test_probes_ask_the_real_routes():
    from control_plane.http.alone import SERVED_ALONE
    from memoturnd.http.routes import ROUTES

    for routes in (ROUTES, SERVED_ALONE):
        assert {"/health", "/ready"} <= {route.template for route in routes}
    for part in SERVING:
        container = render(EVERYTHING).container(part)
        paths = {
            probe: container[f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "liveness", "readiness")
        }
        ready = "/health" if part == "mcp" else "/ready"
        assert paths == {"startup": "/health", "liveness": "/health", "readiness": ready}
        assert {container[f"{probe}Probe"]["httpGet"]["port"] for probe in paths} == {"http"}


def test_readiness_may_take_as_long_as_it_asks_others():
    """`/ready` asks store, leases and catalog for up to 2 s each, at once."""
    for part in ("dataplane", "control-plane"):
        assert render(EVERYTHING).container(part)["readinessProbe"]["timeoutSeconds"] > 2


def test_a_start_may_take_as_long_as_the_lease_of_who_had_the_name():
    """A pod that is made anew after an unclean death waits until the old one's lease has run out."""
    probe = render(EVERYTHING).container("dataplane")["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * 10 + 20


def test_there_is_time_to_hand_over():
    for values in (EVERYTHING, OUTSIDE):
        pods = render(values).pods()
        for part in SERVING:
            spec = pods[part]["spec"] if part in pods else None
            if spec:
                sleep_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
                assert spec["terminationGracePeriodSeconds"] >= sleep_s + STOPS_S[part]


def test_nodes_are_stopped_one_by_one_and_gateways_replaced_before_they_go():
    objects = render(EVERYTHING)

    assert objects.one("StatefulSet")["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    for name in ("memoturn-gateway", "memoturn-control"):
        rolling = objects.one("Deployment", name)["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_each_part_has_a_budget_that_lets_machines_be_emptied():
    objects = render(EVERYTHING)
    budgets = objects.of("PodDisruptionBudget")
    selected = {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in budgets}

    assert selected == set(SERVING)
    assert {one["spec"]["maxUnavailable"] for one in budgets} == {1}


def test_pods_are_spread_over_machines_and_zones():
    for part in SERVING:
        pod = render(EVERYTHING).pods()[part]
        spread = pod["spec"]["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in spread] == [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        ]
        for one in spread:
            assert one["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            assert one["whenUnsatisfiable"] == "ScheduleAnyway"


def test_budgets_follow_the_limits_of_the_pod():
    def budgets(memory, cache):
        values = {"dataplane": {"resources": {"limits": {"memory": memory}}, "cacheSize": cache}}
        env = render(values).env("dataplane")
        return [
            int(env[f"MEMOTURN_{name}_BYTES"]) for name in ("MEMORY_BUDGET", "RECALL_CACHE", "DISK_BUDGET")
        ]

    assert budgets("2Gi", "10Gi") == [2**30, 2**28, 10 * 2**30 * 3 // 4]
    assert budgets("1.5Gi", "4G") == [3 * 2**28, 3 * 2**26, 3_000_000_000]
    assert budgets(4_000_000_000, "100Gi") == [2_000_000_000, 500_000_000, 75 * 2**30]


def test_what_is_kept_in_memory_fits_into_the_limit():
    """Bodies take a quarter of the budget besides, and an empty node 115 MiB (bench/RESULTS-scale.md, node_rss_empty)."""
    for part in ("dataplane", "control-plane"):
        objects = render(EVERYTHING)
        env = objects.env(part)
        limit = {"2Gi": 2**31, "512Mi": 2**29}[objects.container(part)["resources"]["limits"]["memory"]]
        taken = int(env["MEMOTURN_MEMORY_BUDGET_BYTES"]) * 1.25 + int(env["MEMOTURN_RECALL_CACHE_BYTES"])
        assert taken + 115 * 2**20 <= limit


def test_budgets_that_are_set_win():
    env = render(
        {"server": {"memoryBudgetBytes": 2**29, "recallCacheBytes": 0, "diskBudgetBytes": 2**33}}
    ).env("dataplane")

    assert (env["MEMOTURN_MEMORY_BUDGET_BYTES"], env["MEMOTURN_RECALL_CACHE_BYTES"]) == (str(2**29), "0")
    assert env["MEMOTURN_DISK_BUDGET_BYTES"] == str(2**33)


def test_images_are_pinned():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    for part in ("minio", "postgres"):
        assert "@sha256:" in values[part]["image"]
    assert values["etcd"]["image"].rpartition(":")[2].startswith("v3.")
