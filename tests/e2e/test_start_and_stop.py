"""How a node starts, refuses to start, and stops."""

import asyncio
import signal
import socket
import time

import httpx
import pytest
from calls import Profile, assert_refused, ok
from processes import NodeHome, run_node

WRITERS = 12


def test_second_node_on_a_data_directory_refuses_and_names_the_first(home):
    first = home.start()

    second = run_node(DATA_DIR=str(home.data_dir), LISTEN="127.0.0.1:0")

    assert second.returncode == 2
    assert f"in use by process {first.pid}" in second.stderr
    assert first.url.removeprefix("http://") in second.stderr
    assert "Traceback" not in second.stderr
    assert httpx.get(f"{first.url}/ready").status_code == 200


def test_data_directory_is_free_again_after_a_kill(home):
    first = home.start()
    first.kill()

    assert home.start().alive


def test_taken_port_is_a_clear_message_and_exit_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        ended = run_node(DATA_DIR=str(tmp_path / "data"), LISTEN=f"127.0.0.1:{port}")

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"memoturnd: cannot listen on 127.0.0.1:{port}: ")
    assert "in use" in ended.stderr
    assert "MEMOTURN_LISTEN" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LISTN": "127.0.0.1:0"}, ["MEMOTURN_LISTN", "did you mean MEMOTURN_LISTEN?"]),
        ({"SYNC": "often"}, ["MEMOTURN_SYNC", "often", "normal"]),
        ({"SHIP_INTERVAL_MS": "-1", "HOT_CAP": "many"}, ["MEMOTURN_SHIP_INTERVAL_MS", "MEMOTURN_HOT_CAP"]),
        ({"LISTEN": "0.0.0.0:8080"}, ["0.0.0.0:8080", "127.0.0.1"]),
        ({"LISTEN": "[::]:8080"}, ["[::]:8080", "127.0.0.1"]),
        ({"LISTEN": "memoturn.example:8080"}, ["memoturn.example:8080"]),
        ({"AUTH": "jwt"}, ["MEMOTURN_AUTH"]),
        ({"OBJECT_STORE": "ftp://bucket"}, ["MEMOTURN_OBJECT_STORE", "ftp://bucket"]),
        ({"DATA_DIR": "/proc/nowhere"}, ["/proc/nowhere", "MEMOTURN_DATA_DIR"]),
        ({"WARM_AFTER_S": "9", "COLD_AFTER_S": "8"}, ["MEMOTURN_COLD_AFTER_S", "MEMOTURN_WARM_AFTER_S"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_wrong_setting_stops_the_start_with_exit_2_and_says_which(tmp_path, settings, words):
    ended = run_node(**{"DATA_DIR": str(tmp_path / "data"), "LISTEN": "127.0.0.1:0", **settings})

    assert ended.returncode == 2, ended.stderr
    assert [word for word in words if word not in ended.stderr] == [], ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data" / "registry.db").exists()


def test_idle_node_stops_at_once(home):
    node = home.start()
    started_s = time.monotonic()

    assert node.stop() == 0
    assert time.monotonic() - started_s < 3


def test_interrupt_from_a_terminal_stops_like_sigterm(home):
    node = home.start()
    node.process.send_signal(signal.SIGINT)

    assert node.process.wait(10) == 0
    assert "Traceback" not in home.log()


async def write_until_gone(url: str, profile: str, writer: int, kept: dict[str, str]) -> None:
    """Write keys until the node does not take any more, noting those that were acknowledged."""
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        for number in range(100_000):
            key = f"{writer}-{number}"
            try:
                answer = await client.put(f"/v1/db/app--{profile}/kv/n/{key}", content=key.encode() * 20)
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                kept[f"{profile}/{key}"] = key


def test_sigterm_under_load_loses_nothing_acknowledged_even_with_the_disk(home):
    """Everything is acknowledged at level local: only the drain makes it durable."""
    node = home.start(SHIP_INTERVAL_MS="60000")
    with httpx.Client(base_url=node.url) as client:
        for name in ("ann", "bob", "cid"):
            ok(Profile(client, name).ingest("first"))
    kept: dict[str, str] = {}

    async def load() -> int:
        writers = [
            asyncio.create_task(write_until_gone(node.url, name, writer, kept))
            for writer in range(WRITERS // 3)
            for name in ("ann", "bob", "cid")
        ]
        for _ in range(20):  # of a second at least, longer on a busy machine
            await asyncio.sleep(1.0)
            if len(kept) > 100:
                break
        code = await asyncio.to_thread(node.stop)
        await asyncio.gather(*writers)
        return code

    assert asyncio.run(load()) == 0
    assert len(kept) > 100
    home.lose_disk()
    node = home.start()
    with httpx.Client(base_url=node.url) as client:
        for path, value in kept.items():
            name, _, key = path.partition("/")
            answer = client.get(f"/v1/db/app--{name}/kv/n/{key}")
            assert answer.content == value.encode() * 20, f"{path}: {answer.status_code} {answer.text}"
    assert "Traceback" not in home.log()


def test_sigterm_with_an_unreachable_store_still_stops_in_time_and_keeps_the_tail(home):
    node = home.start(SHIP_INTERVAL_MS="60000")
    with httpx.Client(base_url=node.url) as client:
        ann = Profile(client, "ann")
        ok(ann.ingest("first"))
        ok(ann.put("tail"))
    away = home.bucket.rename(home.bucket.with_name("away"))
    home.bucket.write_text("not a folder")

    assert node.stop() == 0

    home.bucket.unlink()
    away.rename(home.bucket)
    node = home.start()
    with httpx.Client(base_url=node.url) as client:
        assert client.get("/v1/db/app--ann/kv/n/tail").content == b"x"


def restarted_on(home: NodeHome, bucket: str) -> httpx.Client:
    node = home.start(OBJECT_STORE=f"file://{home.folder / bucket}")
    return httpx.Client(base_url=node.url)


@pytest.mark.parametrize("cached", [True, False], ids=["file here", "file gone"])
def test_data_directory_with_another_store_is_refused_and_never_reads_as_empty(home, cached):
    node = home.start(**({} if cached else {"WARM_AFTER_S": "0.01", "COLD_AFTER_S": "0.01"}))
    with httpx.Client(base_url=node.url) as client:
        ann = Profile(client, "ann", durable=True)
        ok(ann.ingest("first"))
        if not cached:
            deadline = time.monotonic() + 10
            while list(home.data_dir.glob("dbs/*/*/*/main.db")) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not list(home.data_dir.glob("dbs/*/*/*/main.db"))
    assert node.stop() == 0

    with restarted_on(home, "another") as client:
        ann = Profile(client, "ann")
        wrong = [ann.put("k"), ann.ingest("second")]
        if not cached:
            wrong.append(client.post(f"{ann.memory}/recall", json={"topic_key": "first"}))
        for answer in wrong:
            assert "MEMOTURN_OBJECT_STORE" in assert_refused(answer, 500, 503)
        assert client.get("/health").status_code == 200
        ok(Profile(client, "bob").ingest("first"))

    home.nodes[-1].kill()
    with restarted_on(home, "bucket") as client:
        assert Profile(client, "ann").recall("first") == ["first"]
