"""The TypeScript client goes on writing while its node is killed, and no write takes effect twice."""

import subprocess
from pathlib import Path

import httpx
import node_packages
import pytest
from processes import NodeHome
from service_base import free_port
from typescript_support import PLATFORM_KEY

pytestmark = pytest.mark.xdist_group("typescript")
BETWEEN = 20
WITHIN_S = 60


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_writes_through_kills_take_effect_once(kills: int, built: Path, tmp_path: Path) -> None:
    port = free_port()
    with NodeHome(tmp_path / "home", AUTH="on", PLATFORM_KEY=PLATFORM_KEY) as home:
        node = home.start(port=port)
        with httpx.Client(base_url=node.url, headers={"Authorization": f"Bearer {PLATFORM_KEY}"}) as operator:
            operator.post("/v1/databases", json={"name": "orders"}).raise_for_status()
            minted = operator.post("/v1/databases/orders/tokens", json={"scope": "write"}).raise_for_status()
        total = BETWEEN * (kills + 1)
        command = [
            node_packages.node(),
            str(built / "writer.js"),
            node.url,
            minted.json()["token"],
            "orders",
            str(total),
        ]

        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as writer:
            assert writer.stdout is not None
            shown = []
            for _ in range(kills):
                shown += [writer.stdout.readline() for _ in range(BETWEEN)]
                node.kill()
                node = home.start(port=port)
            shown += writer.stdout.readlines()
            assert writer.wait(WITHIN_S) == 0, shown[-5:]

        # Each answer is one more than the one before: nothing was lost, and nothing applied twice.
        assert [int(line) for line in shown] == list(range(1, total + 1))
