import pytest

from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import kv


async def test_what_is_put_comes_back_byte_for_byte(profile):
    await kv.put(profile, "n", "k", b"\x00\xff bytes")
    await kv.put(profile, "n", "empty", b"")
    await kv.put(profile, "other", "k", b"2")

    assert (await kv.get(profile, "n", "k")).value == b"\x00\xff bytes"
    assert (await kv.get(profile, "n", "empty")).value == b""
    assert (await kv.get(profile, "other", "k")).value == b"2"


async def test_a_put_replaces_value_and_lifetime(profile):
    await kv.put(profile, "n", "k", b"1", ttl_s=1)
    await kv.put(profile, "n", "k", b"2")
    profile.now_ms += 5000
    assert (await kv.get(profile, "n", "k")).value == b"2"

    await kv.put(profile, "n", "k", b"3", ttl_s=1)
    profile.now_ms += 1000

    with pytest.raises(NotFoundError):
        await kv.get(profile, "n", "k")


async def test_a_ttl_of_0_is_expired_at_once_and_the_read_removes_nothing(profile):
    await kv.put(profile, "n", "k", b"1", ttl_s=0)

    with pytest.raises(NotFoundError, match="'k'"):
        await kv.get(profile, "n", "k")
    assert (await kv.keys(profile, "n")).value == []
    assert profile.count("__memoturn_kv") == 1


@pytest.mark.parametrize("ttl_s", [-1, 2**63])
async def test_a_ttl_out_of_range_is_refused(profile, ttl_s):
    with pytest.raises(InvalidRequestError, match="ttl"):
        await kv.put(profile, "n", "k", b"", ttl_s=ttl_s)
    await kv.put(profile, "n", "k", b"", ttl_s=8_000_000_000_000)
    assert (await kv.get(profile, "n", "k")).value == b""


async def test_delete_says_whether_there_was_something(profile):
    await kv.put(profile, "n", "k", b"1")

    assert (await kv.delete(profile, "n", "k")).value is True
    assert (await kv.delete(profile, "n", "k")).value is False
    assert profile.txid == 2


async def test_keys_are_listed_by_prefix_ascending_within_their_namespace(profile):
    for key in ("b", "a%", "a_", "ab", "a", "aé", "a\U0010ffff", "a\U0010ffffz", "A"):
        await kv.put(profile, "n", key, b"")
    await kv.put(profile, "m", "ax", b"")
    await kv.put(profile, "n", "az", b"", ttl_s=0)

    async def listed(prefix, limit=100):
        return (await kv.keys(profile, "n", prefix=prefix, limit=limit)).value

    assert await listed("a") == ["a", "a%", "a_", "ab", "aé", "a\U0010ffff", "a\U0010ffffz"]
    assert await listed("a%") == ["a%"]
    assert await listed("a\U0010ffff") == ["a\U0010ffff", "a\U0010ffffz"]
    assert await listed("", limit=3) == ["A", "a", "a%"]
    assert await listed("", limit=0) == []
    assert await listed("zz") == []


async def test_prefixes_at_the_edges_of_unicode(profile):
    for key in ("\ud7ff1", "\ue000", "\U0010ffff", "\U0010ffff\U0010ffff"):
        await kv.put(profile, "n", key, b"")

    assert (await kv.keys(profile, "n", prefix="\ud7ff")).value == ["\ud7ff1"]
    assert (await kv.keys(profile, "n", prefix="\U0010ffff")).value == ["\U0010ffff", "\U0010ffff\U0010ffff"]


async def test_a_list_has_at_most_1000_keys(profile):
    for n in range(1001):
        kv.apply_put(profile.conn, 0, "n", f"{n:04}", b"")

    assert len((await kv.keys(profile, "n", limit=10**6)).value) == 1000


async def test_bad_names_are_refused_everywhere(profile):
    for call in (
        lambda ns, key: kv.put(profile, ns, key, b""),
        lambda ns, key: kv.get(profile, ns, key),
        lambda ns, key: kv.delete(profile, ns, key),
    ):
        for ns, key in (("", "k"), ("n\n", "k"), ("n", ""), ("n", "k\0"), ("n", "k" * 1025)):
            with pytest.raises(InvalidRequestError):
                await call(ns, key)
    with pytest.raises(InvalidRequestError):
        await kv.keys(profile, "n", prefix="p\0")
    assert profile.works == []


async def test_large_values_are_written_in_the_pool(profile):
    await kv.put(profile, "n", "k", bytes(300_000))
    await kv.put(profile, "n", "k", bytes(1000))

    assert profile.works == [("write", Work.HEAVY), ("write", Work.POINT)]
