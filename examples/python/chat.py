"""A chat loop that remembers: every turn is kept, what is to be remembered is a memory, and each answer starts from a recall.

    MEMOTURN_URL=http://127.0.0.1:8080 python examples/python/chat.py alice

Say something; `remember diet: I am vegan` keeps a fact under a topic, so that a later one supersedes it. Ctrl-D ends it.
Start it again: it knows what you told it. Put your own model where `reply` is.
"""

import os
import re
import sys
import uuid

from memoturn import MemoryProfile, Memoturn
from memoturn.types import IngestItem, RecallHit, Turn

REMEMBER = re.compile(r"remember (?P<topic>[\w.-]+): (?P<what>.+)", re.IGNORECASE)


def reply(said: str, known: list[RecallHit], window: list[Turn]) -> str:
    """Answer without a model, by what is known; a model would get all three in its prompt."""
    del window
    if not known:
        return f"I know nothing about that yet: {said!r}"
    return "I know: " + "; ".join(memory["summary"] for memory in known)


def chat(profile: MemoryProfile) -> None:
    """Talk until the input ends."""
    session = profile.session(f"chat-{uuid.uuid4().hex[:8]}")
    for line in sys.stdin:
        said = line.strip()
        if not said:
            continue
        session.append_turn("user", said)
        if found := REMEMBER.fullmatch(said):
            fact: IngestItem = {"type": "fact", "topic_key": found["topic"], "summary": found["what"]}
            stored = profile.ingest([{**fact, "session_id": session.session_id}])["results"][0]
            answer = "Noted." if not stored["superseded"] else "Noted, in place of what I knew."
        else:
            answer = reply(said, profile.recall(said, k=3)["memories"], session.get_window(10))
        session.append_turn("assistant", answer)
        print(f"> {answer}", flush=True)


def main() -> None:
    """Take the name of the profile from the command line."""
    name = sys.argv[1] if len(sys.argv) > 1 else "alice"
    with Memoturn(
        os.environ.get("MEMOTURN_URL", "http://127.0.0.1:8080"), token=os.environ.get("MEMOTURN_TOKEN")
    ) as memoturn:
        chat(memoturn.memory("chat", name))


if __name__ == "__main__":
    main()
