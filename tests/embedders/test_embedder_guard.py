"""The node's embedder: bounded in time and number, and never a failure of a request."""

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest
from fake_embedder import KEY, settings_of, vector_of
from structlog.testing import capture_logs

from memoturnd.config import Settings
from memoturnd.embedders import breaker
from memoturnd.embedders.breaker import Breaker
from memoturnd.embedders.cache import ENTRY_BYTES, VectorCache, key_of
from memoturnd.embedders.guard import SPLITS_LIMIT, TEXT_LENGTH_LIMIT, TRIES, NodeEmbedder
from memoturnd.embedders.open import open_embedder
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.embedder import Kind


class ShiftingClock(SystemClock):
    """The machine's clocks, moved ahead by a test; sleeping takes a hundredth of its time."""

    ahead_s = 0.0

    def monotonic_s(self):
        return super().monotonic_s() + self.ahead_s

    async def sleep(self, seconds):
        await asyncio.sleep(seconds / 100)


@pytest.fixture
async def guarded(fake):
    """A node's embedder on the endpoint, set up as the test says."""
    opened = []

    async def guarded(*, env=None, **changes):
        settings = Settings.from_env(
            {f"MEMOTURN_{name}": value for name, value in settings_of(fake, **(env or {})).items()}
        )
        embedder = open_embedder(settings, SystemClock())
        await embedder.start()
        opened.append(embedder)
        values = {
            "clock": ShiftingClock(),
            "randomness": SystemRandomness(),
            "metrics": Metrics(),
            "timeout_s": 5.0,
            "write_budget_s": 5.0,
            "batch": 8,
            "concurrency": 2,
        }
        values.update(changes)
        node = NodeEmbedder(embedder, **values)
        return SimpleNamespace(node=node, clock=values["clock"], metrics=values["metrics"])

    yield guarded
    for embedder in opened:
        await embedder.close()


def value(metric):
    return metric._value.get()


def close_to(vector, text):
    np.testing.assert_allclose(np.frombuffer(vector, "<f4"), vector_of(text), atol=1e-6)


async def test_many_texts_go_in_batches_a_few_at_once_and_come_in_order(fake, guarded):
    made = await guarded()
    texts = [f"text {n}" for n in range(50)]

    vectors = await made.node.documents(texts)

    for text, vector in zip(texts, vectors, strict=True):
        close_to(vector, text)
    assert sorted(len(request["input"]) for request in fake.requests) == [2, 8, 8, 8, 8, 8, 8]
    assert fake.most_at_once <= 2


async def test_long_texts_are_cut_and_fill_a_batch_sooner(fake, guarded):
    made = await guarded()

    vectors = await made.node.documents(["x " * TEXT_LENGTH_LIMIT + str(n) for n in range(20)])

    assert len({*vectors}) == 1
    assert fake.texts == ["x " * (TEXT_LENGTH_LIMIT // 2)]
    await made.node.documents([f"{n} " + "y" * TEXT_LENGTH_LIMIT for n in range(20)])
    assert max(sum(map(len, request["input"])) for request in fake.requests) <= 128_000


async def test_what_was_embedded_is_not_asked_for_again(fake, guarded):
    made = await guarded()
    first = await made.node.documents(["a", "b", "a"])

    again = await made.node.documents(["b", "c", "a"])

    assert again == [first[1], again[1], first[0]]
    assert fake.texts == ["a", "b", "c"]
    assert value(made.metrics.embed_texts["cached"]) == 2
    await made.node.query("a")
    assert fake.texts == ["a", "b", "c", "a"], "a query is no document"


async def test_a_blank_text_has_no_vector_and_is_not_sent(fake, guarded):
    made = await guarded()

    assert await made.node.documents([" \n", ""]) == [None, None]
    assert fake.requests == []


async def test_vectors_have_unit_length(fake, guarded):
    made = await guarded()

    for vector in await made.node.documents(["one", "two words", "x" * 1000]):
        assert np.linalg.norm(np.frombuffer(vector, "<f4")) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "junk", "count", "nan", "huge", "zero"])
async def test_what_passes_is_tried_again(fake, guarded, fault):
    made = await guarded()
    fake.fault, fake.faults_left = fault, TRIES - 1

    close_to((await made.node.documents(["a"]))[0], "a")

    assert len(fake.requests) == TRIES


@pytest.mark.parametrize(
    "fault", [400, 401, 404, 429, 500, "drop", "junk", "count", "dims", "nan", "huge", "zero", "slow"]
)
async def test_what_stays_wrong_leaves_texts_without_vectors(fake, guarded, fault):
    made = await guarded(timeout_s=0.2, env={"EMBED_DIMENSIONS": "32"})
    fake.fault = fault

    assert await made.node.documents(["a"]) == [None]
    assert await made.node.query("a") is None
    assert len(fake.requests) <= 2 * TRIES
    assert value(made.metrics.embed_texts["failed"]) == 2


async def test_dimensions_stay_what_they_were(fake, guarded):
    made = await guarded()
    await made.node.documents(["a"])
    fake.dimensions = 16

    with capture_logs() as logs:
        assert await made.node.documents(["b"]) == [None]

    assert "16 dimensions, not 32" in logs[0]["error"]


async def test_one_text_that_is_refused_takes_no_other_with_it(fake, guarded):
    made = await guarded()
    fake.refused_text = "poison"
    texts = ["a", "b", "poison c", "d", "e", "f", "g", "h"]

    vectors = await made.node.documents(texts)

    assert [vector is None for vector in vectors] == ["poison" in text for text in texts]
    assert not made.node._breaker.failures


