"""The shapes that the client exports are those of the API's description: names, optionality and types, both ways."""

import types as runtime
import typing
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import memoturn.types
import pytest

from memoturnd.core.policy import _FIELDS as POLICY_FIELDS
from memoturnd.http.openapi import document
from memoturnd.http.routes import ROUTES

PUBLIC = [route for route in ROUTES if not route.template.startswith("/internal/")]
SCHEMAS: dict[str, dict[str, Any]] = document(PUBLIC)["components"]["schemas"]

SEEN = {"txid", "durable_txid", "replica_age_ms"}
WRITTEN = {"txid", "durable_txid", "durability"}


@dataclass
class Shape:
    """The schema of a type. `adds` are fields that the client takes from headers; `own` are of another form in it."""

    schema: str
    adds: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    event: str | None = None


def plain(schema: str, *own: str) -> Shape:
    return Shape(schema, own=frozenset(own))


def seen(schema: str) -> Shape:
    return Shape(schema, adds=frozenset(SEEN))


def written(schema: str, *own: str) -> Shape:
    return Shape(schema, adds=frozenset(WRITTEN), own=frozenset(own))


SHAPES: dict[str, Shape] = {
    # memories
    "SourceTurns": plain("SourceTurns"),
    "IngestItem": plain("Item"),
    "IngestOutcome": plain("Stored"),
    "IngestResult": written("memories.Ingested"),
    "MemoryRecord": plain("Record"),
    "Memory": plain("Memory"),
    "MemoryPage": seen("Memories"),
    "Weights": plain("Weights"),
    "Decay": plain("Decay"),
    "NearMemory": plain("ContextMemory"),
    "HitContext": plain("Context"),
    "RecallHit": plain("memories.Hit"),
    "RecallResult": seen("Recalled"),
    "Session": plain("Session"),
    "ProfileInfo": plain("ProfileRow"),
    # memories: upkeep
    "MemoryPatched": written("Patched"),
    "MemoryVersion": plain("Version"),
    "MemoryHistory": seen("History"),
    "MemoryUndone": written("Undone"),
    "TopicInfo": plain("Topic"),
    "TopicChain": plain("Chain"),
    "TopicHistory": seen("Chains"),
    "ForgetOutcome": plain("Forgotten"),
    "ForgetResult": written("ForgottenMany"),
    "EmbeddingModel": plain("Model"),
    "Embeddable": plain("Embeddable"),
    "EmbeddingModels": seen("Models"),
    "ReembedJob": seen("Job"),
    "MemoryCounts": plain("Counts"),
    "MemoryImported": written("Imported"),
    # asking
    "AskResult": seen("Answered"),
    "SaidTurn": plain("Said"),
    "DroppedProposal": plain("Dropped"),
    "ProposedMemory": plain("ProposedItem"),
    "ProposeResult": plain("Proposed"),
    "ExtractResult": written(
        "Extracted", "txid"
    ),  # null where nothing was written; the client tells the state
    # turns
    "Turn": plain("turns.Turn"),
    "NewTurn": plain("NewTurn"),
    "TurnAppendResult": written("turns.Appended"),
    "TurnsAppendResult": written("AppendedAll"),
    "TurnPage": seen("TurnPage"),
    "NearTurn": plain("NearTurn"),
    "FoundTurn": plain("FoundTurn"),
    "TurnSearchResult": seen("FoundTurns"),
    "TurnsDeleted": written("DeletedTurns"),
    # changes
    "ChangeEntry": plain("changes.Entry"),
    "Change": plain("Change"),
    "ChangePage": seen("ChangePage"),
    # key-values: values are bytes
    "KeyEntry": plain("kv.Entry", "value"),
    "PutItem": plain("PutItem", "value"),
    "DeleteItem": plain("DeleteItem"),
    "BatchGot": plain("Got", "value"),
    "BatchPut": plain("PutDone"),
    "BatchDeleted": plain("DeleteDone"),
    "KeyBatchResult": written("Batched"),
    "KeyIncremented": written("Incremented"),
    "KeyStored": Shape("Stamped", adds=frozenset({*WRITTEN, "etag"})),
    # documents
    "DocumentsInserted": written("Inserted"),
    "DocumentsUpdated": written("Updated"),
    "DocumentsDeleted": written("documents.Deleted"),
    "DistinctValues": seen("Values"),
    "CollectionInfo": plain("documents.Collection"),
    "IndexInfo": plain("Index"),
    "IndexCreated": written("Indexed"),
    # vectors
    "NewVector": plain("NewVector"),
    "VectorStored": written("StoredOne"),
    "VectorOutcome": plain("StoredVector"),
    "VectorsStored": written("StoredMany"),
    "VectorHit": plain("vectors.Hit"),
    "StoredVector": plain("OneVector"),
    "VectorInfo": plain("Described"),
    "VectorDeletion": plain("DeletedVector"),
    "VectorsDeleted": written("vectors.Deleted"),
    "VectorCollectionInfo": plain("vectors.Collection"),
    # timelines
    "NewRow": plain("NewRow"),
    "TimelineRow": plain("Row"),
    "TimelineAppended": written("timelines.Appended"),
    "TimelineWindow": plain("Window"),
    "TimelineInfo": plain("timelines.Timeline"),
    "TimelineRetention": written("Retained"),
    # databases, branches
    "DatabaseInfo": plain("Database"),
    "DatabaseSettings": plain("DatabaseSettings"),
    "ImportedDatabase": plain("ImportedFile"),
    "SqlResult": plain("Result"),
    "SqlBatchResult": written("Results"),
    "BranchInfo": plain("BranchRow"),
    "Fork": plain("Fork"),
    "CheckpointInfo": plain("Checkpoint"),
    "Checkpoint": written("Checkpoint"),
    "RestorePoint": plain("RestorePoint"),
    "PastRewind": plain("PastRewind"),
    "Rewind": written("Rewound"),
    # erasures
    "TurnTarget": plain("erasures.Turn"),
    "DocumentTarget": plain("Document"),
    "KeyTarget": plain("erasures.Keys"),
    "VectorTarget": plain("Vector"),
    "TimelineTarget": plain("erasures.Timeline"),
    "ErasureTarget": plain("Target"),
    "ErasureRequested": plain("Requested"),
    "ErasureBlockedBy": plain("BlockedBy"),
    "ErasureReceipt": plain("Receipt"),
    "ErasureCoupon": plain("Coupon"),
    # credentials
    "MintedToken": plain("Minted"),
    "TokenInfo": plain("TokenShown"),
    "TokensRevoked": plain("Revoked"),
    "SigningKey": plain("Key"),
    "SigningKeys": plain("credentials.Keys"),
    "KeyRotated": plain("Rotated"),
    # policies, quotas, audit
    "NamespacePolicy": plain("NamespacePolicy"),
    "NamespacePolicies": plain("NamespacePolicies"),
    "EffectivePolicy": plain("Effective"),
    "ProfilePolicy": plain("ProfilePolicy"),
    "TenantInfo": plain("Tenant"),
    "NamespaceInfo": plain("Namespace"),
    "NewQuotas": plain("QuotasBody"),
    "Quotas": plain("Quotas"),
    "QuotasUsed": plain("Used"),
    "NamespaceQuotas": plain("NamespaceQuotas"),
    "TenantQuotas": plain("TenantQuotas"),
    "UsageDay": plain("UsageDay"),
    "AuditActor": plain("Actor"),
    "AuditEgress": plain("Egress"),
    "AuditEvent": plain("Event"),
    # operators
    "Ready": plain("Ready"),
    "Tiers": plain("Tiers"),
    "NodeState": plain("NodeState"),
    "ClusterNode": plain("ClusterNode"),
    "Standing": plain("cluster_wire.Standing"),
    "ClusterPlacement": plain("ClusterPlacement"),
    "ClusterOverview": plain("ClusterOverview"),
    "Owner": plain("PlacementOwner"),
    "Member": plain("Member"),
    "SyncSet": plain("PlacementSyncSet"),
    "DatabasePlacement": plain("DatabasePlacement"),
}

