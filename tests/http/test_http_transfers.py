"""Export and import over the API, on a whole node in memory."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from http_support import client_of, limits
from test_http_routes import FACT, FACT_ID, created, failure, ingest, stamps

from memoturnd.engine import transfers
from memoturnd.http.app import create_app

IMPORT = "/v1/databases/copy/import"


def left_behind(tmp_path):
    folder = tmp_path / "transfers"
    return list(folder.iterdir()) if folder.exists() else []


def saved(tmp_path, data, name="export.db"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def query(path, sql):
    """Ask the standard library's SQLite, which has none of our extensions."""
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(sql).fetchall()


async def everything(client, db):
    """What the API shows of a database, in every surface."""
    ns, _, profile = db.partition("--")
    recalled = await client.post(
        f"/v1/memory/{ns}/{profile}/recall", json={"query": "dark", "embedding": [1, 0]}
    )
    shown = [
        await client.get(f"/v1/memory/{ns}/{profile}/memories/{FACT_ID}"),
        await client.get(f"/v1/memory/{ns}/{profile}/sessions"),
        await client.get(f"/v1/db/{db}/memory/s/turns"),
        await client.get(f"/v1/db/{db}/kv/ns"),
        await client.post(f"/v1/db/{db}/sql", json={"stmts": [{"q": "SELECT rowid, * FROM orders"}]}),
        await client.post(f"/v1/db/{db}/sql", json={"stmts": [{"q": "SELECT * FROM near"}]}),
    ]
    assert {answer.status_code for answer in shown} == {200}, [answer.text for answer in shown]
    keys = [(await client.get(f"/v1/db/{db}/kv/ns/{key}")).content for key in shown[3].json()["keys"]]
    without_txids = [{k: v for k, v in answer.json().items() if k != "txid"} for answer in shown]
    return without_txids, recalled.json()["memories"], keys


@pytest.fixture
async def rich(client):
    """A profile with something in every surface."""
    await ingest(
        client, {**FACT, "session_id": "s", "embedding": [1, 0]}, {"type": "event", "summary": "dark night"}
    )
    await client.put("/v1/db/app--ann/kv/ns/k", content=b"\x00\xff")
    await client.post(
        "/v1/db/app--ann/memory/s/turns", json={"role": "user", "content": "hi", "embedding": [0, 1]}
    )
    batch = [
        "CREATE TABLE orders(total)", "INSERT INTO orders VALUES (1), (2), (3)", "DELETE FROM orders WHERE total = 1",
        "CREATE VIRTUAL TABLE near USING vec0(e float[2])", "INSERT INTO near(rowid, e) VALUES (5, '[1, 0]')",
    ]  # fmt: skip
    answer = await client.post("/v1/db/app--ann/sql", json={"stmts": [{"q": q} for q in batch]})
    assert answer.status_code == 200, answer.text
    return "app--ann"


