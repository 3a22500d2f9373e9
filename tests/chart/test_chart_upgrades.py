"""What an upgrade finds in the cluster it keeps: keys and passwords stay those that the data was made with."""

import json

import pytest
import yaml

from chart.api import running_api
from chart.rendering import (
    CHART,
    CLUSTER,
    NAMESPACE,
    NEWEST,
    OUTSIDE,
    RELEASE,
    Objects,
    RefusedError,
    helm,
    render,
)


def rendered_in(cluster, values, folder, *arguments) -> Objects:
    with running_api(cluster, folder) as config:
        text = helm(
            *(
                "template",
                RELEASE,
                str(CHART),
                "--namespace",
                NAMESPACE,
                "--dry-run=server",
                "--kube-version",
                NEWEST,
                *arguments,
            ),
            values=json.dumps(values),
            KUBECONFIG=str(config),
        )
    return Objects([one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one])


def test_what_was_generated_is_kept(tmp_path):
    first = render(CLUSTER).of("Secret")
    second = rendered_in(first, CLUSTER, tmp_path).of("Secret")

    assert {one["metadata"]["name"] for one in second} == {
        f"memoturn-{what}" for what in ("auth", "minio", "postgres")
    }
    assert [one["data"] for one in second] == [one["data"] for one in first]


def test_without_it_there_are_new_ones_each_time(tmp_path):
    first, second = render(CLUSTER).of("Secret"), rendered_in([], CLUSTER, tmp_path).of("Secret")

    for one, other in zip(first, second, strict=True):
        assert all(one["data"][key] != other["data"][key] for key in one["data"] if key != "ROOT_USER")


def test_a_key_that_is_missing_is_added_and_the_others_stay(tmp_path):
    (auth,) = render().of("Secret")[:1]
    left = {**auth, "data": {key: auth["data"][key] for key in ("PLATFORM_KEY", "CLUSTER_KEY")}}
    (after, *_) = rendered_in([left], {}, tmp_path).of("Secret")

    assert after["data"]["PLATFORM_KEY"] == auth["data"]["PLATFORM_KEY"]
    assert after["data"]["AUTH_KEY"]


def test_generated_secrets_outlive_the_release():
    for one in render(CLUSTER).of("Secret"):
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("missing", ["PLATFORM_KEY", "CLUSTER_KEY", "AUTH_KEY"])
def test_a_secret_of_ones_own_without_a_key_is_refused(missing, tmp_path):
    keys = {"PLATFORM_KEY": "YQ==", "CLUSTER_KEY": "Yg==", "AUTH_KEY": "Yw=="}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": NAMESPACE},
        "data": {key: value for key, value in keys.items() if key != missing},
    }

    with pytest.raises(RefusedError, match=f"the secret keys of auth.existingSecret has no {missing}"):
        rendered_in([secret], OUTSIDE, tmp_path)
    assert rendered_in([{**secret, "data": keys}], OUTSIDE, tmp_path).all


def test_an_upgrade_migrates_before_its_pods_where_postgres_runs(tmp_path):
    server = render(CLUSTER).one("StatefulSet", "memoturn-postgres")
    job = rendered_in([server], CLUSTER, tmp_path, "--is-upgrade").one("Job", "memoturn-migrate")

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_an_upgrade_that_brings_postgres_migrates_beside_it(tmp_path):
    job = rendered_in([], CLUSTER, tmp_path, "--is-upgrade").one("Job", "memoturn-migrate-1")

    assert "annotations" not in job["metadata"]
