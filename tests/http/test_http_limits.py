"""Quotas, rates and usage over HTTP."""

import asyncio
import os
import re

import pytest
from auth_support import PLATFORM_KEY, guarded_node, mint, sender
from harness import HandClock
from http_calls import FACT, ingest
from http_support import client_of, limits, running_node

from memoturnd.core.limits import BURST_S, Owner, Quotas
from memoturnd.core.principal import Grant, Principal
from memoturnd.engine import accounts as accounts_module
from memoturnd.engine import metering
from memoturnd.errors import RetryableError
from memoturnd.http import limits as limits_module
from memoturnd.http.app import create_app
from memoturnd.seams.catalog import Use

APP = "/v1/namespaces/app/quotas"
TENANT = "/v1/tenants/default/quotas"
KEY = "/v1/db/app--ann/kv/ns/k"
NOTHING = {"requests_per_s": None, "writes_per_s": None, "bytes": None, "databases": None, "memories": None}


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
async def client(node, clock):
    async with client_of(create_app(node, limits(), clock=clock)) as client:
        yield client


async def set_quotas(client, path=APP, **quotas):
    answer = await client.put(path, json=quotas)
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_limited(answer, limit, *says):
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert answer.headers["memoturn-limit"] == limit
    assert int(answer.headers["retry-after"]) >= 1
    for part in says:
        assert part in answer.json()["error"]


async def statuses(client, count, method="GET", path=KEY, **request):
    return [(await client.request(method, path, **request)).status_code for _ in range(count)]


async def begin(client, value=b"x"):
    """Let there be app--ann, with a value under KEY."""
    await ingest(client, FACT)
    assert (await client.put(KEY, content=value)).status_code == 200


# ---- quotas


async def test_quotas_are_shown_with_what_holds_and_what_is_used(client):
    await ingest(client, FACT)

    shown = await set_quotas(client, requests_per_s=50, databases=3)

    assert shown == (await client.get(APP)).json()
    assert shown["namespace"] == "app"
    assert shown["quotas"] == shown["effective"] == {**NOTHING, "requests_per_s": 50.0, "databases": 3}
    assert shown["used"]["databases"] == 1
    assert (await set_quotas(client))["quotas"] == NOTHING
    assert (await client.get("/v1/namespaces/nobody/quotas")).json()["used"]["databases"] == 0


