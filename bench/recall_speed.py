"""Recall by the size of the profile: what is asked again and again, after a write, after a wake, and from the file.

The memories, embeddings and queries are those of rows 8a and 8b (256 dimensions, k = 8), each sample from the decoded
body to the answer. With sessions, 50 memories in a row share one, so that the conversation around a hit counts too.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench import workload
from bench.in_process import DIMENSIONS, Meter
from bench.machine import watched
from bench.nodes import node_here, temporary_folder
from bench.stats import MS, Table
from memoturnd.core import names
from memoturnd.engine.branch import Branch
from memoturnd.node import Node
from memoturnd.surfaces import memories, recall

SIZES: Final = (1_000, 10_000, 100_000)
_QUICK_SIZES: Final = (300,)
_BATCH: Final = 500
_SESSION: Final = 50
_TARGETS_S: Final = {10_000: 2.5 * MS, 100_000: 15 * MS}
_EXACT_QUERIES: Final = 20
_EXACT_K: Final = 10


async def _ask(profile: Branch, body: dict[str, Any]) -> list[dict[str, Any]]:
    return (await recall.recall(profile, recall.parse_query(body))).value["memories"]


async def _seed(node: Node, name: str, count: int, *, sessions: bool) -> Branch:
    """Fill a profile, and let it go cold in between, so that what is measured starts from a settled file."""
    await node.databases.ensure_profile(names.profile_database("bench", name))
    profile = await node.profile(f"bench--{name}")
    for start in range(0, count, _BATCH):
        seeds = range(start, min(start + _BATCH, count))
        vectors = workload.embeddings(seeds, DIMENSIONS).tolist()
        items = [workload.event(i, vector) for i, vector in zip(seeds, vectors, strict=True)]
        for i, item in zip(seeds, items, strict=True):
            if sessions:
                item["session_id"] = f"session-{i // _SESSION}"
        await memories.ingest(profile, memories.parse_items({"memories": items}))
    assert await profile.close()
    return profile


async def _exactness(profile: Branch, count: int) -> float:
    """Return the share of the nearest memories, by brute force in float64, that the vector channel finds."""
    matrix = workload.embeddings(range(count), DIMENSIONS).astype(np.float64)
    matrix /= np.sqrt((matrix * matrix).sum(axis=1, keepdims=True))
    found = 0
    for query in workload.queries(_EXACT_QUERIES, DIMENSIONS):
        wanted = np.array(query["embedding"])
        nearest = set(np.argsort(-(matrix @ wanted), kind="stable")[:_EXACT_K].tolist())
        hits = await _ask(profile, {"embedding": query["embedding"], "types": ["event"], "k": _EXACT_K})
        found += sum(hit["summary"].rpartition(" ")[2].isdigit() and _number(hit) in nearest for hit in hits)
    return found / (_EXACT_QUERIES * _EXACT_K)


def _number(hit: dict[str, Any]) -> int:
    return int(hit["summary"].rpartition(" ")[2])


async def _rows(meter: Meter, count: int) -> str:
    queries = workload.queries(100, DIMENSIONS)
    facts = workload.facts(200, DIMENSIONS)
    size = f"@{count:,}"
    with temporary_folder() as folder:
        async with node_here(folder, sync="normal") as node:
            profile = await _seed(node, "plain", count, sessions=False)

            async def close(_i: int) -> None:
                assert await profile.close()

            def asking(**more: Any) -> Callable[[int], Any]:
                async def ask(i: int) -> None:
                    assert await _ask(profile, {**queries[i % len(queries)], **more})

                return ask

            async def write(i: int) -> None:
                await memories.ingest(profile, memories.parse_items(facts[i % len(facts)]))

            await asking()(0)
            await meter.row("a", f"recall {size}", 300, asking(), target_s=_TARGETS_S.get(count))
            kept_bytes = node.memory.size_bytes
            await meter.row("b", f"recall {size}, `fusion: reference`", 100, asking(fusion="reference"))
            await meter.row("c", f"recall {size}, by words alone", 100, asking(embedding=None))
            await meter.row("d", f"recall {size} after a fact was written", 100, asking(), before=write)
            await meter.row("e", f"first recall {size} after a warm wake", 10, asking(), before=close)
            exact = await _exactness(profile, count)
            limit_bytes, node.memory.limit_bytes = node.memory.limit_bytes, 0
            await close(0)
            await meter.row("f", f"recall {size} from the file, nothing kept", 20, asking())
            node.memory.limit_bytes = limit_bytes
            assert await profile.close()
            profile = await _seed(node, "talk", count, sessions=True)
            await asking()(0)
            await meter.row("g", f"recall {size}, all with sessions", 300, asking())
            await meter.row("h", f"the same after a fact was written {size}", 100, asking(), before=write)
    return (
        f"{size}: {kept_bytes / 1e6:.1f} MB are kept in memory, of which the embeddings are "
        f"{4e-6 * DIMENSIONS * count:.1f} MB; of the {_EXACT_K} nearest by brute force the vector channel found {exact:.1%}."
    )


def measure(run: Callable[..., Any], *, quick: bool) -> list[Table]:
    """Return the table of recall by size. `run` runs a coroutine on the event loop to use."""
    meter = Meter(quick)
    with watched() as busy:
        notes = [run(_rows(meter, count)) for count in (_QUICK_SIZES if quick else SIZES)]
    rules = "In process, MEMOTURN_SYNC=normal, one recall at a time; ships run in the background."
    return [Table.of_rows("Recall by size", meter.rows, [rules, *notes, f"{busy}."])]
