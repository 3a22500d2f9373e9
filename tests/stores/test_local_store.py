import asyncio
import errno
import os
import sys
import time
from pathlib import Path

import pytest

from memoturnd.errors import InvalidRequestError, StoreUnavailableError
from memoturnd.seams.object_store import Committed, Lost, ObjectMissingError, Unknown
from memoturnd.stores import local
from memoturnd.stores.local import LocalStore


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path / "objects")
    yield store
    await store.close()


def failing(number, *, when=lambda path: True, times=1):
    """Return a stand-in for a one-argument helper that fails as the system would, `times` times."""

    def wrap(real):
        left = [times]

        def call(path, *rest):
            if when(Path(path)) and left[0] > 0:
                left[0] -= 1
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *rest)

        return call

    return wrap


INCREMENT = """
import asyncio, sys
from pathlib import Path
from memoturnd.seams.object_store import Committed
from memoturnd.stores.local import LocalStore

async def main():
    store = LocalStore(Path(sys.argv[1]))
    done = 0
    while done < int(sys.argv[2]):
        blob = await store.get("v1/counter")
        swapped = await store.put_if_match("v1/counter", b"%d" % (int(blob.data) + 1), blob.etag)
        done += isinstance(swapped, Committed)
    await store.close()

asyncio.run(main())
"""


async def test_four_processes_count_by_swap_without_a_lost_update(store, tmp_path):
    await store.put("v1/counter", b"0")

    command = [sys.executable, "-c", INCREMENT, str(tmp_path / "objects"), "25"]
    children = [await asyncio.create_subprocess_exec(*command) for _ in range(4)]

    assert [await child.wait() for child in children] == [0, 0, 0, 0]
    assert (await store.get("v1/counter")).data == b"100"


async def test_two_stores_on_one_folder_share_conditions(store, tmp_path):
    other = LocalStore(tmp_path / "objects")
    created = await store.put_if_absent("k", b"one")

    assert await other.put_if_absent("k", b"x") == Lost()
    assert isinstance(await other.put_if_match("k", b"two", created.etag), Committed)
    assert await store.put_if_match("k", b"three", created.etag) == Lost()
    await other.close()


async def test_swap_waits_for_another_holder_of_the_lock(store):
    created = await store.put_if_absent("k", b"one")
    with store._locked("k"):
        swap = asyncio.create_task(store.put_if_match("k", b"two", created.etag))
        await asyncio.sleep(0.05)
        assert not swap.done()
        (store._root / "k").write_bytes(b"changed by the holder")

    assert await swap == Lost()


async def test_leftovers_of_a_crashed_write_are_invisible(store):
    await store.put("v1/k", b"one")
    (store._root / ".tmp" / "deadbeef").write_bytes(b"half")
    (store._root / "v1" / "k~half").write_bytes(b"half")

    assert [row.key async for row in store.list("")] == ["v1/k"]


