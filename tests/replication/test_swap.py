"""Compare-and-swap whose outcome is not always known: committed, lost, or unknown, and never guessed."""

import asyncio

import msgspec
import pytest

from memoturnd.errors import CorruptionError, StoreUnavailableError
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.object_store import ObjectMissingError
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore
from memoturnd.stores.timed import TimedStore

KEY = "v1/d/doc.json"
SWAP = {"put_if_match"}
CREATE = {"put_if_absent"}


class Doc(msgspec.Struct, frozen=True):
    """A list that only grows; `added` is idempotent, as every transition of a manifest is."""

    items: tuple[str, ...] = ()
    commit_id: str = ""

    def added(self, item):
        return self if item in self.items else msgspec.structs.replace(self, items=(*self.items, item))


class Numbers:
    """Commit ids in order, so that tests can name them."""

    def __init__(self, prefix):
        self._prefix, self._last = prefix, 0

    def hex(self, size_bytes):
        self._last += 1
        return f"{self._prefix}{self._last}"


class NoWait(SystemClock):
    async def sleep(self, seconds):
        await asyncio.sleep(0)


@pytest.fixture
async def store():
    store = FaultyStore(MemoryStore(), NoWait())
    yield store
    await store.close()


def open_doc(store, who="a"):
    return SwapFile(
        store,
        KEY,
        encode=msgspec.json.encode,
        decode=decode,
        randomness=Numbers(who),
        clock=NoWait(),
    )


def decode(data):
    try:
        return msgspec.json.decode(data, type=Doc)
    except msgspec.MsgspecError as error:
        raise CorruptionError(str(error)) from error


async def standing(store):
    return decode((await store.inner.get(KEY)).data)


@pytest.fixture
async def doc(store):
    file = open_doc(store)
    assert await file.create(Doc())
    store.counts.clear()
    return file


def adding(item, seen=None):
    def transition(current):
        if seen is not None:
            seen.append(current.items)
        return current.added(item)

    return transition


async def test_update_lands_with_a_new_commit_id(store, doc):
    first = await doc.update(adding("x"))
    second = await doc.update(adding("y"))

    assert (await standing(store)) == second == doc.cached
    assert first.commit_id != second.commit_id
    assert store.counts == {"put_if_match": 2}


async def test_update_without_a_change_writes_nothing(store, doc):
    await doc.update(adding("x"))
    store.counts.clear()

    await doc.update(adding("x"))

    assert not store.counts


async def test_lost_race_is_decided_anew_on_what_stands(store, doc):
    """Guard: memoturnd.replication.swap.SwapFile.update reads again before it applies the transition again."""
    await open_doc(store, "b").update(adding("theirs"))
    seen = []

    result = await doc.update(adding("mine", seen))

    assert result.items == ("theirs", "mine")
    assert seen == [(), ("theirs",)]


async def test_swap_with_a_lost_reply_is_found_by_its_commit_id(store, doc):
    """Guard: the comparison of commit ids in SwapFile.update."""
    store.faults.append(Fault(FaultKind.LOST_REPLY, SWAP))
    applied = []

    result = await doc.update(lambda d: applied.append(1) or d.added(f"x{len(applied)}"))

    assert result.items == ("x1",)
    assert await standing(store) == result
    assert store.counts["put_if_match"] == 1


@pytest.mark.parametrize(
    "kind", [FaultKind.LOST_REQUEST, FaultKind.STATUS_409, FaultKind.STATUS_500, FaultKind.STATUS_503]
)
async def test_swap_that_did_not_reach_the_store_is_sent_again(store, doc, kind):
    store.faults.append(Fault(kind, SWAP, times=2))

    result = await doc.update(adding("x"))

    assert await standing(store) == result
    assert store.counts["put_if_match"] == 3


async def test_unchanged_document_after_an_unknown_swap_is_no_proof_of_failure(store, doc):
    """The delayed copy must not land on top of the second one: both name the same etag."""
    store.faults.append(Fault(FaultKind.DELAYED, SWAP))

    result = await doc.update(adding("x"))
    await store.land()

    assert store.landed[0].__class__.__name__ == "Lost"
    assert await standing(store) == result
    assert result.items == ("x",)


async def test_delayed_swap_that_lands_before_the_second_try_is_taken_as_ours(store, doc):
    """Guard: SwapFile.update knows the commit ids of all its tries, not of the last one alone."""
    store.faults.append(Fault(FaultKind.DELAYED, SWAP))
    inner_get, reads = store.inner.get, []

    async def get(key):
        blob = await inner_get(key)
        if not reads:
            reads.append(key)
            await store.land()  # behind the read that saw nothing, before the second try
        return blob

    store.inner.get = get
    applied = []

    result = await doc.update(lambda d: applied.append(1) or d.added(f"x{len(applied)}"))

    assert result.items == ("x1",)
    assert await standing(store) == result


