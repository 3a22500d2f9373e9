import re

import pytest

from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError, PreconditionFailedError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import kv
from memoturnd.surfaces.conditions import Condition


async def test_what_is_put_comes_back_byte_for_byte(profile):
    await kv.put(profile, "n", "k", b"\x00\xff bytes")
    await kv.put(profile, "n", "empty", b"")
    await kv.put(profile, "other", "k", b"2")

    assert (await kv.get(profile, "n", "k")).value.value == b"\x00\xff bytes"
    assert (await kv.get(profile, "n", "empty")).value.value == b""
    assert (await kv.get(profile, "other", "k")).value.value == b"2"


async def test_a_put_replaces_value_and_lifetime(profile):
    await kv.put(profile, "n", "k", b"1", ttl_s=1)
    await kv.put(profile, "n", "k", b"2")
    profile.now_ms += 5000
    assert (await kv.get(profile, "n", "k")).value.value == b"2"

    await kv.put(profile, "n", "k", b"3", ttl_s=1)
    profile.now_ms += 1000

    with pytest.raises(NotFoundError):
        await kv.get(profile, "n", "k")


async def test_a_ttl_of_0_is_expired_at_once_and_the_read_removes_nothing(profile):
    await kv.put(profile, "n", "k", b"1", ttl_s=0)

    with pytest.raises(NotFoundError, match="'k'"):
        await kv.get(profile, "n", "k")
    assert (await kv.page(profile, "n")).value["keys"] == []
    assert profile.count("__memoturn_kv") == 1


@pytest.mark.parametrize("ttl_s", [-1, 2**63])
async def test_a_ttl_out_of_range_is_refused(profile, ttl_s):
    with pytest.raises(InvalidRequestError, match="ttl"):
        await kv.put(profile, "n", "k", b"", ttl_s=ttl_s)
    await kv.put(profile, "n", "k", b"", ttl_s=8_000_000_000_000)
    assert (await kv.get(profile, "n", "k")).value.value == b""


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
        return (await kv.page(profile, "n", prefix=prefix, limit=limit)).value["keys"]

    assert await listed("a") == ["a", "a%", "a_", "ab", "aé", "a\U0010ffff", "a\U0010ffffz"]
    assert await listed("a%") == ["a%"]
    assert await listed("a\U0010ffff") == ["a\U0010ffff", "a\U0010ffffz"]
    assert await listed("", limit=3) == ["A", "a", "a%"]
    assert await listed("", limit=0) == []
    assert await listed("zz") == []


async def test_prefixes_at_the_edges_of_unicode(profile):
    for key in ("\ud7ff1", "\ue000", "\U0010ffff", "\U0010ffff\U0010ffff"):
        await kv.put(profile, "n", key, b"")

    assert (await kv.page(profile, "n", prefix="\ud7ff")).value["keys"] == ["\ud7ff1"]
    assert (await kv.page(profile, "n", prefix="\U0010ffff")).value["keys"] == [
        "\U0010ffff",
        "\U0010ffff\U0010ffff",
    ]


async def test_a_list_has_at_most_1000_keys(profile):
    for n in range(1001):
        kv.apply_put(profile.conn, 0, "n", f"{n:04}", b"")

    assert len((await kv.page(profile, "n", limit=10**6)).value["keys"]) == 1000


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
        await kv.page(profile, "n", prefix="p\0")
    assert profile.works == []


async def test_large_values_are_written_in_the_pool(profile):
    await kv.put(profile, "n", "k", bytes(300_000))
    await kv.put(profile, "n", "k", bytes(1000))

    assert profile.works == [("write", Work.HEAVY), ("write", Work.POINT)]


# ---- ETags and conditions


def matches(*tags):
    return Condition(frozenset(tags), None)


def matches_none_of(*tags):
    return Condition(None, frozenset(tags))


async def etag(profile, key="k"):
    return (await kv.get(profile, "n", key)).value.etag


async def test_every_put_has_an_etag_of_its_own_even_with_equal_values(profile):
    tags = [(await kv.put(profile, "n", "k", b"same")).value for _ in range(3)]
    await kv.delete(profile, "n", "k")
    tags.append((await kv.put(profile, "n", "k", b"same")).value)

    assert len(set(tags)) == 4
    assert await etag(profile) == tags[-1]
    assert re.fullmatch("[0-9a-f]{16}", tags[-1])


async def test_puts_of_one_round_have_etags_of_their_own(profile):
    def op(conn, now_ms):
        tags = []
        for _ in range(2):
            tags.append(kv.apply_put(conn, now_ms, "n", "k", b"same")[0])
            kv.apply_delete(conn, now_ms, "n", "k")
        tags.append(kv.apply_put(conn, now_ms, "n", "k", b"same")[0])
        return tags, True

    tags = (await profile.write(op)).value

    assert len(set(tags)) == 3
    assert await etag(profile) == tags[-1]


