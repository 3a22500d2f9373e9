import asyncio

import pytest

from memoturnd.errors import StoreUnavailableError
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.object_store import Committed, Lost, ObjectMissingError, Unknown
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


class SleepRecorder(SystemClock):
    """A clock whose sleeps end when the test says so."""

    def __init__(self):
        self.slept = []
        self.wake = asyncio.Event()

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await self.wake.wait()


@pytest.fixture
async def store():
    store = FaultyStore(MemoryStore(), SystemClock())
    yield store
    await store.close()


async def test_put_with_lost_request_is_unavailable_and_did_nothing(store):
    store.faults.append(Fault(FaultKind.LOST_REQUEST))

    with pytest.raises(StoreUnavailableError, match="lost request"):
        await store.put("k", b"one")

    with pytest.raises(ObjectMissingError):
        await store.get("k")


async def test_put_with_lost_reply_is_unavailable_then_found(store):
    store.faults.append(Fault(FaultKind.LOST_REPLY))

    with pytest.raises(StoreUnavailableError):
        await store.put("k", b"one")

    assert (await store.get("k")).data == b"one"


@pytest.mark.parametrize(
    ("kind", "applied"),
    [
        (FaultKind.LOST_REQUEST, False),
        (FaultKind.LOST_REPLY, True),
        (FaultKind.STATUS_409, False),
        (FaultKind.STATUS_500, False),
        (FaultKind.STATUS_503, False),
    ],
)
async def test_struck_conditional_writes_are_unknown(store, kind, applied):
    created = await store.put_if_absent("old", b"one")
    store.faults.append(Fault(kind, times=2))

    made = await store.put_if_absent("new", b"x")
    swapped = await store.put_if_match("old", b"two", created.etag)

    assert isinstance(made, Unknown)
    assert isinstance(swapped, Unknown)
    assert [row.key async for row in store.list("")] == (["new", "old"] if applied else ["old"])
    assert (await store.get("old")).data == (b"two" if applied else b"one")


async def test_412_is_lost_and_strikes_only_conditional_writes(store):
    store.faults.append(Fault(FaultKind.STATUS_412, times=None))

    await store.put("k", b"one")
    result = await store.put_if_match("k", b"two", (await store.get("k")).etag)

    assert result == Lost()
    assert (await store.get("k")).data == b"one"


@pytest.mark.parametrize(
    "kind", [FaultKind.STATUS_409, FaultKind.STATUS_500, FaultKind.STATUS_503, FaultKind.LOST_REPLY]
)
async def test_struck_reads_deletes_and_lists_are_unavailable(store, kind):
    await store.put("k", b"one")
    store.faults.append(Fault(kind, times=None))

    for call in (lambda: store.get("k"), lambda: store.get_range("k", 0, 1), lambda: store.delete("k")):
        with pytest.raises(StoreUnavailableError):
            await call()
    with pytest.raises(StoreUnavailableError):
        _ = [row async for row in store.list("")]


async def test_delayed_put_lands_when_told(store):
    store.faults.append(Fault(FaultKind.DELAYED))

    result = await store.put_if_absent("k", b"one")

    assert isinstance(result, Unknown)
    with pytest.raises(ObjectMissingError):
        await store.get("k")
    await store.land()
    assert (await store.get("k")).data == b"one"
    assert isinstance(store.landed[0], Committed)


async def test_delayed_swap_still_honours_its_condition(store):
    created = await store.put_if_absent("k", b"one")
    store.faults.append(Fault(FaultKind.DELAYED))

    delayed = await store.put_if_match("k", b"late", created.etag)
    retried = await store.put_if_match("k", b"two", created.etag)
    await store.land()

    assert isinstance(delayed, Unknown)
    assert isinstance(retried, Committed)
    assert store.landed == [Lost()]
    assert (await store.get("k")).data == b"two"


async def test_delayed_swap_of_a_deleted_object_lands_on_nothing(store):
    created = await store.put_if_absent("k", b"one")
    store.faults.append(Fault(FaultKind.DELAYED))
    await store.put_if_match("k", b"late", created.etag)

    await store.delete("k")
    await store.land()

    assert isinstance(store.landed[0], ObjectMissingError)


