"""Several agents on one profile: each writes what it learned, one follows the changes, and no write is lost.

    MEMOTURN_URL=http://127.0.0.1:8080 python examples/python/several_agents.py

They share nothing but the profile's name. Writes are applied one after another, whoever sends them; `source` says who did.
"""

import asyncio
import os

from memoturn import AsyncMemoryProfile, AsyncMemoturn

AGENTS = ("planner", "researcher", "writer")
FINDINGS = 20


async def work(profile: AsyncMemoryProfile, agent: str) -> None:
    """Write down findings, and take the shared plan one step further each time."""
    for number in range(FINDINGS):
        await profile.ingest([{"type": "event", "summary": f"Finding {number} of {agent}", "source": agent}])
    await profile.ingest(
        [{"type": "fact", "topic_key": f"status.{agent}", "summary": f"{agent} is done", "source": agent}]
    )


async def follow(profile: AsyncMemoryProfile, since: int) -> int:
    """Count the commits of the others as they happen, until every agent is done."""
    commits, done = 0, set[str]()
    async for change in profile.follow(since):
        commits += 1
        async for memory in profile.iter_memories(topic_prefix="status."):
            done.add(memory["source"] or "")
        if done >= set(AGENTS):
            print(f"seen {commits} commits, up to txid {change['txid']}")
            return commits
    return commits


async def main() -> None:
    """Let them work at once."""
    async with AsyncMemoturn(
        os.environ.get("MEMOTURN_URL", "http://127.0.0.1:8080"), token=os.environ.get("MEMOTURN_TOKEN")
    ) as memoturn:
        profile = memoturn.memory("team", "launch")
        begun = await profile.ingest(
            [{"type": "instruction", "summary": "Prepare the launch", "source": "lead"}]
        )
        follower = asyncio.create_task(follow(profile, begun["txid"]))
        await asyncio.gather(*(work(profile, agent) for agent in AGENTS))
        await asyncio.wait_for(follower, 30)
        for agent in AGENTS:
            count = sum([1 async for _ in profile.iter_memories(types=["event"], source=agent)])
            print(f"{agent}: {count} findings")


if __name__ == "__main__":
    asyncio.run(main())
