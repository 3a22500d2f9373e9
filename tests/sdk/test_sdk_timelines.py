"""Timelines through both clients, with a token for timelines alone."""

from datetime import UTC, datetime

import pytest
from memoturn import InvalidRequestError

DAY = datetime(2026, 11, 1, tzinfo=UTC)
T0 = int(DAY.timestamp() * 1000)


@pytest.fixture
async def db(api):
    return await api.of_database("write", "timelines")


@pytest.fixture
async def calls(db):
    timeline = db.timeline("calls")
    appended = await timeline.append_many(
        [{"key": f"tool{n % 2}", "at": T0 + 1000 * n, "data": {"ms": n}} for n in range(6)]
    )
    assert (appended["appended"], appended["first_seq"], appended["last_seq"]) == (6, 1, 6)
    return timeline


async def test_rows_are_queried_by_key_time_and_content(calls):
    assert (await calls.append("late", {"ms": None}, at=DAY))["last_seq"] == 7
    await calls.append("now")

    newest = await calls.query(limit=2)
    window = await calls.query(since=DAY, until=T0 + 2000, order="asc")

    assert [row["key"] for row in newest] == ["now", "tool1"]
    assert newest[0]["data"] is None
    assert [(row["key"], row["at"], row["seq"]) for row in window] == [
        ("tool0", T0, 1),
        ("late", T0, 7),
        ("tool1", T0 + 1000, 2),
    ]
    assert [row["data"]["ms"] for row in await calls.query(key="tool1")] == [5, 3, 1]
    assert len(await calls.query(keys=["tool0", "late"])) == 4
    assert [row["at"] for row in await calls.query(filter={"ms": {"$gt": 4}})] == [T0 + 5000]
    with pytest.raises(InvalidRequestError, match="no zone"):
        await calls.query(since=datetime(2026, 11, 1))  # noqa: DTZ001 - that is what is refused


async def test_an_iterator_goes_through_all_pages(calls):
    await calls.append_many([{"key": "many", "at": T0, "data": n} for n in range(1001)])

    rows = [row["data"] async for row in calls.iter_rows(key="many", order="asc")]

    assert rows == list(range(1001))
    assert [row["seq"] async for row in calls.iter_rows(limit=2, order="asc", keys=["tool0"])] == [1, 3]


async def test_aggregates(calls):
    (total,) = await calls.aggregate("ms")
    windows = await calls.aggregate("ms", window_ms=3000, order="asc")
    by_key = await calls.aggregate(by_key=True, since=T0 + 1000)

    assert (total["at"], total["count"], total["sum"], total["average"], total["last"]) == (
        None,
        6,
        15,
        2.5,
        5,
    )
    assert [(window["at"], window["sum"]) for window in windows] == [(T0, 3), (T0 + 3000, 12)]
    assert [(window["key"], window["count"]) for window in by_key] == [("tool0", 2), ("tool1", 3)]


async def test_retention_info_listing_and_deletion(db, calls):
    retained = await calls.set_retention(retention_rows=1)

    assert (retained["retention_rows"], retained["retention_s"]) == (1, None)
    info = await calls.info()
    assert (info["name"], info["rows"], info["keys"], info["newest"]) == ("calls", 2, 2, T0 + 5000)
    assert [row["name"] async for row in db.iter_timelines()] == ["calls"]
    await calls.delete()
    assert await calls.info() is None
    assert [row async for row in db.iter_timelines(limit=5)] == []
