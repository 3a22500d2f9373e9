"""Resources, which a client may put into a conversation without a call: the profile, its newest memories, one memory."""

import json
from typing import Any, Final
from urllib.parse import unquote

from mcp_types import Annotations, ReadResourceResult, Resource, ResourceTemplate, TextResourceContents

from memoturn.errors import DatabaseNotFoundError, NotFoundError
from memoturn.mcp.answers import fitted, readable
from memoturn.mcp.places import Place
from memoturn.mcp.tools import Call

PROFILE: Final = "memoturn://profile"
RECENT: Final = "memoturn://recent"
_MEMORY: Final = "memoturn://memories/"
_JSON: Final = "application/json"
_RECENT_COUNT: Final = 20
_TOPICS_COUNT: Final = 100


def listed(place: Place) -> list[Resource]:
    """Return the resources of the place that calls mean unless they say otherwise."""
    return [
        Resource(
            uri=PROFILE,
            name="profile",
            title=f"What is remembered about {place}",
            description="How many memories and turns there are, the topics, and what is pinned.",
            mime_type=_JSON,
            annotations=Annotations(audience=["assistant"], priority=0.8),
        ),
        Resource(
            uri=RECENT,
            name="recent",
            title=f"Newest memories of {place}",
            description=f"The {_RECENT_COUNT} newest memories.",
            mime_type=_JSON,
            annotations=Annotations(audience=["assistant"], priority=0.6),
        ),
    ]


def templates() -> list[ResourceTemplate]:
    """Return the templates of resources."""
    return [
        ResourceTemplate(
            uri_template=f"{_MEMORY}{{id}}",
            name="memory",
            title="One memory",
            description="A memory by its id, with all of its content.",
            mime_type=_JSON,
        )
    ]


async def read(uri: str, call: Call, limit_bytes: int) -> ReadResourceResult:
    """Return a resource. Raises NotFoundError for one that is not there, and what the client raises."""
    if uri == PROFILE:
        content = await _profile(call)
    elif uri == RECENT:
        content = await _recent(call)
    elif uri.startswith(_MEMORY) and len(uri) > len(_MEMORY):
        content = await _memory(call, unquote(uri[len(_MEMORY) :]))
    else:
        raise NotFoundError(
            f"there is no resource {uri[:100]}; list the resources to see which there are",
            status=404,
            code="not_found",
        )
    text = json.dumps(fitted({"profile": str(call.place), **content}, limit_bytes), ensure_ascii=False)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=_JSON, text=text)])


async def _profile(call: Call) -> dict[str, Any]:
    profile = call.profile
    try:
        counts = (await profile.models())["embeddable"]
    except DatabaseNotFoundError:
        return {"memories": 0, "turns": 0, "topics": [], "pinned": [], "note": "nothing was stored here yet"}
    topics = [topic async for topic in profile.iter_topics(limit=_TOPICS_COUNT)]
    pinned = await profile.list_memories(pinned=True, limit=_RECENT_COUNT)
    sessions = await profile.sessions(limit=_RECENT_COUNT)
    return {
        "memories": counts["memories"],
        "turns": counts["turns"],
        "topics": [f"{topic['type']} {topic['topic_key']}" for topic in topics],
        "pinned": [readable(memory) for memory in pinned["memories"]],
        "sessions": [readable(session) for session in sessions],
        "txid": profile.last_txid,
    }


async def _recent(call: Call) -> dict[str, Any]:
    page = await call.profile.list_memories(limit=_RECENT_COUNT)
    return {"memories": [readable(memory) for memory in page["memories"]], "txid": page["txid"]}


async def _memory(call: Call, memory_id: str) -> dict[str, Any]:
    memory = await call.profile.get(memory_id)
    if memory is None:
        raise NotFoundError(f"there is no memory {memory_id[:80]!r}", status=404, code="not_found")
    return {"memory": readable(memory), "txid": call.profile.last_txid}
