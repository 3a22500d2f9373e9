"""A gateway in front of upstreams over real sockets, all in one process."""

import asyncio
import contextlib
from types import SimpleNamespace

import uvicorn

from gateway.app import Gateway
from gateway.forwarding import Forwarder
from gateway.metrics import GatewayMetrics
from gateway.placements import PlacementCache
from memoturnd.http.protocol import ConnectionLimits, bounded_protocol
from memoturnd.http.routes import ROUTES
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.leases import LiveNode, Owner, Placed, Placements


@contextlib.asynccontextmanager
async def served(app, metrics=None, **limits):
    """Serve an application as a node or a gateway is served; yields its base URL."""
    protocol = bounded_protocol(ConnectionLimits(256, **limits), metrics or Metrics())
    config = uvicorn.Config(
        app,
        port=0,
        loop="none",
        http=protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def settings(**changes):
    values = {
        "cors_origins": (),
        "request_log": "problems",
        "slow_request_ms": 1000,
        "request_timeout_s": 5.0,
        "model_timeout_s": 5.0,
        "gateway_concurrency": 64,
        "gateway_body_bytes": 64 << 20,
        "gateway_hedge_ms": 0,
    }
    return SimpleNamespace(**{**values, **changes})


class Parts:
    """A gateway's parts, which a test may look into."""

    def __init__(self, timeout_s=None, **changes):
        clock = SystemClock()
        self.metrics = GatewayMetrics()
        self.forwarder = Forwarder(now_s=clock.monotonic_s, connect_s=0.5)
        self.placements = PlacementCache(now_s=clock.monotonic_s, left=self.forwarder.drop)
        self.app = Gateway(
            self.placements,
            self.forwarder,
            settings(**changes),
            routes=ROUTES,
            clock=clock,
            randomness=SystemRandomness(),
            metrics=self.metrics,
        )
        if timeout_s is not None:
            self.app._timeout_s = timeout_s
        self.url = ""

    def knows(self, nodes, owners=()):
        """Let it know nodes by id to address, and owners by (database, branch) to (node id, epoch)."""
        live = {one: LiveNode(one, address) for one, address in nodes.items()}
        placed = [
            Placed(f"id-{database}-{branch}", database, branch, Owner(one, live[one].address, epoch))
            for (database, branch), (one, epoch) in dict(owners).items()
        ]
        self.placements.take(Placements(tuple(placed), tuple(live.values())))


@contextlib.asynccontextmanager
async def gateway(**changes):
    parts = Parts(**changes)
    try:
        async with served(parts.app, parts.metrics) as parts.url:
            yield parts
    finally:
        await parts.forwarder.close()


class Echo:
    """An upstream that tells what it got, and answers what it is told to."""

    def __init__(self):
        self.seen = []
        self.answers = []
        self.status, self.headers, self.body = 200, [], None

    async def __call__(self, scope, receive, send):
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen.append(
            (scope["method"], scope["raw_path"], scope["query_string"], scope["headers"], bytes(body))
        )
        status, headers, answer = (
            self.answers.pop(0) if self.answers else (self.status, self.headers, self.body)
        )
        answer = bytes(body) if answer is None else answer
        length = [] if status in {204, 304} else [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        await send(
            {
                "type": "http.response.body",
                "body": b"" if scope["method"] == "HEAD" or status in {204, 304} else answer,
            }
        )


def not_owner(node_id, address, epoch=2):
    """The answer of a node that does not own the branch."""
    return (
        421,
        [
            (b"memoturn-applied", b"false"),
            (b"memoturn-owner-node", node_id.encode()),
            (b"memoturn-owner", address.encode()),
            (b"memoturn-owner-epoch", b"%d" % epoch),
        ],
        b'{"error":"no","code":"not_owner"}',
    )


@contextlib.asynccontextmanager
async def behind_gateway(count=1, *, owners=(), **changes):
    """`count` echoes n0, n1, ... behind a gateway that knows them."""
    echoes = [Echo() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(served(echo)) for echo in echoes]
        parts = await stack.enter_async_context(gateway(**changes))
        parts.urls = dict(zip((f"n{n}" for n in range(count)), urls, strict=True))
        parts.knows(parts.urls, owners)
        yield parts, echoes


async def raw_exchange(url, request, *, wait_s=5.0):
    """Send bytes, and return all that comes back until the connection is closed."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        async with asyncio.timeout(wait_s):
            return await reader.read()
    finally:
        writer.close()
