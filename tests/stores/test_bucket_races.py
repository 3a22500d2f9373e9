"""Races on a real S3 server, between clients that share nothing, looked at by a client of another make."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest
from servers import settings_of

from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.object_store import Committed
from memoturnd.stores.open import open_store

RACERS = 20
ROUNDS = 5


class Doc(msgspec.Struct, frozen=True):
    items: tuple[str, ...] = ()
    commit_id: str = ""


def adding(item):
    """Return a transition that may be applied twice."""
    return lambda doc: msgspec.structs.replace(doc, items=tuple(dict.fromkeys((*doc.items, item))))


@pytest.fixture(params=["aiobotocore", "obstore"])
async def field(request, s3_server):
    """Yield (stores of four clients on one place, what the witness sees there)."""
    url = s3_server.fresh_url()
    async with AsyncExitStack() as stack:
        stack.enter_context(settings_of(s3_server))
        stores = [open_store(url, s3_client=request.param) for _ in range(4)]
        for store in stores:
            stack.push_async_callback(store.close)
        yield stores, lambda: s3_server.keys(url)


async def test_one_of_twenty_creators_wins_every_round(field):
    stores, look = field
    for number in range(ROUNDS):
        key = f"v1/race/{number}"

        results = await asyncio.gather(
            *(stores[racer % 4].put_if_absent(key, b"%d" % racer) for racer in range(RACERS))
        )

        winners = [racer for racer, result in enumerate(results) if isinstance(result, Committed)]
        assert len(winners) == 1, results
        assert look()[key] == b"%d" % winners[0]


async def test_one_of_twenty_swappers_wins_every_round(field):
    stores, look = field
    standing = await stores[0].put_if_absent("v1/k", b"start")
    for number in range(ROUNDS):
        results = await asyncio.gather(
            *(
                stores[racer % 4].put_if_match("v1/k", b"%d %d" % (number, racer), standing.etag)
                for racer in range(RACERS)
            )
        )

        winners = [racer for racer, result in enumerate(results) if isinstance(result, Committed)]
        assert len(winners) == 1, results
        assert look()["v1/k"] == b"%d %d" % (number, winners[0])
        standing = results[winners[0]]


async def test_writers_of_one_document_lose_no_update(field):
    stores, look = field

    def doc(store):
        return SwapFile(
            store,
            "v1/doc.json",
            encode=msgspec.json.encode,
            decode=lambda data: msgspec.json.decode(data, type=Doc),
            randomness=SystemRandomness(),
            clock=SystemClock(),
        )

    await doc(stores[0]).create(Doc())

    async def write(writer):
        mine = doc(stores[writer])
        for number in range(5):
            await mine.update(adding(f"{writer}-{number}"))

    await asyncio.gather(*(write(writer) for writer in range(4)))

    items = msgspec.json.decode(look()["v1/doc.json"], type=Doc).items
    assert sorted(items) == sorted(f"{writer}-{number}" for writer in range(4) for number in range(5))
