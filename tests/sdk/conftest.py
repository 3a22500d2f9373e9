"""A real node with authentication on, one for all tests of the clients, with a language model and an embedder."""

import asyncio
import secrets
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx
import pytest
from both import Twin
from fake_embedder import fake_endpoint
from fake_embedder import settings_of as embedder_settings
from fake_model import serving_model_beside
from fake_model import settings_of as model_settings
from memoturn import AsyncMemoturn, Memoturn
from processes import NodeHome, RunningNode

PLATFORM_KEY = "platform-key-of-the-tests"

Mint = Callable[[str], str]


@contextmanager
def beside(serve: Any) -> Iterator[Any]:
    """Enter an asynchronous context manager on an event loop of its own, beside the tests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = serve()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def language_model() -> Iterator[Any]:
    with serving_model_beside() as model:
        yield model


@pytest.fixture(scope="session")
def embedder() -> Iterator[Any]:
    with beside(fake_endpoint) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def guarded(tmp_path_factory, language_model, embedder) -> Iterator[RunningNode]:
    """A node that asks for credentials; it has to stop well at the end."""
    settings = {
        **model_settings(language_model),
        **embedder_settings(embedder),
        "AUTH": "on",
        "USAGE_FLUSH_S": "1",
    }
    with NodeHome(tmp_path_factory.mktemp("guarded"), PLATFORM_KEY=PLATFORM_KEY, **settings) as home:
        node = home.start()
        yield node
        assert node.stop() == 0, home.log()


@pytest.fixture(scope="session")
def mint(guarded) -> Iterator[Mint]:
    """Make an admin token of a namespace."""
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        yield lambda ns: operator.create_namespace_token(ns, "admin")["token"]


@pytest.fixture(scope="session")
def platform_key() -> str:
    return PLATFORM_KEY


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """Made once: it takes longer than a test."""
    return ssl.create_default_context()


class Api:
    """Clients of one kind. `name` is nobody else's: that of a namespace, and of a database that is there.

    `admin` has the platform key; every other client has a token for what the test is about, and no more.
    """

    def __init__(self, kind: str, url: str, tls: ssl.SSLContext, stack: AsyncExitStack) -> None:
        self.kind = kind
        self.url = url
        self.name = f"sdk-{secrets.token_hex(6)}"
        self._tls = tls
        self._stack = stack
        self.admin = self.client(platform_key=PLATFORM_KEY)

    def client(self, **options: Any) -> Any:
        """Return a client with these options, closed when the test ends."""
        if self.kind == "sync":
            http = httpx.Client(verify=self._tls, timeout=30)
            self._stack.callback(http.close)
            return Twin(Memoturn(self.url, http_client=http, **options))
        asynchronous = httpx.AsyncClient(verify=self._tls, timeout=30)
        self._stack.push_async_callback(asynchronous.aclose)
        return AsyncMemoturn(self.url, http_client=asynchronous, **options)

    def operator(self, tenant: str) -> Any:
        """Return a client with the platform key, which speaks of the names of a tenant."""
        return self.client(platform_key=PLATFORM_KEY, tenant=tenant)

    async def of_database(self, scope: str, *surfaces: str, **options: Any) -> Any:
        """Make the database `name`, and return it for a token of this scope and these surfaces, all without any."""
        await self.admin.create_database(self.name)
        token = await self.admin.create_token(self.name, scope, surfaces=surfaces or None)
        return self.client(token=token["token"], **options).db(self.name)

    async def of_namespace(self, scope: str, *surfaces: str, **options: Any) -> Any:
        """Return the profile `ann` of the namespace `name`, for a token of this scope and these surfaces."""
        token = await self.admin.create_namespace_token(self.name, scope, surfaces=surfaces or None)
        return self.client(token=token["token"], **options).memory(self.name, "ann")


@pytest.fixture(params=["async", "sync"])
async def api(request, guarded, tls) -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        yield Api(request.param, guarded.url, tls, stack)
