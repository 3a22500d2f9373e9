"""`memoturn-control` as a process, and nodes whose catalog is in Postgres."""

import secrets
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from postgres_server import on_server, own_postgres
from processes import NodeHome, environment

from control_plane.__main__ import main


@pytest.fixture
async def empty_url(postgres_server):
    name = f"memoturn_test_{secrets.token_hex(6)}"
    await on_server(postgres_server, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    yield f"{postgres_server.rpartition('/')[0]}/{name}"
    await on_server(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def control(*arguments, **env):
    command = [str(Path(sys.executable).parent / "memoturn-control"), *arguments]
    return subprocess.run(
        command, env=environment(**env), capture_output=True, text=True, timeout=60, check=False
    )


def test_migrate_makes_the_schema_once_and_nodes_wait_for_it(tmp_path, empty_url):
    with NodeHome(tmp_path, CATALOG=empty_url) as home:
        early = home.start(wait=False)
        assert early.process.wait(30) == 2
        assert "run `memoturn-control migrate`" in home.log_path.read_text()

        first = control("migrate", CATALOG=empty_url)
        second = control("migrate", CATALOG=empty_url)

        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert "went from nothing to" in first.stdout
        assert "already" in second.stdout
        node = home.start()
        made = httpx.post(f"{node.url}/v1/databases", json={"name": "notes"})
        assert made.status_code == 201, made.text
        node.stop()
        log = home.log_path.read_text()
        assert empty_url.rpartition("@")[0].rpartition(":")[2] not in log  # the password


def test_nodes_share_the_catalog_and_outlive_it(tmp_path):
    with own_postgres() as server:
        assert control("migrate", CATALOG=server.url).returncode == 0
        with (
            NodeHome(tmp_path / "a", CATALOG=server.url) as one,
            NodeHome(tmp_path / "b", CATALOG=server.url) as two,
        ):
            first, second = one.start(NODE_ID="one"), two.start(NODE_ID="two")
            assert httpx.post(f"{first.url}/v1/databases", json={"name": "notes"}).status_code == 201
            listed = httpx.get(f"{second.url}/v1/databases").json()["databases"]
            assert [row["name"] for row in listed] == ["notes"]
            kept = f"{first.url}/v1/db/notes/kv/n/k"
            assert httpx.put(kept, content=b"v").is_success

            server.kill()

            assert httpx.put(kept, content=b"w").is_success
            assert httpx.get(kept).content == b"w"
            refused = httpx.post(f"{first.url}/v1/databases", json={"name": "more"})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            ready = httpx.get(f"{first.url}/ready")
            assert ready.status_code == 503
            assert "catalog: " in ready.json()["error"]
            assert "store: " not in ready.json()["error"]
            metrics = httpx.get(f"{first.url}/metrics").text
            assert "memoturn_catalog_up 0.0" in metrics
            assert "memoturn_catalog_remembered_total 0.0" not in metrics

            server.start()
            first.wait_until_ready()
            assert httpx.post(f"{first.url}/v1/databases", json={"name": "more"}).status_code == 201
            assert "memoturn_catalog_up 1.0" in httpx.get(f"{first.url}/metrics").text
            first.stop()
            second.stop()


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["migrate", "now"]])
def test_unknown_command_is_refused_with_the_usage(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: memoturn-control" in capsys.readouterr().err


def test_wrong_settings_and_a_missing_server_have_their_exit_codes(tmp_path):
    hidden = secrets.token_hex(8)
    away = f"postgresql://u:{hidden}@127.0.0.1:1/x"
    for env, code, told in (
        ({"CATALOG": "mysql://x"}, 2, "must be postgresql://"),
        ({"CATALOG": away}, 1, "nothing was changed"),
        ({"DATA_DIR": str(tmp_path)}, 2, "no catalog"),
    ):
        done = control("migrate", **env)
        assert done.returncode == code
        assert told in done.stderr
        assert hidden not in done.stderr


def test_rebuild_makes_a_lost_catalog_anew_and_tells_what_came_back(tmp_path, empty_url):
    assert control("migrate", CATALOG=empty_url).returncode == 0
    with NodeHome(tmp_path) as home:
        node = home.start()
        here = {"DATA_DIR": str(home.data_dir), "OBJECT_STORE": home.object_store}
        assert httpx.post(f"{node.url}/v1/databases", json={"name": "notes"}).status_code == 201
        assert httpx.put(f"{node.url}/v1/db/notes/kv/n/k", content=b"v").is_success
        busy = control("rebuild", **here)
        assert (busy.returncode, "is in use" in busy.stderr) == (2, True), busy.stderr
        node.stop()
        for env in ({"CATALOG": empty_url}, {}):
            for lost in home.data_dir.glob("registry.db*"):
                lost.unlink()
            for arguments, told in (
                (("rebuild", "--dry-run"), "databases: 1 would come back, 0 were there"),
                (("rebuild",), "databases: 1 came back, 0 were there"),
                (("rebuild",), "databases: 0 came back, 1 were there"),
            ):
                done = control(*arguments, **here, **env)
                assert done.returncode == 0, done.stderr
                assert told in done.stdout
                assert "what cannot come back" in done.stdout
        for register in home.bucket.glob("v1/*/database.json"):
            register.write_bytes(b"{")
        damaged = control("rebuild", **here)
        assert damaged.returncode == 1
        assert "DAMAGED, left out: v1/" in damaged.stdout