@pytest.mark.parametrize(
    "body",
    [{"requests_per_s": -1}, {"requests_per_s": "5"}, {"bytes": 1.5}, {"bytes": 2**53}, {"databases": True},
     {"writes_per_s": 1e9}, {"request_per_s": 5}, [], "x"],
)  # fmt: skip
async def test_what_is_no_quota_is_refused_and_changes_nothing(client, body):
    await set_quotas(client, databases=3)

    answer = await client.put(APP, json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert (await client.get(APP)).json()["quotas"] == {**NOTHING, "databases": 3}


async def test_defaults_of_the_settings_hold_for_who_has_no_quotas_of_his_own(tmp_path, clock):
    given = {"NAMESPACE_QUOTAS": "requests_per_s=1,databases=2", "TENANT_QUOTAS": "databases=3"}
    async with (
        running_node(tmp_path, **given) as node,
        client_of(create_app(node, limits(), clock=clock)) as client,
    ):
        assert (await client.get(APP)).json()["effective"] == {
            **NOTHING,
            "requests_per_s": 1.0,
            "databases": 2,
        }
        assert (await client.get(TENANT)).json()["effective"] == {**NOTHING, "databases": 3}
        assert await statuses(client, 3) == [404, 404, 429]
        await set_quotas(client, requests_per_s=1000)
        clock.at_s += 0.1
        assert await statuses(client, 3) == [404] * 3
        assert (await client.get(APP)).json()["effective"]["databases"] == 2


# ---- rates


async def test_a_namespace_beyond_its_rate_is_refused_until_time_has_passed(client, clock):
    await begin(client)
    await set_quotas(client, requests_per_s=5)

    assert await statuses(client, 11) == [200] * 10 + [429]
    answer = await client.get(KEY)
    assert_limited(answer, "requests_per_s", "namespace app", "5 requests per second", "this node")
    assert answer.headers["retry-after"] == "1"
    assert (await client.get("/v1/db/web--ann/kv/ns/k")).status_code == 404
    assert (await client.get("/v1/memory/app/bob/topics")).status_code == 429
    clock.at_s += 0.4
    assert await statuses(client, 3) == [200, 200, 429]


async def test_writes_have_a_rate_of_their_own_and_take_of_that_of_requests_too(client):
    await begin(client)
    await set_quotas(client, writes_per_s=1, requests_per_s=3)

    assert await statuses(client, 3, "PUT", content=b"y") == [200, 200, 429]
    assert_limited(await client.put(KEY, content=b"y"), "writes_per_s", "1 writes per second")
    assert await statuses(client, 5) == [200] * 4 + [429]


async def test_sql_counts_as_a_write(client):
    await begin(client)
    await set_quotas(client, writes_per_s=0.5)

    body = {"json": {"stmts": [{"q": "SELECT 1"}]}}
    assert await statuses(client, 2, "POST", "/v1/db/app--ann/sql", **body) == [200, 429]


async def test_a_refused_request_changes_nothing_and_its_body_is_not_read(client):
    await ingest(client, FACT)
    await set_quotas(client, writes_per_s=0)

    async def body():
        pytest.fail("the body was read")
        yield b""

    answer = await client.post(
        "/v1/memory/app/ann/memories", content=body(), headers={"Content-Type": "application/json"}
    )

    assert_limited(answer, "writes_per_s", "0 writes")
    assert answer.headers["retry-after"] == "60"


async def test_all_namespaces_of_a_tenant_share_its_rate_and_other_tenants_do_not(client):
    await set_quotas(client, TENANT, requests_per_s=1)

    assert await statuses(client, 1) == [404]
    assert await statuses(client, 1, path="/v1/db/web--ann/kv/ns/k") == [404]
    assert_limited(await client.get(KEY), "requests_per_s", "tenant default")
    assert_limited(await client.get("/v1/db/notes/kv/ns/k"), "requests_per_s", "tenant default")
    assert await statuses(client, 3, headers={"Memoturn-Tenant": "acme"}) == [404] * 3


async def test_a_request_that_one_limit_refuses_takes_of_no_other(client, clock):
    await begin(client)
    await set_quotas(client, requests_per_s=1)
    await set_quotas(client, TENANT, requests_per_s=2)

    assert await statuses(client, 5) == [200, 200, 429, 429, 429]
    assert await statuses(client, 3, path="/v1/db/web--ann/kv/ns/k") == [404, 404, 429]


@pytest.mark.parametrize(
    "path", ["/v1/db/NOT A NAME/kv/ns/k", "/v1/db/--x/kv/ns/k", "/v1/memory/NO/x/topics"]
)
async def test_names_that_are_not_valid_are_limited_with_their_tenant(client, node, path):
    await set_quotas(client, TENANT, requests_per_s=1)

    assert await statuses(client, 3, path=path) == [400, 400, 429]
    assert all(owner in {Owner("default"), Owner("default", "app")} for owner in node.accounts._known)


async def test_who_administers_is_not_limited(client):
    await set_quotas(client, requests_per_s=0)
    await set_quotas(client, TENANT, requests_per_s=0)

    assert await statuses(client, 1) == [429]
    assert (await client.get("/v1/databases")).status_code == 200
    await set_quotas(client, TENANT)
    await set_quotas(client)
    assert await statuses(client, 1) == [404]


class Bearer:
    """Lets everybody in as the bearer of one token."""

    def __init__(self, **grant):
        self.principal = Principal("token", grant=Grant("write", ns="app", **grant), token_id="tok_1")

    async def admit(self, route, call):
        return self.principal


async def test_a_token_has_rates_of_its_own(client, node, clock):
    await begin(client)
    bearer = Bearer(limits={"requests_per_s": 2, "writes_per_s": 1})
    async with client_of(create_app(node, limits(), clock=clock, admission=bearer)) as other:
        assert await statuses(other, 3, "PUT", content=b"y") == [200, 200, 429]
        assert await statuses(other, 3) == [200, 200, 429]
        assert_limited(await other.get(KEY), "requests_per_s", "token tok_1", "2 requests per second")
    assert await statuses(client, 9) == [200] * 9


async def test_a_token_that_only_reads_takes_nothing_of_the_writes_by_sql(client, node, clock):
    await begin(client)
    bearer = Bearer(limits={"writes_per_s": 0})
    bearer.principal = Principal(
        "token", grant=Grant("read", ns="app", limits={"writes_per_s": 0}), token_id="t"
    )
    async with client_of(create_app(node, limits(), clock=clock, admission=bearer)) as other:
        body = {"json": {"stmts": [{"q": "SELECT 1"}]}}
        assert await statuses(other, 3, "POST", "/v1/db/app--ann/sql", **body) == [200] * 3


async def test_rates_that_a_token_is_minted_with_hold_and_quotas_hold_for_tokens_too(tmp_path):
    async with guarded_node(tmp_path) as node, sender(node, PLATFORM_KEY) as operator:
        token = (await mint(operator, "namespaces/app", limits={"requests_per_s": 1}))["token"]
        free = (await mint(operator, "namespaces/app"))["token"]
        async with sender(node, token) as limited, sender(node, free) as unlimited:
            await ingest(unlimited, FACT)
            assert await statuses(limited, 3, path="/v1/memory/app/ann/topics") == [200, 200, 429]
            answer = await limited.get("/v1/memory/app/ann/topics")
            assert_limited(answer, "requests_per_s", "token ", "1 requests per second")
            assert token not in answer.text
            assert await statuses(unlimited, 5, path="/v1/memory/app/ann/topics") == [200] * 5
            assert (await unlimited.put(APP, json={"requests_per_s": 1000})).status_code == 403
            await set_quotas(operator, writes_per_s=0)
            batch = {"memories": [FACT]}
            answer = await unlimited.post("/v1/memory/app/ann/memories", json=batch)
            assert_limited(answer, "writes_per_s", "namespace app")


async def test_accounts_and_tokens_in_memory_are_bounded(client, node, clock, monkeypatch):
    monkeypatch.setattr(accounts_module, "ACCOUNTS_KEPT", 10)
    monkeypatch.setattr(limits_module, "TOKENS_KEPT", 5)
    for number in range(30):
        await client.get(f"/v1/db/ns{number}--ann/kv/ns/k")
    bearer = Bearer()
    app = create_app(node, limits(), clock=clock, admission=bearer)
    async with client_of(app) as other:
        for number in range(20):
            grant = Grant("write", ns="app", limits={"requests_per_s": 1})
            bearer.principal = Principal("token", grant=grant, token_id=f"t{number}")
            await other.get(KEY)

    assert len(node.accounts._known) == 10
    assert len(app.routes[0]._limiter._tokens) == 5


async def test_a_flood_of_refusals_is_slowed_down_and_a_few_are_not(client, clock):
    await set_quotas(client, requests_per_s=0)
    began_s = clock.at_s

    await statuses(client, 20)
    assert clock.at_s == began_s
    await statuses(client, 40)

    assert clock.at_s - began_s == pytest.approx(40 / limits_module.REFUSALS_PER_S, abs=0.2)


async def test_held_refusals_are_bounded_in_time_and_number(node, monkeypatch):
    monkeypatch.setattr(limits_module, "HELD_AT_ONCE", 10)
    monkeypatch.setattr(limits_module, "LONGEST_HOLD_S", 0.3)
    async with client_of(create_app(node, limits())) as client:
        await set_quotas(client, requests_per_s=0)
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(client.get(KEY)) for _ in range(60)]
        began_s = loop.time()
        _, pending = await asyncio.wait(tasks, timeout=0.15)
        assert 0 < len(pending) <= 10
        assert b"memoturn_http_refusals_held 0.0" not in node.metrics.render()
        await asyncio.wait(tasks)

        assert loop.time() - began_s < 1.0
        assert {task.result().status_code for task in tasks} == {429}
        assert b"memoturn_http_refusals_held 0.0" in node.metrics.render()