POLICIES = {
    "retention": "RetentionPolicy",
    "memory": "MemoryPolicy",
    "erasure": "ErasurePolicy",
    "audit": "AuditPolicy",
    "ai_egress": "EgressPolicy",
    "consistency": "ConsistencyPolicy",
}
"""Sections of a policy, which the API takes as an object of any members."""

OURS = {
    "ReadOptions", "WriteOptions",  # arguments
    "Seen", "Written",  # headers
    "Exported", "Verification", "VerifyFinding",  # files, and lines that are put together
    "AuditPlace", "AuditChain", "AuditProblem", "AuditReport",  # made by the client itself
    "AskMemories", "AskDelta", "AskDone",  # events
    "RateLimits",  # an object of numbers in the description
    "Policy", *POLICIES.values(),
}  # fmt: skip
"""Types that no schema describes."""

TAKEN_APART = {
    "Problem",  # MemoturnError
    "Consistency",
    # pages, whose rows iterators yield
    "DatabasePage", "NamespacePage", "TenantPage", "ProfilePage", "EventPage", "TokenPage", "Topics", "Sessions",
    "Coupons", "BranchPage", "RestorePointPage", "CheckpointPage", "KeyPage", "Ids", "Hits", "RowPage", "WindowPage",
    "TimelinePage", "DatabaseUsage", "NamespaceUsage", "documents.Collections", "vectors.Collections", "Found",
    "Counted", "Indexes", "Synced", "KeySet",
    # bodies, whose fields are arguments (tests/sdk/test_sdk_routes.py compares them)
    "NameBody", "UndeleteBody", "SetPolicy", "SetOverride", "Mint", "Revoke", "Ingest", "Recall", "asking.Ask",
    "Extract", "Patch", "Undo", "Forget", "Reembed", "Erase", "sql.Batch", "Statement", "SyncBody", "BranchBody",
    "RewindBody", "kv.Batch", "Increment", "Insert", "Find", "Counting", "Distinct", "Update", "Delete", "NewIndex",
    "Upsert", "Search", "Deletion", "turns.Append", "SearchTurns", "timelines.Append", "Query", "Aggregate",
    "Retention",
}  # fmt: skip
"""Schemas that have no type of their own."""