async def test_a_batch_that_is_refused_whole_costs_a_bounded_number_of_calls(fake, guarded):
    made = await guarded(batch=1000)
    fake.fault = 400

    assert await made.node.documents([f"t{n}" for n in range(1000)]) == [None] * 1000
    assert len(fake.requests) <= SPLITS_LIMIT


async def test_a_dead_endpoint_costs_its_timeout_a_few_times_and_then_nothing(fake, guarded):
    made = await guarded(timeout_s=0.15)
    fake.fault = "slow"

    with capture_logs() as logs:
        for n in range(4):
            assert await made.node.query(f"query {n}") is None
        asked, started = len(fake.requests), time.monotonic()
        for n in range(100):
            assert await made.node.query(f"query {n}") is None

    assert len(fake.requests) == asked <= breaker.FAILURES_LIMIT
    assert time.monotonic() - started < 0.5
    assert [log["log_level"] for log in logs] == ["warning", "warning"], (
        "once when it begins, once when it is left alone"
    )
    assert KEY not in str(logs)


async def test_after_its_rest_one_call_looks_whether_the_endpoint_is_back(fake, guarded):
    made = await guarded(timeout_s=0.15)
    fake.fault = "slow"
    for n in range(3):
        await made.node.query(f"q{n}")
    asked = len(fake.requests)
    made.clock.ahead_s += breaker.PAUSE_S + 1

    assert await asyncio.gather(*(made.node.query(f"x{n}") for n in range(10))) == [None] * 10
    assert len(fake.requests) == asked + 1

    made.clock.ahead_s += breaker.PAUSE_LIMIT_S + 1
    fake.fault = None
    with capture_logs() as logs:
        assert await made.node.query("y") is not None
    assert [log["event"] for log in logs] == ["the embedder answers again"]
    assert None not in await asyncio.gather(*(made.node.query(f"z{n}") for n in range(10)))


async def test_retry_after_is_honoured(fake, guarded):
    made = await guarded()
    fake.fault, fake.faults_left, fake.retry_after = 429, 1, "30"

    assert await made.node.documents(["a"]) == [None], "30 s are more than the budget"
    assert await made.node.documents(["a"]) == [None]
    assert len(fake.requests) == 1
    made.clock.ahead_s += 31
    assert await made.node.documents(["a"]) != [None]


async def test_texts_beyond_the_budget_go_without(fake, guarded):
    made = await guarded(write_budget_s=0.3, concurrency=1, timeout_s=0.2)
    await made.node.documents(["warm"])
    fake.fault = "slow"
    started = time.monotonic()

    assert await made.node.documents([f"t{n}" for n in range(100)]) == [None] * 100
    assert time.monotonic() - started < 1


async def test_a_query_does_not_wait_behind_documents(fake, guarded):
    made = await guarded(concurrency=1, timeout_s=2)
    fake.fault, fake.faults_left = "slow", 1
    storing = asyncio.create_task(made.node.documents(["slow"]))
    await asyncio.sleep(0.2)
    assert len(fake.requests) == 1

    assert await made.node.query("quick") is not None
    assert not storing.done()
    storing.cancel()


async def test_calls_that_wait_are_bounded(fake, guarded, monkeypatch):
    monkeypatch.setattr("memoturnd.embedders.guard.WAITING_LIMIT", 3)
    made = await guarded(concurrency=1, timeout_s=0.4, write_budget_s=0.4)
    fake.fault = "slow"

    await asyncio.gather(*(made.node.documents([f"t{n}"]) for n in range(20)))

    assert value(made.metrics.embed_calls["shed"]) >= 16
    assert made.node._waiting[Kind.DOCUMENT] == 0


async def test_a_request_that_is_cancelled_gives_its_place_back(fake, guarded):
    made = await guarded(concurrency=1)
    fake.fault, fake.faults_left = "slow", 1
    tasks = [asyncio.create_task(made.node.documents([f"t{n}"])) for n in range(5)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert await made.node.documents(["a"]) != [None]
    assert made.node._waiting[Kind.DOCUMENT] == 0


# ---- the parts


def test_the_cache_lets_the_longest_unused_go_first():
    cache = VectorCache(3 * (ENTRY_BYTES + 4))
    for n in range(3):
        cache.put(b"%d" % n, b"%04d" % n)
    assert cache.get(b"0") == b"0000"

    cache.put(b"3", b"0003")

    assert [cache.get(b"%d" % n) for n in range(4)] == [b"0000", None, b"0002", b"0003"]
    assert cache.size_bytes == 3 * (ENTRY_BYTES + 4)
    cache.put(b"3", b"0033")
    assert (len(cache), cache.size_bytes) == (3, 3 * (ENTRY_BYTES + 4))


def test_texts_of_a_kind_have_keys_of_their_own():
    keys = {key_of(text, kind) for text in ("a", "b", "é", "😀") for kind in Kind}

    assert len(keys) == 8


def test_pauses_grow_up_to_a_limit_and_end_with_a_success():
    made, now_s, pauses = Breaker(), 0.0, []
    for _ in range(12):
        assert made.take(now_s)
        made.failed(now_s)
        if made.is_open:
            pauses.append(made.closed_again_s - now_s)
            assert not made.take(now_s)
        now_s = max(now_s, made.closed_again_s)

    assert pauses[:5] == [5, 10, 20, 40, 60]
    assert max(pauses) == breaker.PAUSE_LIMIT_S
    assert made.take(now_s)
    assert made.succeeded()
    assert all(made.take(now_s) for _ in range(5))


def test_a_probe_that_is_cancelled_lets_the_next_one_try():
    made = Breaker()
    for _ in range(breaker.FAILURES_LIMIT):
        made.failed(0)
    assert made.take(100)
    assert not made.take(100)

    made.cancelled()

    assert made.take(100)
