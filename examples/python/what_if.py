"""What if: an agent tries something on a fork of its memory, and keeps it, or throws it away.

    MEMOTURN_URL=http://127.0.0.1:8080 python examples/python/what_if.py

A fork copies no data and takes the same moment for a profile of any size. Nothing on it is seen on main.
"""

import os

from memoturn import MemoryProfile, Memoturn


def diet(profile: MemoryProfile) -> str:
    """Return what the profile says of the diet."""
    return profile.recall(topic_key="diet", k=1)["memories"][0]["summary"]


def main() -> None:
    """Fork, try, compare, decide."""
    with Memoturn(
        os.environ.get("MEMOTURN_URL", "http://127.0.0.1:8080"), token=os.environ.get("MEMOTURN_TOKEN")
    ) as memoturn:
        alice = memoturn.memory("what-if", "alice")
        alice.ingest([{"type": "fact", "topic_key": "diet", "summary": "Alice is vegan"}])

        alice.fork("steakhouse", ttl=3600)  # gone by itself in an hour, should this program die
        trial = alice.on_branch("steakhouse")
        trial.ingest([{"type": "fact", "topic_key": "diet", "summary": "Alice loves steak"}])
        print(f"on the fork: {diet(trial)}; on main: {diet(alice)}")

        # Thrown away: the branch is deleted, and main never knew.
        branches = memoturn.db("what-if--alice").branch
        branches.delete("steakhouse")

        # Tried on main after all, and regretted: a rewind is a commit, too, so it can be undone.
        alice.checkpoint("before")
        alice.ingest([{"type": "fact", "topic_key": "diet", "summary": "Alice eats everything"}])
        alice.rewind("before")
        print(f"after the rewind: {diet(alice)}")
        alice.undo_rewind()
        print(f"after its undo: {diet(alice)}")


if __name__ == "__main__":
    main()
