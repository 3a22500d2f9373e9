"""The export of a node: everything that the catalog had is in the object store before it says so."""

import asyncio

import pytest
from harness import node_on

from memoturnd.core import layout
from memoturnd.errors import CorruptionError
from memoturnd.seams.catalog import EXPORTED_AT_ONCE
from memoturnd.seams.credentials import Revocation
from memoturnd.stores.memory import MemoryStore

FAR = 10**13


async def test_what_is_revoked_at_once_is_exported_before_each_is_told_so(tmp_path):
    store = MemoryStore()
    puts, plain = [], store.put

    async def put(key, data):
        if "_catalog/revocation" in key:
            puts.append(key)
        await asyncio.sleep(0)
        await plain(key, data)

    store.put = put
    async with node_on(tmp_path, store) as node:
        catalog, export = node._services.catalog, node.catalog_export

        async def revoke(number):
            await catalog.revoke(Revocation("token", "default", f"tok_{number}", 1, FAR))
            await export.now()
            assert f"token/default/tok_{number}" in await export.read("revocation")

        await asyncio.gather(*(revoke(n) for n in range(50)))
        assert len(puts) < 25, "those who wait at the same time share an upload"


async def test_export_that_is_damaged_is_not_read_as_if_it_were_whole(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path, store) as node:
        await store.put(f"{layout.catalog_export_prefix('revocation')}0.json", b"{")
        with pytest.raises(CorruptionError):
            await node.catalog_export.read("revocation")


async def test_many_new_databases_are_exported_at_once(tmp_path):
    store = MemoryStore()
    many = 2 * EXPORTED_AT_ONCE + 10
    async with node_on(tmp_path, store) as node:
        for number in range(many):
            await node.databases.create(f"d{number}")
        await node.catalog_export.export()
        assert await node._services.catalog.pending_exports() == []
