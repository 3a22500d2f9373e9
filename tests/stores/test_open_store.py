import subprocess
import sys

import pytest

from memoturnd.errors import ConfigurationError, StoreRefusedError, StoreUnavailableError
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.object_store import Committed
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.local import LocalStore
from memoturnd.stores.location import Location
from memoturnd.stores.memory import MemoryStore
from memoturnd.stores.open import check_url, open_store, probe


class BlindStore(MemoryStore):
    """A store that ignores the conditions named in `blind_to`."""

    def __init__(self, *blind_to):
        super().__init__()
        self.blind_to = blind_to

    async def put_if_absent(self, key, data):
        return self._write(key, data) if "absent" in self.blind_to else await super().put_if_absent(key, data)

    async def put_if_match(self, key, data, etag):
        return (
            self._write(key, data)
            if "match" in self.blind_to
            else await super().put_if_match(key, data, etag)
        )


async def test_absolute_file_url_opens_that_folder(tmp_path):
    store = open_store(f"file://{tmp_path}/objects")

    await store.put("v1/k", b"one")

    assert (tmp_path / "objects" / "v1" / "k").read_bytes() == b"one"
    await store.close()


@pytest.mark.parametrize("url", ["file://data/objects", "file://./data/objects"])
async def test_relative_file_url_opens_a_folder_below_the_current_one(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert isinstance(store, LocalStore)

    await store.put("v1/k", b"one")

    assert (tmp_path / "data" / "objects" / "v1" / "k").read_bytes() == b"one"
    await store.close()


async def test_opening_touches_nothing(tmp_path):
    store = open_store(f"file://{tmp_path}/objects")
    await store.close()

    assert list(tmp_path.iterdir()) == []


def test_mem_url_opens_memory():
    assert isinstance(open_store("mem://"), MemoryStore)


@pytest.mark.parametrize(
    "url", ["https://bucket", "ftp://bucket", "/plain/path", "", "file:/one", "file://", "mem://name"]
)
def test_other_urls_are_refused_with_what_is_supported(url):
    with pytest.raises(ConfigurationError, match=r"file://PATH|use mem://"):
        open_store(url)


async def test_probe_passes_and_leaves_nothing(tmp_path):
    for store in (MemoryStore(), LocalStore(tmp_path / "objects")):
        await probe(store)

        assert [row async for row in store.list("")] == []
        await store.close()


@pytest.mark.parametrize("blind_to", [("absent",), ("match",), ("absent", "match")])
async def test_probe_refuses_a_store_that_ignores_conditions(blind_to):
    store = BlindStore(*blind_to)

    with pytest.raises(ConfigurationError, match="ignores conditions"):
        await probe(store)

    assert [row async for row in store.list("")] == []


async def test_probe_refuses_a_store_that_never_swaps():
    store = FaultyStore(MemoryStore(), SystemClock(), [Fault(FaultKind.STATUS_412, ["put_if_match"])])

    with pytest.raises(ConfigurationError, match="refused a conditional swap"):
        await probe(store)


@pytest.mark.parametrize("skip", range(4))
async def test_probe_without_a_clear_answer_is_unavailable(skip):
    fault = Fault(FaultKind.STATUS_500, ["put_if_absent", "put_if_match"], skip=skip)

    with pytest.raises(StoreUnavailableError):
        await probe(FaultyStore(MemoryStore(), SystemClock(), [fault]))


async def test_failed_clean_up_does_not_fail_the_probe():
    store = FaultyStore(MemoryStore(), SystemClock(), [Fault(FaultKind.STATUS_503, ["delete"])])

    await probe(store)

    assert isinstance(await store.put_if_absent("k", b""), Committed)


@pytest.mark.parametrize(
    ("url", "shown", "full"),
    [
        ("s3://bucket", "s3://bucket", "v1/k"),
        ("s3://bucket/", "s3://bucket", "v1/k"),
        ("s3://my-bucket.x/some/prefix/", "s3://my-bucket.x/some/prefix", "some/prefix/v1/k"),
        ("gs://bucket/p", "gs://bucket/p", "p/v1/k"),
        ("az://container/p", "az://container/p", "p/v1/k"),
    ],
)
def test_bucket_urls_name_a_bucket_and_a_prefix(url, shown, full):
    check_url(url)
    location = Location.parse(url)

    assert str(location) == shown
    assert location.key("v1/k") == full
    assert location.relative(full) == "v1/k"


@pytest.mark.parametrize("name", ["other/v1/k", "p/", "p/v1//k", "p", "px/v1/k"])
def test_foreign_objects_below_a_prefix_are_no_keys(name):
    assert Location.parse("s3://bucket/p").relative(name) is None


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://Bucket",
        "s3://key:sesame@bucket",
        "s3://bucket/a//b",
        "s3://bucket/../x",
        "s3://bucket/a b",
        "s3://bucket/" + "a/" * 150,
    ],
)
def test_bad_bucket_urls_are_refused_without_repeating_what_may_be_secret(url):
    with pytest.raises(ConfigurationError) as caught:
        check_url(url)
    assert "sesame" not in str(caught.value)


class RefusingStore(MemoryStore):
    async def put_if_absent(self, key, data):
        raise StoreRefusedError("the bucket does not exist there")


async def test_probe_turns_a_refusal_into_a_matter_of_settings():
    with pytest.raises(ConfigurationError, match="the bucket does not exist there"):
        await probe(RefusingStore())


class MakingStore(MemoryStore):
    """A store that makes an object by a swap, as MinIO did until 2025."""

    async def put_if_match(self, key, data, etag):
        return (
            self._write(key, data)
            if key not in self._objects
            else await super().put_if_match(key, data, etag)
        )


async def test_probe_refuses_a_store_that_swaps_what_is_gone():
    store = MakingStore()

    with pytest.raises(ConfigurationError, match="swap of an object that is gone"):
        await probe(store)
    assert [row async for row in store.list("")] == []


def test_clients_of_buckets_are_imported_only_for_buckets(tmp_path):
    """A node on a local directory must not pay for them when it starts."""
    program = (
        "import sys, memoturnd.__main__, memoturnd.stores.open as o; o.open_store('file://x'); "
        "print(sorted({'aiobotocore', 'botocore', 'obstore', 'aiohttp'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert shown.stdout.strip() == "[]"