# ---- databases


async def test_databases_are_limited_however_they_are_created(client):
    await set_quotas(client, databases=1)
    await set_quotas(client, TENANT, databases=2)
    await ingest(client, FACT)

    answer = await client.post("/v1/memory/app/bob/memories", json={"memories": [FACT]})
    assert_limited(answer, "databases", "namespace app", "1 databases")
    assert (await client.post("/v1/databases", json={"name": "notes"})).status_code == 201
    assert_limited(
        await client.post("/v1/databases", json={"name": "more"}), "databases", "tenant default", "2"
    )
    file = (await client.get("/v1/db/app--ann/export")).content
    assert_limited(await client.put("/v1/databases/app--copy/import", content=file), "databases")
    assert (await client.get("/v1/memory/app")).json()["profiles"][0]["profile"] == "ann"
    await ingest(client, {**FACT, "summary": "more"})
    assert (await client.delete("/v1/databases/notes")).status_code == 204
    assert (await client.post("/v1/databases", json={"name": "more"})).status_code == 201


async def test_of_many_first_ingests_at_once_no_more_create_a_profile_than_may(client):
    await set_quotas(client, databases=4)

    async def first(number):
        path = f"/v1/memory/app/p{number % 10}/memories"
        return (await client.post(path, json={"memories": [FACT]})).status_code

    answers = await asyncio.gather(*map(first, range(40)))

    assert answers.count(201) == 16
    assert answers.count(429) == 24
    assert len((await client.get("/v1/memory/app")).json()["profiles"]) == 4


