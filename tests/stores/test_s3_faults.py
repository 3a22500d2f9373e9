"""A real S3 server behind a network that fails: no outcome is ever guessed, and nothing is sent twice that must not be."""

import asyncio
import time
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import pytest
from proxy import Ending, FaultProxy, Mode
from servers import store_on

from memoturnd.errors import StoreUnavailableError
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.object_store import Committed, ObjectMissingError, Unknown
from memoturnd.stores import obstore_client, s3
from memoturnd.stores.open import probe
from memoturnd.stores.timed import TimedStore

CLIENTS = ["aiobotocore", "obstore"]
CONDITIONAL = "^if-(none-)?match:"


class Doc(msgspec.Struct, frozen=True):
    items: tuple[str, ...] = ()
    commit_id: str = ""


def adding(item):
    return lambda doc: doc if item in doc.items else msgspec.structs.replace(doc, items=(*doc.items, item))


class Rig:
    def __init__(self, server, proxy, store, url):
        self.server, self.proxy, self.store, self.url = server, proxy, store, url

    def doc(self):
        return SwapFile(
            self.store,
            "v1/doc.json",
            encode=msgspec.json.encode,
            decode=lambda data: msgspec.json.decode(data, type=Doc),
            randomness=SystemRandomness(),
            clock=SystemClock(),
        )

    def seen_by_the_witness(self):
        return self.server.keys(self.url)


@asynccontextmanager
async def rig_on(server, client):
    target = urlsplit(server.endpoint)
    url = server.fresh_url()
    async with FaultProxy(target.hostname, target.port) as proxy:
        with store_on(server, client, url, AWS_ENDPOINT_URL=proxy.url) as store:
            try:
                await probe(store)  # as a node does, so that a dialect is known
                proxy.requests.clear()
                yield Rig(server, proxy, store, url)
            finally:
                await store.close()


@pytest.fixture(params=CLIENTS)
async def rig(request, s3_server):
    async with rig_on(s3_server, request.param) as rig:
        yield rig


@pytest.mark.parametrize("ending", [Ending.RESET, Ending.CLOSE])
async def test_create_whose_reply_is_lost_is_unknown_and_was_sent_once(rig, ending):
    """Guard: one attempt per conditional write, in the library and in the connections below it."""
    assert isinstance(await rig.store.put_if_absent("warm", b"up"), Committed)
    rig.proxy.drop_replies(CONDITIONAL, ending=ending)

    result = await rig.store.put_if_absent("v1/k", b"mine")

    assert isinstance(result, Unknown)
    assert rig.proxy.dropped == 1
    assert rig.proxy.count("^PUT .*/v1/k") == 1
    assert rig.seen_by_the_witness()["v1/k"] == b"mine"


@pytest.mark.parametrize("ending", [Ending.RESET, Ending.CLOSE])
async def test_swap_whose_reply_is_lost_is_unknown_and_was_sent_once(rig, ending):
    created = await rig.store.put_if_absent("v1/k", b"first")
    rig.proxy.drop_replies("^if-match:", ending=ending)

    result = await rig.store.put_if_match("v1/k", b"mine", created.etag)

    assert isinstance(result, Unknown)
    assert rig.proxy.count("^if-match:") == 1
    assert rig.seen_by_the_witness()["v1/k"] == b"mine"


async def test_document_finds_out_that_its_swap_with_a_lost_reply_landed(rig):
    doc = rig.doc()
    assert await doc.create(Doc())
    rig.proxy.drop_replies("^if-match:")

    changed = await doc.update(adding("x"))

    assert changed.items == ("x",)
    assert rig.proxy.dropped == 1
    assert rig.proxy.count("^if-match:") == 1
    assert msgspec.json.decode(rig.seen_by_the_witness()["v1/doc.json"], type=Doc) == changed


async def test_document_finds_out_that_its_creation_with_a_lost_reply_landed(rig):
    rig.proxy.drop_replies("^if-none-match:")

    assert await rig.doc().create(Doc(("mine",)))

    assert rig.proxy.dropped == 1
    assert rig.proxy.count("^if-none-match:") == 1


async def test_many_swaps_with_lost_replies_lose_no_update_and_apply_none_twice(rig):
    doc = rig.doc()
    await doc.create(Doc())
    rig.proxy.drop_replies("^if-match:", times=7)

    for number in range(20):
        await doc.update(adding(str(number)))

    stored = msgspec.json.decode(rig.seen_by_the_witness()["v1/doc.json"], type=Doc)
    assert stored.items == tuple(map(str, range(20)))
    assert rig.proxy.dropped == 7


