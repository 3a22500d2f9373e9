"""Bodies of embedding models, and of the job that embeds again."""

from typing import Literal

from memoturnd.http.shapes import Count, Struct, Time, Txid

Scope = Literal["memories", "turns", "all"]


class Model(Struct):
    """An embedding model of a profile, and how many memories and turns have a vector of it; unnamed it is null."""

    name: str | None
    dimensions: Count | None
    memories: Count
    turns: Count
    active: bool
    created_at: Time | None


class Embeddable(Struct):
    """How many memories and turns may have a vector."""

    memories: Count
    turns: Count


class Models(Struct):
    """The models, the oldest first; `embedder` is the one that the node embeds with."""

    models: list[Model]
    embeddable: Embeddable
    embedder: str | None
    txid: Txid


class Reembed(Struct):
    """What to embed again; everything unless said otherwise."""

    model: str | None = None
    scope: Scope | None = None
    only_missing: bool | None = None


class Job(Struct):
    """How far the job is, or how the last one ended."""

    state: Literal["none", "running", "waiting", "done", "failed", "cancelled"]
    model: str | None
    scope: Scope | None
    only_missing: bool | None
    total: Count
    done: Count
    failed: Count
    started_at: Time | None
    updated_at: Time | None
    finished_at: Time | None
    error: str | None
    txid: Txid
