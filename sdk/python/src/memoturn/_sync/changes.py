# Made of _async/changes.py by scripts/unasync: change that one.
"""The change feed of a branch: pages, and an iterator that goes on for as long as it is wanted."""

from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from memoturn._core.bodies import given, joined
from memoturn._core.streams import Event, error_in
from memoturn._sync.address import Address
from memoturn._sync.seam import sleep
from memoturn.errors import (
    ChangesGoneError,
    MemoturnError,
    RetryableError,
    UnknownOutcomeError,
    UnreachableError,
)
from memoturn.types import Change, ChangePage, ReadOptions, Surface

if TYPE_CHECKING:
    from typing_extensions import Unpack

PAUSE_S: Final = 0.2
PAUSE_LIMIT_S: Final = 5.0
SILENCE_S: Final = 30.0
"""How long a feed may be silent before its connection counts as broken; a node sends something every 10 s."""


class Changes:
    """What a database and a profile have of the change feed."""

    _address: Address

    def changes(
        self,
        since: int | None = None,
        *,
        limit: int = 100,
        surfaces: Iterable[Surface] | None = None,
        durable: bool = False,
        wait_s: int = 0,
        **options: "Unpack[ReadOptions]",
    ) -> ChangePage:
        """Return what up to `limit` commits after the txid `since` have changed, by surface and key; no values.

        Without `since` it only says where the feed is now. Go on with `next_since`. `durable` leaves out what
        object storage does not have yet. Where there is nothing, it waits up to `wait_s` seconds (at most 60)
        for the first change. Raises ChangesGoneError where the feed does not reach back to `since`.
        """
        query = given(since=since, limit=limit, surface=joined(surfaces), wait_s=wait_s or None)
        query["durable"] = durable
        if wait_s and options.get("timeout_s") is None:
            options["timeout_s"] = wait_s + SILENCE_S
        return cast("ChangePage", (self._address.read("GET", "changes", query=query, **options)).stamped())

    def follow(
        self,
        since: int | None = None,
        *,
        surfaces: Iterable[Surface] | None = None,
        durable: bool = False,
        patience_s: float = 60.0,
    ) -> Iterator[Change]:
        """Yield what each commit after the txid `since` changes, as it happens, without end; from now on without it.

        It comes again by itself where the connection breaks, the node stops or another one takes the branch, and
        misses nothing and repeats nothing; after `patience_s` seconds without a connection it raises what stands
        in the way. Raises ChangesGoneError where some commits cannot be told any more: read again what you keep
        a copy of, and follow from its `txid` on. Leaving the loop ends the connection.

        Nothing is sent before the first step. To miss nothing of what is written after a moment, take `since` from
        `(changes())["next_since"]` at that moment.
        """
        query = given(surface=joined(surfaces))
        query["durable"] = durable
        reached, pause_s = since, PAUSE_S
        failing_since_s: float | None = None
        while True:
            try:
                asked = {**query, "since": reached}
                with self._address.events(
                    "GET", "changes", query=asked, min_txid=0, timeout_s=SILENCE_S
                ) as events:
                    failing_since_s = None
                    for event in events:
                        pause_s = PAUSE_S
                        if event.name == "end":
                            break
                        if event.name == "reset":
                            raise _gone(event)
                        if event.id:
                            reached = int(event.id)
                        if event.name == "change":
                            yield cast("Change", event.data)
            except (UnreachableError, UnknownOutcomeError, RetryableError):
                now_s = monotonic()
                failing_since_s = now_s if failing_since_s is None else failing_since_s
                if now_s - failing_since_s > patience_s:
                    raise
            sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_LIMIT_S)


def _gone(event: Event) -> MemoturnError:
    error = error_in(event)
    if isinstance(error, ChangesGoneError):
        error.txid = int(event.data["txid"])
    return error
