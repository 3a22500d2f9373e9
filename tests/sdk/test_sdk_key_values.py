"""Key-values through both clients, with a token for them alone."""

import time

import pytest
from memoturn import ConflictError, PreconditionFailedError


@pytest.fixture
async def kv(api):
    return (await api.of_database("write", "kv")).kv


async def test_values_are_text_or_bytes(kv):
    txid = await kv.put("n", "a/b", b"\x00\xff")
    await kv.put("n", "..", "grüezi")

    assert await kv.get("n", "a/b") == b"\x00\xff"
    assert await kv.get("n", "..") == "grüezi".encode()
    assert await kv.get_text("n", "..") == "grüezi"
    assert await kv.get("n", "none") is None
    assert await kv.get_text("n", "none") is None
    assert await kv.get("n", "..", at=txid) is None
    assert await kv.delete("n", "a/b") > txid
    assert await kv.get("n", "a/b") is None


async def test_an_entry_has_an_etag_metadata_and_an_end(kv):
    before_ms = time.time() * 1000
    stored = await kv.put_entry("n", "k", "v", ttl=100, metadata={"of": "ä"})

    entry = await kv.get_entry("n", "k")
    assert entry["etag"] == stored["etag"] != ""
    assert (entry["key"], entry["value"], entry["size_bytes"]) == ("k", b"v", 1)
    assert entry["metadata"] == {"of": "ä"}
    assert abs(entry["expires_at"] - before_ms - 100_000) < 60_000
    plain = await kv.put_entry("n", "plain", b"")
    assert await kv.get_entry("n", "plain") == {
        "key": "plain",
        "value": b"",
        "etag": plain["etag"],
        "size_bytes": 0,
        "metadata": None,
        "expires_at": None,
    }
    assert await kv.get_entry("n", "none") is None


async def test_conditions(kv):
    first = (await kv.put_entry("n", "k", "1", if_none_match="*"))["etag"]
    with pytest.raises(PreconditionFailedError):
        await kv.put("n", "k", "2", if_none_match="*")
    second = (await kv.put_entry("n", "k", "2", if_match=first))["etag"]
    with pytest.raises(PreconditionFailedError):
        await kv.put("n", "k", "3", if_match=first)
    with pytest.raises(PreconditionFailedError):
        await kv.delete("n", "k", if_match=first)
    with pytest.raises(PreconditionFailedError):
        await kv.get_entry("n", "k", if_match=first)

    unchanged = await kv.get_entry("n", "k", if_none_match=second)

    assert (unchanged["etag"], "value" in unchanged) == (second, False)
    assert (await kv.get_entry("n", "k", if_none_match=first))["value"] == b"2"
    await kv.delete("n", "k", if_match=second)
    assert await kv.get("n", "k") is None


async def test_numbers_are_incremented(kv):
    assert (await kv.increment("n", "visits"))["value"] == 1
    assert (await kv.increment("n", "visits", 41, ttl=60))["value"] == 42
    down = await kv.increment("n", "visits", -2)

    assert (down["value"], down["etag"]) == (40, (await kv.get_entry("n", "visits"))["etag"])
    assert await kv.get("n", "visits") == b"40"
    await kv.put("n", "word", "x")
    with pytest.raises(ConflictError):
        await kv.increment("n", "word")


async def test_a_batch_is_one_commit(kv):
    await kv.put("n", "old", b"\x00", metadata={"a": 1})

    result = await kv.batch(
        "n",
        gets=["old", "none"],
        puts=[
            {"key": "new", "value": b"\xfe", "ttl": 60, "metadata": {"b": 2}},
            {"key": "t", "value": "text"},
            {"key": "nul", "value": "a\0b"},
        ],
        deletes=["old", {"key": "none", "if_none_match": "*"}],
    )

    assert [(got["status"], got.get("value")) for got in result["gets"]] == [
        ("found", b"\x00"),
        ("absent", None),
    ]
    assert result["gets"][0]["metadata"] == {"a": 1}
    assert [put["status"] for put in result["puts"]] == ["stored"] * 3
    assert await kv.get("n", "nul") == b"a\0b"
    assert [gone["status"] for gone in result["deletes"]] == ["deleted", "absent"]
    assert await kv.get("n", "new") == b"\xfe"
    refused = [{"key": "new", "value": "x", "if_none_match": "*"}, {"key": "u", "value": "y"}]
    with pytest.raises(PreconditionFailedError):
        await kv.batch("n", puts=refused)
    assert await kv.get("n", "u") is None
    partial = await kv.batch("n", puts=refused, partial=True)
    assert [put["status"] for put in partial["puts"]] == ["precondition_failed", "stored"]
    assert partial["puts"][0]["etag"] == result["puts"][0]["etag"]


async def test_listings(kv):
    await kv.batch("n", puts=[{"key": f"k{number:04}", "value": b"\xff"} for number in range(1000)])
    await kv.put("n", "k9999", "text", metadata={"a": 1})
    await kv.put("n", "other", "")

    assert await kv.list("n", prefix="k", limit=2) == ["k0000", "k0001"]
    keys = [key async for key in kv.iter_keys("n", prefix="k")]
    assert (len(keys), keys[-1]) == (1001, "k9999")
    assert [key async for key in kv.iter_keys("n", limit=1)] == ["k0000"]
    entries = [entry async for entry in kv.iter_entries("n", prefix="k")]
    assert [entries[0]["value"], entries[-1]["value"]] == [b"\xff", b"text"]
    assert entries[-1]["metadata"] == {"a": 1}
    (bare,) = [entry async for entry in kv.iter_entries("n", prefix="o", values=False)]
    assert (bare["key"], bare["size_bytes"], "value" in bare) == ("other", 0, False)