async def test_delayed_writes_land_in_the_order_they_were_sent(store):
    store.faults.append(Fault(FaultKind.DELAYED, times=2))
    for data in (b"one", b"two"):
        with pytest.raises(StoreUnavailableError):
            await store.put("k", data)

    await store.land()

    assert (await store.get("k")).data == b"two"


async def test_delayed_write_lands_by_itself_after_its_delay():
    clock = SleepRecorder()
    store = FaultyStore(MemoryStore(), clock, [Fault(FaultKind.DELAYED, delay_s=3.0)])
    await store.put_if_absent("k", b"one")
    await asyncio.sleep(0)
    assert clock.slept == [3.0]

    clock.wake.set()
    for _ in range(5):
        await asyncio.sleep(0)

    assert (await store.get("k")).data == b"one"
    await store.close()


async def test_close_stops_delayed_writes_and_their_timers():
    inner = MemoryStore()
    store = FaultyStore(inner, SleepRecorder(), [Fault(FaultKind.DELAYED, delay_s=3.0, times=None)])
    await store.put_if_absent("a", b"one")
    await store.put_if_absent("b", b"one")
    await asyncio.sleep(0)

    await store.close()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [row async for row in inner.list("")] == []


async def test_latency_delays_and_then_asks_the_next_rule():
    clock = SleepRecorder()
    clock.wake.set()
    faults = [Fault(FaultKind.LATENCY, latency_s=0.2, times=None), Fault(FaultKind.LOST_REQUEST)]
    store = FaultyStore(MemoryStore(), clock, faults)

    with pytest.raises(StoreUnavailableError):
        await store.put("k", b"one")
    await store.put("k", b"one")

    assert clock.slept == [0.2, 0.2]
    await store.close()


async def test_short_read_and_bit_flip_damage_reads_silently(store):
    await store.put("k", b"0123456789")
    store.faults += [Fault(FaultKind.SHORT_READ, times=2), Fault(FaultKind.BIT_FLIP, times=2)]

    assert (await store.get("k")).data == b"01234"
    assert await store.get_range("k", 2, 4) == b"23"
    flipped = (await store.get("k")).data
    assert len(flipped) == 10
    assert sum((a ^ b).bit_count() for a, b in zip(flipped, b"0123456789", strict=True)) == 1
    assert await store.get_range("k", 2, 4) == b"23" + bytes([ord("4") ^ 1]) + b"5"
    assert (await store.get("k")).data == b"0123456789"


async def test_lost_reply_of_a_list_breaks_off_in_the_middle(store):
    await store.put("a", b"")
    await store.put("b", b"")
    store.faults.append(Fault(FaultKind.LOST_REPLY, ["list"]))

    rows = store.list("")

    assert (await anext(rows)).key == "a"
    with pytest.raises(StoreUnavailableError):
        await anext(rows)


async def test_rules_pick_by_operation_key_count_and_skip(store):
    fault = Fault(FaultKind.LOST_REQUEST, ["put"], key=r"manifest\.json$", times=1, skip=1)
    store.faults.append(fault)

    await store.put("v1/manifest.json/x", b"")
    await store.put("v2/manifest.json", b"")
    with pytest.raises(StoreUnavailableError):
        await store.put("v2/manifest.json", b"")
    await store.put("v2/manifest.json", b"")

    assert fault.hits == 1


async def test_rule_may_change_while_in_use(store):
    fault = Fault(FaultKind.STATUS_503, times=None)
    store.faults.append(fault)
    with pytest.raises(StoreUnavailableError):
        await store.put("k", b"")

    fault.times = 0

    await store.put("k", b"")


async def test_calls_are_counted_struck_or_not(store):
    store.faults.append(Fault(FaultKind.STATUS_503, ["put"]))
    with pytest.raises(StoreUnavailableError):
        await store.put("k", b"")
    await store.put("k", b"")
    await store.get("k")
    _ = [row async for row in store.list("")]

    assert store.counts == {"put": 2, "get": 1, "list": 1}
