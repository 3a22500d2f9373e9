"""An embedding endpoint of the tests, over real HTTP: deterministic vectors, and every fault that one may have.

A vector counts words, so that texts which share words are near each other. It speaks OpenAI's and Voyage's shape.
"""

import asyncio
import base64
import hashlib
import json
import math
import re
import struct
from contextlib import asynccontextmanager

from aiohttp import web
from beside import beside

DIMENSIONS = 32
KEY = "sk-test-0123456789"


def vector_of(text, dimensions=DIMENSIONS):
    """The vector of a text: each of its words points somewhere."""
    total = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or ["?"]:
        digest = hashlib.blake2b(word.encode(), digest_size=dimensions).digest()
        total = [sum_ + byte - 127.5 for sum_, byte in zip(total, digest, strict=True)]
    length = math.sqrt(sum(x * x for x in total))
    return [x / length for x in total]


class FakeEndpoint:
    """What the endpoint was asked, and how it answers. `fault` names what goes wrong, None for nothing."""

    def __init__(self):
        self.url = ""
        self.requests = []
        self.headers = []
        self.paths = []
        self.fault = None
        self.faults_left = None
        """After so many faults it is well again; None for never."""
        self.well_until = 0
        """The request, counted from 1, up to which it is well all the same."""
        self.refused_text = None
        self.dimensions = DIMENSIONS
        self.as_arrays = False
        self.salt = ""
        """Another word in every text, which makes another model of the same name."""
        self.retry_after = None
        self.at_once = self.most_at_once = 0

    @property
    def texts(self):
        """Every text that was asked for, in order."""
        return [text for request in self.requests for text in request["input"]]

    def _take_fault(self):
        if self.fault is None or self.faults_left == 0 or len(self.requests) <= self.well_until:
            return None
        if self.faults_left is not None:
            self.faults_left -= 1
        return self.fault

    async def handle(self, request):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request):
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        fault = self._take_fault()
        if isinstance(fault, int):
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            if 300 <= fault < 400:
                headers["Location"] = f"{self.url}/elsewhere"
            said = {"error": {"message": f"no: {request.headers.get('Authorization')}"}}
            return web.json_response(said, status=fault, headers=headers)
        if fault == "slow":
            await asyncio.sleep(30)
        if fault == "drop":
            request.transport.close()
            return web.Response()
        if fault == "junk":
            return web.Response(text="<html>busy</html>")
        if self.refused_text is not None and any(self.refused_text in text for text in body["input"]):
            return web.json_response({"error": {"message": "input too long"}}, status=400)
        size = body.get("dimensions") or body.get("output_dimension") or self.dimensions
        vectors = [vector_of(f"{text} {self.salt}", size) for text in body["input"]]
        if fault == "count":
            vectors = vectors[:-1]
        if fault == "dims":
            vectors = [vector[:-1] for vector in vectors]
        if fault == "ragged":
            vectors[-1] = vectors[-1][:-1]
        if fault == "nan":
            vectors[0][0] = math.nan
        if fault == "huge":
            vectors[0][0] = 1e300
        if fault == "zero":
            vectors[0] = [0.0] * size
        rows = [
            {"object": "embedding", "index": at, "embedding": self._shown(vector, body)}
            for at, vector in enumerate(vectors)
        ]
        if fault == "index":
            rows[0]["index"] = 7
        rows.reverse()  # the order of the list means nothing, the index does
        return web.Response(
            text=json.dumps({"object": "list", "data": rows, "model": body["model"], "usage": {}}),
            content_type="application/json",
        )

    def _shown(self, vector, body):
        if self.as_arrays or max(vector) > 1 or body.get("encoding_format") != "base64":
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@asynccontextmanager
async def fake_endpoint():
    """Serve a FakeEndpoint on a free port of this machine."""
    fake = FakeEndpoint()
    app = web.Application()
    app.router.add_post("/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def serving_endpoint_beside():
    """The same on a thread of its own, for tests that are not asynchronous."""
    return beside(fake_endpoint)


def settings_of(fake, **env):
    """Settings, without their prefix, of a node that asks this endpoint."""
    return {
        "EMBED_PROVIDER": "openai",
        "EMBED_BASE_URL": fake.url,
        "EMBED_API_KEY": KEY,
        "EMBED_MODEL": "words",
        **env,
    }
