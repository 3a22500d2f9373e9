"""Tools about transcripts: what was said, word for word."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from memoturn import types
from memoturn.errors import InvalidRequestError
from memoturn.mcp.answers import readable
from memoturn.mcp.schemas import INTEGER, OBJECT, Arguments, array, output_schema
from memoturn.mcp.tools.tool import Call, Tool

APPEND_MAX: Final = 100
CONTENT_MAX: Final = 100_000


class NewTurn(Arguments):
    """One turn to append."""

    role: Literal["user", "assistant", "system", "tool"]
    content: Annotated[str, Field(max_length=CONTENT_MAX)]


class Append(Arguments):
    """Arguments of turns_append."""

    session_id: Annotated[str, Field(min_length=1, description="One conversation; made if new")]
    turns: Annotated[list[NewTurn], Field(min_length=1, max_length=APPEND_MAX, description="Oldest first")]


class Search(Arguments):
    """Arguments of turns_search."""

    query: Annotated[
        str | None, Field(description="What to look for. Without it: the last turns of session_id")
    ] = None
    session_id: Annotated[str | None, Field(description="Only here; else in all sessions")] = None
    before: Annotated[
        int | None, Field(ge=1, description="Without query: turns below this seq, to page back")
    ] = None
    k: Annotated[int, Field(ge=1, le=100)] = 10


async def _append(call: Call, asked: Append) -> dict[str, Any]:
    turns: list[types.NewTurn] = [{"role": turn.role, "content": turn.content} for turn in asked.turns]
    done = await call.db.session(asked.session_id).append_turns(turns)
    return {"seqs": done["seqs"], "txid": done["txid"]}


async def _search(call: Call, asked: Search) -> dict[str, Any]:
    if asked.query:
        search = call.db.session(asked.session_id).search if asked.session_id else call.db.search_turns
        found = await search(asked.query, k=asked.k)
        return {"turns": [readable(turn) for turn in found["turns"]], "txid": found["txid"]}
    if not asked.session_id:
        raise InvalidRequestError(
            "neither query nor session_id was given; send one of them", code="invalid_request"
        )
    page = await call.db.session(asked.session_id).get_page(before=asked.before, limit=asked.k)
    return {"turns": [readable(turn) for turn in page["turns"]], "txid": page["txid"]}


TOOLS: Final = (
    Tool(
        "turns_append",
        "Append to a transcript",
        "Append messages to the transcript of a session, word for word, in order. For what was said; what it means for later goes "
        "into memory_ingest. Calling it again appends again. Returns the turns' numbers.",
        Append,
        output_schema(seqs=array(INTEGER)),
        _append,
    ),
    Tool(
        "turns_search",
        "Search transcripts",
        "Find what was said, in all sessions or in one, by words and meaning; or without query read a session from its end. For "
        "what was learnt use memory_recall.",
        Search,
        output_schema(turns=array(OBJECT)),
        _search,
        read_only=True,
    ),
)
"""Tools about transcripts."""
