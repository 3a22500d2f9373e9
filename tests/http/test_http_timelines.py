"""Timelines over a whole node: statuses and shapes, and what branches, the past and sweeps make of them."""

import asyncio

from http_calls import created, failure, stamps


async def appended(client, path, *rows, **headers):
    answer = await client.post(f"{path}/rows", json={"rows": list(rows)}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer


async def shown(client, path, **params):
    answer = await client.post(f"{path}/query", json={"order": "asc"}, params=params)
    assert answer.status_code == 200, answer.text
    return [row["data"] for row in answer.json()["rows"]]


async def test_rows_are_appended_queried_and_aggregated(client):
    db = await created(client)
    path = f"{db}/timelines/tool-calls"

    one = await client.post(f"{path}/rows", json={"key": "search", "at": 1000, "data": {"ms": 7}})
    batch = await appended(
        client,
        path,
        {"key": "search", "at": 1500, "data": {"ms": 9}},
        {"key": "fetch", "at": 500, "data": {"ms": 2}},
    )
    found = await client.post(f"{path}/query", json={"key": "search", "limit": 1})
    windows = await client.post(
        f"{path}/query",
        json={"order": "asc", "aggregate": {"path": "ms", "window_ms": 1000, "by_key": True}},
    )

    assert (one.status_code, one.json()["txid"]) == (201, stamps(one)[0])
    assert batch.json() == {
        "appended": 2,
        "expired": 0,
        "first_seq": 2,
        "last_seq": 3,
        "txid": stamps(batch)[0],
    }
    assert found.json() == {
        "rows": [{"key": "search", "at": 1500, "seq": 2, "data": {"ms": 9}}],
        "next_cursor": "1500-2",
    }
    numbers = {"count": 1, "numbers": 1, "sum": 2, "min": 2, "max": 2, "average": 2.0, "last": 2}
    more = {"count": 2, "numbers": 2, "sum": 16, "min": 7, "max": 9, "average": 8.0, "last": 9}
    assert windows.json() == {
        "windows": [{"at": 0, "key": "fetch", **numbers}, {"at": 1000, "key": "search", **more}],
        "next_cursor": None,
    }


async def test_timelines_are_listed_bounded_and_deleted(client):
    db = await created(client)
    for name in ("b", "A", "a"):
        await appended(client, f"{db}/timelines/{name}", {"key": "k", "at": 7})

    first = (await client.get(f"{db}/timelines?limit=2")).json()
    second = (await client.get(f"{db}/timelines", params={"cursor": first["next_cursor"]})).json()
    put = await client.put(f"{db}/timelines/a", json={"retention_s": 60})
    one = (await client.get(f"{db}/timelines/a")).json()
    gone = await client.delete(f"{db}/timelines/a")

    assert [row["name"] for row in first["timelines"] + second["timelines"]] == ["A", "a", "b"]
    assert second["next_cursor"] is None
    assert first["timelines"][0] == {
        "name": "A",
        "created_at": first["timelines"][0]["created_at"],
        "rows": 1,
        "keys": 1,
        "oldest": 7,
        "newest": 7,
        "retention_s": None,
        "retention_rows": None,
    }
    assert put.json() == {
        "name": "a",
        "created_at": one["created_at"],
        "retention_s": 60,
        "retention_rows": None,
        "txid": stamps(put)[0],
    }
    assert (one["rows"], one["keys"], one["oldest"], one["retention_s"]) == (0, 0, None, 60)
    assert gone.status_code == (await client.delete(f"{db}/timelines/a")).status_code == 204
    assert failure(await client.get(f"{db}/timelines/a")) == (404, "not_found")
    assert await shown(client, f"{db}/timelines/a") == []


async def test_appends_at_once_are_all_there_each_with_a_number_of_its_own(client):
    path = f"{await created(client)}/timelines/t"

    answers = await asyncio.gather(
        *(
            appended(client, path, *({"key": f"k{n % 3}", "data": [n, m]} for m in range(5)))
            for n in range(40)
        )
    )

    numbers = [n for a in answers for n in range(a.json()["first_seq"], a.json()["last_seq"] + 1)]
    assert sorted(numbers) == list(range(1, 201))
    page = (await client.post(f"{path}/query", json={"limit": 1000})).json()["rows"]
    assert sorted(row["data"] for row in page) == [[n, m] for n in range(40) for m in range(5)]


async def test_a_repeated_append_takes_effect_once(client):
    path = f"{await created(client)}/timelines/t"

    first = await appended(client, path, {"key": "k", "data": 1}, **{"Idempotency-Key": "one"})
    again = await appended(client, path, {"key": "k", "data": 1}, **{"Idempotency-Key": "one"})

    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert await shown(client, path) == [1]


async def test_forks_the_past_and_rewinds_have_their_own_rows(client):
    db = await created(client)
    path = f"{db}/timelines/t"
    before, _ = stamps(await client.put(f"{db}/kv/ns/k", content=b"x"))
    first, _ = stamps(await appended(client, path, {"key": "k", "at": 1, "data": "first"}))
    fork = await client.post(f"{db}/branches", json={"name": "f"})
    assert fork.status_code == 201
    await appended(client, path, {"key": "k", "at": 2, "data": "on main"})
    await appended(client, f"{db}@f/timelines/t", {"key": "k", "at": 2, "data": "on the fork"})

    assert await shown(client, path) == ["first", "on main"]
    assert await shown(client, f"{db}@f/timelines/t") == ["first", "on the fork"]
    assert await shown(client, path, at=first) == ["first"]
    assert await shown(client, path, at=before) == []
    assert (await client.get(f"{db}/timelines?at={before}")).json()["timelines"] == []

    # Back to where there were no timelines at all, and on from there.
    back = await client.post(f"{db}/branches/main/rewind", json={"to": str(before)})
    assert back.status_code == 200, back.text
    assert await shown(client, path) == []
    assert (await client.delete(path)).status_code == 204
    assert (await appended(client, path, {"key": "k", "data": "new"})).json()["first_seq"] == 1
    assert await shown(client, path) == ["new"]


async def test_an_export_with_timelines_comes_back(client):
    db = await created(client)
    path = f"{db}/timelines/t"
    await appended(client, path, *({"key": f"k{n % 2}", "at": n, "data": n} for n in range(100)))
    await client.put(path, json={"retention_rows": 10})

    exported = await client.get(f"{db}/export")
    taken = await client.put("/v1/databases/copy/import", content=exported.content)

    assert taken.status_code == 201, taken.text
    assert await shown(client, "/v1/db/copy/timelines/t") == list(range(80, 100))
    more = await appended(client, "/v1/db/copy/timelines/t", {"key": "k0", "at": 200, "data": "new"})
    assert more.json()["first_seq"] == 101
    assert await shown(client, "/v1/db/copy/timelines/t") == [81, *range(82, 100), "new"]


async def test_sweeps_remove_what_is_past_retention_some_at_a_time(client, node):
    db = await created(client)
    path = f"{db}/timelines/t"
    await appended(client, path, *({"key": f"k{n % 3}", "at": n, "data": n} for n in range(3000)))
    await client.put(path, json={"retention_rows": 10})
    before, _ = stamps(await client.get(path))

    await node.housekeeping.sweep_rows()

    profile = await node.profile("notes")
    stored = await profile.read(
        lambda conn, _: conn.execute("SELECT count(*) FROM __memoturn_timeline_rows").get
    )
    assert (stored.value, stored.txid) == (30, before + 6)
    assert await shown(client, path) == list(range(2970, 3000))
    await node.housekeeping.sweep_rows()
    assert stamps(await client.get(path))[0] == before + 6


async def test_users_cannot_reach_the_tables_of_timelines(client):
    db = await created(client)
    await appended(client, f"{db}/timelines/t", {"key": "k"})

    for q in ("SELECT * FROM __memoturn_timeline_rows", "DELETE FROM __memoturn_timelines"):
        answer = await client.post(f"{db}/sql", json={"stmts": [{"q": q}]})
        assert failure(answer) == (403, "forbidden")
