"""`memoturn-gateway` as a process, in front of node processes that share etcd, Postgres and a bucket."""

import asyncio
import contextlib
import secrets
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from etcd_server import fresh_prefix
from processes import NodeHome, environment, free_port

from gateway.settings import GATEWAY_SETTINGS, GatewaySettings, help_text
from memoturnd.config import Settings
from memoturnd.errors import ConfigurationError

DATABASE = {"killed": "notes-of-killed", "stopped": "notes-of-stopped"}
ETCD = {"MEMOTURN_ETCD": "http://127.0.0.1:2379"}


@contextlib.contextmanager
def running_gateway(folder, **env):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            env=environment(GATEWAY_LISTEN=f"127.0.0.1:{port}", LOG_FORMAT="json", **env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            assert process.poll() is None, (folder / "gateway.log").read_text()
            assert time.monotonic() < deadline, (folder / "gateway.log").read_text()
            time.sleep(0.05)
        yield url, process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("ending", ["killed", "stopped"])
async def test_requests_through_a_gateway_survive_the_end_of_their_node(
    etcd_url, postgres_url, tmp_path, ending
):
    """Keyed writes that of a node which is killed, and any writes that of one which stops."""
    keys = f"/v1/db/{DATABASE[ending]}/kv/n"
    shared = {
        "ETCD": etcd_url,
        "ETCD_PREFIX": fresh_prefix(),
        "LEASE_TTL_S": "2",
        "CATALOG": postgres_url,
        "OBJECT_STORE": f"file://{tmp_path / 'bucket'}",
        "CLUSTER_KEY": secrets.token_hex(16),
    }
    etcd = {name: shared[name] for name in ("ETCD", "ETCD_PREFIX", "LEASE_TTL_S")}
    with (
        NodeHome(tmp_path / "one", **shared, NODE_ID="n1") as one,
        NodeHome(tmp_path / "two", **shared, NODE_ID="n2") as two,
    ):
        nodes = {"n1": one.start(), "n2": two.start()}
        with running_gateway(tmp_path, **etcd) as (url, process):
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                assert (
                    await client.post("/v1/databases", json={"name": DATABASE[ending]})
                ).status_code == 201
                outcomes, stop = [], asyncio.Event()

                async def write(name):
                    number = 0
                    while not stop.is_set():
                        number += 1
                        keyed = {"Idempotency-Key": f"{name}-{number}", "Memoturn-Durability": "durable"}
                        answer = await client.put(
                            f"{keys}/{name}",
                            content=b"%d" % number,
                            headers=keyed if ending == "killed" else {},
                        )
                        outcomes.append((answer.status_code, answer.text[:200]))

                writing = [asyncio.create_task(write(name)) for name in "ab"]
                await asyncio.sleep(1)
                durable = {"Memoturn-Durability": "durable"}
                assert (await client.put(f"{keys}/c", content=b"1", headers=durable)).status_code == 200
                owner = await _owner(nodes, client, keys)
                if ending == "killed":
                    nodes[owner].kill()
                    await asyncio.sleep(6)
                else:
                    assert await asyncio.to_thread(nodes[owner].stop) == 0
                    await asyncio.sleep(1)
                stop.set()
                await asyncio.gather(*writing)
                assert [one for one in outcomes if one[0] != 200] == []
                assert await _owner({k: v for k, v in nodes.items() if k != owner}, client, keys) != owner
                assert (await client.get(f"{keys}/c")).content == b"1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


async def _owner(nodes, client, keys):
    """The node that does not say that another one owns the database."""
    answers = {}
    for name, node in nodes.items():
        path = f"{node.url}{keys}/c"
        answers[name] = await client.get(path, headers={"Memoturn-Forwarded": "1"})
        if answers[name].status_code == 200:
            return name
    raise AssertionError(f"nobody owns the database: {[answer.text for answer in answers.values()]}")


# ---- settings


def test_settings_that_nodes_have_too_are_the_same():
    settings = GatewaySettings.from_env({**ETCD, "MEMOTURN_CATALOG": "postgresql://u@h/d"}, is_tty=False)

    assert (settings.lease_ttl_s, settings.request_timeout_s, settings.log_format) == (10, 30.0, "json")
    assert (settings.gateway_hedge_ms, str(settings.listen)) == (0, "127.0.0.1:8090")
    assert all(setting.variable in help_text() for setting in GATEWAY_SETTINGS)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "MEMOTURN_ETCD is not set"),
        ({**ETCD, "MEMOTURN_GATEWAY_LISTEN": "0.0.0.0:80"}, "MEMOTURN_AUTH=on"),
        ({**ETCD, "MEMOTURN_GATEWAY_HEDGE": "3"}, "did you mean MEMOTURN_GATEWAY_HEDGE_MS?"),
        ({**ETCD, "MEMOTURN_GATEWAY_CONCURRENCY": "0"}, "whole number from 1"),
    ],
)
def test_wrong_settings_are_said_to_be_so(env, said):
    with pytest.raises(ConfigurationError, match="memoturn-gateway --help") as caught:
        GatewaySettings.from_env(env)
    assert said in str(caught.value)


def test_gateways_off_loopback_take_the_promise_that_nodes_ask_for_credentials():
    env = {**ETCD, "MEMOTURN_GATEWAY_LISTEN": "0.0.0.0:80", "MEMOTURN_AUTH": "on"}

    assert GatewaySettings.from_env(env).listen.port == 80


def test_a_node_may_share_a_gateways_environment():
    assert Settings.from_env({"MEMOTURN_GATEWAY_HEDGE_MS": "5"}).listen.port == 8080


def test_a_taken_port_is_said_with_the_gateways_own_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            [sys.executable, "-m", "gateway"],
            env=environment(GATEWAY_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}", ETCD=ETCD["MEMOTURN_ETCD"]),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert ended.returncode == 1
    assert "set MEMOTURN_GATEWAY_LISTEN to a free port" in ended.stderr