async def test_equal_places_in_two_branches_give_one_etag_only_to_equal_contents(profile):
    def tag(value, metadata=None):
        profile.conn.execute("SAVEPOINT fork")
        tag, _ = kv.apply_put(profile.conn, 0, "n", "k", value, metadata=metadata)
        profile.conn.execute("ROLLBACK TO fork")
        profile.conn.execute("RELEASE fork")
        return tag, profile.conn.total_changes()

    same, changes = tag(b"v")
    seen = {same}
    for value, metadata in ((b"w", None), (b"v", '{"a":1}'), (b"", "v")):
        seen.add(kv._hashed(b"%d.%d" % (profile.conn.round_txid, changes - 1), value, metadata or "").hex())

    assert same == kv._hashed(b"%d.%d" % (profile.conn.round_txid, changes - 1), b"v", "").hex()
    assert len(seen) == 4


async def test_a_conditional_put_replaces_only_what_was_read(profile):
    first = (await kv.put(profile, "n", "k", b"1", condition=matches_none_of("*"))).value
    second = (await kv.put(profile, "n", "k", b"2", condition=matches("other", first))).value

    for unmet in (matches(first), matches(), matches_none_of("*"), matches_none_of(second)):
        with pytest.raises(PreconditionFailedError, match=second):
            await kv.put(profile, "n", "k", b"3", condition=unmet)
    with pytest.raises(PreconditionFailedError, match="not there"):
        await kv.put(profile, "n", "new", b"3", condition=matches("*"))

    assert (await kv.get(profile, "n", "k")).value.value == b"2"
    assert (await kv.page(profile, "n")).value["keys"] == ["k"]
    await kv.put(profile, "n", "k", b"4", condition=matches("*"))
    await kv.put(profile, "n", "k", b"5", condition=Condition(frozenset("*"), frozenset([first])))


async def test_a_conditional_delete_removes_only_what_was_read(profile):
    first = (await kv.put(profile, "n", "k", b"1")).value
    second = (await kv.put(profile, "n", "k", b"1")).value

    with pytest.raises(PreconditionFailedError):
        await kv.delete(profile, "n", "k", condition=matches(first))
    assert (await kv.delete(profile, "n", "k", condition=matches(second))).value is True
    with pytest.raises(PreconditionFailedError):
        await kv.delete(profile, "n", "k", condition=matches(second))


async def test_what_has_expired_is_not_there_for_conditions(profile):
    tag = (await kv.put(profile, "n", "k", b"1", ttl_s=1)).value
    profile.now_ms += 1000

    with pytest.raises(PreconditionFailedError):
        await kv.put(profile, "n", "k", b"2", condition=matches(tag))
    await kv.put(profile, "n", "k", b"2", condition=matches_none_of("*"))


async def test_rows_from_before_there_were_tags_have_an_etag_by_their_value(profile):
    profile.conn.execute("INSERT INTO __memoturn_kv(ns, k, v) VALUES ('n', 'k', x'01'), ('n', 'l', x'02')")
    old = await etag(profile)

    assert old == await etag(profile) != await etag(profile, "l")
    assert [e["etag"] for e in (await kv.page(profile, "n", with_metadata=True)).value["entries"]] == [
        old,
        await etag(profile, "l"),
    ]
    new = (await kv.put(profile, "n", "k", b"\x01", condition=matches(old))).value
    assert new != old
    with pytest.raises(PreconditionFailedError):
        await kv.put(profile, "n", "k", b"", condition=matches(old))


async def test_metadata_comes_with_the_value_and_is_replaced_with_it(profile):
    await kv.put(profile, "n", "k", b"1", metadata='{"a":1}')
    assert (await kv.get(profile, "n", "k")).value.metadata == '{"a":1}'

    await kv.put(profile, "n", "k", b"1")

    assert (await kv.get(profile, "n", "k")).value.metadata is None


@pytest.mark.parametrize("bad", [1, "x", [], True, {"a": float("inf")}, {"a": "x" * 4096}, {"a": 2**65}])
def test_metadata_is_a_small_json_object(bad):
    with pytest.raises(InvalidRequestError, match="meta"):
        kv.parse_metadata(bad, "meta")
    assert kv.parse_metadata({"b": 1, "a": "é"}, "meta") == '{"a":"é","b":1}'
    assert kv.parse_metadata(None, "meta") is None


# ---- numbers


async def test_a_number_is_made_changed_and_read_as_text(profile):
    first = (await kv.increment(profile, "n", "k", 5)).value
    second = (await kv.increment(profile, "n", "k", -7)).value

    assert (first["value"], second["value"]) == (5, -2)
    assert first["etag"] != second["etag"] == await etag(profile)
    assert (await kv.get(profile, "n", "k")).value.value == b"-2"


