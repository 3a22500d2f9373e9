"""Real worker processes behind one port: shared work, crashes, an orderly end, and data directories of other layouts."""

import json
import os
import re
import signal
import time
import uuid
from pathlib import Path

import httpx
from processes import run_node

from workers.conftest import Workers, kill_children, wait_until

UNSHIPPED = {"SHIP_INTERVAL_MS": "60000", "UNSHIPPED_MAX_AGE_S": "3600"}
NAMES = [f"user{number}" for number in range(12)]


def put(client, name, key, value, *, durable=False):
    headers = {"Idempotency-Key": uuid.uuid4().hex} | ({"Memoturn-Durability": "durable"} if durable else {})
    answer = client.put(f"/v1/db/{name}/kv/n/{key}", content=value, headers=headers)
    assert answer.is_success, f"{answer.status_code} {answer.text}"
    return answer


def get(client, name, key, branch=""):
    answer = client.get(f"/v1/db/{name}{branch}/kv/n/{key}")
    return answer.text if answer.is_success else f"{answer.status_code} {answer.text}"


def make(client, *names):
    for name in names:
        answer = client.post("/v1/databases", json={"name": f"{name}"})
        assert answer.is_success, answer.text


def branches(client, name):
    return [row["branch"] for row in client.get(f"/v1/db/{name}/branches").json()["branches"]]


def test_workers_share_one_port_also_when_the_gateway_is_killed_and_stop_with_all_shipped(home):
    workers = Workers(home, **UNSHIPPED)
    with httpx.Client(base_url=workers.url, timeout=10) as client:
        make(client, *NAMES)
        for name in NAMES:
            put(client, name, "k", name)
        assert [get(client, name, "k") for name in NAMES] == NAMES
        assert set(workers.owners().values()) == {"worker-0", "worker-1"}
        listed = client.get("/v1/databases").json()["databases"]
        assert len(listed) == len(NAMES)
    workers.kill("gateway 0")
    workers.wait_for_restart("gateway 0", 2)
    with httpx.Client(base_url=workers.url, timeout=20) as client:
        assert [get(client, name, "k") for name in NAMES] == NAMES

    assert workers.node.stop() == 0
    assert workers.owners() == {}
    assert "Traceback" not in home.log()
    kept = [*home.data_dir.glob("workers/*/dbs/*/*/*/clean")]
    assert len(kept) == len(NAMES)

    home.lose_disk()
    node = home.start()
    with httpx.Client(base_url=node.url, timeout=10) as client:
        assert [get(client, name, "k") for name in NAMES] == NAMES


def test_one_id_finds_the_lines_of_every_process_and_one_scrape_its_metrics(home):
    workers = Workers(home, REQUEST_LOG="all")
    with httpx.Client(base_url=workers.url, timeout=10) as client:
        make(client, "ann")
        put(client, "ann", "k", "v")
        answer = client.get("/v1/db/ann/kv/n/k", headers={"Memoturn-Request-Id": "find-me"})
        shown = client.get("/metrics").text
    assert workers.node.stop() == 0

    lines = [json.loads(line) for line in home.log().splitlines()]  # all of it is JSON
    found = {line["event"]: line for line in lines if line.get("request_id") == "find-me"}
    owner = workers_number(lines, "ann")
    assert answer.headers["Memoturn-Request-Id"] == "find-me"
    assert found.keys() == {"request", "forwarded"}
    assert found["request"]["worker"] == owner
    for line in found.values():
        assert (line["db"], line["branch"], line["txid"]) == (
            "ann",
            "ann@main",
            int(answer.headers["Memoturn-Txid"]),
        )
        assert (line["route"], line["status"]) == ("/v1/db/{db}/kv/{ns}/{key}", 200)

    assert set(re.findall(r'part="([a-z0-9-]+)"', shown)) == {"parent", "worker-0", "worker-1", "gateway-0"}
    assert 'memoturn_workers_running{part="parent",kind="worker"} 2.0' in shown
    assert 'memoturn_workers_unscraped{part="parent"} 0.0' in shown
    of_gets = r'memoturn_http_request_seconds_count{part="worker-(\d)",method="GET",route="/v1/db/{db}/kv/{ns}/{key}",status="2xx"} 1.0'
    assert re.findall(of_gets, shown) == [str(owner)]


