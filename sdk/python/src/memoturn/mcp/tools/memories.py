"""Tools about typed memories: save, find, answer, look at, list, forget; and sessions."""

from typing import Annotated, Any, Final, Literal, cast

from pydantic import Field

from memoturn.errors import NotFoundError
from memoturn.mcp.answers import readable
from memoturn.mcp.schemas import INTEGER, OBJECT, STRING, Arguments, array, output_schema
from memoturn.mcp.tools.tool import Call, Tool
from memoturn.types import IngestItem

INGEST_MAX: Final = 100
RECALL_MAX: Final = 100
LIST_MAX: Final = 200
SUMMARY_MAX: Final = 4000
Kind = Literal["fact", "event", "instruction", "task"]
Moment = Annotated[str, Field(description="RFC 3339, as 2026-11-24T09:30:00Z")]
At = Annotated[str, Field(description="Show a past state: txid, checkpoint, head~3 or RFC 3339 time")]
_MEMORIES: Final = output_schema(memories=array(OBJECT))


class NewMemory(Arguments):
    """One memory to save."""

    type: Kind
    summary: Annotated[
        str,
        Field(
            min_length=1,
            max_length=SUMMARY_MAX,
            description="One self-contained sentence: names, no pronouns",
        ),
    ]
    topic_key: Annotated[
        str | None,
        Field(
            description="What it is about, as user.diet: the newest per type and topic holds. Facts and instructions only"
        ),
    ] = None
    content: Annotated[dict[str, Any] | None, Field(description="Details")] = None
    keywords: Annotated[str | None, Field(description="More words to be found by")] = None
    session_id: str | None = None
    pinned: bool | None = None
    importance: Annotated[float | None, Field(ge=0, le=1)] = None
    ttl: Annotated[int | None, Field(ge=1, description="Seconds to live. Tasks only")] = None
    reason: Annotated[str | None, Field(description="Why it replaces what the topic held")] = None


class Ingest(Arguments):
    """Arguments of memory_ingest."""

    memories: Annotated[list[NewMemory], Field(min_length=1, max_length=INGEST_MAX)]


class Recall(Arguments):
    """Arguments of memory_recall."""

    query: Annotated[str | None, Field(description="What to look for, in words")] = None
    topic_key: Annotated[str | None, Field(description="Exact topic; with or without query")] = None
    types: list[Kind] | None = None
    session_id: str | None = None
    since: Moment | None = None
    k: Annotated[int, Field(ge=1, le=RECALL_MAX, description="How many at most")] = 8
    include_superseded: Annotated[bool, Field(description="Also what was replaced")] = False
    at: At | None = None


class Ask(Arguments):
    """Arguments of memory_ask."""

    question: Annotated[str, Field(min_length=1)]
    types: list[Kind] | None = None
    session_id: str | None = None
    k: Annotated[int, Field(ge=1, le=50, description="How many memories to answer from")] = 8


class Get(Arguments):
    """Arguments of memory_get."""

    id: str
    history: Annotated[bool, Field(description="Also every version of its topic, and why it changed")] = False


class List(Arguments):
    """Arguments of memory_list."""

    types: list[Kind] | None = None
    topic_prefix: Annotated[str | None, Field(description="Topics that begin so, as user.")] = None
    session_id: str | None = None
    pinned: bool | None = None
    since: Moment | None = None
    until: Moment | None = None
    order: Literal["newest", "oldest", "most_important"] = "newest"
    include_superseded: bool = False
    limit: Annotated[int, Field(ge=1, le=LIST_MAX)] = 20
    cursor: Annotated[
        str | None, Field(description="next_cursor of the page before, other arguments unchanged")
    ] = None
    at: At | None = None


class Forget(Arguments):
    """Arguments of memory_forget."""

    ids: Annotated[list[str], Field(min_length=1, max_length=INGEST_MAX)]


class SessionsList(Arguments):
    """Arguments of sessions_list."""

    limit: Annotated[int, Field(ge=1, le=LIST_MAX)] = 20


async def _ingest(call: Call, asked: Ingest) -> dict[str, Any]:
    done = await call.profile.ingest([_item(memory) for memory in asked.memories])
    return {"results": [readable(result) for result in done["results"]], "txid": done["txid"]}


def _item(memory: NewMemory) -> IngestItem:
    """Return what is sent: with the summary in the content, of which the id is made.

    Else two facts of a topic with the same details would be one, and a correction a repetition. The command line
    sends the same, so that a memory has one id whoever saves it.
    """
    item = memory.model_dump(exclude_none=True)
    return cast("IngestItem", {**item, "content": {"summary": memory.summary, **(memory.content or {})}})