async def test_export_is_one_plain_sqlite_file(client, rich, tmp_path):
    answer = await client.get(f"/v1/db/{rich}/export")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/vnd.sqlite3")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert stamps(answer) == (5, 5)
    path = saved(tmp_path, answer.content)
    assert query(path, "SELECT total FROM orders") == [(2,), (3,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]
    assert query(path, "SELECT txid FROM __memoturn_meta") == [(5,)]
    assert not path.with_name("export.db-wal").exists()
    assert left_behind(tmp_path) == []


async def test_export_comes_back_exactly_as_another_database(client, rich):
    exported = await client.get(f"/v1/db/{rich}/export")

    made = await client.put("/v1/databases/app--copy/import", content=exported.content)

    assert (made.status_code, made.headers["memoturn-durability"]) == (201, "durable")
    assert set(made.json()) == {"name", "branch", "uuid", "created_at", "txid"}
    assert stamps(made) == (5, 5)
    assert await everything(client, "app--copy") == await everything(client, rich)
    assert [row["profile"] for row in (await client.get("/v1/memory/app")).json()["profiles"]] == [
        "ann",
        "copy",
    ]


async def test_imported_database_is_written_shipped_forked_and_rewound_like_any_other(client, rich, node):
    exported = await client.get(f"/v1/db/{rich}/export")
    await client.put(IMPORT, content=exported.content)

    written = await client.put(
        "/v1/db/copy/kv/ns/k", content=b"new", headers={"Memoturn-Durability": "durable"}
    )
    forked = await client.post("/v1/db/copy/branches", json={"name": "old", "at": "5"})
    back = await client.post("/v1/db/copy/branches/main/rewind", json={"to": "5"})

    assert stamps(written) == (6, 6)
    assert (forked.status_code, back.status_code) == (201, 200)
    assert (await client.get("/v1/db/copy@old/kv/ns/k")).content == b"\x00\xff"
    assert (await client.get("/v1/db/copy/kv/ns/k")).content == b"\x00\xff"
    assert (await client.get(f"/v1/db/{rich}/kv/ns/k")).content == b"\x00\xff"


async def test_past_states_and_branches_are_exported(client, tmp_path):
    db = await created(client)
    first, _ = stamps(await client.put(f"{db}/kv/ns/k", content=b"1"))
    await client.post(f"{db}/branches/main/checkpoint", json={"name": "one"})
    await client.put(f"{db}/kv/ns/k", content=b"2")
    await client.post(f"{db}/branches", json={"name": "side", "at": "one"})
    await client.put(f"{db}@side/kv/ns/k", content=b"3")

    values = {}
    for suffix in ("", "?at=one", f"?at={first}", "?at=head~1", "@side"):
        path, _, at = suffix.partition("?")
        answer = await client.get(f"{db}{path}/export?{at}")
        file = saved(tmp_path, answer.content, "one.db")
        values[suffix] = query(file, "SELECT v FROM __memoturn_kv"), stamps(answer)[0]

    assert values == {
        "": ([(b"2",)], first + 1),
        "?at=one": ([(b"1",)], first),
        f"?at={first}": ([(b"1",)], first),
        "?at=head~1": ([(b"1",)], first),
        "@side": ([(b"3",)], first + 1),
    }


async def test_export_of_a_database_never_written_is_an_empty_profile_and_writes_nothing(
    client, node, tmp_path
):
    db = await created(client)

    answer = await client.get(f"{db}/export")

    assert stamps(answer) == (0, 0)
    assert query(saved(tmp_path, answer.content), "SELECT count(*) FROM __memoturn_memories") == [(0,)]
    assert [info.key async for info in node._services.store.list("v1/") if "_catalog" not in info.key] == []
    assert (await client.put(IMPORT, content=answer.content)).json()["txid"] == 1


async def test_export_names_what_is_not_there(client, rich):
    assert failure(await client.get("/v1/db/nothing/export")) == (404, "database_not_found")
    assert failure(await client.get(f"/v1/db/{rich}@nothing/export")) == (404, "branch_not_found")
    assert failure(await client.get(f"/v1/db/{rich}/export?at=never")) == (404, "branch_not_found")
    assert failure(await client.get(f"/v1/db/{rich}/export?at=99")) == (409, "conflict")
    db = await created(client)
    assert failure(await client.get(f"{db}/export?at=1")) == (409, "conflict")
    assert failure(await client.get(f"{db}/export?at=head~")) == (400, "invalid_request")
    assert (await client.get(f"{db}/export?at=head")).status_code == 200


async def test_head_of_an_export_has_its_length_and_no_body(client, rich, tmp_path):
    whole = await client.get(f"/v1/db/{rich}/export")
    head = await client.head(f"/v1/db/{rich}/export")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_import_of_a_foreign_file_gets_everything_that_a_profile_has(client, tmp_path):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE orders(total)")
        conn.execute("INSERT INTO orders VALUES (7)")
        conn.commit()

    made = await client.put("/v1/databases/app--ann/import", content=path.read_bytes())

    assert (made.status_code, stamps(made)) == (201, (1, 1))
    rows = await client.post("/v1/db/app--ann/sql", json={"stmts": [{"q": "SELECT total FROM orders"}]})
    assert rows.json()["results"][0]["rows"] == [[7]]
    assert stamps(await ingest(client, FACT))[0] == 2
    assert (await client.post("/v1/memory/app/ann/recall", json={"query": "dark"})).json()["memories"]


async def test_file_becomes_a_branch_of_a_database_that_is_there(client, rich, node):
    exported = (await client.get(f"/v1/db/{rich}/export")).content
    db = await created(client)
    await client.put(f"{db}/kv/ns/k", content=b"main")

    made = await client.put("/v1/databases/notes/import?branch=side&ttl=60", content=exported)
    again = await client.put("/v1/databases/notes/import?branch=side", content=exported)

    assert (made.status_code, made.json()["branch"], stamps(made)) == (201, "side", (5, 5))
    assert failure(again) == (409, "already_exists")
    assert (await client.get(f"{db}@side/kv/ns/k")).content == b"\x00\xff"
    assert (await client.get(f"{db}/kv/ns/k")).content == b"main"
    (row,) = (await client.get(f"{db}/branches")).json()["branches"]
    assert (row["branch"], row["parent"], row["fork_txid"]) == ("side", "main", 0)
    assert row["ttl_at"] == row["created_at"] + 60_000
    assert stamps(await client.put(f"{db}@side/kv/ns/k", content=b"new"))[0] == 6
    assert (await client.delete(f"{db}/branches/side")).status_code == 204
    assert (await client.put("/v1/databases/notes/import?branch=side", content=exported)).status_code == 201


async def test_branches_are_imported_into_databases_that_exist_and_only_they_end(client, rich):
    exported = (await client.get(f"/v1/db/{rich}/export")).content

    async def refused(query, name="nothing"):
        return failure(await client.put(f"/v1/databases/{name}/import?{query}", content=exported))

    assert await refused("branch=side") == (404, "database_not_found")
    assert await refused("branch=Bad!") == (400, "invalid_request")
    assert await refused("ttl=5") == (400, "invalid_request")
    assert await refused("branch=b&ttl=8000000000001", rich) == (400, "invalid_request")
    assert await refused("branch=main", rich) == (409, "already_exists")


async def test_import_under_a_name_that_is_taken_is_refused_before_the_file_is_sent(client, rich, tmp_path):
    sent = []

    async def chunks():
        sent.append(1)
        yield b"x"

    answer = await client.put(f"/v1/databases/{rich}/import", content=chunks())

    assert failure(answer) == (409, "already_exists")
    assert sent == []


async def test_two_imports_of_one_name_make_one_database_and_leave_nothing_else(client, rich, node):
    exported = (await client.get(f"/v1/db/{rich}/export")).content
    before = {info.key async for info in node._services.store.list("v1/")}

    answers = await asyncio.gather(*(client.put(IMPORT, content=exported) for _ in range(2)))

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    made = next(answer.json()["uuid"] for answer in answers if answer.status_code == 201)
    added = {info.key async for info in node._services.store.list("v1/")} - before
    assert {key.split("/")[1] for key in added} == {made}
    assert len(added) == 3


@pytest.mark.parametrize("name", ["Upper", "a--b--c", "a@main", "a.b"])
async def test_import_takes_names_of_databases_and_profiles_only(client, name):
    assert failure(await client.put(f"/v1/databases/{name}/import", content=b"x")) == (400, "invalid_request")


async def test_file_that_is_refused_leaves_nothing_behind(client, node, tmp_path):
    before = [info.key async for info in node._services.store.list("v1/")]

    assert failure(await client.put(IMPORT, content=b"no database")) == (400, "invalid_request")
    assert failure(await client.put(IMPORT)) == (400, "invalid_request")

    assert failure(await client.get("/v1/db/copy/export")) == (404, "database_not_found")
    assert [info.key async for info in node._services.store.list("v1/")] == before
    assert left_behind(tmp_path) == []


async def test_file_over_the_limit_is_refused_and_nothing_of_it_kept(node, tmp_path):
    async def chunks():
        for _ in range(20):
            yield b"x" * 65536

    async with client_of(create_app(node, limits(max_import_bytes=1 << 20))) as client:
        declared = await client.put(IMPORT, content=b"x" * ((1 << 20) + 1))
        streamed = await client.put(IMPORT, content=chunks())

    assert failure(declared) == failure(streamed) == (413, "payload_too_large")
    assert "MEMOTURN_MAX_IMPORT_BYTES" in streamed.json()["error"]
    assert left_behind(tmp_path) == []


async def test_encoded_file_is_refused(client):
    answer = await client.put(IMPORT, content=b"x", headers={"Content-Encoding": "gzip"})

    assert failure(answer) == (415, "unsupported_media_type")


async def test_transfers_at_once_are_bounded_and_the_next_is_told_to_come_back(client, rich, node):
    held = [await node.transfers.export(rich, "main", None) for _ in range(transfers.AT_ONCE)]

    refused = [await client.get(f"/v1/db/{rich}/export"), await client.put(IMPORT, content=b"x")]
    held[0].close()
    held[0].close()
    after = [await client.get(f"/v1/db/{rich}/export") for _ in range(2)]
    for file in held:
        file.close()

    assert [failure(answer) for answer in refused] == [(429, "overloaded")] * 2
    assert all(answer.headers["retry-after"] for answer in refused)
    assert [answer.status_code for answer in after] == [200, 200]


async def test_export_whose_objects_were_let_go_meanwhile_looks_at_the_manifest_again(
    client, rich, node, tmp_path
):
    profile = await node.branches.find(rich)
    await profile.owned.shipper.ship()
    stale = await profile.manifests.load()
    await profile.owned.shipper.snapshot()
    for ref in stale.segments:
        await profile.services.store.delete(f"v1/{stale.db}/branches/{ref.branch}/segments/{ref.key_name}")
    answers = []
    for revision in ("", f"?at={stale.head_txid}"):
        profile.manifests._current = stale  # what it still names is gone
        answers.append(await client.get(f"/v1/db/{rich}/export{revision}"))

    assert [answer.status_code for answer in answers] == [200, 200]
    path = saved(tmp_path, answers[0].content)
    assert query(path, "SELECT sum(total) FROM orders") == [(5,)]
    assert left_behind(tmp_path) == []


async def test_what_a_killed_process_left_half_done_is_swept_at_the_start(tmp_path):
    from http_support import running_node

    (tmp_path / "transfers" / "abc").mkdir(parents=True)
    (tmp_path / "transfers" / "abc" / "received.db").write_bytes(b"x")

    async with running_node(tmp_path):
        assert left_behind(tmp_path) == []