async def test_a_number_keeps_its_metadata_and_the_lifetime_that_it_has(profile):
    await kv.put(profile, "n", "k", b"1", metadata='{"a":1}')
    await kv.increment(profile, "n", "k", 1, ttl_s=10)
    ends = (await kv.get(profile, "n", "k")).value.expires_at_ms
    profile.now_ms += 5000
    await kv.increment(profile, "n", "k", 1, ttl_s=10)
    await kv.increment(profile, "n", "k", 1)
    entry = (await kv.get(profile, "n", "k")).value
    assert (entry.value, entry.metadata, entry.expires_at_ms) == (b"4", '{"a":1}', ends)

    profile.now_ms += 5000

    assert (await kv.increment(profile, "n", "k", 1, ttl_s=10)).value["value"] == 1
    entry = (await kv.get(profile, "n", "k")).value
    assert (entry.metadata, entry.expires_at_ms) == (None, profile.now_ms + 10_000)


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"1.5", b" 1", b"1\n", b"+1", b"01", b"1e3", "٣".encode(), b"9223372036854775808", b"9" * 50],
)
async def test_what_is_no_number_is_a_conflict_and_stays(profile, value):
    await kv.put(profile, "n", "k", value)

    with pytest.raises(ConflictError, match="no 64-bit integer"):
        await kv.increment(profile, "n", "k", 1)
    assert (await kv.get(profile, "n", "k")).value.value == value


async def test_numbers_stay_within_64_bits(profile):
    assert (await kv.increment(profile, "n", "k", 2**63 - 1)).value["value"] == 2**63 - 1
    with pytest.raises(ConflictError, match="beyond"):
        await kv.increment(profile, "n", "k", 1)
    assert (await kv.increment(profile, "n", "k", -(2**63))).value["value"] == -1
    assert (await kv.increment(profile, "n", "k", -(2**63) + 1)).value["value"] == -(2**63)
    with pytest.raises(ConflictError, match="beyond"):
        await kv.increment(profile, "n", "k", -1)


@pytest.mark.parametrize(
    "body", [[], {"by": 1.5}, {"by": True}, {"by": "1"}, {"by": 2**63}, {"ttl": -1}, {"ttl": 2**60}]
)
def test_a_bad_increment_is_refused(body):
    with pytest.raises(InvalidRequestError):
        kv.parse_increment(body)
    assert kv.parse_increment({}) == (1, None)
    assert kv.parse_increment({"by": None, "ttl": 3, "later": 1}) == (1, 3)


# ---- pages


async def test_pages_are_joined_by_their_cursor(profile):
    keys = sorted(["a", "a\x01", "aa", "b", "é", "\U0001f600"])
    for key in keys:
        await kv.put(profile, "n", key, key.encode())
    await kv.put(profile, "n", "ab", b"", ttl_s=0)

    seen, after = [], None
    for _ in keys:
        page = (await kv.page(profile, "n", after=after, limit=2)).value
        seen += page["keys"]
        after = page["next_cursor"]
        if after is None:
            break

    assert seen == keys
    assert (await kv.page(profile, "n", prefix="a", after="a", limit=9)).value == {
        "keys": ["a\x01", "aa"],
        "next_cursor": None,
    }
    assert (await kv.page(profile, "n", prefix="b", after="a")).value["keys"] == ["b"]
    assert (await kv.page(profile, "n", prefix="a", after="b")).value["keys"] == []


async def test_a_page_shows_what_stands_under_the_keys(profile, plain):
    tags = [
        (await kv.put(profile, "n", "a", "text é".encode(), metadata='{"x":[1]}', ttl_s=2)).value,
        (await kv.put(profile, "n", "b", b"\xff\x00")).value,
        (await kv.put(profile, "n", "c", b"nul\x00")).value,
    ]

    shown = plain((await kv.page(profile, "n", with_values=True)).value)["entries"]
    bare = plain((await kv.page(profile, "n", with_metadata=True)).value)["entries"]

    assert shown == [
        {
            "key": "a",
            "etag": tags[0],
            "size_bytes": 7,
            "metadata": {"x": [1]},
            "expires_at": profile.now_ms + 2000,
            "value": "text é",
        },
        {
            "key": "b",
            "etag": tags[1],
            "size_bytes": 2,
            "metadata": None,
            "expires_at": None,
            "value": {"$base64": "/wA="},
        },
        {
            "key": "c",
            "etag": tags[2],
            "size_bytes": 4,
            "metadata": None,
            "expires_at": None,
            "value": {"$base64": "bnVsAA=="},
        },
    ]
    assert bare == [{name: value for name, value in entry.items() if name != "value"} for entry in shown]


async def test_a_page_of_large_values_ends_early_and_goes_on(profile):
    for key in "abcd":
        await kv.put(profile, "n", key, b"x" * 3_000_000)
    await kv.put(profile, "n", "big", b"x" * 9_000_000)

    pages, after = [], None
    while True:
        page = (await kv.page(profile, "n", after=after, with_values=True)).value
        pages.append([entry["key"] for entry in page["entries"]])
        after = page["next_cursor"]
        if after is None:
            break

    assert pages == [["a"], ["b"], ["big"], ["c"], ["d"]]
    assert profile.works[-1] == ("read", Work.SCAN)


async def test_keys_alone_are_listed_in_proportion_to_the_file(profile):
    await kv.put(profile, "n", "a", b"v")

    assert (await kv.page(profile, "n")).value["keys"] == ["a"]

    assert profile.works[-1] == ("read", Work.SCAN)


async def test_a_cursor_is_checked_like_a_key(profile):
    for bad in ("", "a\0", "a" * 1025, "\ud800"):
        with pytest.raises(InvalidRequestError):
            await kv.page(profile, "n", after=bad)
