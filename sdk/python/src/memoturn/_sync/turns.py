# Made of _async/turns.py by scripts/unasync: change that one.
"""Transcripts of one branch: the turns of sessions, word for word."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from memoturn._core.bodies import given, listed, milliseconds
from memoturn._sync.address import PAGE_LIMIT, Address
from memoturn.types import (
    FoundTurn,
    NewTurn,
    ReadOptions,
    Time,
    Turn,
    TurnAppendResult,
    TurnPage,
    TurnsAppendResult,
    TurnsDeleted,
    TurnSearchMode,
    TurnSearchResult,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TranscriptSession:
    """The transcript of one session. Turns are numbered from 1 (`seq`), and no number is given twice."""

    def __init__(self, database: Address, session_id: str) -> None:
        self.session_id = session_id
        self._address = database.below("memory", session_id)

    def append_turn(
        self,
        role: str,
        content: Any,
        embedding: Sequence[float] | None = None,
        *,
        embedding_model: str | None = None,
        at: Time | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> TurnAppendResult:
        """Append a turn; `content` is any JSON value, `at` the time of one that is older than now.

        On a node with an embedder a turn with words gets an embedding of its own unless one is given.
        """
        body = {
            "role": role,
            "content": content,
            **given(
                embedding=listed(embedding),
                embedding_model=embedding_model,
                at=milliseconds(at),
            ),
        }
        answer = self._address.write("POST", "turns", body=body, **options)
        return cast("TurnAppendResult", answer.stamped())

    def append_turns(self, turns: Iterable[NewTurn], **options: "Unpack[WriteOptions]") -> TurnsAppendResult:
        """Append up to 1000 turns as one commit, all or none; the numbers are in their order."""
        answer = self._address.write("POST", "turns", body={"turns": list(turns)}, **options)
        return cast("TurnsAppendResult", answer.stamped())

    def get_window(self, last: int = 20, **options: "Unpack[ReadOptions]") -> list[Turn]:
        """Return the `last` turns (at most 1000), oldest first."""
        answer = self._address.read("GET", "turns", query={"last": last}, **options)
        return cast("list[Turn]", answer.json()["turns"])

    def get_page(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        **options: "Unpack[ReadOptions]",
    ) -> TurnPage:
        """Return up to `limit` (at most 1000) turns below the number `before`, or above `after`, oldest first.

        The answer says what to send for the pages beside it. Without either, the last turns.
        """
        query = given(before=before, after=after, limit=limit)
        if before is None and after is None:
            query = {"last": limit}
        return cast("TurnPage", (self._address.read("GET", "turns", query=query, **options)).stamped())

    def iter_turns(
        self, *, after: int = 0, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> Iterator[Turn]:
        """Yield every turn above the number `after`, or the first `limit` of them, oldest first."""
        following: int | None = after
        left = limit
        while following is not None and left != 0:
            page = PAGE_LIMIT if left is None else min(PAGE_LIMIT, left)
            found = self.get_page(after=following, limit=page, **options)
            for turn in found["turns"]:
                yield turn
            left = None if left is None else left - len(found["turns"])
            following = found["newer"]

    def get(self, seq: int, **options: "Unpack[ReadOptions]") -> Turn | None:
        """Return a turn by its number, None when there is none."""
        answer = self._address.find("GET", "turns", str(seq), **options)
        return None if answer is None else cast("Turn", answer.json())

    def delete(self, seq: int, **options: "Unpack[WriteOptions]") -> bool:
        """Delete a turn; False when there is none of that number."""
        return self._address.remove("turns", str(seq), **options)

    def delete_turns(
        self,
        *,
        from_seq: int | None = None,
        to_seq: int | None = None,
        all: bool = False,  # noqa: A002 - the field's name
        **options: "Unpack[WriteOptions]",
    ) -> TurnsDeleted:
        """Delete the turns from one number to another, both included, or `all` of them.

        At most 10,000 go at once, the oldest; while the answer has `more`, call again. The session and its
        memories stay. Raises InvalidRequestError when nothing says which turns are meant.
        """
        query = {"from": from_seq, "to": to_seq, "all": all}
        return cast(
            "TurnsDeleted", (self._address.write("DELETE", "turns", query=query, **options)).stamped()
        )

    def search_semantic(
        self, vector: Sequence[float], k: int = 5, **options: "Unpack[ReadOptions]"
    ) -> list[FoundTurn]:
        """Return the `k` turns whose embeddings are nearest to `vector`, by cosine."""
        body = {"vector": list(vector), "k": k}
        answer = self._address.read("POST", "search", body=body, **options)
        return cast("list[FoundTurn]", answer.json()["turns"])

    def search(
        self,
        query: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        embedding_model: str | None = None,
        mode: TurnSearchMode | None = None,
        k: int = 5,
        role: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> TurnSearchResult:
        """Return up to `k` turns of the session, best first; see `search_turns` of a profile or database."""
        body = _searched(query, vector, embedding_model, mode, k, role, since, until)
        return cast(
            "TurnSearchResult", (self._address.read("POST", "search", body=body, **options)).stamped()
        )


class Transcripts:
    """What a database and a profile have of transcripts. `_database` is the address of the branch's database."""

    _database: Address

    def session(self, session_id: str) -> TranscriptSession:
        """Return the transcript of a session on this branch; nothing is sent and nothing is created."""
        return TranscriptSession(self._database, session_id)

    def search_turns(
        self,
        query: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        embedding_model: str | None = None,
        mode: TurnSearchMode | None = None,
        k: int = 5,
        role: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> TurnSearchResult:
        """Return up to `k` turns of any session, best first: by words (`query`), by `vector`, or by both.

        `mode` is `keyword` (no vector is made of the words), `vector` or `hybrid` (unless given). `since` and
        `until` are both included. Raises InvalidRequestError when there is neither a query nor a vector.
        """
        body = _searched(query, vector, embedding_model, mode, k, role, since, until)
        return cast(
            "TurnSearchResult",
            (self._database.read("POST", "memory", "search", body=body, **options)).stamped(),
        )


def _searched(
    query: str | None,
    vector: Sequence[float] | None,
    embedding_model: str | None,
    mode: TurnSearchMode | None,
    k: int,
    role: str | None,
    since: Time | None,
    until: Time | None,
) -> dict[str, Any]:
    return given(
        query=query,
        vector=listed(vector),
        embedding_model=embedding_model,
        mode=mode,
        k=k,
        role=role,
        since=milliseconds(since),
        until=milliseconds(until),
    )
