import socket

import pytest

from memoturnd import cluster_settings
from memoturnd.cluster_settings import identified
from memoturnd.config import Settings
from memoturnd.errors import ConfigurationError
from memoturnd.leases.etcd_client import Endpoints, endpoints

NEEDED = {
    "ETCD": "http://127.0.0.1:2379",
    "CATALOG": "postgresql://u:p@db/m",
    "OBJECT_STORE": "s3://bucket/there",
    "CLUSTER_KEY": "ck-1",
}
OPEN = {"LISTEN": "0.0.0.0:8080", "AUTH": "on", "PLATFORM_KEY": "pk", "AUTH_KEY": "ak"}


def settings(**given):
    return Settings.from_env({f"MEMOTURN_{name}": text for name, text in given.items()}, is_tty=False)


def test_cluster_is_complete_with_what_its_nodes_share():
    assert settings(**NEEDED).etcd.reveal() == "http://127.0.0.1:2379"


@pytest.mark.parametrize("missing", ["CATALOG", "OBJECT_STORE", "CLUSTER_KEY"])
def test_etcd_takes_what_the_nodes_share(missing):
    with pytest.raises(ConfigurationError, match=f"MEMOTURN_ETCD takes a MEMOTURN_{missing}"):
        settings(**{name: text for name, text in NEEDED.items() if name != missing})


def test_objects_in_memory_are_not_shared():
    with pytest.raises(ConfigurationError, match="MEMOTURN_OBJECT_STORE that the nodes share"):
        settings(**NEEDED | {"OBJECT_STORE": "mem://"})


def test_tokens_are_signed_by_keys_that_the_nodes_share():
    with pytest.raises(ConfigurationError, match="a token of one node must be good on the others"):
        settings(**NEEDED, AUTH="on", PLATFORM_KEY="pk")
    settings(**NEEDED, AUTH="on", PLATFORM_KEY="pk", PERSIST_AUTH_KEY="1")


@pytest.mark.parametrize(
    "text",
    [
        "e1:2379",
        "etcd://e1:2379",
        "http://",
        "http://e1:2379,",
        "http://u@p@e1",
        "http://e1/v3",
        "http://e 1",
        "http://e1:2379,https://e2:2379",
        "http://e1:2379,http://",
    ],
)
def test_etcd_that_cannot_be_meant_is_refused_without_being_shown(text):
    with pytest.raises(ConfigurationError, match=r"MEMOTURN_ETCD=\*\*\*: must be http"):
        settings(**NEEDED | {"ETCD": text})


def test_the_scheme_may_stand_in_front_of_each_member():
    etcd = settings(**NEEDED | {"ETCD": "http://e1:2379,http://[::1]:2380,e3"}).etcd

    assert endpoints(etcd.reveal(), None).urls == ("http://e1:2379", "http://[::1]:2380", "http://e3")


@pytest.mark.parametrize("text", ["memoturn", "/memoturn", "memoturn/", "//", "/a b/"])
def test_prefix_ends_and_begins_with_a_slash(text):
    with pytest.raises(ConfigurationError, match="MEMOTURN_ETCD_PREFIX"):
        settings(**NEEDED, ETCD_PREFIX=text)


def test_endpoints_are_those_of_the_setting(tmp_path):
    told = endpoints("https://root:p%40ss:word@e1:2379,[::1]:2380,e3", tmp_path / "ca.pem")

    assert told == Endpoints(
        ("https://e1:2379", "https://[::1]:2380", "https://e3"), "root", "p@ss:word", str(tmp_path / "ca.pem")
    )
    assert "p@ss" not in repr(told)


def test_advertised_address_is_one_to_connect_to():
    with pytest.raises(ConfigurationError, match="no address to connect to"):
        settings(**NEEDED, **OPEN, ADVERTISE="http://0.0.0.0:8080")


def test_advertised_address_leads_to_this_machine_from_others():
    with pytest.raises(ConfigurationError, match="leads every other machine to itself"):
        settings(**NEEDED, **OPEN, ADVERTISE="http://localhost:8080")

    assert settings(**NEEDED, ADVERTISE="http://127.0.0.1:8080").advertise == "http://127.0.0.1:8080"


def test_node_is_known_by_its_host_and_its_data_directory(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "host ü7")

    told = identified(settings(**NEEDED), "0123456789abcdef", port=4711)

    assert told.node_id == "host--7-01234567"
    assert told.advertise == "http://127.0.0.1:4711"
    given = identified(
        settings(**NEEDED, NODE_ID="n1", ADVERTISE="http://n1:80"), "0123456789abcdef", port=4711
    )
    assert (given.node_id, given.advertise) == ("n1", "http://n1:80")


def test_node_that_listens_everywhere_says_how_it_is_reached(monkeypatch):
    monkeypatch.setattr(cluster_settings, "_towards_etcd", lambda _: "10.1.2.3")
    assert identified(settings(**NEEDED, **OPEN), "00", port=8080).advertise == "http://10.1.2.3:8080"

    monkeypatch.setattr(cluster_settings, "_towards_etcd", lambda _: "127.0.0.1")
    monkeypatch.setattr(cluster_settings, "_own_name", lambda: "n1.example.com")
    assert identified(settings(**NEEDED, **OPEN), "00", port=8080).advertise == "http://n1.example.com:8080"

    monkeypatch.setattr(cluster_settings, "_own_name", lambda: "")
    with pytest.raises(ConfigurationError, match="set MEMOTURN_ADVERTISE"):
        identified(settings(**NEEDED, **OPEN), "00", port=8080)


def test_way_to_etcd_tells_the_own_address():
    assert cluster_settings._towards_etcd(settings(**NEEDED)) == "127.0.0.1"
    assert cluster_settings._towards_etcd(settings(**NEEDED | {"ETCD": "http://no-such-host.invalid"})) == ""
