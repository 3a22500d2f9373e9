"""Tools about documents: JSON objects in collections."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from memoturn.mcp.schemas import OBJECT, STRING, Arguments, array, output_schema
from memoturn.mcp.tools.tool import Call, Tool

INSERT_MAX: Final = 500
Collection = Annotated[str, Field(min_length=1, max_length=64)]


class Find(Arguments):
    """Arguments of docs_find."""

    collection: Collection
    filter: Annotated[
        dict[str, Any],
        Field(description='As {"status":"open","n":{"$gt":3}}; $and $or $in $exists $regex; {} is all'),
    ] = {}  # noqa: RUF012 - pydantic copies it
    sort: Annotated[dict[str, Literal[1, -1]] | None, Field(description="By path: 1 up, -1 down")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    skip: Annotated[int, Field(ge=0)] = 0


class Insert(Arguments):
    """Arguments of docs_insert."""

    collection: Annotated[
        str, Field(min_length=1, max_length=64, description="Made if new: letters, digits, _ and -")
    ]
    docs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=INSERT_MAX)]


async def _find(call: Call, asked: Find) -> dict[str, Any]:
    docs = await call.db.collection(asked.collection).find(
        asked.filter, sort=asked.sort, limit=asked.limit, skip=asked.skip
    )
    return {"docs": docs, "txid": call.db.last_txid}


async def _insert(call: Call, asked: Insert) -> dict[str, Any]:
    done = await call.db.collection(asked.collection).insert(asked.docs)
    return {"ids": done["ids"], "txid": done["txid"]}


TOOLS: Final = (
    Tool(
        "docs_find",
        "Find documents",
        "Find JSON documents of a collection by their fields. For structured records such as tickets or lists; for what is "
        "known about people or work use memory_recall. A collection that is not there is empty.",
        Find,
        output_schema(docs=array(OBJECT)),
        _find,
        read_only=True,
    ),
    Tool(
        "docs_insert",
        "Insert documents",
        "Insert JSON documents into a collection: all or none. Give an _id where one may come twice: a taken one is an error. Else "
        "calling it again inserts again. Returns the ids.",
        Insert,
        output_schema(ids=array(STRING)),
        _insert,
    ),
)
"""Tools about documents."""
