"""The client of embedding endpoints, against one over real HTTP that may have every fault."""

import asyncio

import numpy as np
import pytest
from fake_embedder import DIMENSIONS, KEY, vector_of

from memoturnd.embedders.endpoint import EndpointEmbedder, embeddings_url
from memoturnd.seams.embedder import (
    EmbedderError,
    EmbedderMisconfiguredError,
    EmbedderRefusedError,
    Kind,
)


def embedder_of(fake, **changes):
    values = {
        "dialect": "openai",
        "model": "words",
        "base_url": fake.url,
        "api_key": KEY,
        "dimensions": None,
        "connections": 4,
    }
    return EndpointEmbedder(**{**values, **changes})


@pytest.fixture
async def ask(fake):
    """Embed texts by an endpoint that is set up as the test says."""
    opened = []

    async def ask(*texts, kind=Kind.DOCUMENT, **changes):
        embedder = embedder_of(fake, **changes)
        opened.append(embedder)
        await embedder.start()
        return await embedder.embed(texts, kind=kind)

    yield ask
    for embedder in opened:
        await embedder.close()


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/embeddings"),
        ("http://host/proxy", "http://host/proxy/v1/embeddings"),
        ("http://host/v1beta", "http://host/v1beta/embeddings"),
        ("http://host/api/v3", "http://host/api/v3/embeddings"),
        ("http://host/v1/embeddings", "http://host/v1/embeddings"),
    ],
)
def test_the_version_is_in_the_address_once(base, url):
    assert embeddings_url(base) == url


@pytest.mark.parametrize("as_arrays", [False, True], ids=["base64", "arrays"])
async def test_vectors_come_in_the_order_of_the_texts(fake, ask, as_arrays):
    fake.as_arrays = as_arrays
    texts = [f"text number {n}" for n in range(20)]

    got = await ask(*texts)

    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [vector_of(text) for text in texts], rtol=1e-6)


async def test_openai_is_asked_as_it_expects(fake, ask):
    await ask("a", "b", dimensions=16)

    assert fake.paths == ["/v1/embeddings"]
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert fake.requests == [
        {"model": "words", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 16}
    ]


@pytest.mark.parametrize("kind", list(Kind))
async def test_voyage_is_told_what_a_text_is_for(fake, ask, kind):
    got = await ask("a", dialect="voyage", kind=kind, dimensions=16)

    assert fake.requests[0]["input_type"] == kind.value
    assert fake.requests[0]["output_dimension"] == 16
    assert got.shape == (1, 16)


async def test_no_key_is_sent_where_there_is_none(fake, ask):
    await ask("a", api_key="")

    assert "Authorization" not in fake.headers[0]


def test_a_model_has_one_name_per_dialect_and_dimensions(fake):
    assert embedder_of(fake).model == "openai/words"
    assert embedder_of(fake, dialect="voyage").model == "voyage/words"
    assert embedder_of(fake, dimensions=256).model == "openai/words@256"


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 408])
async def test_what_may_pass_is_an_error_that_says_where(fake, ask, fault):
    fake.fault = fault
    fake.retry_after = "7"

    with pytest.raises(EmbedderError, match=f"{fault}") as caught:
        await ask("a")

    assert type(caught.value) is EmbedderError
    assert caught.value.retry_after_s == 7
    assert fake.url in str(caught.value)


@pytest.mark.parametrize("fault", [400, 413, 422])
async def test_texts_may_be_refused(fake, ask, fault):
    fake.fault = fault

    with pytest.raises(EmbedderRefusedError):
        await ask("a")


@pytest.mark.parametrize("fault", [401, 403, 404, 301, 307])
async def test_wrong_settings_are_told_apart(fake, ask, fault):
    fake.fault = fault

    with pytest.raises(EmbedderMisconfiguredError, match="MEMOTURN_EMBED"):
        await ask("a")

    assert len(fake.requests) == 1, "the key went elsewhere"


@pytest.mark.parametrize("fault", [400, 401, 404, 500])
async def test_no_error_names_the_key(fake, ask, fault):
    fake.fault = fault

    with pytest.raises(EmbedderError) as caught:
        await ask("a")

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("fault", ["count", "index", "ragged", "junk", "drop"])
@pytest.mark.parametrize("as_arrays", [False, True], ids=["base64", "arrays"])
async def test_an_answer_that_makes_no_sense_is_an_error(fake, ask, fault, as_arrays):
    fake.fault = fault
    fake.as_arrays = as_arrays

    with pytest.raises(EmbedderError):
        await ask("a", "b")


async def test_an_endpoint_that_is_not_there_is_an_error(ask):
    with pytest.raises(EmbedderError, match="MEMOTURN_EMBED_BASE_URL"):
        await ask("a", base_url="http://127.0.0.1:9")


async def test_an_answer_has_a_largest_size(fake, ask, monkeypatch):
    monkeypatch.setattr("memoturnd.embedders.endpoint.ANSWER_LIMIT_BYTES", 100)

    with pytest.raises(EmbedderError, match="more than 100 bytes"):
        await ask("a")


async def test_a_call_can_be_cancelled(fake, ask):
    fake.fault = "slow"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ask("a")

    fake.fault = None
    assert (await ask("a")).shape == (1, DIMENSIONS)
