"""A client of the change feed as server-sent events, in process: it reads as fast as the test lets it."""

import asyncio
import contextlib
import json
from urllib.parse import quote


async def until(condition, timeout_s=5.0):
    """Return once the condition holds."""
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that in time")


class Feed:
    """The events of a feed that is open."""

    def __init__(self):
        self.status = 0
        self.headers = {}
        self.body = b""
        self.ended = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._arrived = asyncio.Event()
        self._taken = 0

    async def send(self, message):
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)
        self._arrived.set()

    @property
    def events(self):
        """(name, id, data) of what came so far; the name is None where there is only an id."""
        found = []
        for block in self.body.decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")
            )
            if fields:
                data = json.loads(fields["data"]) if "data" in fields else None
                found.append((fields.get("event"), fields.get("id"), data))
        return found

    async def next(self, timeout_s=5.0):
        """The next event with a name."""
        async with asyncio.timeout(timeout_s):
            while True:
                events = self.events
                complete = len(events) if self.body.endswith(b"\n\n") else len(events) - 1
                while self._taken < complete:
                    event = events[self._taken]
                    self._taken += 1
                    if event[0] is not None:
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def started(self, timeout_s=5.0):
        async with asyncio.timeout(timeout_s):
            while not self.body:
                self._arrived.clear()
                await self._arrived.wait()


@contextlib.asynccontextmanager
async def following(app, path, headers=None, **query):
    """A feed that stays open inside the block."""
    feed = Feed()
    closed = asyncio.Event()

    async def receive():
        await closed.wait()
        return {"type": "http.disconnect"}

    sent = {"accept": "text/event-stream", "host": "127.0.0.1:8080", **(headers or {})}
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": "&".join(f"{name}={value}" for name, value in query.items()).encode(),
        "headers": [(name.encode(), str(value).encode()) for name, value in sent.items()],
        "extensions": {},
    }
    task = asyncio.create_task(app(scope, receive, feed.send))
    try:
        yield feed
    finally:
        closed.set()
        feed.reading.set()
        task.cancel()
        await asyncio.wait([task])
