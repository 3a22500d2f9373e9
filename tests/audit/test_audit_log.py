"""The audit log: what was taken gets into its chain once, whatever stops, fails or comes back."""

import asyncio
import json
import shutil

import pytest
from audit_support import event, log_of, started

from memoturnd.audit.ends import Ends
from memoturnd.audit.log import AuditLog
from memoturnd.audit.spool import Spool
from memoturnd.core import audit
from memoturnd.core.audit import Place
from memoturnd.errors import RetryableError
from memoturnd.seams.object_store import Committed, Unknown
from memoturnd.stores.memory import MemoryStore


async def objects(store, stream="app"):
    found = [info.key async for info in store.list(audit.stream_prefix(stream))]
    return {key: (await store.get(key)).data for key in found}


async def heads(store, stream="app"):
    found = [info.key async for info in store.list(audit.heads_prefix(stream))]
    return [json.loads((await store.get(key)).data) for key in found]


async def events(store, stream="app"):
    return [
        json.loads(line) for data in (await objects(store, stream)).values() for line in data.splitlines()
    ]


async def ids(store, stream="app"):
    return [e["id"] for e in await events(store, stream)]


class Failing(MemoryStore):
    """A store that fails as it is told."""

    def __init__(self):
        super().__init__()
        self.fail_put = self.fail_swap = self.lose_reply = False

    def fails(self, key):
        return self.fail_swap if "/_heads/" in key else self.fail_put

    async def put_if_absent(self, key, data):
        if self.fails(key):
            return Unknown("down")
        result = await super().put_if_absent(key, data)
        return Unknown("no reply") if self.lose_reply else result

    async def put_if_match(self, key, data, etag):
        if self.fails(key):
            return Unknown("down")
        result = await super().put_if_match(key, data, etag)
        return Unknown("no reply") if self.lose_reply else result


async def test_events_become_objects_of_their_streams_under_a_head(store, tmp_path):
    with started(store, tmp_path) as log:
        for n in range(3):
            log.append("app", event(n))
        log.append("other", event(9, ns="other"))
        assert await log.flush()
        log.append("app", event(3))
        assert await log.flush()

    assert await ids(store) == [event(n).id for n in range(4)]
    assert len(await objects(store)) == 2
    [head] = await heads(store)
    assert (head["seq"], head["objects"]) == (4, 2)
    assert [e["seq"] for e in await events(store)] == [1, 2, 3, 4]
    assert await ids(store, "other") == [event(9).id]


async def test_a_chain_goes_on_after_a_restart_whatever_the_node_is_called(store, tmp_path):
    for number, node in enumerate(["n1", "n2", "n1"]):
        with started(store, tmp_path, node=node) as log:
            log.append("app", event(number))
            assert await log.flush()

    [head] = await heads(store)
    assert (head["seq"], head["objects"], head["node"]) == (3, 3, "n1")
    assert [e["seq"] for e in await events(store)] == [1, 2, 3]


async def test_events_of_a_killed_process_are_flushed_by_the_next(store, tmp_path):
    with started(store, tmp_path) as log:
        for n in range(3):
            log.append("app", event(n))

    with started(store, tmp_path) as log:
        assert log.waiting == 3
        log.append("app", event(3))
        assert await log.flush()

    assert await ids(store) == [event(n).id for n in range(4)]
    assert not [path for path in tmp_path.glob("*.spool") if path.stat().st_size]


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("step", ["fail_put", "fail_swap"])
@pytest.mark.parametrize("before", [0, 2])
async def test_a_crash_between_object_and_head_leaves_one_of_each(tmp_path, before, step, more):
    store = Failing()
    with started(store, tmp_path) as log:
        for n in range(before):
            log.append("app", event(n))
        await log.flush()
        log.append("app", event(10))
        setattr(store, step, True)
        assert not await log.flush()
    setattr(store, step, False)

    with started(store, tmp_path) as log:
        for n in range(more):
            log.append("app", event(20 + n))
        assert await log.flush()

    wanted = [*range(before), 10, *range(20, 20 + more)]
    assert await ids(store) == [event(n).id for n in wanted]
    [head] = await heads(store)
    assert (head["seq"], head["objects"]) == (len(wanted), len(await objects(store)))


async def test_a_crash_after_the_head_repeats_nothing(store, tmp_path):
    with started(store, tmp_path) as log:
        log.append("app", event(1))
        log.append("app", event(2))
        shutil.copytree(tmp_path, kept := tmp_path.parent / "kept")
        assert await log.flush()
    with started(store, kept) as log:
        log.append("app", event(3))
        assert await log.flush()

    assert await ids(store) == [event(n).id for n in (1, 2, 3)]


