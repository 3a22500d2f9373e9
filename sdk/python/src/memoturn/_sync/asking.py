# Made of _async/asking.py by scripts/unasync: change that one.
"""What language models make of a profile: answers to questions, and memories out of transcripts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from memoturn._core.bodies import given, listed
from memoturn._core.streams import error_in
from memoturn._sync.address import Address
from memoturn.errors import UnknownOutcomeError
from memoturn.types import (
    AskEvent,
    AskResult,
    ExtractResult,
    MemoryType,
    ProposeResult,
    ReadOptions,
    SaidTurn,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Asking:
    """The part of a profile that asks a language model, where the node has one (else UnconfiguredError)."""

    _address: Address
    _source: str | None

    def ask(
        self,
        question: str,
        *,
        types: Sequence[MemoryType] | None = None,
        session_id: str | None = None,
        source: str | None = None,
        k: int = 8,
        include_superseded: bool = False,
        **options: "Unpack[ReadOptions]",
    ) -> AskResult:
        """Answer a question from up to `k` memories, which are recalled with it.

        The answer is None where nothing was recalled; then no model was asked. Raises RetryableError where the
        model failed.
        """
        body = _question(question, types, session_id, source, k, include_superseded)
        return cast("AskResult", (self._address.read("POST", "ask", body=body, **options)).stamped())

    def ask_stream(
        self,
        question: str,
        *,
        types: Sequence[MemoryType] | None = None,
        session_id: str | None = None,
        source: str | None = None,
        k: int = 8,
        include_superseded: bool = False,
        **options: "Unpack[ReadOptions]",
    ) -> Iterator[AskEvent]:
        """Answer a question as `ask` does, and yield it as it is written: `memories`, then `delta`s, then `done`.

        What `done` says counts. To leave early ends the model's work. Raises what `ask` does, also in the midst
        of an answer, and UnknownOutcomeError where it breaks off.
        """
        body = _question(question, types, session_id, source, k, include_superseded)
        with self._address.events("POST", "ask", body={**body, "stream": True}, **options) as events:
            for event in events:
                if event.name == "error":
                    raise error_in(event)
                yield cast("AskEvent", {"event": event.name, **event.data})
                if event.name == "done":
                    return
        raise UnknownOutcomeError("the answer broke off before its end; ask again", code="unknown_outcome")

    @overload
    def extract(
        self,
        turns: Iterable[SaidTurn] | None = None,
        *,
        session_id: str | None = None,
        source: str | None = None,
        dry_run: Literal[False] = False,
        from_seq: int | None = None,
        to_seq: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> ExtractResult: ...

    @overload
    def extract(
        self,
        turns: Iterable[SaidTurn] | None = None,
        *,
        session_id: str | None = None,
        source: str | None = None,
        dry_run: Literal[True],
        from_seq: int | None = None,
        to_seq: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> ProposeResult: ...

    def extract(
        self,
        turns: Iterable[SaidTurn] | None = None,
        *,
        session_id: str | None = None,
        source: str | None = None,
        dry_run: bool = False,
        from_seq: int | None = None,
        to_seq: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> ExtractResult | ProposeResult:
        """Let the model propose memories of a transcript, and ingest them as one commit.

        The transcript is `turns` (up to 5000), or without them the stored turns of the session, `from_seq` to
        `to_seq` where given. With `dry_run` nothing is written: it shows what would be. Raises RetryableError
        where the model failed, NotFoundError where there are no such stored turns.
        """
        body = given(
            turns=listed(turns),
            session_id=session_id,
            source=source or self._source,
            dry_run=dry_run or None,
            from_seq=from_seq,
            to_seq=to_seq,
        )
        answer = self._address.write("POST", "extract", body=body, **options)
        if dry_run:
            return cast("ProposeResult", answer.json())
        return cast(
            "ExtractResult", {**answer.stamped(), "txid": answer.txid}
        )  # null where nothing was written


def _question(
    question: str,
    types: Sequence[MemoryType] | None,
    session_id: str | None,
    source: str | None,
    k: int,
    include_superseded: bool,
) -> dict[str, Any]:
    return given(
        question=question,
        types=listed(types),
        session_id=session_id,
        source=source,
        k=k,
        include_superseded=include_superseded or None,
    )
