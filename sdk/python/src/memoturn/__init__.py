"""Memoturn: the client of a database for the memory of AI agents.

from memoturn import Memoturn

with Memoturn("http://127.0.0.1:8080") as memoturn:
    alice = memoturn.memory("app", "alice")
    alice.ingest([{"type": "fact", "topic_key": "user.diet", "summary": "Alice is vegan"}])
    alice.recall("what does Alice eat")["memories"]

Errors are drawn as a tree in `memoturn.errors`; the command line is `memoturn[cli]`.
"""

from memoturn.branches import Branches
from memoturn.client import DEFAULT_URL, Memoturn
from memoturn.database import Db, KeyValues, Statement
from memoturn.errors import (
    AlreadyExistsError,
    BackupError,
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    ForbiddenError,
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
    UnconfiguredError,
    UnknownOutcomeError,
    UnreachableError,
)
from memoturn.memory import MemoryProfile
from memoturn.receipts import verify_receipt
from memoturn.types import (
    At,
    BranchInfo,
    Checkpoint,
    CheckpointInfo,
    DatabaseInfo,
    Durability,
    ErasureCoupon,
    ErasureRequested,
    ErasureTarget,
    Exported,
    Fork,
    ImportedDatabase,
    IngestItem,
    IngestOutcome,
    IngestResult,
    Memory,
    MemoryType,
    ProfileInfo,
    RecallHit,
    RecallResult,
    RestorePoint,
    Rewind,
    Session,
    SqlBatchResult,
    SqlResult,
    SqlValue,
    Verification,
    VerifyFinding,
)

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_URL",
    "AlreadyExistsError",
    "At",
    "BackupError",
    "BranchInfo",
    "BranchNotFoundError",
    "Branches",
    "Checkpoint",
    "CheckpointInfo",
    "ConflictError",
    "DatabaseInfo",
    "DatabaseNotFoundError",
    "Db",
    "Durability",
    "ErasureCoupon",
    "ErasureRequested",
    "ErasureTarget",
    "Exported",
    "ForbiddenError",
    "Fork",
    "ImportedDatabase",
    "IngestItem",
    "IngestOutcome",
    "IngestResult",
    "InvalidReceiptError",
    "InvalidRequestError",
    "KeyValues",
    "Memory",
    "MemoryProfile",
    "MemoryType",
    "Memoturn",
    "MemoturnError",
    "NotDurableError",
    "NotFoundError",
    "OverloadedError",
    "PreconditionFailedError",
    "ProfileInfo",
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
    "UnauthorizedError",
    "UnconfiguredError",
    "UnknownOutcomeError",
    "UnreachableError",
    "Verification",
    "VerifyFinding",
    "__version__",
    "verify_receipt",
]
