"""The metrics of a machine's processes, gathered into one text."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import GatewayMetrics
from memoturnd.errors import RetryableError
from memoturnd.metrics import Metrics
from memoturnd.workers.metrics import WorkersMetrics, fetched, gathered, merged, serve_metrics


def some(process="node"):
    metrics = Metrics(process=process)
    metrics.request_timer("/v1/db/{db}/sql", "POST", "2xx")(0.001)
    metrics.commit_rounds.inc()
    return metrics.render()


async def free_server(metrics):
    async def render():
        return metrics.render()

    server = await serve_metrics(render)
    return server, server.sockets[0].getsockname()[1]


def test_each_sample_says_whose_it_is_and_each_family_is_told_once():
    text = merged({"worker-0": some(), "worker-1": some(), "gateway-0": GatewayMetrics().render()}).decode()
    families = list(text_string_to_metric_families(text))

    assert len({family.name for family in families}) == len(families)
    assert all(sample.labels["part"] for family in families for sample in family.samples)
    rounds = next(family for family in families if family.name == "memoturn_commit_rounds")
    assert [(sample.labels["part"], sample.value) for sample in rounds.samples] == [
        ("worker-0", 1),
        ("worker-1", 1),
    ]
    requests = next(family for family in families if family.name == "memoturn_http_request_seconds")
    assert {sample.labels["route"] for sample in requests.samples} == {"/v1/db/{db}/sql"}
    alone = sum(len(family.samples) for family in text_string_to_metric_families(some().decode()))
    of_one = [
        sample for family in families for sample in family.samples if sample.labels["part"] == "worker-1"
    ]
    assert len(of_one) == alone


async def test_what_does_not_answer_is_left_out_and_counted():
    metrics = WorkersMetrics()
    there, port = await free_server(GatewayMetrics())
    gone, gone_port = await free_server(GatewayMetrics())
    gone.close()
    await gone.wait_closed()

    text = (await gathered(metrics, {"gateway-0": port, "gateway-1": gone_port}, unknown=1)).decode()
    there.close()

    assert 'memoturn_workers_unscraped{part="parent"} 2.0' in text
    assert 'part="gateway-0"' in text
    assert 'part="gateway-1"' not in text


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\ncontent-length: 99\r\n\r\nshort",
        b"HTTP/1.0 200 OK\r\ncontent-length: 99999999\r\n\r\n",
        b"HTTP/1.0 503 No\r\ncontent-length: 2\r\n\r\nno",
    ],
)
async def test_what_is_no_answer_is_refused(answer):
    async def serve(_reader, writer):
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with pytest.raises(RetryableError):
        await fetched(server.sockets[0].getsockname()[1])
    server.close()
