"""Policies, quotas, tenants, usage, settings and the operators' routes through both clients."""

import asyncio
import time
from datetime import date

import pytest
from memoturn import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionFailedError,
)


async def test_policies_of_a_namespace_and_a_profile(api):
    assert await api.admin.get_policy(api.name) is None
    first = await api.admin.set_policy(api.name, {"memory": {"task_ttl_max_secs": 600}}, if_revision=0)
    with pytest.raises(PreconditionFailedError):
        await api.admin.set_policy(api.name, {}, if_revision=0)
    second = await api.admin.set_policy(
        api.name, {"memory": {"task_ttl_max_secs": 700}}, if_revision=first["revision"]
    )

    assert second["revision"] == first["revision"] + 1
    token = await api.admin.create_namespace_token(api.name, "admin")
    ann = api.client(token=token["token"])
    assert (await ann.get_policy(api.name, profile="ann"))["override"] is None
    with pytest.raises(ConflictError):
        await ann.set_policy(api.name, {"memory": {"task_ttl_max_secs": 800}}, profile="ann")
    own = await ann.set_policy(api.name, {"ai_egress": {"ask": "deny"}}, profile="ann")
    assert own["effective"]["ask"] == "deny"
    assert own["effective"]["task_ttl_max_secs"] == 700
    whole = await api.admin.get_policy(api.name)
    assert whole["policy"] == {"memory": {"task_ttl_max_secs": 700}}
    assert whole["profiles"] == {"ann": {"ai_egress": {"ask": "deny"}}}
    cleared = await ann.set_policy(api.name, None, profile="ann")
    assert cleared["override"] is None
    with pytest.raises(InvalidRequestError, match="pitr_secs"):
        await api.admin.set_policy(api.name, {"retention": {"pitr_secs": 1}})


async def test_quotas_hold(api):
    shown = await api.admin.get_quotas(api.name)
    assert shown["quotas"]["databases"] is None
    assert shown["used"]["databases"] == 0

    quotas = await api.admin.set_quotas(api.name, {"databases": 1, "requests_per_s": 1000.0})

    assert quotas["quotas"]["databases"] == quotas["effective"]["databases"] == 1
    ann = await api.of_namespace("write", "memory", retries=0)
    await ann.ingest([{"type": "event", "summary": "x"}])
    token = await api.admin.create_namespace_token(api.name, "write")
    bob = api.client(token=token["token"], retries=0).memory(api.name, "bob")
    with pytest.raises(OverloadedError) as caught:
        await bob.ingest([{"type": "event", "summary": "x"}])
    assert caught.value.limit == "databases"


async def test_tenants_have_names_and_quotas_of_their_own(api):
    tenant = await api.admin.create_tenant(api.name)
    admin = api.operator(api.name)
    await admin.create_database("orders")

    assert (await api.admin.get_tenant(api.name))["created_at"] == tenant["created_at"]
    assert await api.admin.get_tenant(f"{api.name}x") is None
    assert api.name in [row["name"] async for row in api.admin.iter_tenants()]
    assert [row["name"] for row in await admin.list_databases()] == ["orders"]
    quotas = await api.admin.set_tenant_quotas(api.name, {"databases": 5})
    assert quotas["tenant"] == api.name
    assert (await api.admin.get_tenant_quotas(api.name))["used"]["databases"] == 1
    with pytest.raises(ConflictError):
        await api.admin.delete_tenant(api.name)
    with pytest.raises(NotFoundError):
        await api.admin.delete_tenant(f"{api.name}x")
    await api.admin.create_tenant(f"{api.name}-empty")
    await api.admin.delete_tenant(f"{api.name}-empty")


async def test_settings(api):
    db = await api.of_database("admin")

    assert await db.get_settings() == {"durability": {}}
    settings = {"durability": {"default": "local", "kv/important": "durable"}}
    assert await db.set_settings(settings) == settings
    assert await db.get_settings() == settings
    assert (await db.kv.put_entry("important", "k", "v"))["durability"] == "durable"
    assert (await db.kv.put_entry("other", "k", "v"))["txid"] > 0
    with pytest.raises(InvalidRequestError):
        await db.set_settings({"durability": {"nonsense": "durable"}})


async def test_usage_is_counted_by_day(api):
    ann = await api.of_namespace("write", "memory")
    await ann.ingest([{"type": "event", "summary": "x"}])

    async with asyncio.timeout(20):
        days = []
        while not days:  # the node counts in memory, and writes it down each second
            await asyncio.sleep(0.1)
            days = [day async for day in api.admin.iter_usage(f"{api.name}--ann", limit=3)]

    (today,) = days
    assert (today["writes"], today["recalls"]) == (1, 0)
    assert [day async for day in api.admin.iter_namespace_usage(api.name)] == [today]
    first, last = date(2026, 1, 1), date.fromisoformat(today["day"])
    assert [day async for day in api.admin.iter_usage(f"{api.name}--ann", from_day=first, to_day=last)] == [
        today
    ]
    assert [day async for day in api.admin.iter_usage(f"{api.name}--ann", from_day=first, to_day=first)] == []


async def test_databases_come_and_go_and_come_back(api):
    database = await api.admin.create_database(api.name)

    await api.admin.delete_database(api.name)

    assert [row["name"] async for row in api.admin.iter_databases(prefix=api.name)] == []
    (gone,) = [row async for row in api.admin.iter_databases(prefix=api.name, deleted=True, limit=2)]
    assert (gone["uuid"], gone["undelete_until"] > gone["deleted_at"]) == (database["uuid"], True)
    back = await api.admin.undelete_database(api.name, uuid=gone["uuid"])
    assert back["uuid"] == database["uuid"]
    await api.admin.delete_database(api.name)
    assert (await api.admin.undelete_database(api.name))["uuid"] == database["uuid"]


async def test_namespaces_profiles_and_audit(api):
    await api.admin.set_policy(api.name, {"audit": {"enabled": True, "include_reads": True}})
    ann = await api.of_namespace("write", "memory")
    await ann.ingest([{"type": "event", "summary": "x"}])

    token = await api.admin.create_namespace_token(api.name, "admin")
    team = api.client(token=token["token"])
    assert api.name in [row["namespace"] async for row in api.admin.iter_namespaces()]
    assert [row["profile"] for row in await team.profiles(api.name)] == ["ann"]
    assert [row["profile"] async for row in team.iter_profiles(api.name, limit=1)] == ["ann"]
    events = [event async for event in team.audit_events(api.name, action="memory.", outcome="ok")]
    assert [event["action"] for event in events] == ["memory.ingest"]
    kinds = [line["kind"] async for line in team.audit_export(api.name)]
    assert (kinds[0], kinds[-1]) == ("header", "end")


async def test_operators(api):
    db = await api.of_database("write", "kv")
    await db.kv.put("n", "k", "v")
    anybody = api.client()

    assert await anybody.health() is True
    assert abs(await anybody.clock() - time.time()) < 60
    assert await anybody.ready() is True
    readiness = await anybody.readiness()
    assert (readiness["store"], readiness["embedder"], readiness["language_models"]) == (
        "ok",
        "openai/words",
        ["extract", "ask"],
    )
    assert "memoturn_" in await anybody.metrics()
    assert (await anybody.openapi())["openapi"] == "3.1.0"
    overview = await api.admin.cluster(limit=1)
    assert [node["silent"] for node in overview["nodes"]] == [False]
    placement = await api.admin.placement(api.name)
    assert placement["standing"]["txid"] == db.last_txid