def workers_number(lines, database):
    """The worker that answered a put to a database."""
    return next(
        line["worker"]
        for line in lines
        if line["event"] == "request" and line.get("db") == database and line["method"] == "PUT"
    )


def test_killed_workers_profiles_are_served_by_the_other_and_nothing_of_it_is_lost(home):
    workers = Workers(home, **UNSHIPPED)
    with httpx.Client(base_url=workers.url, timeout=10) as client:
        make(client, *NAMES)
        for name in NAMES:
            put(client, name, "kept", "durable", durable=True)
            put(client, name, "late", "local")
        victim = workers.owner(NAMES[0])
        of_victim = [name for name in NAMES if workers.owner(name) == victim]
        used, unused = of_victim[0], of_victim[1:]
        assert unused

        killed_s = time.monotonic()
        workers.kill(victim)
        put(client, used, "next", "served")
        took_s = time.monotonic() - killed_s

        assert took_s < 3  # about a second on a machine that has nothing else to do
        assert get(client, used, "kept") == "durable"
        others = [name for name in NAMES if workers.owner(name) != victim]
        assert [get(client, name, "late") for name in others if name != used] == ["local"] * (len(others) - 1)

        workers.wait_for_restart(victim, 2)
        wait_until(lambda: get(client, unused[0], "late") == "local")
        assert [get(client, name, "late") for name in unused] == ["local"] * len(unused)
        if get(client, used, "late") != "local":  # it was taken over before the worker was there again
            wait_until(lambda: any(name.startswith("recovered-") for name in branches(client, used)))
            (recovered,) = [name for name in branches(client, used) if name.startswith("recovered-")]
            assert get(client, used, "late", f"@{recovered}") == "local"
        assert get(client, used, "next") == "served"
    assert workers.node.stop() == 0


def test_data_directory_changes_between_one_node_and_workers_without_a_loss(home):
    """Killed each time, with commits that are nowhere else."""
    node = home.start(**UNSHIPPED)
    expected = {}

    def use(url, key):
        with httpx.Client(base_url=url, timeout=10) as client:
            for name, keys in expected.items():
                assert {k: get(client, name, k) for k in keys} == keys
                assert branches(client, name) == []
            if not expected:
                make(client, *NAMES[:4])
            for name in NAMES[:4]:
                put(client, name, key, key)
                expected.setdefault(name, {})[key] = key

    use(node.url, "alone")
    node.kill()
    node = home.start("--workers", "2", **UNSHIPPED)
    use(node.url, "of-2")
    node.kill()
    kill_children(home)
    node = home.start(**UNSHIPPED)
    use(node.url, "alone-again")
    assert not [*home.data_dir.glob("workers/*/dbs/*/*/*")]


def test_workers_end_with_their_parent_and_ship(home):
    workers = Workers(home, **UNSHIPPED)
    with httpx.Client(base_url=workers.url, timeout=10) as client:
        make(client, "ann")
        put(client, "ann", "k", "v")
    pids = [workers.started(name)[-1] for name in ("worker 0", "worker 1", "gateway 0")]

    workers.node.kill()

    wait_until(lambda: not any(is_there(pid) for pid in pids), 15)
    home.lose_disk()
    node = home.start()
    with httpx.Client(base_url=node.url, timeout=10) as client:
        assert get(client, "ann", "k") == "v"


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_nobody_else_starts_on_the_directory_while_a_worker_lives(home):
    workers = Workers(home)

    for arguments in ((), ("--workers", "2")):
        second = run_node(*arguments, DATA_DIR=str(home.data_dir), LISTEN="127.0.0.1:0")
        assert second.returncode == 2
        assert "in use by process" in second.stderr

    worker = workers.started("worker 0")[-1]
    os.kill(worker, signal.SIGSTOP)
    workers.node.kill()
    try:
        second = run_node(DATA_DIR=str(home.data_dir), LISTEN="127.0.0.1:0")
        assert second.returncode == 2
    finally:
        os.kill(worker, signal.SIGKILL)


def test_worker_that_cannot_start_ends_the_command_with_its_exit_code(home):
    ended = run_node(
        "--workers",
        "2",
        DATA_DIR=str(home.data_dir),
        LISTEN="127.0.0.1:0",
        EMBED_PROVIDER="local",
        EMBED_LOCAL_PATH="/nowhere",
    )

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
