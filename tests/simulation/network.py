"""The way between one process and the object store: latency, losses, repeats, late landings, damage."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from memoturnd.errors import MemoturnError, StoreUnavailableError
from memoturnd.seams.object_store import Blob, Lost, ObjectInfo, SwapResult, Unknown
from simulation.bucket import Bucket
from simulation.loop import Process

_SWAPS = frozenset({"put_if_absent", "put_if_match"})
_WRITES = _SWAPS | {"put", "delete"}
_HANG = 0.3
"""Share of lost requests and replies of which the caller hears nothing at all."""


@dataclass(slots=True)
class Weather:
    """What the network does now: the share of calls that go wrong, and whether it is cut."""

    trouble: float = 0.0
    damage: float = 0.0
    cut: bool = False
    at_swap: Callable[[], None] | None = None
    """What happens when the process's next conditional write reaches the store, before its answer sets out."""


class Network:
    """An ObjectStore for one process life; its choices come from `source`."""

    def __init__(self, bucket: Bucket, process: Process, weather: Weather, source: random.Random) -> None:
        self._bucket = bucket
        self._world = bucket.world
        self._process = process
        self._weather = weather
        self._source = source

    async def get(self, key: str) -> Blob:
        blob = await self._call("get", key)
        return Blob(self._damaged(key, blob.data), blob.etag)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._damaged(key, await self._call("get_range", key, start, length))

    async def put(self, key: str, data: bytes) -> None:
        await self._call("put", key, data)

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        return await self._call("put_if_absent", key, data)

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        return await self._call("put_if_match", key, data, etag)

    async def delete(self, key: str) -> None:
        await self._call("delete", key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        for row in await self._call("list", prefix):
            yield row

    async def close(self) -> None:
        """Nothing to release."""

    # ---- one call

    async def _call(self, operation: str, key: str, *args: Any) -> Any:
        self._process.check_alive()
        source, loop = self._source, self._world.loop
        reply: asyncio.Future[Any] = loop.create_future()
        kind = self._fate(operation)
        there_s = 0.0005 + source.expovariate(200.0)
        back_s = 0.0005 + source.expovariate(200.0)
        if kind == "slow":
            there_s += source.uniform(0.2, 14.0)
        call = (operation, key, *args)
        if kind in {"fine", "slow"}:
            loop.call_later(there_s, self._arrive, call, reply, back_s)
        elif kind == "repeated":
            loop.call_later(there_s, self._arrive, call, reply, back_s)
            loop.call_later(there_s + source.uniform(0.01, 8.0), self._arrive, call, None, 0.0)
        elif kind == "late":
            loop.call_later(source.uniform(0.05, 20.0), self._arrive, call, None, 0.0)
            self._fail_later(kind, call, reply, there_s + back_s)
        elif kind == "lost reply":
            loop.call_later(there_s, self._arrive, call, None, 0.0)
            self._fail_later(kind, call, reply, there_s + back_s)
        elif kind == "412":
            loop.call_later(there_s + back_s, _answer, reply, Lost())
        else:  # lost request, 409, 500, 503
            self._fail_later(kind, call, reply, there_s + back_s)
        if kind != "fine":
            self._world.note(self._process.name, "fault", kind, operation, key)
        return await reply

    def _fate(self, operation: str) -> str:
        weather, source = self._weather, self._source
        if weather.cut:
            return "lost request"
        if source.random() >= weather.trouble:
            return "fine"
        kinds = ["slow", "lost request", "503"]
        if operation in _WRITES:
            kinds += ["lost reply", "lost reply", "late", "late", "repeated"]
        if operation in _SWAPS:
            kinds += ["409", "500", "412"]
        return source.choice(kinds)

    def _fail_later(
        self, kind: str, call: tuple[Any, ...], reply: "asyncio.Future[Any]", after_s: float
    ) -> None:
        """Let the caller hear of a failure, or nothing at all until its own timeout."""
        if self._source.random() < _HANG:
            return
        operation, key = call[:2]
        outcome: Any = StoreUnavailableError(f"{operation} {key}: {kind} (simulated); try again")
        if operation in _SWAPS:
            outcome = Unknown(kind)
        self._world.loop.call_later(after_s, _answer, reply, outcome)

    def _arrive(self, call: tuple[Any, ...], reply: "asyncio.Future[Any] | None", back_s: float) -> None:
        """Let the request reach the store, and its answer set out."""
        operation, key, *args = call
        try:
            if operation == "list":
                lag = self._source.random() < self._weather.trouble
                outcome: Any = self._bucket.listing(key, lag=lag)
            else:
                outcome = self._bucket.apply(operation, key, *args)
        except MemoturnError as error:
            outcome = error
        self._world.note(self._process.name, operation, key, _short(outcome), reply is not None)
        strike = self._weather.at_swap
        if strike is not None and operation in _SWAPS:
            self._weather.at_swap = None
            strike()
        if reply is None:
            return
        if self._weather.cut:
            self._fail_later("lost reply", call, reply, back_s)
            return
        self._world.loop.call_later(back_s, _answer, reply, outcome)

    def _damaged(self, key: str, data: bytes) -> bytes:
        if self._source.random() >= self._weather.damage or not data:
            return data
        if self._source.random() < 0.5:
            self._world.note(self._process.name, "short read", key)
            return data[: len(data) // 2]
        bit = self._source.randrange(len(data) * 8)
        self._world.note(self._process.name, "bit flip", key, bit)
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)


def _answer(reply: "asyncio.Future[Any]", outcome: Any) -> None:
    if reply.done():
        return
    if isinstance(outcome, BaseException):
        reply.set_exception(outcome)
    else:
        reply.set_result(outcome)


def _short(outcome: Any) -> str:
    if isinstance(outcome, (Blob, bytes)):
        return str(len(outcome if isinstance(outcome, bytes) else outcome.data))
    return type(outcome).__name__
