"""Cancelled calls of the asynchronous client: at whatever moment, nothing of them stays behind."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest
from memoturn import AsyncMemoturn, Memoturn

MOST_STEPS = 40
"""Turns of the event loop from the head of an answer to where its call has ended, and some more."""


def called(db, kind: str) -> Awaitable[object]:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "read": lambda: db.kv.get("n", "k"),
        "write": lambda: db.kv.put("n", "k", b"v"),
        "refused": lambda: db.branch.rewind("main", "no-such-checkpoint"),
        "stream": lambda: db.export(io.BytesIO()),
        "refused stream": lambda: db.export(io.BytesIO(), at="no-such-checkpoint"),
    }
    return calls[kind]()


@pytest.mark.parametrize("kind", ["read", "write", "refused", "stream", "refused stream"])
async def test_a_call_that_is_cancelled_at_any_step_of_its_answer_gives_its_connection_back(
    guarded, platform_key, kind
):
    name = f"cancelled-{kind.replace(' ', '-')}"
    with Memoturn(guarded.url, platform_key=platform_key) as operator:
        operator.create_database(name)
        token = operator.create_token(name, "admin")["token"]
    steps, call = 0, None

    async def answered(_: httpx.Response) -> None:
        """Cancel the call so many turns of the event loop from here."""
        if call is None:
            return
        victim, left = call, steps

        def turn() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                victim.cancel()
            else:
                asyncio.get_running_loop().call_soon(turn)

        turn()

    one = httpx.Limits(max_connections=1)
    async with (
        httpx.AsyncClient(
            limits=one, timeout=httpx.Timeout(20, pool=1), event_hooks={"response": [answered]}
        ) as http,
        AsyncMemoturn(guarded.url, token=token, http_client=http, retries=0) as client,
    ):
        db = client.db(name)
        await db.kv.put("n", "k", b"v")
        cancelled = 0
        for steps in range(MOST_STEPS):
            call = asyncio.ensure_future(called(db, kind))
            await asyncio.wait([call])
            cancelled += call.cancelled()
            call = None
            assert await db.kv.get("n", "k") == b"v", f"no connection is left after {steps} steps"

    assert cancelled > 1


async def test_an_embedded_node_whose_start_is_cancelled_does_not_stay(tmp_path):
    opening = asyncio.ensure_future(AsyncMemoturn.embedded(tmp_path / "data"))
    while not any(  # noqa: ASYNC110 - a thread tells nobody that it begins
        thread.name == "memoturn-node" for thread in threading.enumerate()
    ):
        await asyncio.sleep(0.001)

    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert not any(thread.name == "memoturn-node" for thread in threading.enumerate())
    async with await AsyncMemoturn.embedded(tmp_path / "data") as client:
        assert await client.ready()


async def test_files_of_cancelled_calls_are_closed_and_half_ones_removed(guarded, platform_key, tmp_path):
    with Memoturn(guarded.url, platform_key=platform_key) as operator:
        operator.create_database("cancelled-files")
        token = operator.create_token("cancelled-files", "admin")["token"]
    (tmp_path / "in.db").write_bytes(bytes(1 << 20))
    async with AsyncMemoturn(guarded.url, token=token) as client:
        for wait_s in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008):
            calls = [
                asyncio.ensure_future(client.db("cancelled-files").export(tmp_path / "out.db")),
                asyncio.ensure_future(client.import_database(tmp_path / "in.db", "cancelled-files-2")),
            ]
            await asyncio.sleep(wait_s)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            (tmp_path / "out.db").unlink(missing_ok=True)

    assert [file.name for file in tmp_path.iterdir()] == ["in.db"]