async def _recall(call: Call, asked: Recall) -> dict[str, Any]:
    found = await call.profile.recall(
        asked.query,
        topic_key=asked.topic_key,
        types=asked.types,
        session_id=asked.session_id,
        since=asked.since,
        k=asked.k,
        include_superseded=asked.include_superseded,
        at=asked.at,
    )
    return {"memories": [readable(memory) for memory in found["memories"]], "txid": found["txid"]}


async def _ask(call: Call, asked: Ask) -> dict[str, Any]:
    said = await call.profile.ask(asked.question, types=asked.types, session_id=asked.session_id, k=asked.k)
    used = [readable(memory) for memory in said["memories"] if memory["id"] in said["sources"]]
    return {
        "answer": said["answer"] or "",
        "sources": said["sources"],
        "memories": used,
        "txid": said["txid"],
    }


async def _get(call: Call, asked: Get) -> dict[str, Any]:
    memory = await call.profile.get(asked.id)
    if memory is None:
        raise NotFoundError(f"there is no memory {asked.id[:80]!r}", status=404, code="not_found")
    answer: dict[str, Any] = {"memory": readable(memory)}
    if asked.history:
        told = await call.profile.history(asked.id)
        answer["versions"] = [readable(version) for version in told["versions"]] if told else []
    return {**answer, "txid": call.profile.last_txid}


async def _list(call: Call, asked: List) -> dict[str, Any]:
    page = await call.profile.list_memories(**asked.model_dump(exclude_none=True))
    answer = {"memories": [readable(memory) for memory in page["memories"]], "txid": page["txid"]}
    return {**answer, "next_cursor": page["next_cursor"]} if page["next_cursor"] else answer


async def _forget(call: Call, asked: Forget) -> dict[str, Any]:
    done = await call.profile.forget_many(ids=asked.ids)
    return {"forgotten": done["forgotten"], "results": done["results"], "txid": done["txid"]}


async def _sessions(call: Call, asked: SessionsList) -> dict[str, Any]:
    rows = await call.profile.sessions(limit=asked.limit)
    return {"sessions": [readable(row) for row in rows], "txid": call.profile.last_txid}


TOOLS: Final = (
    Tool(
        "memory_ingest",
        "Save memories",
        "Save what should outlast this conversation: facts, preferences, decisions, instructions, events, tasks. Call it as soon as "
        "you learn such a thing, and to correct one: a new memory replaces the active one of its type and topic_key, which stays in "
        "history. The same memory twice is no harm. Not for small talk or secrets. Returns each id, its status, and what it superseded.",
        Ingest,
        output_schema(results=array({"type": "object", "properties": {"id": STRING, "status": STRING}})),
        _ingest,
        idempotent=True,
    ),
    Tool(
        "memory_recall",
        "Recall memories",
        "Find memories by words and meaning. Call it before you answer anything that may depend on the past, and before you correct "
        "something. Needs query or topic_key. Returns the best first, with scores; nothing found is an empty list. To look through "
        "all of a kind use memory_list.",
        Recall,
        _MEMORIES,
        _recall,
        read_only=True,
    ),
    Tool(
        "memory_ask",
        "Ask the memory",
        "Let the server's language model answer a question from memory, naming its sources. For one self-contained question; "
        "otherwise use memory_recall and answer yourself. An empty answer: memory does not tell.",
        Ask,
        output_schema(answer=STRING, sources=array(STRING), memories=array(OBJECT)),
        _ask,
        read_only=True,
    ),
    Tool(
        "memory_get",
        "Get a memory",
        "Get one memory by id with all of its content, and with history how it came to say what it says.",
        Get,
        output_schema(memory=OBJECT, versions=array(OBJECT)),
        _get,
        read_only=True,
    ),
    Tool(
        "memory_list",
        "List memories",
        "Page through memories by filters, without a query: to review, count or clean up. To find something use memory_recall.",
        List,
        output_schema(memories=array(OBJECT), next_cursor=STRING),
        _list,
        read_only=True,
    ),
    Tool(
        "memory_forget",
        "Forget memories",
        "Forget memories by id; get the ids from memory_recall or memory_list first. Only when the user asks for it or they are wrong "
        "and nothing replaces them: to correct one, ingest the right one. Earlier states still hold them (branch_rewind).",
        Forget,
        output_schema(forgotten=INTEGER, results=array(OBJECT)),
        _forget,
        destructive=True,
        idempotent=True,
    ),
    Tool(
        "sessions_list",
        "List sessions",
        "The sessions that memories and transcripts belong to, the most recently active first.",
        SessionsList,
        output_schema(sessions=array(OBJECT)),
        _sessions,
        read_only=True,
    ),
)
"""Tools about memories and sessions."""