def resolved(name: str) -> str:
    """Return the whole name of a schema, which has its module before it where several are called like that."""
    alike = [known for known in SCHEMAS if known.rpartition(".")[2] == name.rpartition(".")[2]]
    found = alike if len(alike) == 1 else [known for known in alike if known.endswith("." + name)]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


TYPE_OF = {name: getattr(memoturn.types, name) for name in SHAPES}
SCHEMA_OF = {TYPE_OF[name]: resolved(shape.schema) for name, shape in SHAPES.items()}


def exported() -> dict[str, type]:
    return {
        name: getattr(memoturn.types, name)
        for name in memoturn.types.__all__
        if typing.is_typeddict(getattr(memoturn.types, name))
    }


def test_every_exported_type_has_a_schema_or_a_reason_to_have_none():
    assert exported().keys() == SHAPES.keys() | OURS


def test_every_schema_of_a_public_route_has_a_type_or_is_taken_apart():
    covered = set(SCHEMA_OF.values()) | {resolved(name) for name in TAKEN_APART}

    assert set(SCHEMAS) == covered


@pytest.mark.parametrize("name", SHAPES)
def test_a_type_is_what_the_api_describes(name: str):
    shape, cls = SHAPES[name], TYPE_OF[name]
    schema = SCHEMAS[resolved(shape.schema)]
    hints = get_type_hints(cls)
    described = schema["properties"]

    assert set(hints) - shape.adds == set(described) - shape.adds, "names of fields"
    for field in set(described) - shape.adds - shape.own:
        required = field in schema.get("required", ())
        assert (field in cls.__required_keys__) == required, f"{field}: required by the API: {required}"
        problem = mismatch(hints[field], described[field], sent="default" in described[field])
        assert problem is None, f"{field}: {problem}"


