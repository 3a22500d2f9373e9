"""Memoturn: the client of a database for the memory of AI agents.

from memoturn import Memoturn

with Memoturn("http://127.0.0.1:8080") as memoturn:
    alice = memoturn.memory("app", "alice")
    alice.ingest([{"type": "fact", "topic_key": "user.diet", "summary": "Alice is vegan"}])
    alice.recall("what does Alice eat")["memories"]

Errors are drawn as a tree in `memoturn.errors`; the command line is `memoturn[cli]`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoturn._async.branches import AsyncBranches
    from memoturn._async.database import AsyncDb
    from memoturn._async.documents import AsyncCollection
    from memoturn._async.key_values import AsyncKeyValues
    from memoturn._async.memory import AsyncMemoryProfile
    from memoturn._async.timelines import AsyncTimeline
    from memoturn._async.turns import AsyncTranscriptSession
    from memoturn._async.vectors import AsyncVectors
    from memoturn._core.files import Progress
    from memoturn._core.paths import MAIN
    from memoturn._core.sql import Statement
    from memoturn._core.streams import Event
    from memoturn._sync.branches import Branches
    from memoturn._sync.database import Db
    from memoturn._sync.documents import Collection
    from memoturn._sync.key_values import KeyValues
    from memoturn._sync.memory import MemoryProfile
    from memoturn._sync.timelines import Timeline
    from memoturn._sync.turns import TranscriptSession
    from memoturn._sync.vectors import Vectors
    from memoturn.client import DEFAULT_URL, AsyncMemoturn, Memoturn
    from memoturn.errors import (
        AlreadyExistsError,
        BackupError,
        BranchNotFoundError,
        ChangesGoneError,
        ConflictError,
        DatabaseNotFoundError,
        EmbeddedError,
        ForbiddenError,
        IdempotencyKeyReusedError,
        InvalidReceiptError,
        InvalidRequestError,
        MemoturnError,
        NotDurableError,
        NotFoundError,
        OverloadedError,
        PreconditionFailedError,
        RequestTimeoutError,
        RetryableError,
        ServerError,
        UnauthorizedError,
        UnavailableError,
        UnconfiguredError,
        UnknownOutcomeError,
        UnreachableError,
    )
    from memoturn.receipts import verify_receipt
    from memoturn.types import (
        AskEvent,
        AskResult,
        At,
        BranchInfo,
        Change,
        Checkpoint,
        CheckpointInfo,
        Consistency,
        DatabaseInfo,
        Durability,
        ErasureCoupon,
        ErasureRequested,
        ErasureTarget,
        Exported,
        ExtractResult,
        Fork,
        ImportedDatabase,
        IngestItem,
        IngestOutcome,
        IngestResult,
        Memory,
        MemoryRecord,
        MemoryType,
        ProfileInfo,
        ReadOptions,
        RecallHit,
        RecallResult,
        RestorePoint,
        Rewind,
        Session,
        SqlBatchResult,
        SqlResult,
        SqlValue,
        Turn,
        TurnAppendResult,
        Verification,
        VerifyFinding,
        WriteOptions,
    )

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_URL",
    "MAIN",
    "AlreadyExistsError",
    "AskEvent",
    "AskResult",
    "AsyncBranches",
    "AsyncCollection",
    "AsyncDb",
    "AsyncKeyValues",
    "AsyncMemoryProfile",
    "AsyncMemoturn",
    "AsyncTimeline",
    "AsyncTranscriptSession",
    "AsyncVectors",
    "At",
    "BackupError",
    "BranchInfo",
    "BranchNotFoundError",
    "Branches",
    "Change",
    "ChangesGoneError",
    "Checkpoint",
    "CheckpointInfo",
    "Collection",
    "ConflictError",
    "Consistency",
    "DatabaseInfo",
    "DatabaseNotFoundError",
    "Db",
    "Durability",
    "EmbeddedError",
    "ErasureCoupon",
    "ErasureRequested",
    "ErasureTarget",
    "Event",
    "Exported",
    "ExtractResult",
    "ForbiddenError",
    "Fork",
    "IdempotencyKeyReusedError",
    "ImportedDatabase",
    "IngestItem",
    "IngestOutcome",
    "IngestResult",
    "InvalidReceiptError",
    "InvalidRequestError",
    "KeyValues",
    "Memory",
    "MemoryProfile",
    "MemoryRecord",
    "MemoryType",
    "Memoturn",
    "MemoturnError",
    "NotDurableError",
    "NotFoundError",
    "OverloadedError",
    "PreconditionFailedError",
    "ProfileInfo",
    "Progress",
    "ReadOptions",
    "RecallHit",
    "RecallResult",
    "RequestTimeoutError",
    "RestorePoint",
    "RetryableError",
    "Rewind",
    "ServerError",
    "Session",
    "SqlBatchResult",
    "SqlResult",
    "SqlValue",
    "Statement",
    "Timeline",
    "TranscriptSession",
    "Turn",
    "TurnAppendResult",
    "UnauthorizedError",
    "UnavailableError",
    "UnconfiguredError",
    "UnknownOutcomeError",
    "UnreachableError",
    "Vectors",
    "Verification",
    "VerifyFinding",
    "WriteOptions",
    "__version__",
    "verify_receipt",
]

_HOMES = (
    "errors",
    "types",
    "_core.paths",
    "_core.files",
    "_core.sql",
    "_core.streams",
    "_sync.client",
    "_sync.branches",
    "_sync.database",
    "_sync.documents",
    "_sync.key_values",
    "_sync.memory",
    "_sync.timelines",
    "_sync.turns",
    "_sync.vectors",
    "receipts",
    "_async.branches",
    "_async.database",
    "_async.documents",
    "_async.key_values",
    "_async.memory",
    "_async.timelines",
    "_async.turns",
    "_async.vectors",
    "client",
)
"""Where the names are, those that cost little to import first."""
_MODULES = frozenset({"audit", "backup", "client", "errors", "receipts", "types"})


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is, so that who needs an error's name does not load a client."""
    if name in _MODULES:
        return import_module(f"memoturn.{name}")
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"memoturn.{home}")
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module 'memoturn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that may be imported."""
    return sorted({*globals(), *__all__, *_MODULES})
