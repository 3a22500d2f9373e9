"""The benchmark runs, measures every row that exists, and uses the original's workload bit for bit."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from service_postgres import search_path

import bench.__main__
from bench import buckets, recall_quality, workload
from bench.paraphrases import PARAPHRASES
from bench.stats import Row, Table, middle, percentile
from memoturnd.core import text
from memoturnd.engine.connection import open_connection

ROOT = Path(__file__).parent.parent


TITLES = {
    "in-process": ("In process", "In process, MEMOTURN_SYNC=full"),
    "http": ("Over HTTP, a connection per request (urllib)", "Over HTTP, one connection kept open"),
    "throughput": ("Throughput over HTTP, kept connections",),
    "stores": (
        "Over HTTP on each object store, a connection per request",
        "Durable writes on each object store",
    ),
    "wakes": ("Cold wakes over HTTP on each object store",),
    "costs": ("Requests and bytes per 1,000 writes",),
    "shipping": (
        "Branches that one node keeps shipped",
        "What a request costs each client of an object store",
    ),
    "memory": ("Memory of a node",),
    "big": ("Large profiles",),
    "recall": ("Recall by size",),
    "timelines": ("Timelines in process",),
    "embedder": ("The local embedder",),
    "credentials": ("Credentials: what authentication adds to a request",),
    "fairness": ("Fairness: one namespace beside a noisy one",),
    "lazy": ("Lazy reads of past states: a prototype",),
    "gateway": (
        "Added by the gateway, one request at a time on a kept connection",
        "Processor time of the gateway, 16 clients at once",
    ),
    "metrics": ("What metrics cost a request", "What a scrape of a node costs"),
    "sdk": (
        "Clients: what they add to a request of httpx or fetch",
        "An embedded node, by its client",
    ),
    "scale": (
        "Profiles provisioned",
        "Profiles active",
        "At rest, per second",
        "Requests to active profiles",
        "A gateway's cache",
        "A node's start",
        "A node dies",
    ),
    "processes": ("Processes of a small installation",),
    "replicas": ("Age of what replicas show, over real processes",),
    "lag": ("Event-loop lag under heavy work",),
}
SERVICES = {
    "processes": ("etcd", "postgres"),
    "replicas": ("etcd", "postgres"),
    "scale": ("etcd", "postgres"),
    "sdk": ("node",),
}
"""What parts cannot be measured without."""
ROWS = (
    "1",
    "2",
    "3a",
    "3b",
    "3a+",
    "3a++",
    "4a",
    "4b",
    "4a+",
    "4b+",
    "4b++",
    "4c+",
    "5",
    "6",
    "6+",
    "7",
    "7+",
    "8a",
    "8b",
    "10a+",
    "10b+",
    "10c+",
    "10d+",
    "10e+",
    "11a+",
    "11b+",
    "11c+",
    "11d+",
    "11e+",
    "9a",
    "9b",
    "3b'",
)


@pytest.mark.parametrize("part", TITLES)
def test_quick_run_reports_the_part(part, tmp_path):
    missing = [name for name in SERVICES.get(part, ()) if not shutil.which(name, path=search_path())]
    if missing and os.environ.get("MEMOTURN_REQUIRE_SERVICES") != "1":
        pytest.skip(f"no {' and no '.join(missing)}")
    report = tmp_path / "report.md"
    results = ROOT / "bench" / "RESULTS.md"
    before = results.read_bytes() if results.exists() else None

    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", part, "--output", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    text = report.read_text()
    for title in ("Machine", "Targets missed", *TITLES[part]):
        assert f"\n## {title}\n" in text
    for key in ROWS if part == "in-process" else ():
        assert f"\n| {key} | " in text
    assert " refused, such as " not in text
    assert (results.read_bytes() if results.exists() else None) == before


def test_every_part_has_a_quick_run():
    assert set(TITLES) == set(bench.__main__._PARTS)


def test_part_that_fails_does_not_lose_the_others(tmp_path, monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("no disk | left")

    report = tmp_path / "report.md"
    parts = {"first": fail, "second": lambda _: [Table("Second", ("what",), [["measured"]])]}
    monkeypatch.setattr(bench.__main__, "_PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["bench", "--output", str(report)])

    code = bench.__main__.main()

    text = report.read_text()
    assert code == 1
    assert "## Not measured: first" in text
    assert "| RuntimeError: no disk / left |" in text
    assert "| measured |" in text
    assert "no disk | left" in capsys.readouterr().err


def test_stores_without_minio_are_measured_on_the_directory_and_say_so(monkeypatch):
    monkeypatch.setattr(buckets, "_SCRIPT", ROOT / "scripts" / "no-such-script")

    with buckets.backings() as stores:
        assert [backing.name for backing in stores.all] == ["local directory"]
        assert stores.dearest == stores.all[0]
        [note] = stores.notes

    assert note.startswith("Not measured on MinIO: ")


def test_embeddings_are_the_generator_in_32_bit_floats():
    def single(value: float) -> float:
        return struct.unpack("<f", struct.pack("<f", value))[0]

    def reference(seed: int, dimensions: int) -> list[float]:
        x = (seed * 2654435761 + 1) % 2**64
        values = []
        for _ in range(dimensions):
            x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
            values.append(single(single(single(x >> 33) / 2**32) - 0.5))
        return values

    found = workload.embeddings(range(3, 40_000, 9_999), 64).tolist()

    assert found == [reference(seed, 64) for seed in range(3, 40_000, 9_999)]
    assert all(-0.5 <= value < 0 for vector in found for value in vector)


def test_recalls_ask_for_an_embedding_that_was_stored():
    stored = workload.embeddings(range(50), 16).tolist()

    assert [query["embedding"] for query in workload.queries(5, 16)] == [stored[7 * i + 3] for i in range(5)]


def test_percentiles_follow_the_rules_of_both_harnesses():
    samples = [float(n) for n in range(200)]

    assert (percentile(samples, 0.5), percentile(samples, 0.99), middle(samples)) == (99.0, 197.0, 100.0)


def test_row_misses_a_target_that_its_median_is_above():
    row = Row.of("1", "x", [0.002, 0.003, 0.004], published_s=0.001, target_s=0.0025)

    assert (row.mark, row.ratio) == ("MISSED", "3.00")
    assert Row.of("1", "x", [0.002], target_s=0.002).mark == "met"


def test_paraphrases_share_no_word_with_their_answer_and_decoys_share_one():
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=64)
    tokenize = conn.fts5_tokenizer("porter", ["unicode61"])

    def stems(words):
        return {
            token
            for word in words
            for token in tokenize(
                word.encode(),
                apsw.FTS5_TOKENIZE_DOCUMENT,
                None,
                include_offsets=False,
                include_colocated=False,
            )
        }

    for memory, question, decoy in PARAPHRASES:
        asked = stems(text.tokens(question))
        assert asked.isdisjoint(stems([memory])), question
        assert not asked.isdisjoint(stems([decoy])), question
    conn.close()


def test_recall_quality_reads_locomo_and_counts_what_was_found():
    talk = {
        "session_1_date_time": "1 May",
        "session_1": [
            {"speaker": "A", "dia_id": "D1:1", "text": "x"},
            {"speaker": "B", "dia_id": "D1:2", "text": "y"},
        ],
        "session_10_date_time": "3 May",
        "session_10": [],
        "session_2_date_time": "2 May",
        "session_2": [{"speaker": "A", "dia_id": "D2:1", "text": "z"}],
    }
    asked = [
        {"question": "q", "evidence": ["D1:2; D2:1"], "category": 1},
        {"question": "none", "evidence": ["D9:9"], "category": 2},
    ]
    made = recall_quality._conversation({"sample_id": "s", "conversation": talk, "qa": asked})

    assert made.texts == ["1 May A: x", "1 May B: y", "2 May A: z"]
    assert (made.sessions, made.session_texts()) == ([1, 1, 2], ["1 May A: x\n1 May B: y", "2 May A: z"])
    assert [(q.text, q.evidence, q.category) for q in made.questions] == [("q", (1, 2), 1)]
    assert recall_quality.share([2, 0, 1], (1, 2), 2) == 0.5
    assert recall_quality.first_rank([0, 2, 1], (1, 2)) == 0.5
    assert recall_quality.first_rank([0], (1,)) == 0.0
