"""Routes for those who run the node: is it alive, can it serve, what does it measure."""

from memoturnd.http.call import Call
from memoturnd.http.envelope import TEXT, Answer, reply
from memoturnd.metrics import CONTENT_TYPE


async def health(call: Call) -> Answer:
    """Answer `ok` as long as the process can answer at all."""
    del call
    return Answer(200, b"ok", [TEXT])


async def ready(call: Call) -> Answer:
    """Answer with the state of store, leases and catalog. Raises RetryableError when one does not answer."""
    return reply(await call.node.ready())


async def metrics(call: Call) -> Answer:
    """Answer with the node's metrics in Prometheus' text format."""
    return Answer(200, call.node.metrics.render(), [(b"content-type", CONTENT_TYPE.encode())])