async def test_412_for_a_swap_of_our_own_that_landed_is_no_loss(store, doc):
    """A client that retries inside gets 412 for its own first copy."""
    store.faults.append(Fault(FaultKind.LOST_REPLY, SWAP))
    store.faults.append(Fault(FaultKind.STATUS_412, SWAP, times=1))

    assert (await doc.update(adding("x"))).items == ("x",)


async def test_swap_that_stays_unknown_is_unavailable_and_deletes_nothing(store, doc):
    store.faults.append(Fault(FaultKind.STATUS_500, SWAP, times=None))

    with pytest.raises(StoreUnavailableError, match="did not come to an end"):
        await doc.update(adding("x"))

    assert 1 < store.counts["put_if_match"] <= 10
    assert store.counts["delete"] == 0
    assert doc.cached is None or doc.cached.items == ()


async def test_unknown_swap_whose_read_fails_too_is_unavailable_and_read_anew_later(store, doc):
    store.faults.append(Fault(FaultKind.LOST_REPLY, SWAP))
    store.faults.append(Fault(FaultKind.STATUS_503, {"get"}))

    with pytest.raises(StoreUnavailableError):
        await doc.update(adding("x"))

    assert (await doc.update(adding("x"))).items == ("x",)
    assert store.counts["put_if_match"] == 1


async def test_swap_without_an_answer_in_time_is_unknown(store):
    file = open_doc(TimedStore(store, 0.02))
    await file.create(Doc())
    hang = asyncio.Event()
    swap, hung = store.inner.put_if_match, []

    async def put_if_match(key, data, etag):
        result = await swap(key, data, etag)
        if not hung:
            hung.append(key)
            await hang.wait()
        return result

    store.inner.put_if_match = put_if_match

    assert (await file.update(adding("x"))).items == ("x",)


async def test_document_deleted_meanwhile_is_missing(store, doc):
    """A 404 on a swap is fatal for the attempt: the branch is gone, and must not come back."""
    await store.inner.delete(KEY)

    with pytest.raises(ObjectMissingError):
        await doc.update(adding("x"))
    with pytest.raises(ObjectMissingError):
        await doc.update(adding("x"))
    assert [row.key async for row in store.list("")] == []


async def test_error_of_the_transition_changes_nothing(store, doc):
    def refuse(_current):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await doc.update(refuse)
    assert not store.counts


async def test_updates_of_one_file_go_one_at_a_time(store, doc):
    store.faults.append(Fault(FaultKind.LATENCY, SWAP, times=None, latency_s=0.0))

    await asyncio.gather(*(doc.update(adding(str(n))) for n in range(20)))

    assert set((await standing(store)).items) == {str(n) for n in range(20)}
    assert store.counts["put_if_match"] == 20


async def test_many_writers_of_one_document_lose_no_update(store):
    await open_doc(store, "z").create(Doc())

    await asyncio.gather(*(open_doc(store, f"w{n}-").update(adding(str(n))) for n in range(6)))

    assert set((await standing(store)).items) == {str(n) for n in range(6)}


# ---- creating


async def test_create_of_a_document_that_exists_is_refused_and_changes_nothing(store, doc):
    other = open_doc(store, "b")

    assert not await other.create(Doc(("theirs",)))
    assert (await standing(store)).items == ()
    assert (await other.load()).items == ()


@pytest.mark.parametrize("kind", [FaultKind.LOST_REPLY, FaultKind.DELAYED, FaultKind.STATUS_500])
async def test_create_with_an_unknown_outcome_is_settled_by_reading(store, kind):
    store.faults.append(Fault(kind, CREATE))
    file = open_doc(store)

    assert await file.create(Doc(("x",)))
    await store.land()

    assert (await standing(store)).items == ("x",)


async def test_create_that_loses_to_another_with_a_lost_reply_is_refused(store):
    store.faults.append(Fault(FaultKind.DELAYED, CREATE))
    await open_doc(store.inner, "b").create(Doc(("theirs",)))

    assert not await open_doc(store, "a").create(Doc(("mine",)))
    await store.land()
    assert (await standing(store)).items == ("theirs",)


# ---- reading


async def test_load_of_a_missing_document_is_none(store):
    assert await open_doc(store).load() is None


async def test_load_is_cached_until_it_is_asked_for_afresh_or_forgotten(store, doc):
    await doc.load()
    await open_doc(store, "b").update(adding("theirs"))

    assert (await doc.load()).items == ()
    assert (await doc.load(fresh=True)).items == ("theirs",)
    await open_doc(store, "b").update(adding("more"))
    assert (await doc.forget().load()).items == ("theirs", "more")


@pytest.mark.parametrize("kind", [FaultKind.SHORT_READ])
async def test_document_that_arrives_cut_off_is_corrupt_and_not_cached(store, doc, kind):
    store.faults.append(Fault(kind, {"get"}))

    with pytest.raises(CorruptionError):
        await doc.load(fresh=True)
    assert (await doc.load()).items == ()


async def test_read_without_an_answer_is_unavailable(store, doc):
    store.faults.append(Fault(FaultKind.STATUS_503, {"get"}))

    with pytest.raises(StoreUnavailableError):
        await doc.load(fresh=True)