async def test_files_go_in_their_order_so_that_nothing_is_flushed_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.audit.spool.FILE_BYTES", 1)

    class OneStreamDown(Failing):
        def fails(self, key):
            return self.fail_put and "/stuck/" in key

    store = OneStreamDown()
    store.fail_put = True
    with started(store, tmp_path) as log:
        log.append("app", event(1))
        log.append("stuck", event(2, ns="stuck"))
        assert not await log.flush()
        log.append("app", event(3))
        assert not await log.flush()
    store.fail_put = False
    with started(store, tmp_path) as log:
        assert await log.flush()

    assert await ids(store) == [event(1).id, event(3).id]
    assert await ids(store, "stuck") == [event(2).id]


async def test_a_swap_without_an_answer_is_not_repeated(tmp_path):
    store = Failing()
    store.lose_reply = True
    with started(store, tmp_path) as log:
        for n in range(3):
            log.append("app", event(n))
            await log.flush()

    assert await ids(store) == [event(n).id for n in range(3)]


async def test_a_store_that_is_down_keeps_every_event_and_takes_them_in_order(tmp_path):
    store = Failing()
    store.fail_put = True
    with started(store, tmp_path) as log:
        for n in range(1300):
            log.append("app", event(n))
            if n % 500 == 0:
                assert not await log.flush()
        store.fail_put = False
        assert await log.flush()

    assert await ids(store) == [event(n).id for n in range(1300)]
    sizes = [len(data.splitlines()) for data in (await objects(store)).values()]
    assert max(sizes) == audit.OBJECT_EVENTS


async def test_what_has_no_room_waits_and_is_refused_then(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.audit.log.EVENTS_LIMIT", 3)
    store = Failing()
    store.fail_put = True
    with started(store, tmp_path) as log:
        for n in range(2):
            log.append("app", event(n))
        await log.reserve()
        with pytest.raises(RetryableError, match="2 audit events wait"):
            await log.reserve()
        store.fail_put = False
        waiter = asyncio.create_task(log.reserve())
        await asyncio.sleep(0.01)
        assert not waiter.done()
        assert await log.flush()
        await waiter


async def test_bytes_are_bounded_too(tmp_path):
    with started(Failing(), tmp_path, limit_bytes=4096, wait_s=0.01) as log:
        log.append("app", event(1, resource="x" * 5000))
        with pytest.raises(RetryableError):
            await log.reserve()


async def test_a_full_disk_loses_nothing_that_was_done_and_lets_nothing_more_be_done(
    store, tmp_path, monkeypatch
):
    with started(store, tmp_path, wait_s=0.02) as log:
        real = log._spool.append

        def full(stream, body):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(log._spool, "append", full)
        monkeypatch.setattr(log._spool, "probe", lambda: full("", b""))
        log.append("app", event(1))
        with pytest.raises(RetryableError, match="No space left"):
            await log.reserve()
        assert await log.flush()
        monkeypatch.setattr(log._spool, "append", real)
        monkeypatch.setattr(log._spool, "probe", lambda: None)
        await log.reserve()

    assert await ids(store) == [event(1).id]


async def test_a_torn_or_damaged_line_costs_only_itself(store, tmp_path):
    with started(store, tmp_path) as log:
        for n in range(3):
            log.append("app", event(n))
    [path] = [p for p in tmp_path.glob("*.spool") if p.stat().st_size]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"kv.put", b"kv.pit") + lines[2] + lines[2][:20])

    with started(store, tmp_path) as log:
        assert await log.flush()

    assert await ids(store) == [event(0).id, event(2).id]


async def test_a_head_that_somebody_changed_is_left_and_a_new_chain_says_what_it_follows(store, tmp_path):
    with started(store, tmp_path) as log:
        log.append("app", event(1))
        assert await log.flush()
        [old] = await heads(store)
        key = audit.head_key("app", old["chain"])
        earlier = (await store.get(key)).data
        log.append("app", event(2))
        assert await log.flush()
        etag = (await store.get(key)).etag
        assert isinstance(await store.put_if_match(key, earlier, etag), Committed)  # a roll-back
        log.append("app", event(3))
        assert await log.flush()
        log.append("app", event(4))
        assert await log.flush()

    [new] = [head for head in await heads(store) if head["chain"] != old["chain"]]
    assert (new["follows"]["chain"], new["follows"]["seq"]) == (old["chain"], 2)
    assert (new["seq"], new["objects"]) == (2, 2)
    assert sorted(await ids(store)) == [event(n).id for n in (1, 2, 3, 4)]
    with started(store, tmp_path) as log:
        log.append("app", event(5))
        assert await log.flush()
    assert len(await heads(store)) == 2


