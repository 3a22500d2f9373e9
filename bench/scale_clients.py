"""The clients of the scale part: each coroutine has one kept connection and one request under way."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import asyncpg

from bench.fleet import Member
from bench.wire import Connection, RequestFailedError, encode, request_bytes

CLIENTS_PER_NODE: Final = 8
WRITERS: Final = 32
_WRITABLE_S: Final = 90.0
_AGAIN_S: Final = 0.05


async def provision_all(shares: Sequence[tuple[Member, list[str]]]) -> None:
    """Create databases, each share through its node."""

    async def one(connection: Connection, name: str) -> None:
        status = await connection.send(request_bytes("POST", "/v1/databases", encode({"name": name})))
        if status >= 300:
            raise RequestFailedError(connection.last.decode(errors="replace"))

    await asyncio.gather(*(_each(node, names, one, CLIENTS_PER_NODE) for node, names in shares))


async def write_each(member: Member, names: list[str], mark: str, clients: int) -> list[float]:
    """Write one key to each profile, with a key of idempotency, until it is acknowledged; return the seconds at which they were."""
    ended: list[float] = []
    until_s = time.monotonic() + _WRITABLE_S

    async def one(connection: Connection, name: str) -> None:
        headers = f"Idempotency-Key: {name}-{mark}\r\n"
        request = request_bytes("PUT", f"/v1/db/{name}/kv/s/k", mark.encode(), headers)
        while await connection.send(request) >= 300:
            if time.monotonic() > until_s:
                raise RequestFailedError(connection.last.decode(errors="replace"))
            await asyncio.sleep(_AGAIN_S)
        ended.append(time.monotonic())

    await _each(member, names, one, clients)
    return ended


async def use_each(member: Member, names: list[str], method: str, count: int) -> None:
    """Read (GET) or write (PUT) one key of each profile in turn, so many times."""

    async def one(connection: Connection, name: str) -> None:
        body = b"again" if method == "PUT" else None
        status = await connection.send(request_bytes(method, f"/v1/db/{name}/kv/s/k", body))
        if status >= 300:
            raise RequestFailedError(connection.last.decode(errors="replace"))

    await _each(member, [names[i % len(names)] for i in range(count)], one, WRITERS)


async def _each(
    member: Member, names: list[str], one: Callable[[Connection, str], Awaitable[None]], clients: int
) -> None:
    """Do something for each name, by so many clients with a kept connection each."""
    loop = asyncio.get_running_loop()

    async def some(first: int) -> None:
        _, connection = await loop.create_connection(Connection, member.host, member.port)
        try:
            for name in names[first::clients]:
                await one(connection, name)
        finally:
            connection.close()

    await asyncio.gather(*(some(first) for first in range(min(clients, len(names)))))


async def lookups(url: str, names: list[str], count: int) -> list[float]:
    """Look names up as a node does, one at a time, and return the seconds that each took."""
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare(
            "SELECT uuid, main_branch_id FROM databases WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL"
        )
        taken = []
        for name in random.Random(1).choices(names, k=count):
            start_s = time.perf_counter()
            found = await statement.fetch("default", name)
            taken.append(time.perf_counter() - start_s)
            if len(found) != 1:
                raise RuntimeError(f"the catalog has {len(found)} databases of the name {name}")
    finally:
        await connection.close()
    return taken