# ---- bytes and memories


async def test_a_full_namespace_takes_no_more_and_lets_go(client, node):
    await begin(client, os.urandom(5000))
    await client.post("/v1/db/app--ann/sync", json={})
    await node.meter.flush()
    await set_quotas(client, bytes=1000)

    assert_limited(await client.put(KEY, content=b"y"), "bytes", "namespace app", "quota of 1000")
    assert (await client.post("/v1/memory/app/ann/memories", json={"memories": [FACT]})).status_code == 429
    assert (await client.get(KEY)).status_code == 200
    assert (await client.post("/v1/db/app--ann/sync", json={})).status_code == 200
    assert (await client.delete(KEY)).status_code == 204
    assert (await client.put("/v1/db/web--ann/kv/ns/k", content=b"y")).status_code == 404


async def test_what_was_taken_since_the_last_count_is_counted_at_once(client, node):
    await ingest(client, FACT)
    await set_quotas(client, bytes=100_000)

    answers = await statuses(client, 6, "PUT", content=b"x" * 30_000)

    assert answers == [200, 200, 200, 200, 429, 429]


async def test_memories_are_limited_and_forgetting_makes_room(client, node):
    await set_quotas(client, memories=3)
    facts = [{**FACT, "topic_key": f"t{number}", "content": number} for number in range(9)]

    await ingest(client, *facts[:2])
    await ingest(client, facts[2])
    answer = await client.post("/v1/memory/app/ann/memories", json={"memories": [facts[3]]})
    assert_limited(answer, "memories", "namespace app", "quota of 3")
    assert (await client.put(KEY, content=b"y")).status_code == 200
    assert (await client.post("/v1/memory/app/ann/memories/forget", json={"all": True})).status_code == 200
    await counted(node)
    await ingest(client, *facts[3:5])


async def test_a_batch_overshoots_by_no_more_than_itself(client, node):
    await set_quotas(client, memories=10)
    facts = [{**FACT, "topic_key": f"t{number}", "content": number} for number in range(100)]
    await ingest(client, *facts[:9])
    await counted(node)

    await ingest(client, *facts[9:])
    answer = await client.post("/v1/memory/app/ann/memories", json={"memories": [facts[0]]})

    assert_limited(answer, "memories", "quota of 10", "(100)")


async def counted(node):
    """Let the node count and write down, and learn what came of it."""
    node.meter._flushed_s = -metering.PRUNE_S
    await node.meter.tick()
    for account in node.accounts._known.values():
        account.added_up_s = -1e9
    await node.accounts.refresh()


# ---- the catalog


async def test_quotas_set_elsewhere_hold_here_with_the_next_refresh(client, node):
    await begin(client)
    assert await statuses(client, 5) == [200] * 5

    await node.accounts._catalog.put_quotas(Owner("default", "app"), Quotas(requests_per_s=0.0))
    await node.accounts.refresh()

    assert await statuses(client, 1) == [429]


async def test_while_the_catalog_is_down_the_last_quotas_hold_and_counters_wait(client, node, monkeypatch):
    await ingest(client, FACT)
    await set_quotas(client, requests_per_s=5)
    await statuses(client, 3)
    catalog = node.accounts._catalog

    async def down(*arguments, **options):
        raise RetryableError("the catalog is down")

    with monkeypatch.context() as broken:
        for name in ("quotas_of", "quotas_changed", "totals_of", "add_usage", "add_sizes"):
            broken.setattr(catalog, name, down)
        await counted(node)
        assert await statuses(client, 8) == [404] * 7 + [429]
        assert await statuses(client, 1, path="/v1/db/web--x/kv/ns/k") == [404]
        assert b"memoturn_usage_failed_total 1.0" in node.metrics.render()

    await counted(node)
    [day] = (await client.get("/v1/databases/app--ann/usage")).json()["days"]
    assert (day["writes"], day["memories"]) == (1, 1)


