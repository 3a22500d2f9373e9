"""Embeddings from an HTTP endpoint: OpenAI's, Voyage's, and every server that speaks like OpenAI's.

The key goes to the configured address alone: redirects are not followed, and what the endpoint says of a wrong
key is not repeated, since it may name it.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec
import numpy as np

from memoturnd.seams.embedder import (
    EmbedderError,
    EmbedderMisconfiguredError,
    EmbedderRefusedError,
    Kind,
    Matrix,
)

Dialect = Literal["openai", "voyage"]

DEFAULT_MODELS: Final[dict[Dialect, str]] = {"openai": "text-embedding-3-small", "voyage": "voyage-3.5"}
DEFAULT_URLS: Final[dict[Dialect, str]] = {
    "openai": "https://api.openai.com",
    "voyage": "https://api.voyageai.com",
}
ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
RETRY_AFTER_LIMIT_S: Final = 60.0
_CONNECT_S: Final = 5.0
_SAID_LENGTH: Final = 200
_CHUNK_BYTES: Final = 64 * 1024
_VERSIONED: Final = re.compile(r"/v[0-9]+[a-z0-9]*$")
_REFUSALS: Final = frozenset({400, 413, 422})
_TRY_AGAIN: Final = frozenset({408, 409, 425, 429})
_DIMENSIONS_FIELD: Final[dict[Dialect, str]] = {"openai": "dimensions", "voyage": "output_dimension"}


def embeddings_url(base: str) -> str:
    """Return the address to post to: `{base}/v1/embeddings`, where the base does not name a version itself."""
    base = base.rstrip("/")
    path = urlsplit(base).path
    if path.endswith("/embeddings"):
        return base
    return f"{base}/embeddings" if _VERSIONED.search(path) else f"{base}/v1/embeddings"


class _Row(msgspec.Struct):
    embedding: msgspec.Raw
    index: int


class _Answer(msgspec.Struct):
    data: list[_Row]


_answer = msgspec.json.Decoder(_Answer)
_base64 = msgspec.json.Decoder(str)
_numbers = msgspec.json.Decoder(list[float])


class EndpointEmbedder:
    """Implements memoturnd.seams.embedder.Embedder over HTTP. An empty `api_key` sends none."""

    def __init__(
        self,
        *,
        dialect: Dialect,
        model: str,
        base_url: str,
        api_key: str,
        dimensions: int | None,
        connections: int,
    ) -> None:
        self._dialect: Dialect = dialect
        self._model = model
        self._url = embeddings_url(base_url)
        self._api_key = api_key
        self._dimensions = dimensions
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def model(self) -> str:
        """Name of the model: with the dialect, and with the dimensions where these are asked for."""
        name = f"{self._dialect}/{self._model}"
        return name if self._dimensions is None else f"{name}@{self._dimensions}"

    @property
    def dimensions(self) -> int | None:
        """Numbers per vector, None where none were asked for."""
        return self._dimensions

    async def start(self) -> None:
        """Open a pool of connections, without using one: an endpoint may come later than the node."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def embed(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        """Return one row per text, of one call. Raises EmbedderError."""
        if self._session is None:
            raise EmbedderError("the embedder is closed")
        try:
            async with self._session.post(
                self._url, data=self._request(texts, kind), headers=self._headers(), allow_redirects=False
            ) as response:
                body = await self._read(response)
                if response.status != 200:  # noqa: PLR2004 - the one status that carries vectors
                    raise self._failure(response, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EmbedderError(
                f"{self._url} cannot be reached or broke off: {error or type(error).__name__}; "
                "check MEMOTURN_EMBED_BASE_URL and the endpoint"
            ) from error
        return await self._decoded(body, len(texts))

    def _request(self, texts: Sequence[str], kind: Kind) -> bytes:
        request: dict[str, object] = {
            "model": self._model,
            "input": list(texts),
            "encoding_format": "base64",
        }
        if self._dialect == "voyage":
            request["input_type"] = kind.value
        if self._dimensions is not None:
            request[_DIMENSIONS_FIELD[self._dialect]] = self._dimensions
        return msgspec.json.encode(request)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > ANSWER_LIMIT_BYTES:
                raise EmbedderError(f"{self._url} answered more than {ANSWER_LIMIT_BYTES} bytes")
        return bytes(body)

    def _failure(self, response: aiohttp.ClientResponse, body: bytes) -> EmbedderError:
        status = response.status
        if status in {401, 403}:
            return EmbedderMisconfiguredError(f"{self._url} answered {status}: check MEMOTURN_EMBED_API_KEY")
        said = f"{self._url} answered {status}: {self._said(body)}"
        if status in _REFUSALS:
            return EmbedderRefusedError(said)
        if status in _TRY_AGAIN or status >= 500:  # noqa: PLR2004 - the class of the server's own failures
            return EmbedderError(said, retry_after_s=_retry_after_s(response.headers.get("Retry-After")))
        return EmbedderMisconfiguredError(f"{said}; check MEMOTURN_EMBED_BASE_URL and MEMOTURN_EMBED_MODEL")

    def _said(self, body: bytes) -> str:
        text = body[: 4 * _SAID_LENGTH].decode(errors="replace")
        if self._api_key:
            text = text.replace(self._api_key, "[key]")
        return " ".join(text.split())[:_SAID_LENGTH] or "nothing"

    async def _decoded(self, body: bytes, count: int) -> Matrix:
        """Return the vectors in the order of the texts, decoding one at a time so that others get their turn."""
        try:
            rows = _answer.decode(body).data
            if sorted(row.index for row in rows) != list(range(count)):
                raise EmbedderError(
                    f"{self._url} answered {len(rows)} vectors for {count} texts, or numbered them otherwise"
                )
            vectors = []
            for at, row in enumerate(sorted(rows, key=lambda row: row.index)):
                vectors.append(_vector(row.embedding))
                if at % 8 == 7:  # noqa: PLR2004 - about a millisecond of numbers in text
                    await asyncio.sleep(0)
            if len({len(vector) for vector in vectors}) > 1:
                raise EmbedderError(f"{self._url} answered vectors of different lengths")
            return np.array(vectors, dtype=np.float32)
        except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError, OverflowError) as error:
            raise EmbedderError(
                f"{self._url} answered something that is no list of vectors: {error}"
            ) from error


def _vector(raw: msgspec.Raw) -> Matrix:
    """Return one vector, which is base64 of little-endian float32, or an array where the server knows no other."""
    blob = bytes(raw)
    if blob[:1] == b'"':
        return np.frombuffer(base64.b64decode(_base64.decode(blob), validate=True), dtype="<f4")
    with np.errstate(over="ignore"):  # what is beyond float32 is no number, which the guard refuses
        return np.array(_numbers.decode(blob), dtype=np.float32)


def _retry_after_s(value: str | None) -> float:
    """Return how long to leave the endpoint alone; a date, which few send, counts as not given."""
    if value is None or not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value.strip()):
        return 0.0
    return min(float(value), RETRY_AFTER_LIMIT_S)
