"""Routes for those who run the node: is it alive, can it serve, what does it measure."""

import functools
from typing import Any

import msgspec

from memoturnd import __version__
from memoturnd.http import openapi
from memoturnd.http.call import Call
from memoturnd.http.describe import TEXT as PLAIN
from memoturnd.http.describe import described
from memoturnd.http.envelope import JSON, TEXT, Answer, reply
from memoturnd.http.shapes import operators as shapes
from memoturnd.metrics import CONTENT_TYPE


@described(gives={200: PLAIN})
async def health(call: Call) -> Answer:
    """Answer `ok` as long as the process can answer at all."""
    del call
    return Answer(200, b"ok", [TEXT])


@described(gives={200: shapes.Ready})
async def ready(call: Call) -> Answer:
    """Answer with the state of store, leases and catalog, and what the node has. Raises RetryableError when one does not answer."""
    return reply({**await call.node.ready(), "version": __version__})


@described(gives={200: PLAIN})
async def metrics(call: Call) -> Answer:
    """Answer with the node's metrics in Prometheus' text format."""
    return Answer(200, await call.node.metrics.scrape(), [(b"content-type", CONTENT_TYPE.encode())])


@described(gives={200: dict[str, Any]})
async def api_description(call: Call) -> Answer:
    """Answer with this description: OpenAPI 3.1."""
    del call
    return Answer(200, _description(), [JSON])


@functools.cache
def _description() -> bytes:
    from memoturnd.http.routes import ROUTES  # the table holds this handler

    return msgspec.json.encode(openapi.document(ROUTES))