def test_the_sections_of_a_policy_are_those_that_the_server_knows():
    known: dict[str, set[str]] = {}
    for field in POLICY_FIELDS:
        known.setdefault(field.section, set()).add(field.name)

    ours = {section: set(get_type_hints(getattr(memoturn.types, cls))) for section, cls in POLICIES.items()}

    assert ours == known
    assert set(get_type_hints(memoturn.types.Policy)) == set(known)


# ---- comparing a Python type with a JSON schema


Kind = str | tuple[str, frozenset[Any] | None]
"""A primitive, the name of a schema, `=value`, or a list or an object with the kinds of what is in it."""


def mismatch(hint: Any, schema: dict[str, Any], *, sent: bool) -> str | None:
    """Return how a type differs from its schema, None where it does not.

    A type may be narrower where the schema takes anything, and a literal where it takes a string. Where a field
    is `sent`, null is what the API takes for nothing, and a type need not offer it.
    """
    ours, theirs = options(hint), alternatives(schema)
    if theirs is not None and sent:
        ours, theirs = ours - {"null"}, theirs - {"null"}
    return None if fits(ours, theirs) else f"{sorted(map(str, ours))} here, {theirs} in the API"


def fits(ours: frozenset[Kind], theirs: frozenset[Kind] | None) -> bool:
    if theirs is None:
        return True
    if theirs >= {"integer", "number"} and "number" in ours:
        ours |= {"integer"}  # every integer is a float to the type checker
    if all(isinstance(kind, str) and kind.startswith("=") for kind in ours):
        return theirs in (ours, {"string"})
    inner = {kind[0]: kind[1] for kind in theirs if isinstance(kind, tuple)}
    for kind in ours:
        if isinstance(kind, tuple):
            if kind[0] not in inner or not fits(kind[1] or frozenset("*"), inner[kind[0]]):
                return False
        elif kind not in theirs:
            return False
    return len(ours) == len(theirs)


def options(hint: Any) -> frozenset[Kind]:
    """Return the alternatives of a type, spelled as `alternatives` spells those of a schema."""
    origin = get_origin(hint)
    if origin in {Union, runtime.UnionType}:
        return frozenset().union(*(options(part) for part in get_args(hint)))
    if origin is Literal:
        return frozenset("=" + str(value) for value in get_args(hint))
    if origin is list:
        return frozenset({("list", options(get_args(hint)[0]))})
    if origin is dict:
        return frozenset({("dict", options(get_args(hint)[1]))})
    if typing.is_typeddict(hint):
        return frozenset({SCHEMA_OF.get(hint, hint.__name__)})
    return frozenset({PRIMITIVES[hint]})


PRIMITIVES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    bytes: "bytes",
    type(None): "null",
    Any: "*",
}


def alternatives(schema: dict[str, Any]) -> frozenset[Kind] | None:
    """Return the alternatives of a schema, None where it takes anything."""
    if "anyOf" in schema:
        return frozenset().union(*(alternatives(part) or refuse(part) for part in schema["anyOf"]))
    if "$ref" in schema:
        return frozenset({schema["$ref"].rpartition("/")[2]})
    if "enum" in schema:
        return frozenset("=" + str(value) for value in schema["enum"])
    match schema.get("type"):
        case None:
            return None
        case "array":
            return frozenset({("list", alternatives(schema.get("items", {})))})
        case "object":
            return frozenset({("dict", alternatives(schema.get("additionalProperties", {})))})
        case kind:
            return frozenset({kind})


def refuse(schema: dict[str, Any]) -> NoReturn:
    raise AssertionError(f"an alternative that takes anything: {schema}")


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, {"type": "string"}),
        (int | None, {"type": "integer"}),
        (list[str], {"type": "array", "items": {"type": "integer"}}),
        (Literal["a"], {"enum": ["a", "b"]}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "string"}}),
        (float, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
    ],
)
def test_a_difference_is_seen(hint: Any, schema: dict[str, Any]):
    assert mismatch(hint, schema, sent=False) is not None
