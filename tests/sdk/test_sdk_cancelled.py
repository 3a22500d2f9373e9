"""Cancelled calls of the asynchronous client: at whatever moment, nothing of them stays behind."""

import asyncio
import gc
import io
import socket
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


@pytest.fixture
def prepared(guarded, platform_key) -> Callable[[str], tuple[str, str]]:
    """Make a database, and return its name and an admin token."""

    def prepare(name: str) -> tuple[str, str]:
        with Memoturn(guarded.url, platform_key=platform_key) as operator:
            operator.create_database(name)
            return name, operator.create_token(name, "admin")["token"]

    return prepare


class Steps:
    """Cancels a call after so many turns of the event loop."""

    def __init__(self) -> None:
        self.victim: asyncio.Future[object] | None = None
        self.left = 0

    def begin(self) -> None:
        """Take the turns from here."""
        victim = self.victim
        if victim is None:
            return
        left = self.left

        def turn() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                victim.cancel()
            else:
                asyncio.get_running_loop().call_soon(turn)

        turn()

    async def answered(self, _: httpx.Response) -> None:
        """Take them from the head of an answer."""
        self.begin()


def one_connection(**options: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        limits=httpx.Limits(max_connections=1), timeout=httpx.Timeout(20, pool=1), **options
    )


@pytest.mark.parametrize("kind", ["read", "write", "refused", "stream", "refused stream"])
async def test_a_call_that_is_cancelled_at_any_step_of_its_answer_gives_its_connection_back(
    guarded, prepared, kind
):
    name, token = prepared(f"answered-{kind.replace(' ', '-')}")
    steps, cancelled = Steps(), 0
    async with (
        one_connection(event_hooks={"response": [steps.answered]}) as http,
        AsyncMemoturn(guarded.url, token=token, http_client=http, retries=0) as client,
    ):
        db = client.db(name)
        await db.kv.put("n", "k", b"v")
        for steps.left in range(MOST_STEPS):
            call = steps.victim = asyncio.ensure_future(called(db, kind))
            await asyncio.gather(call, return_exceptions=True)
            cancelled += call.cancelled()
            steps.victim = None
            assert await db.kv.get("n", "k") == b"v", f"no connection is left after {steps.left} steps"

    assert cancelled > 1


@pytest.mark.parametrize("kept", ["kept", "new"])
@pytest.mark.parametrize("kind", ["read", "stream"])
async def test_a_call_that_is_cancelled_at_any_step_of_its_beginning_gives_its_connection_back(
    guarded, prepared, kind, kept
):
    name, token = prepared(f"begun-{kind}-{kept}")
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    headers = {"Connection": "close"} if kept == "new" else {}
    steps, cancelled = Steps(), 0
    async with (
        one_connection(headers=headers) as http,
        AsyncMemoturn(guarded.url, token=token, http_client=http, retries=0) as client,
    ):
        db = client.db(name)
        await db.kv.put("n", "k", b"v")
        for steps.left in range(MOST_STEPS):
            call = steps.victim = asyncio.ensure_future(called(db, kind))
            steps.begin()
            await asyncio.gather(call, return_exceptions=True)
            cancelled += call.cancelled()
            assert await db.kv.get("n", "k") == b"v", f"no connection is left after {steps.left} steps"

    assert cancelled > 5
    gc.collect()
    assert complaints == [], "what nobody waits for says nothing"


async def test_calls_that_wait_for_a_connection_are_cancelled_with_those_that_have_one(guarded, prepared):
    name, token = prepared("waiting")
    two = httpx.Limits(max_connections=2)
    async with (
        httpx.AsyncClient(limits=two, timeout=httpx.Timeout(20, pool=5)) as http,
        AsyncMemoturn(guarded.url, token=token, http_client=http, retries=0) as client,
    ):
        counts = client.db(name).kv
        for wait_ms in range(30):
            calls = [asyncio.ensure_future(counts.increment("n", "count")) for _ in range(8)]
            await asyncio.sleep(wait_ms / 2000)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            before = int(await counts.get("n", "count") or b"0")
            assert (await counts.increment("n", "count"))["value"] > before


async def test_a_cancelled_call_that_was_not_sent_yet_is_not_sent_later(guarded, prepared):
    name, token = prepared("unsent")
    async with (
        one_connection() as http,
        AsyncMemoturn(guarded.url, token=token, http_client=http, retries=0) as client,
    ):
        db = client.db(name)
        await db.kv.put("n", "k", b"v")
        follower = db.follow(0)
        await anext(follower)  # it has the connection
        writing = asyncio.ensure_future(db.kv.put("n", "k", b"not this"))
        await asyncio.sleep(0.05)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        await follower.aclose()

        assert await db.kv.get("n", "k") == b"v"
        await asyncio.sleep(0.1)
        assert await db.kv.get("n", "k") == b"v"


@pytest.mark.parametrize("steps", range(12))
def test_a_loop_that_ends_behind_a_cancelled_call_complains_of_nothing(caplog, steps):
    async def leave(url: str) -> None:
        client = AsyncMemoturn(url, retries=0)
        call = asyncio.ensure_future(client.ready())
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await client.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(leave(f"http://127.0.0.1:{silent.getsockname()[1]}"))

    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


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


async def test_files_of_cancelled_calls_are_closed_and_half_ones_removed(guarded, prepared, tmp_path):
    name, token = prepared("files")
    (tmp_path / "in.db").write_bytes(bytes(1 << 20))
    async with AsyncMemoturn(guarded.url, token=token) as client:
        for wait_s in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008):
            calls = [
                asyncio.ensure_future(client.db(name).export(tmp_path / "out.db")),
                asyncio.ensure_future(client.import_database(tmp_path / "in.db", "files-2")),
            ]
            await asyncio.sleep(wait_s)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            (tmp_path / "out.db").unlink(missing_ok=True)

    assert [file.name for file in tmp_path.iterdir()] == ["in.db"]
