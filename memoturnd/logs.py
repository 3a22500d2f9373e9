"""The log: structured lines on stderr, each with what it is about, none without a bound.

    request_id, branch, db     of the request in which a line was written, added by itself
    branch                     `{database}@{branch}`, the database with its tenant, in every line that is about a branch
    db                         the database of that, so that one field finds all of it

What a request is about is worked out when a line is written, and not before: most requests write none.
"""

import asyncio
import contextvars
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, Protocol

import structlog

from memoturnd.seams.clock import Randomness
from memoturnd.workers.settings import WorkerSettings

VALUE_LENGTH: Final = 4000
"""Characters of one value; longer ones are cut."""
TRACE_LENGTH: Final = 20_000
"""Characters of a traceback, of which the middle is left out where it is longer."""
VALUES: Final = 100
"""Items of one value that is a list."""
REQUESTS_PER_S: Final = 200
"""Lines about requests that one process writes in a second; the others are counted."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
About = tuple[str | None, str | None]
"""The database that a request is about, qualified, and its branch, as far as they are known."""


class Logged(Protocol):
    """The settings of the log."""

    @property
    def log_level(self) -> Literal["debug", "info", "warning", "error"]:
        """The least that is logged."""
        ...

    @property
    def log_format(self) -> Literal["console", "json"]:
        """Text for people, or JSON for machines."""
        ...


class RequestContext:
    """What lines say of the request in which they are written. `about` is asked when there is a line."""

    __slots__ = ("about", "request_id")

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id
        self.about: Callable[[], About] | None = None

    def facts(self) -> dict[str, str]:
        """Return the fields of a line."""
        found = {"request_id": self.request_id.decode()}
        database, branch = (None, None) if self.about is None else self.about()
        if database is not None:
            found["db"] = database
            if branch is not None:
                found["branch"] = f"{database}@{branch}"
        return found


_current: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar("request", default=None)


@contextmanager
def request_context(context: RequestContext) -> Iterator[None]:
    """Let every line that is written inside say that it is of this request."""
    token = _current.set(context)
    try:
        yield
    finally:
        context.about = None  # whatever outlives the request keeps nothing of it but its id
        _current.reset(token)


def given_or_new_id(headers: Iterable[tuple[bytes, bytes]], randomness: Randomness) -> bytes:
    """Return the request id that a request came with, a new one where it has none that is fit to be logged."""
    for name, value in headers:
        if name == b"memoturn-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return randomness.hex(8).encode()


def request_id() -> bytes | None:
    """Return the id of the request that is being served here, None outside of one."""
    context = _current.get()
    return None if context is None else context.request_id


def apart() -> contextvars.Context:
    """Return the context for a task that outlives the request which starts it: its lines are about no request."""
    context = contextvars.copy_context()
    context.run(_current.set, None)
    return context


class RequestLog:
    """One line for a request that was served: those that went wrong, all, or none."""

    def __init__(
        self,
        which: Literal["off", "problems", "all"],
        *,
        slow_s: float,
        now_s: Callable[[], float],
        event: str = "request",
    ) -> None:
        """`problems` are answers of 5xx, and what took `slow_s` or longer (0: nothing counts as slow)."""
        self._event = event
        self._which = which
        self._slow_s = slow_s or float("inf")
        self._now_s = now_s
        self._log = structlog.get_logger("memoturn.requests")
        self._second = -1
        self._written = 0
        self._unwritten = 0

    def note(
        self,
        template: str,
        method: str,
        status: int,
        seconds: float,
        *,
        may_wait: bool = False,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Write the line of a request, where it is to have one; `may_wait` says that it is no wonder when it took long."""
        is_problem = status >= 500 or (seconds >= self._slow_s and not may_wait)  # noqa: PLR2004 - failures of the server
        if self._which == "off" or not (is_problem or self._which == "all") or not self._may_write():
            return
        facts: dict[str, object] = {
            "method": method[:16],
            "route": template,
            "status": status,
            "ms": round(1000 * seconds, 3),
        }
        txid = next((value for name, value in headers if name == b"memoturn-txid"), b"")
        if txid.isdigit():
            facts["txid"] = int(txid)
        (self._log.warning if is_problem else self._log.info)(self._event, **facts)

    def _may_write(self) -> bool:
        second = int(self._now_s())
        if second != self._second:
            unwritten, self._unwritten = self._unwritten, 0
            self._second, self._written = second, 0
            if unwritten:
                self._log.warning("requests without a line of their own", count=unwritten)
        self._written += 1
        if self._written <= REQUESTS_PER_S:
            return True
        self._unwritten += 1
        return False


def set_up_logging(settings: Logged) -> None:
    """Send structured logs to stderr, as text for people or JSON for machines; those of libraries too."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[structlog.typing.Processor] = [
        _add_context,
        *([_names_worker(settings.worker)] if isinstance(settings, WorkerSettings) else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _bound,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _add_context(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say which request a line is of, and which database a branch is of; what the line says itself stands."""
    context = _current.get()
    if context is not None:
        for name, value in context.facts().items():
            event.setdefault(name, value)
    branch = event.get("branch")
    if isinstance(branch, str) and "@" in branch:
        event.setdefault("db", branch.rpartition("@")[0])
    return event


def _bound(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut what would make a line long without end."""
    for name, value in event.items():
        if isinstance(value, str):
            limit = TRACE_LENGTH if name == "exception" else VALUE_LENGTH
            if len(value) > limit:
                event[name] = (
                    f"{value[: limit // 2]} ... {len(value) - limit} characters left out ... {value[-limit // 2 :]}"
                )
        elif isinstance(value, list | tuple | set | dict) and len(value) > VALUES:
            event[name] = f"{len(value)} of them"
    return event


def _names_worker(worker: int) -> structlog.typing.Processor:
    """Return what lets each line of the log say which worker wrote it."""

    def name(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker
        return event

    return name


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the trace of each request that was cut off by a stop: uvicorn has said how many there were."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
