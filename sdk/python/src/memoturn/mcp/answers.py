"""What a tool gives back: memories as a model reads them, answers that fit, and errors with the next step."""

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError

from memoturn import errors
from memoturn.mcp.places import Place

_LONG_TEXT: Final = 2000
_SHOWN: Final = 1500
_TIMES: Final = frozenset(
    {"created_at", "updated_at", "expires_at", "superseded_at", "undone_at", "last_active_at", "ttl_at"}
)
_HIDDEN: Final = frozenset({"undone_at", "channels", "durable_txid"})

_UNKNOWN: Final = "It may have happened or not: read before you repeat it."

NEXT_STEPS: Final[Mapping[str, str]] = {
    "invalid_request": "Correct the arguments and call again.",
    "unauthorized": "The memory server takes no call without a valid token. Ask the user to set one; do not retry.",
    "forbidden": "The token does not allow this. Ask the user for one that does, or go on without; do not retry.",
    "not_found": "Look for the id or key with memory_recall or memory_list.",
    "database_not_found": "Nothing was ever stored there. Check profile, or store something first with memory_ingest.",
    "branch_not_found": "Check the branch, checkpoint or revision by its name.",
    "already_exists": "Choose another name.",
    "conflict": "The state is not what the call supposed. Read it again, then decide.",
    "precondition_failed": "It was changed meanwhile. Read it again, then decide.",
    "payload_too_large": "Send less at once.",
    "overloaded": "The server is busy or a quota is used up. Wait some seconds, then call again.",
    "unreachable": "The memory server does not answer. Call again in some seconds; if it stays, tell the user to start it.",
    "unavailable": "The server cannot be reached now. Call again in some seconds; if it stays, tell the user.",
    "unconfigured": "The server has no language model. Use memory_recall and answer from what it finds.",
    "request_timeout": "It took too long. A write may still have happened: read before you repeat it.",
    "outcome_unknown": _UNKNOWN,
    "unknown_outcome": _UNKNOWN,
    "not_durable": "It was stored, and is not in object storage yet. Do not repeat it.",
    "internal": "The server failed. Call again once; if it stays, tell the user.",
}
"""What a model should do about an error, by its code."""


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without nulls, empty texts and bookkeeping, with its times in RFC 3339."""
    out: dict[str, Any] = {}
    content = row.get("content")
    if isinstance(content, dict) and "summary" in row and content.get("summary") == row["summary"]:
        # What memory_ingest has put there says nothing more.
        row = {**row, "content": {key: value for key, value in content.items() if key != "summary"}}
    for key, value in row.items():
        if value is None or value in ("", [], {}) or key in _HIDDEN or (key == "pinned" and not value):
            continue
        out[key] = _time(value) if key in _TIMES and isinstance(value, int) else value
    if isinstance(score := out.get("score"), float):
        out["score"] = round(score, 4)
    return out


def fitted(answer: dict[str, Any], limit_bytes: int) -> dict[str, Any]:
    """Return `answer` in at most `limit_bytes` of JSON: long texts are cut first, then rows from the end.

    What was left out is said in `truncated`. Rows are in the only list of objects that the answer has. Where some are left
    out there is no `next_cursor`, which would lead past them.
    """
    if _size(answer) <= limit_bytes:
        return answer
    cut = {key: _shortened(value) for key, value in answer.items()}
    cut["truncated"] = "Long texts were cut; get the item by its id to see all of it."
    rows_key = next(
        (
            key
            for key, value in cut.items()
            if isinstance(value, list) and value and isinstance(value[0], dict)
        ),
        None,
    )
    if rows_key and len(cut[rows_key]) > 1 and _size(cut) > limit_bytes:
        cut = _fewer(cut, rows_key, limit_bytes)
    if _size(cut) > limit_bytes:
        cut = {
            **_empty(answer),
            "truncated": "The answer is too large to show whole; this is its beginning.",
            "beginning": "",
        }
        text = json.dumps(answer, ensure_ascii=False)[:limit_bytes]
        while text and _size({**cut, "beginning": text}) > limit_bytes:
            text = text[: len(text) * 3 // 4]
        cut["beginning"] = text
    return cut


def _fewer(answer: dict[str, Any], rows_key: str, limit_bytes: int) -> dict[str, Any]:
    """Return the answer with as many of its rows as fit, one at least."""
    rows = answer[rows_key]
    fewer = {key: value for key, value in answer.items() if key != "next_cursor"}
    keep = len(rows)
    while keep > 1 and _size(fewer) > limit_bytes:
        keep = max(1, keep * 3 // 4)
        fewer[rows_key] = rows[:keep]
        fewer["truncated"] = (
            f"Long texts were cut and the last {len(rows) - keep} of {len(rows)} {rows_key} left out; ask for {keep} at most at once, "
            "or narrow the search."
        )
    return fewer


def succeeded(answer: dict[str, Any], place: Place | None, limit_bytes: int) -> CallToolResult:
    """Return the answer, as structured content and as the same JSON in text."""
    shown = fitted(answer, limit_bytes)
    text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    meta = {"memoturn/profile": str(place)} if place else None
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=shown, _meta=meta)


def failed(code: str, message: str, next_step: str | None = None) -> CallToolResult:
    """Return a tool error: what failed, and what to do."""
    step = next_step or NEXT_STEPS.get(code, NEXT_STEPS["internal"])
    text = f"{code}: {message.rstrip('.')}. Next: {step}"
    return CallToolResult(
        content=[TextContent(type="text", text=text)], is_error=True, _meta={"memoturn/code": code}
    )


def error_of(error: errors.MemoturnError, *, read_only: bool) -> CallToolResult:
    """Return the tool error of an error of the client."""
    return failed(code_of(error, read_only=read_only), error.message)


def code_of(error: errors.MemoturnError, *, read_only: bool) -> str:
    """Return the stable code of an error. Where something only reads, nothing may have happened."""
    if isinstance(error, errors.UnknownOutcomeError) and read_only:
        return "unavailable"
    return error.code or "internal"


def invalid(error: ValidationError) -> str:
    """Return what is wrong with arguments, by argument; what was sent is not repeated."""
    shown = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        where = ".".join(str(part) for part in problem["loc"])
        message = (
            "is not an argument of this tool" if problem["type"] == "extra_forbidden" else problem["msg"]
        )
        shown.append(f"{where}: {message}" if where else message)
    return "; ".join(shown)


def _time(unix_ms: int) -> str:
    try:
        return (
            datetime.fromtimestamp(unix_ms / 1000, tz=timezone.utc)
            .isoformat(timespec="seconds")
            .replace("+00:00", "Z")
        )
    except (OverflowError, OSError, ValueError):
        return str(unix_ms)


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        return f"{value[:_SHOWN]}... ({len(value) - _SHOWN} more characters)"
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    if isinstance(value, dict):
        return {key: _shortened(part) for key, part in value.items()}
    return value


def _empty(answer: Mapping[str, Any]) -> dict[str, Any]:
    blanks: dict[type, Any] = {list: [], dict: {}, str: ""}
    return {key: blanks.get(type(value), value) for key, value in answer.items()}


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
