"""A node within the process of its client: what it keeps, what it refuses, and how it ends."""

import asyncio
import io
import logging
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import memoturn
import pytest
from memoturn import AsyncMemoturn, EmbeddedError, Memoturn

FACT = {"type": "fact", "topic_key": "diet", "summary": "Alice is vegan"}


def summaries(client: Memoturn) -> list[str]:
    return [hit["summary"] for hit in client.memory("app", "alice").recall("vegan")["memories"]]


def node_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "memoturn-node"]


def in_new_process(script: str, *arguments: object, kill: bool = False) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    return done


def test_what_was_written_is_shipped_at_the_close_and_there_again(tmp_path):
    with Memoturn.embedded(tmp_path / "data") as client:
        written = client.memory("app", "alice").ingest([FACT])
        assert summaries(client) == ["Alice is vegan"]
        assert node_threads()

    assert not node_threads()
    assert not (tmp_path / "data/node.sock").exists()

    with Memoturn.embedded(tmp_path / "data") as client:
        found = client.memory("app", "alice").recall("vegan")
        assert [hit["summary"] for hit in found["memories"]] == ["Alice is vegan"]
        assert found["durable_txid"] == written["txid"]


def test_a_second_node_on_the_folder_is_refused_within_the_process_and_from_another(tmp_path):
    script = """
        import sys
        from memoturn import EmbeddedError, Memoturn
        try:
            Memoturn.embedded(sys.argv[1])
        except EmbeddedError as error:
            print(error)
    """
    with Memoturn.embedded(tmp_path) as client:
        with pytest.raises(EmbeddedError, match="this process runs a node on"):
            Memoturn.embedded(tmp_path)
        assert "is in use by process" in in_new_process(script, tmp_path).stdout

        client.memory("app", "alice").ingest([FACT])
        assert summaries(client) == ["Alice is vegan"]

    Memoturn.embedded(tmp_path).close()


def test_the_end_of_the_interpreter_ends_the_node_in_order(tmp_path):
    script = """
        import sys
        from memoturn import Memoturn
        client = Memoturn.embedded(sys.argv[1])
        client.memory("app", "alice").ingest([{"type": "fact", "summary": "Alice is vegan"}])
    """

    ended = in_new_process(script, tmp_path)

    assert (ended.stdout, ended.stderr) == ("", "")
    assert not (tmp_path / "node.sock").exists()
    with Memoturn.embedded(tmp_path) as client:
        found = client.memory("app", "alice").recall("vegan")
        assert found["durable_txid"] == found["txid"] > 0


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    script = """
        import os, signal, sys
        from memoturn import Memoturn
        client = Memoturn.embedded(sys.argv[1], ship_interval_ms=60000)
        client.memory("app", "alice").ingest([{"type": "fact", "summary": "Alice is vegan"}])
        os.kill(os.getpid(), signal.SIGKILL)
    """

    in_new_process(script, tmp_path, kill=True)

    with Memoturn.embedded(tmp_path) as client:
        assert summaries(client) == ["Alice is vegan"]


async def test_both_clients_work_where_a_loop_is_running_as_in_a_notebook(tmp_path):
    client = Memoturn.embedded(tmp_path / "one")
    client.memory("app", "alice").ingest([FACT])
    assert summaries(client) == ["Alice is vegan"]

    async with await AsyncMemoturn.embedded(tmp_path / "two") as other:
        alice = other.memory("app", "alice")
        await asyncio.gather(*(alice.ingest([{"type": "event", "summary": f"vegan {n}"}]) for n in range(20)))
        assert len((await alice.recall("vegan", k=50))["memories"]) == 20
        assert len(node_threads()) == 2
        ticks = 0
        closing = asyncio.ensure_future(other.close())
        while not closing.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert ticks > 1, "the loop stood still while the node stopped"

    client.close()
    client.close()
    assert not node_threads()


def test_streams_and_threads_share_it(tmp_path):
    with Memoturn.embedded(tmp_path) as client:
        client.create_database("orders")
        orders, errors = client.db("orders"), []

        def put(worker: int) -> None:
            try:
                for n in range(10):
                    orders.kv.put("n", f"{worker}.{n}", bytes(100))
            except memoturn.MemoturnError as error:
                errors.append(error)

        threads = [threading.Thread(target=put, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert len(orders.kv.list("n", limit=1000)) == 80
        target = io.BytesIO()
        assert orders.export(target)["size_bytes"] == len(target.getvalue()) > 0


def test_settings_are_given_by_name_and_the_environment_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMOTURN_SYNC", "nonsense")
    bucket = tmp_path / "bucket"

    with Memoturn.embedded(
        tmp_path / "data",
        object_store=f"file://{bucket}",
        auth="on",
        platform_key="key-of-the-platform",
        control_rate=1000,
    ) as client:
        client.create_database("orders")
        with pytest.raises(memoturn.MemoturnError):
            client.db("orders").kv.put("n", "k", b"v")
        assert client.create_token("orders", "write")["token"]

    assert any(bucket.rglob("*")), "the store is where the setting says"


def test_wrong_settings_change_nothing(tmp_path):
    with pytest.raises(EmbeddedError, match="MEMOTURN_SINK is not a setting; did you mean MEMOTURN_SYNC"):
        Memoturn.embedded(tmp_path / "data", sink="full")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmbeddedError, match="file"):
        Memoturn.embedded(tmp_path / "file" / "data")

    assert not (tmp_path / "data").exists()
    assert not node_threads()


def test_a_path_that_is_too_long_for_a_socket_works_too(tmp_path):
    folder = tmp_path / ("d" * 120)

    with Memoturn.embedded(folder) as client:
        place = client._node.socket_path
        assert place.parent.stat().st_mode & 0o077 == 0
        assert client.ready()

    assert not place.parent.exists()
    assert folder.exists()


def test_nobody_else_can_open_it_and_the_process_stays_as_it_was(tmp_path):
    before = (
        resource.getrlimit(resource.RLIMIT_NOFILE),
        sys.getswitchinterval(),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        logging.getLogger().handlers[:],
    )

    with Memoturn.embedded(tmp_path) as client:
        assert (tmp_path / "node.sock").stat().st_mode & 0o777 == 0o600
        assert client.ready()

    after = (
        resource.getrlimit(resource.RLIMIT_NOFILE),
        sys.getswitchinterval(),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        logging.getLogger().handlers[:],
    )
    assert after == before


def test_without_the_server_the_error_names_what_to_install(tmp_path):
    script = """
        import sys
        sys.modules["memoturnd"] = None
        from memoturn import EmbeddedError, Memoturn
        try:
            Memoturn.embedded(sys.argv[1])
        except EmbeddedError as error:
            print(error)
    """

    assert "pip install . './sdk/python[embedded]'" in in_new_process(script, Path(tmp_path)).stdout
