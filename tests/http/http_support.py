"""A whole node in memory behind the application, and clients that speak to it in process."""

import contextlib
from types import SimpleNamespace

import httpx
from conformance import check_response

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.config import Settings
from memoturnd.embedders.open import open_embedder
from memoturnd.language_models.open import open_models
from memoturnd.leases.local import LocalLeases
from memoturnd.node import running
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore


def limits(**changes):
    """The settings that the HTTP layer reads."""
    values = {
        "loopback_only": True,
        "cors_origins": (),
        "request_log": "problems",
        "slow_request_ms": 1000,
        "request_timeout_s": 5.0,
        "model_timeout_s": 5.0,
        "max_body_bytes": 4 << 20,
        "max_import_bytes": 16 << 20,
        "memory_budget_bytes": 1 << 30,
        "max_concurrency": 64,
        "control_rate": 1000.0,
    }
    return SimpleNamespace(**{**values, **changes})


def client_of(app):
    """A client that calls the application without a socket, and shows what the application raises.

    Every answer is held to the API's description, unless the routes are the test's own.
    """
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://127.0.0.1:8080",
        event_hooks={"response": [check_response]},
    )


@contextlib.asynccontextmanager
async def running_node(folder, *, store=None, **env):
    """A node on a store in memory, one of its own unless given; `env` are settings without their prefix."""
    settings = Settings.from_env(
        {"MEMOTURN_DATA_DIR": str(folder), **{f"MEMOTURN_{name}": value for name, value in env.items()}}
    )
    clock = SystemClock()
    catalog = SqliteCatalog(":memory:")
    embedder = open_embedder(settings, SystemClock())
    models = open_models(settings, clock)
    try:
        if embedder is not None:
            await embedder.start()
        async with running(
            settings,
            store=store or MemoryStore(),
            leases=LocalLeases("node-1", "http://node"),
            catalog=catalog,
            clock=clock,
            randomness=SystemRandomness(),
            executor=InlineExecutor(),
            boot_id="boot",
            embedder=embedder,
            models=models,
        ) as node:
            yield node
    finally:
        if embedder is not None:
            await embedder.close()
        await models.close()
        await catalog.close()
