"""Structured logs on stderr, a JSON object a line. stdout belongs to the protocol, and secrets belong nowhere.

Lines say which tool was called, for whom, and how it went; never what was said, asked, sent or answered.
"""

import hashlib
import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, Final

LEVELS: Final = ("debug", "info", "warning", "error")
_OWN: Final = "memoturn.mcp"
_SHOWN: Final = 300

log: Final = logging.getLogger(_OWN)


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON.

    Of records that other packages wrote only the pattern is shown, not what was put into it, and of exceptions only
    the type: those texts may hold what a client has sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        own = record.name == _OWN
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "event": record.getMessage() if own else str(record.msg)[:_SHOWN],
        }
        if not own:
            line["logger"] = record.name
        line.update(getattr(record, "facts", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send what is at or above `level` to stderr; other packages say only what goes wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level.upper())


def say(event: str, *, level: int = logging.INFO, **facts: object) -> None:
    """Log an event with its facts."""
    log.log(level, event, extra={"facts": facts})


def digest(secret: str | None) -> str:
    """Return a short name for a credential or a session id, from which it cannot be told."""
    return "none" if secret is None else hashlib.sha256(secret.encode()).hexdigest()[:12]
