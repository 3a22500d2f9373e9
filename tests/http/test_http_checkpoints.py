"""The listing of checkpoints: whole, in pages, and by the client."""

import threading

import pytest
from test_http_routes import created, failure

from memoturnd.http import branches


@pytest.fixture
async def listing(client):
    """The path of the listing of a branch with eight checkpoints, two on each of four commits."""
    db = await created(client)
    for name in ("b", "a:1", "z.9-_", "c"):
        await client.put(f"{db}/kv/ns/k", content=name.encode())
        for spelt in (f"{name}2", name):
            await client.post(f"{db}/branches/main/checkpoint", json={"name": spelt})
    return f"{db}/branches/main/checkpoints"


async def test_pages_are_the_whole_listing_by_txid_and_name(client, listing):
    whole = (await client.get(listing)).json()
    pages, query = [], "limit=3"
    while query:
        page = (await client.get(f"{listing}?{query}")).json()
        pages.append(page["checkpoints"])
        query = page["next_cursor"] and f"limit=3&cursor={page['next_cursor']}"

    assert set(whole) == {"checkpoints"}, "who asks for no page gets all, as ever"
    names = [row["checkpoint"] for row in whole["checkpoints"]]
    assert names == ["b", "b2", "a:1", "a:12", "z.9-_", "z.9-_2", "c", "c2"]
    assert [len(page) for page in pages] == [3, 3, 2]
    assert [row for page in pages for row in page] == whole["checkpoints"]


async def test_cursor_without_a_limit_has_what_is_behind_it_and_stays_right_when_names_go(client, listing):
    first = (await client.get(f"{listing}?limit=2")).json()
    await client.delete(f"{listing}/b2")

    rest = (await client.get(f"{listing}?cursor={first['next_cursor']}")).json()

    assert [row["checkpoint"] for row in rest["checkpoints"]] == ["a:1", "a:12", "z.9-_", "z.9-_2", "c", "c2"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("query", ["cursor=x", "cursor=5", "cursor=", "cursor=5.", "limit=-1", "limit=x"])
async def test_bad_page_is_refused(client, listing, query):
    assert failure(await client.get(f"{listing}?{query}")) == (400, "invalid_request")


async def test_long_listing_is_encoded_on_a_thread(client, listing, monkeypatch):
    threads, plain = [], branches._listed

    def listed(*args):
        threads.append(threading.get_ident())
        return plain(*args)

    monkeypatch.setattr(branches, "_listed", listed)
    short = (await client.get(listing)).json()
    monkeypatch.setattr(branches, "MAX_LIMIT", 7)
    long = (await client.get(listing)).json()

    assert long == short
    assert threads[0] == threading.get_ident() != threads[1]