@pytest.mark.parametrize("back_to", ["earlier", "nothing"])
async def test_a_process_that_has_just_started_notices_that_the_bucket_was_put_back(store, tmp_path, back_to):
    with started(store, tmp_path) as log:
        log.append("app", event(1))
        assert await log.flush()
        earlier = {key: (await store.get(key)).data for key in store._objects}
        log.append("app", event(2))
        assert await log.flush()
    for key in list(store._objects):
        await store.delete(key)
    for key, data in earlier.items() if back_to == "earlier" else ():
        await store.put(key, data)

    with started(store, tmp_path) as log:
        log.append("app", event(3))
        assert await log.flush()

    [new] = [head for head in await heads(store) if head["follows"]]
    assert new["follows"]["seq"] == 2
    assert new["seq"] == 1


async def test_what_is_remembered_survives_a_torn_line_and_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.audit.ends.FILE_BYTES", 2000)
    monkeypatch.setattr("memoturnd.audit.ends.STREAMS_LIMIT", 5)
    ends = Ends(tmp_path)
    ends.open()
    for n in range(100):
        ends.put(f"s{n % 7}", Place("c", n, "h"))
    ends.close()
    assert (tmp_path / "ends").stat().st_size < 2100
    with (tmp_path / "ends").open("ab") as file:
        file.write(b"s1 c 99")

    again = Ends(tmp_path)
    again.open()

    assert [again.get(f"s{n % 7}") for n in range(95, 100)] == [Place("c", n, "h") for n in range(95, 100)]
    assert again.get(f"s{94 % 7}") is None
    again.close()


@pytest.mark.parametrize("damage", [b"", b"{}", None])
async def test_a_head_that_is_damaged_or_gone_does_not_stop_the_stream(store, tmp_path, damage):
    with started(store, tmp_path) as log:
        log.append("app", event(1))
        assert await log.flush()
        [old] = await heads(store)
        key = audit.head_key("app", old["chain"])
        await (store.delete(key) if damage is None else store.put(key, damage))
        log.append("app", event(2))
        assert await log.flush()

    assert sorted(await ids(store)) == [event(1).id, event(2).id]


async def test_a_copy_of_a_disk_gets_a_chain_of_its_own(store, tmp_path):
    with started(store, tmp_path / "a") as log:
        log.append("app", event(1))
        assert await log.flush()
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    with started(store, tmp_path / "a") as one, started(store, tmp_path / "b") as other:
        for n in range(2, 5):
            one.append("app", event(n))
            other.append("app", event(10 * n))
            assert await one.flush()
            assert await other.flush()

    found = await heads(store)
    assert len(found) == 2
    assert sorted(await ids(store)) == sorted(event(n).id for n in (1, 2, 3, 4, 20, 30, 40))


async def test_two_nodes_write_chains_of_their_own_into_one_stream(store, tmp_path):
    with started(store, tmp_path / "a", node="a") as a, started(store, tmp_path / "b", node="b") as b:
        for n in range(3):
            a.append("app", event(n))
            b.append("app", event(10 + n))
            await asyncio.gather(a.flush(), b.flush())

    assert [(head["seq"], head["objects"]) for head in await heads(store)] == [(3, 3), (3, 3)]


async def test_ten_thousand_events_a_second_are_taken_bounded_and_kept(store, tmp_path):
    log = log_of(store, tmp_path, flush_ms=100)
    log.start()
    running = asyncio.create_task(log.run())
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    for n in range(20_000):
        await log.reserve()
        log.append("app", event(n))
        log.release()
        if n % 100 == 0:
            await asyncio.sleep(0)
    took_s = loop.time() - started_s
    await log.close()
    running.cancel()

    assert await ids(store) == [event(n).id for n in range(20_000)]
    assert took_s < 10, f"20,000 events took {took_s:.1f} s"


async def test_denials_beyond_their_rate_are_told_by_number(store, tmp_path):
    with started(store, tmp_path) as log:
        for _ in range(7):
            log.count_denied()
        await log.close()

    [told] = await events(store, audit.PLATFORM)
    assert (told["action"], told["outcome"], told["count"]) == ("auth.denied", "denied", 7)


async def test_a_node_starts_on_a_disk_that_takes_nothing_and_audits_once_it_does(
    store, tmp_path, monkeypatch
):
    full = True
    begin = Spool._begin

    def refuse(self, number):
        if full:
            raise OSError(28, "No space left on device")
        begin(self, number)

    monkeypatch.setattr(Spool, "_begin", refuse)
    monkeypatch.setattr(AuditLog, "_write_names", lambda *_: refuse(None, 0) if full else None)
    with started(store, tmp_path / "audit", wait_s=0.02) as log:
        with pytest.raises(RetryableError, match="No space left"):
            await log.reserve()
        assert await log.flush()
        full = False
        await log.reserve()
        log.append("app", event(1))
        assert await log.flush()

    assert await ids(store) == [event(1).id]
