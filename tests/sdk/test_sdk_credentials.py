"""Tokens and keys through both clients: minted, narrowed, listed, revoked."""

from urllib.parse import urlsplit

import pytest
from memoturn import ForbiddenError, NotFoundError, UnknownOutcomeError
from proxy import FaultProxy


async def works(api, token, name="ann"):
    """Return whether a token may write to a profile of the namespace."""
    try:
        await api.client(token=token).memory(api.name, name).ingest([{"type": "event", "summary": "x"}])
    except ForbiddenError:
        return False
    return True


async def test_tokens_of_a_database(api):
    await api.admin.create_database(api.name)
    minted = await api.admin.create_token(
        api.name,
        "read",
        expires_in=60,
        branches=["main"],
        surfaces=["kv"],
        limits={"requests_per_s": 100},
        subject="bot",
    )
    plain = await api.admin.create_token(api.name)

    assert (minted["expires_in"], plain["expires_in"]) == (60, 3600)
    listed = {row["id"]: row async for row in api.admin.iter_tokens(api.name)}
    shown = listed[minted["id"]]
    assert (shown["scope"], shown["branches"], shown["surfaces"]) == ("read", ["main"], ["kv"])
    assert (shown["limits"], shown["subject"], shown["revoked"]) == ({"requests_per_s": 100}, "bot", False)
    assert (listed[plain["id"]]["scope"], listed[plain["id"]]["ns"]) == ("write", listed[plain["id"]]["ns"])
    kv = api.client(token=minted["token"]).db(api.name).kv
    assert await kv.get("n", "k") is None
    with pytest.raises(ForbiddenError):
        await kv.put("n", "k", "v")
    await api.admin.revoke_token(api.name, minted["id"])
    with pytest.raises(ForbiddenError):
        await kv.get("n", "k")
    with pytest.raises(NotFoundError):
        await api.admin.revoke_token(api.name, "nothing")
    assert (await api.admin.revoke_tokens(api.name))["revoked_until"] > 0
    with pytest.raises(ForbiddenError):
        await api.client(token=plain["token"]).db(api.name).kv.put("n", "k", "v")


async def test_tokens_of_a_namespace(api):
    minted = await api.admin.create_namespace_token(api.name, "write", profiles=["ann"])
    other = await api.admin.create_namespace_token(api.name, "write")

    assert await works(api, minted["token"])
    assert not await works(api, minted["token"], "bob")
    ids = [row["id"] async for row in api.admin.iter_namespace_tokens(api.name)]
    assert sorted(ids) == sorted([minted["id"], other["id"]])
    await api.admin.revoke_namespace_token(api.name, minted["id"])
    assert not await works(api, minted["token"])
    one = await api.admin.revoke_namespace_tokens(api.name, token=other["token"])
    assert one["id"] == other["id"]
    assert not await works(api, other["token"])
    third = await api.admin.create_namespace_token(api.name, "write")
    assert await works(api, third["token"])
    await api.admin.revoke_namespace_tokens(api.name)
    assert not await works(api, third["token"])


async def test_an_admin_token_mints_narrower_ones(api):
    admin = await api.admin.create_namespace_token(api.name, "admin", subject="team")
    team = api.client(token=admin["token"])

    minted = await team.create_namespace_token(api.name, "write", expires_in=60)

    assert await works(api, minted["token"])
    (row,) = [row async for row in team.iter_namespace_tokens(api.name, limit=5) if row["id"] == minted["id"]]
    assert row["minted_by"] == "subject:team"
    with pytest.raises(ForbiddenError):
        await team.create_namespace_token(f"{api.name}x")
    await api.admin.revoke_namespace_token(api.name, admin["id"])
    assert not await works(api, minted["token"])


async def test_tokens_of_a_tenant_and_keys(api):
    await api.admin.create_tenant(api.name)
    admin = api.operator(api.name)
    token = (await admin.create_namespace_token(api.name, "write"))["token"]
    assert await works(api, token)

    assert (await admin.revoke_tenant_tokens())["revoked_until"] > 0

    assert not await works(api, token)
    before = await api.admin.signing_keys()
    rotated = await api.admin.rotate_keys()
    after = await api.admin.signing_keys()
    assert before["managed"]
    assert rotated["kid"] in {key["kid"] for key in after["keys"]}
    assert rotated["kid"] not in {key["kid"] for key in before["keys"]}
    published = await api.client().published_keys()
    assert rotated["kid"] in {key["kid"] for key in published}


async def test_what_takes_no_idempotency_key_is_not_repeated_after_a_lost_answer(api):
    await api.admin.create_database(api.name)
    revision = (await api.admin.set_policy(api.name, {}))["revision"]
    node = urlsplit(api.url)
    async with FaultProxy(node.hostname, node.port) as proxy:
        api.url = proxy.url
        admin = api.operator("default")
        proxy.drop_replies(r"^(POST|PUT) ", times=2)

        with pytest.raises(UnknownOutcomeError):
            await admin.create_token(api.name)
        with pytest.raises(UnknownOutcomeError):
            await admin.set_policy(api.name, {}, if_revision=revision)

        assert len([token async for token in api.admin.iter_tokens(api.name)]) == 1
        proxy.drop_replies(r"^PUT ", times=1)
        assert (await admin.set_policy(api.name, {"memory": {}}))["revision"] == revision + 3