# ---- usage


async def test_usage_counts_what_was_served(client, node):
    await ingest(client, FACT)
    await client.post("/v1/memory/app/ann/recall", json={"query": "dark"})
    await client.put(KEY, content=b"x" * 1000)
    await client.get(KEY)
    await client.get("/v1/db/app--ann/kv/ns/absent")
    await client.post("/v1/memory/app/ann/recall", json={"query": 5})
    await client.post("/v1/db/app--ann/sql", json={"stmts": [{"q": "SELECT 1"}]})
    await client.post("/v1/db/app--ann/sql", json={"stmts": [{"q": "CREATE TABLE t (a)"}]})
    await client.post("/v1/db/app--ann/sync", json={})
    await ingest(client, {**FACT, "content": 2}, path="/v1/memory/app/bob")
    await counted(node)
    await node.meter.flush()

    answer = (await client.get("/v1/databases/app--ann/usage")).json()
    [day] = answer["days"]
    assert (answer["database"], answer["next_cursor"]) == ("app--ann", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day["day"])
    assert {name: day[name] for name in ("requests", "reads", "writes", "recalls", "memories")} == {
        "requests": 7, "reads": 3, "writes": 4, "recalls": 1, "memories": 1,
    }  # fmt: skip
    assert day["bytes_shipped"] > day["bytes_stored"] > 1000
    [together] = (await client.get("/v1/namespaces/app/usage")).json()["days"]
    assert (together["requests"], together["memories"]) == (8, 2)
    assert (await client.get("/v1/databases/nobody/usage")).status_code == 404
    assert (await client.get("/v1/namespaces/nobody/usage")).json()["days"] == []


async def test_usage_is_shown_in_pages_within_days(client, node):
    await ingest(client, FACT)
    catalog = node.accounts._catalog
    days = [f"2026-03-{number:02}" for number in range(1, 8)]
    await catalog.add_usage([Use(Owner("default", "app"), "app--ann", day, 1, 1, 0, 0) for day in days])

    for path in ("/v1/databases/app--ann/usage", "/v1/namespaces/app/usage"):
        query = {"from": "2026-03-02", "to": "2026-03-06", "limit": 2}
        seen, cursor = [], None
        while True:
            page = (await client.get(path, params={**query, **({"cursor": cursor} if cursor else {})})).json()
            seen += [day["day"] for day in page["days"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == days[1:6]
        other = await client.get(path, params={**query, "to": "2026-03-05", "cursor": "x"})
        assert other.status_code == 400


@pytest.mark.parametrize(
    "query",
    ["from=2026-1-1", "to=yesterday", "from=2026-02-30", "from=2026-03-02&to=2026-03-01", "from=0000-01-01"],
)
async def test_days_that_are_none_are_refused(client, query):
    await ingest(client, FACT)

    assert (await client.get(f"/v1/databases/app--ann/usage?{query}")).status_code == 400
    assert (await client.get(f"/v1/namespaces/app/usage?{query}")).status_code == 400


async def test_tokens_share_the_rate_of_the_one_that_they_were_minted_with(tmp_path, clock):
    async with guarded_node(tmp_path) as node:
        async with sender(node, PLATFORM_KEY) as platform:
            top = await mint(platform, "namespaces/app", "admin", limits={"requests_per_s": 5})
        async with client_of(create_app(node, limits(loopback_only=False), clock=clock)) as client:

            async def children(minter, count, **asked):
                client.headers["Authorization"] = f"Bearer {minter['token']}"
                return [await mint(client, "namespaces/app", "admin", **asked) for _ in range(count)]

            [middle] = await children(top, 1, limits={"requests_per_s": 2})
            leaves = [*(await children(middle, 3)), *(await children(top, 4))]
            clock.at_s += 60
            began_s, served = clock.at_s, {}
            for _ in range(10):
                for leaf in leaves:
                    client.headers["Authorization"] = f"Bearer {leaf['token']}"
                    answer = await client.get("/v1/memory/app/nobody/policy")
                    served[leaf["id"]] = served.get(leaf["id"], 0) + (answer.status_code == 200)
    took_s = clock.at_s - began_s + BURST_S  # answers that are held back take their time
    assert sum(served[leaf["id"]] for leaf in leaves[:3]) <= 2 * took_s
    assert 5 <= sum(served.values()) <= 5 * took_s