async def test_put_whose_reply_is_lost_is_sent_again(rig):
    await rig.store.put("warm", b"up")
    rig.proxy.drop_replies("^PUT .*/v1/segment")

    await rig.store.put("v1/segment", b"bytes")

    assert rig.proxy.dropped == 1
    assert rig.proxy.count("^PUT .*/v1/segment") == 2
    assert rig.seen_by_the_witness()["v1/segment"] == b"bytes"


async def test_read_whose_reply_is_lost_is_sent_again(rig):
    await rig.store.put("v1/segment", b"bytes")
    rig.proxy.drop_replies("^GET ")

    assert (await rig.store.get("v1/segment")).data == b"bytes"
    assert rig.proxy.dropped == 1


async def test_silent_store_is_given_up_in_time(rig):
    created = await rig.store.put_if_absent("v1/k", b"first")
    await rig.store.put("v1/segment", b"bytes")
    rig.proxy.mode = Mode.BLACKHOLE
    timed = TimedStore(rig.store, 1.0)
    began = time.monotonic()

    results = await asyncio.gather(
        timed.put_if_absent("v1/new", b"x"),
        timed.put_if_match("v1/k", b"x", created.etag),
        timed.put("v1/other", b"x"),
        timed.get("v1/segment"),
        timed.delete("v1/segment"),
        return_exceptions=True,
    )

    assert time.monotonic() - began < 5
    assert [type(result) for result in results] == [Unknown, Unknown, *[StoreUnavailableError] * 3]


@pytest.fixture
def impatient(monkeypatch):
    """Shorter timeouts for clients that are made from now on."""
    for module in (s3, obstore_client):
        monkeypatch.setattr(module, "READ_S", 0.3)
    monkeypatch.setattr(s3, "SWAP_READ_S", 0.5)
    monkeypatch.setattr(obstore_client, "SWAP_S", 0.5)
    monkeypatch.setattr(obstore_client, "WHOLE_S", 1.0)


async def test_silent_store_is_given_up_by_the_client_itself(impatient, rig):
    """Guard: the explicit timeouts of both clients, also for a PUT; without them it takes until the server gives up."""
    created = await rig.store.put_if_absent("v1/k", b"first")
    rig.proxy.mode = Mode.BLACKHOLE
    began = time.monotonic()

    swap, create, put, read = await asyncio.gather(
        rig.store.put_if_match("v1/k", b"x", created.etag),
        rig.store.put_if_absent("v1/new", b"x"),
        rig.store.put("v1/segment", b"x"),
        rig.store.get("v1/k"),
        return_exceptions=True,
    )

    assert isinstance(swap, Unknown)
    assert isinstance(create, Unknown)
    assert isinstance(put, StoreUnavailableError)
    assert isinstance(read, StoreUnavailableError)
    assert time.monotonic() - began < 10


async def test_store_that_refuses_connections_is_unavailable_and_comes_back(rig):
    created = await rig.store.put_if_absent("v1/k", b"first")
    await rig.proxy.refuse()

    assert isinstance(await rig.store.put_if_match("v1/k", b"x", created.etag), Unknown)
    assert isinstance(await rig.store.put_if_absent("v1/new", b"x"), Unknown)
    with pytest.raises(StoreUnavailableError, match="connection"):
        await rig.store.get("v1/k")

    await rig.proxy.accept()
    assert (await rig.store.get("v1/k")).data == b"first"
    assert isinstance(await rig.store.put_if_match("v1/k", b"x", created.etag), Committed)
    assert "v1/new" not in rig.seen_by_the_witness()


async def test_connections_cut_in_mid_flight_cost_nothing_but_time(rig):
    doc = rig.doc()
    await doc.create(Doc())

    async def saw():
        while True:
            await asyncio.sleep(0.05)
            rig.proxy.cut()

    sawing = asyncio.create_task(saw())
    done = []
    for number in range(40):
        try:
            await doc.update(adding(str(number)))
            done.append(str(number))
        except StoreUnavailableError:
            continue  # may or may not have landed
    sawing.cancel()

    stored = msgspec.json.decode(rig.seen_by_the_witness()["v1/doc.json"], type=Doc).items
    assert set(done) <= set(stored)
    assert len(set(stored)) == len(stored)
    assert len(done) > 20


async def test_cancelled_requests_leave_the_store_usable(rig):
    await rig.store.put("v1/segment", b"bytes" * 100_000)
    rig.proxy.latency_s = 0.05
    for _ in range(40):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rig.store.get("v1/segment"), 0.01)
    rig.proxy.latency_s = 0.0

    assert (await rig.store.get("v1/segment")).data == b"bytes" * 100_000
    with pytest.raises(ObjectMissingError):
        await rig.store.get("v1/none")
