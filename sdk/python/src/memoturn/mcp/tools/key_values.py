"""Tools about key-values: small pieces of state that are read and written by name."""

import base64
from typing import Annotated, Any, Final

from pydantic import Field

from memoturn.errors import NotFoundError
from memoturn.mcp.schemas import STRING, Arguments, output_schema
from memoturn.mcp.tools.tool import Call, Tool

VALUE_MAX: Final = 1_000_000
Key = Annotated[str, Field(min_length=1, max_length=512)]
Group = Annotated[str, Field(min_length=1, max_length=64, description="Namespace of the key")]
_DEFAULT_GROUP: Final = "default"


class Get(Arguments):
    """Arguments of kv_get."""

    key: Key
    kv_namespace: Group = _DEFAULT_GROUP


class Put(Arguments):
    """Arguments of kv_put."""

    key: Key
    value: Annotated[str, Field(max_length=VALUE_MAX, description="Text; write JSON as text")]
    kv_namespace: Group = _DEFAULT_GROUP
    ttl: Annotated[int | None, Field(ge=1, description="Seconds to live")] = None
    if_match: Annotated[
        str | None, Field(description="etag of kv_get: write only if unchanged since; * if there")
    ] = None


async def _get(call: Call, asked: Get) -> dict[str, Any]:
    entry = await call.db.kv.get_entry(asked.kv_namespace, asked.key)
    if entry is None:
        raise NotFoundError(
            f"there is no key {asked.key[:80]!r} in {asked.kv_namespace}", status=404, code="not_found"
        )
    answer: dict[str, Any] = {"etag": entry["etag"], "txid": call.db.last_txid}
    try:
        return {"value": entry["value"].decode("utf-8"), **answer}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(entry["value"]).decode(), "encoding": "base64", **answer}


async def _put(call: Call, asked: Put) -> dict[str, Any]:
    done = await call.db.kv.put_entry(
        asked.kv_namespace, asked.key, asked.value, ttl=asked.ttl, if_match=asked.if_match
    )
    return {"etag": done["etag"], "txid": done["txid"]}


TOOLS: Final = (
    Tool(
        "kv_get",
        "Get a value",
        "Get the value of a key: small state such as settings, counters or progress. A key that is not there is an error.",
        Get,
        output_schema(value=STRING, etag=STRING, encoding=STRING),
        _get,
        read_only=True,
    ),
    Tool(
        "kv_put",
        "Put a value",
        "Set the value of a key, in place of what it had. With if_match nothing is lost where others write it too.",
        Put,
        output_schema(etag=STRING),
        _put,
        destructive=True,
        idempotent=True,
    ),
)
"""Tools about key-values."""
