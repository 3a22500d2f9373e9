"""A change feed through whichever node, across the death of the owner: every durable change once, in order."""

import json
import threading
import time
import uuid

import httpx
import pytest


class Follower(threading.Thread):
    """Follows a feed through the given addresses in turn, and goes on where it was."""

    def __init__(self, urls: list[str], path: str, bearer: dict[str, str], since: int) -> None:
        super().__init__(daemon=True)
        self.urls, self.path, self.bearer = urls, path, bearer
        self.last, self.keys, self.txids, self.ends = str(since), [], [], []
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            headers = {**self.bearer, "Accept": "text/event-stream", "Last-Event-ID": self.last}
            url = self.urls[number % len(self.urls)] + self.path
            number += 1
            try:
                with httpx.stream("GET", url, headers=headers, timeout=12) as answer:
                    if answer.status_code == 200:
                        self._events(answer)
                    else:
                        self.ends.append(f"{answer.status_code} {answer.read()!r}")
            except httpx.TransportError as error:
                self.ends.append(repr(error))
            time.sleep(0.1)

    def _events(self, answer: httpx.Response) -> None:
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if self.stopped.is_set():
                return
            if line:
                name, _, value = line.partition(":")
                event[name] = value.removeprefix(" ")
                continue
            self.last = event.get("id", self.last)
            if event.get("event") == "change":
                change = json.loads(event["data"])
                self.txids.append(change["txid"])
                self.keys += [key for entry in change["changes"] for key in entry.get("put", [])]
            elif "event" in event:
                self.ends.append(f"{event['event']} {event.get('data')}")
            event = {}


@pytest.mark.soak
def test_a_feed_goes_on_across_the_death_of_the_owner(cluster):
    token = cluster.token(ns="feed")
    bearer = cluster.bearer(token)
    path = "/v1/db/feed--ann"

    def put(key: str) -> int:
        """Write through a gateway until it is acknowledged, once."""
        headers = {**bearer, "Memoturn-Durability": "durable", "Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + 30
        while True:
            answer = httpx.put(
                f"{cluster.gateways[0].url}{path}/kv/n/{key}", content="x", headers=headers, timeout=20
            )
            if answer.is_success:
                return int(answer.headers["memoturn-txid"])
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)

    memory = {"memories": [{"type": "fact", "topic_key": "t", "summary": "s"}]}
    made = httpx.post(
        f"{cluster.gateways[0].url}/v1/memory/feed/ann/memories",
        json=memory,
        headers={**bearer, "Memoturn-Durability": "durable"},
        timeout=20,
    )
    assert made.status_code == 201, made.text
    owner = cluster.owner_node("feed--ann")
    others = [node for node in cluster.nodes if node is not owner]
    urls = [others[0].url, cluster.gateways[1].url, others[1].url]
    follower = Follower(urls, f"{path}/changes?surface=kv&durable=true", bearer, made.json()["txid"])
    follower.start()
    try:
        written = [f"k{number}" for number in range(30)]
        for number, key in enumerate(written):
            if number == 10:
                owner.kill()
            put(key)
        deadline = time.monotonic() + 20
        while len(follower.keys) < len(written) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        follower.stopped.set()
        follower.join(15)
    assert follower.keys == written, follower.ends
    assert follower.txids == sorted(follower.txids)
