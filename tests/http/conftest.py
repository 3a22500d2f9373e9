"""Fixtures of the HTTP tests: a node in memory, and a client that speaks to it in process."""

import pytest
from fake_model import serving_model, settings_of
from harness import HandClock
from http_calls import FACT, OLD_FACT, append, documented, ingest, stamps
from http_support import client_of, limits, running_node

from memoturnd.http.app import create_app


@pytest.fixture
def hand_clock():
    return HandClock()


@pytest.fixture
async def model():
    async with serving_model() as model:
        yield model


@pytest.fixture
async def node(tmp_path, model):
    async with running_node(tmp_path, **settings_of(model)) as node:
        yield node


@pytest.fixture
async def client(node):
    async with client_of(create_app(node, limits())) as client:
        yield client


@pytest.fixture
async def written(client):
    """Some commits into app--ann, and the txid of the last."""
    await ingest(client, OLD_FACT, {**FACT, "session_id": "s"})
    await documented(client)
    await append(client)
    await client.post("/v1/db/app--ann/timelines/t/rows", json={"key": "k", "data": {"n": 1}})
    await client.post("/v1/db/app--ann/vectors/c", json={"id": "old", "embedding": [1]})
    return stamps(await client.put("/v1/db/app--ann/kv/ns/old", content=b"x"))[0]
