"""A key-value as the answer of its own route tells it: the value in the body, the rest in headers."""

from typing import Final

from memoturn._core.answers import Answer, json_object, number
from memoturn.types import KeyEntry

_UNCHANGED: Final = 304


def entry_of(key: str, answer: Answer) -> KeyEntry:
    """Return the entry of an answer; without the value where the answer is that it has not changed."""
    metadata = answer.headers.get("Memoturn-Meta")
    entry = KeyEntry(
        key=key,
        etag=answer.headers.get("ETag", "").strip('"'),
        size_bytes=len(answer.body),
        metadata=None if metadata is None else json_object(metadata, "the metadata"),
        expires_at=number(answer.headers, "Memoturn-Expires-At") or None,
    )
    if answer.status != _UNCHANGED:
        entry["value"] = answer.body
    return entry