async def test_old_leftovers_are_swept_and_young_ones_kept(store, tmp_path):
    folder = tmp_path / "objects" / ".tmp"
    folder.mkdir(parents=True)
    for name, age_s in (("old", 2 * 3600), ("young", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)

    await store.put("k", b"one")

    assert [path.name for path in folder.iterdir()] == ["young"]


async def test_no_temporary_file_stays_after_any_outcome(store):
    created = await store.put_if_absent("k", b"one")
    await store.put("other", b"x")
    await store.put_if_match("k", b"two", created.etag)
    await store.put_if_match("k", b"three", created.etag)
    await store.put_if_absent("k", b"four")

    assert list((store._root / ".tmp").iterdir()) == []


async def test_delete_prunes_the_folders_it_empties(store):
    await store.put("v1/a/b/k", b"one")
    await store.put("v1/c", b"two")

    await store.delete("v1/a/b/k")

    assert sorted(path.name for path in (store._root / "v1").iterdir()) == ["c"]


async def test_store_survives_removal_of_its_folder(store):
    await store.put("v1/a/k", b"one")
    for path in sorted(store._root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    store._root.rmdir()

    with pytest.raises(ObjectMissingError):
        await store.get("v1/a/k")
    await store.put("v1/a/k", b"two")

    assert (await store.get("v1/a/k")).data == b"two"


async def test_reading_makes_no_folder(store, tmp_path):
    assert [row async for row in store.list("")] == []
    with pytest.raises(ObjectMissingError):
        await store.get("k")
    await store.delete("k")

    assert not (tmp_path / "objects").exists()


async def test_put_syncs_file_its_folder_and_each_new_folder_above(store, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(file):
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        real(file)

    monkeypatch.setattr(local.os, "fsync", fsync)

    await store.put("v1/a/k", b"one")

    root = store._root
    folders = [path for path in synced if path.parent != root / ".tmp"]
    assert len(synced) == len(folders) + 1
    assert set(folders) == {root.parent, root, root / "v1", root / "v1" / "a"}
    assert synced[-1] == root / "v1" / "a"
    assert synced.index(next(path for path in synced if path.parent == root / ".tmp")) < len(synced) - 1

    synced.clear()
    await store.put("v1/a/other", b"two")
    assert len(synced) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
async def test_failure_before_the_rename_raises_and_changes_nothing(store, monkeypatch, number):
    created = await store.put_if_absent("k", b"one")
    monkeypatch.setattr(local, "_write_file", failing(number, times=3)(local._write_file))

    for attempt in (
        lambda: store.put("k", b"two"),
        lambda: store.put_if_match("k", b"two", created.etag),
        lambda: store.put_if_absent("new", b"two"),
    ):
        with pytest.raises(StoreUnavailableError, match=os.strerror(number)) as caught:
            await attempt()
        assert str(store._root) in str(caught.value)
        assert caught.value.__cause__.errno == number

    assert (await store.get("k")).data == b"one"
    assert [row.key async for row in store.list("")] == ["k"]
    assert list((store._root / ".tmp").iterdir()) == []
    assert isinstance(await store.put_if_match("k", b"two", created.etag), Committed)


async def test_full_disk_while_writing_leaves_no_half_file(store, monkeypatch):
    real = os.write

    def write(file, data):
        if len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[:10])

    monkeypatch.setattr(local.os, "write", write)

    with pytest.raises(StoreUnavailableError, match="free space"):
        await store.put("k", b"x" * 25)

    assert list((store._root / ".tmp").iterdir()) == []
    with pytest.raises(ObjectMissingError):
        await store.get("k")


async def test_short_writes_are_continued(store, monkeypatch):
    real = os.write
    monkeypatch.setattr(local.os, "write", lambda file, data: real(file, data[:7]))

    await store.put("k", b"0123456789" * 5)

    assert (await store.get("k")).data == b"0123456789" * 5


async def test_failed_folder_fsync_after_the_rename_is_unknown_then_found(store, monkeypatch):
    created = await store.put_if_absent("v1/k", b"one")
    broken = failing(errno.EIO, times=3)(local.sync_folder)
    monkeypatch.setattr(local, "sync_folder", broken)

    swapped = await store.put_if_match("v1/k", b"two", created.etag)
    made = await store.put_if_absent("v1/new", b"three")
    with pytest.raises(StoreUnavailableError, match="fsync the folder"):
        await store.put("v1/k2", b"four")

    assert isinstance(swapped, Unknown)
    assert isinstance(made, Unknown)
    assert "v1/k" in swapped.cause
    assert (await store.get("v1/k")).data == b"two"
    assert (await store.get("v1/new")).data == b"three"


@pytest.mark.parametrize(
    ("number", "definite"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.EIO, False)]
)
async def test_failed_rename_is_definite_only_where_it_proves_nothing_happened(
    store, monkeypatch, number, definite
):
    def replace(self, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", replace)

    if definite:
        with pytest.raises(StoreUnavailableError):
            await store.put_if_absent("k", b"one")
    else:
        assert isinstance(await store.put_if_absent("k", b"one"), Unknown)


async def test_folder_that_keeps_disappearing_ends_in_an_error(store, monkeypatch):
    monkeypatch.setattr(local, "_write_file", failing(errno.ENOENT, times=100)(local._write_file))

    with pytest.raises(StoreUnavailableError, match="keeps disappearing"):
        await store.put_if_absent("k", b"one")


async def test_key_that_is_also_a_folder_of_keys_is_refused(store):
    await store.put("v1/a/k", b"one")

    for key in ("v1/a", "v1/a/k/below"):
        with pytest.raises(InvalidRequestError, match="also the folder"):
            await store.put(key, b"two")
        with pytest.raises(InvalidRequestError, match="also the folder"):
            await store.put_if_absent(key, b"two")

    assert [row.key async for row in store.list("")] == ["v1/a/k"]


async def test_root_that_is_a_file_is_refused_clearly(tmp_path):
    (tmp_path / "objects").write_text("not a folder")
    store = LocalStore(tmp_path / "objects")

    with pytest.raises((InvalidRequestError, StoreUnavailableError), match="objects"):
        await store.put("k", b"one")
    await store.close()


async def test_closed_store_says_so(store):
    await store.put("k", b"one")
    await store.close()

    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.get("k")


async def test_listing_pages_through_more_than_one_page(store, monkeypatch):
    monkeypatch.setattr(local, "LIST_PAGE", 3)
    keys = [f"v1/{number:02d}/k" for number in range(9)]
    for key in keys:
        await store.put(key, b"")

    assert [row.key async for row in store.list("v1/")] == keys


async def test_links_and_foreign_files_are_not_listed(store):
    await store.put("v1/k", b"one")
    (store._root / "v1" / "link").symlink_to(store._root / "v1" / "k")
    (store._root / "v1" / "with space").write_bytes(b"")

    assert [row.key async for row in store.list("")] == ["v1/k"]
