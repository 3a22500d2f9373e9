#!/usr/bin/env python3
"""Writes the types of the TypeScript client from the description of the API: `sdk/typescript/src/types/`.

    scripts/typescript_types.py            write them
    scripts/typescript_types.py --check    say whether they are as they would be written; the exit code is 1 if not

A generator of our own, since the client takes what it sends in camelCase and shows what it receives as the wire has it,
and gives the shapes names of its own. Written from the very document that the server's tests hold every answer to, the
types cannot say something else than the server does.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from memoturnd.http import openapi, routes

FOLDER = Path(__file__).resolve().parent.parent / "sdk" / "typescript" / "src" / "types"
HEADER = "// Written by scripts/typescript_types.py from the description of the API. Do not edit.\n"
LINE = 110

OUTPUTS: Final = {
    "Recalled": "RecallResult",
    "memories.Hit": "RecallHit",
    "memories.Ingested": "IngestResult",
    "Stored": "IngestOutcome",
    "Answered": "AskResult",
    "Memories": "MemoryPage",
    "Record": "MemoryRecord",
    "Version": "MemoryVersion",
    "History": "MemoryHistory",
    "Patched": "PatchResult",
    "Undone": "UndoResult",
    "ForgottenMany": "ForgetResult",
    "Forgotten": "ForgetOutcome",
    "Topics": "TopicPage",
    "Chain": "TopicChain",
    "Chains": "TopicHistory",
    "Models": "ModelList",
    "Model": "EmbeddingModel",
    "Job": "ReembedJob",
    "Sessions": "SessionPage",
    "Proposed": "ExtractProposal",
    "Dropped": "DroppedProposal",
    "Extracted": "ExtractResult",
    "Context": "HitContext",
    "NearTurn": "TurnHit",
    "turns.Turn": "Turn",
    "turns.Appended": "TurnAppendResult",
    "AppendedAll": "TurnsAppendResult",
    "FoundTurns": "TurnSearchResult",
    "DeletedTurns": "TurnsDeleteResult",
    "Coupon": "ErasureCoupon",
    "Coupons": "ErasurePage",
    "Requested": "ErasureRequested",
    "BlockedBy": "ErasureBlockedBy",
    "Receipt": "ErasureReceipt",
    "Imported": "MemoryImportResult",
    "Counts": "MemoryImportCounts",
    "ImportedFile": "ImportedDatabase",
    "Synced": "SyncResult",
    "Rewound": "RewindResult",
    "changes.Entry": "ChangeEntry",
    "kv.Entry": "WireKvEntry",
    "KeyPage": "WireKeyPage",
    "Results": "WireSqlResults",
    "Result": "WireSqlResult",
    "Batched": "WireKvBatchResult",
    "Got": "WireKvGot",
    "PutDone": "KvPutOutcome",
    "DeleteDone": "KvDeleteOutcome",
    "Incremented": "IncrementResult",
    "documents.Collections": "CollectionPage",
    "documents.Collection": "CollectionInfo",
    "documents.Deleted": "DeleteResult",
    "Inserted": "InsertResult",
    "Found": "WireFindPage",
    "Counted": "CountResult",
    "Values": "DistinctResult",
    "Updated": "UpdateResult",
    "Indexed": "IndexResult",
    "Indexes": "IndexList",
    "Index": "IndexInfo",
    "vectors.Collections": "VectorCollectionPage",
    "vectors.Collection": "VectorCollectionInfo",
    "vectors.Hit": "VectorHit",
    "vectors.Deleted": "VectorsDeleteResult",
    "DeletedVector": "VectorDeleteOutcome",
    "Hits": "VectorSearchResult",
    "Ids": "VectorPage",
    "Described": "VectorInfo",
    "OneVector": "StoredVector",
    "StoredVector": "VectorOutcome",
    "StoredOne": "VectorUpsertResult",
    "StoredMany": "VectorsUpsertResult",
    "timelines.Timeline": "TimelineInfo",
    "timelines.Appended": "TimelineAppendResult",
    "Row": "TimelineRow",
    "RowPage": "TimelineRowPage",
    "Window": "TimelineWindow",
    "WindowPage": "TimelineWindowPage",
    "Retained": "TimelineRetained",
    "cluster_wire.Standing": "BranchStanding",
    "Member": "SyncMember",
    "Event": "AuditEvent",
    "EventPage": "AuditPage",
    "Actor": "AuditActor",
    "Egress": "AuditEgress",
    "credentials.Keys": "SigningKeys",
    "Key": "SigningKey",
    "Rotated": "RotatedKey",
    "KeySet": "PublishedKeys",
    "Minted": "MintedToken",
    "TokenShown": "TokenInfo",
    "Revoked": "RevokeResult",
    "Effective": "EffectivePolicy",
    "Used": "QuotaUse",
    "Quotas": "QuotaValues",
    "Namespace": "NamespaceInfo",
    "ProfileRow": "ProfileInfo",
    "Database": "DatabaseInfo",
    "Tenant": "TenantInfo",
    "BranchRow": "BranchInfo",
    "Ready": "Readiness",
}
"""Names of what is received, where they are not the server's."""

INPUTS: Final = {
    "Item": "IngestItem",
    "SourceTurns": "SourceTurnsInput",
    "Recall": "RecallQuery",
    "Weights": "RecallWeights",
    "Decay": "RecallDecay",
    "asking.Ask": "AskBody",
    "Extract": "ExtractBody",
    "Said": "TurnSaid",
    "Patch": "MemoryPatch",
    "Forget": "ForgetQuery",
    "Reembed": "ReembedOptions",
    "Target": "ErasureTarget",
    "Erase": "EraseBody",
    "erasures.Turn": "TurnTarget",
    "Document": "DocumentTarget",
    "erasures.Keys": "KeyTarget",
    "Vector": "VectorTarget",
    "erasures.Timeline": "TimelineTarget",
    "BranchBody": "ForkBody",
    "Find": "FindBody",
    "Update": "UpdateBody",
    "Delete": "DeleteBody",
    "Distinct": "DistinctBody",
    "NewIndex": "IndexBody",
    "NewVector": "VectorInput",
    "Search": "VectorSearchBody",
    "Deletion": "VectorDeletionBody",
    "NewTurn": "TurnInput",
    "SearchTurns": "TurnSearch",
    "NewRow": "TimelineRowInput",
    "Query": "TimelineQuery",
    "Aggregate": "TimelineAggregate",
    "Retention": "TimelineRetention",
    "Mint": "MintBody",
    "QuotasBody": "QuotaLimits",
    "Increment": "IncrementBody",
    "PutItem": "WireKvPut",
    "DeleteItem": "WireKvDelete",
    "kv.Batch": "WireKvBatch",
    "Ingest": "IngestBody",
}
"""Names of what is sent; what is not here is written down by the method that sends it."""

TIMES: Final = {"since", "until", "at", "expires_at"}


def main() -> int:
    """Write or check, and return the exit code."""
    code = 0
    for path, text in files().items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} is not what the description of the API says: run scripts/typescript_types.py")
            code = 1
    return code


def files() -> dict[Path, str]:
    """Return what each file has to be."""
    document = openapi.document(routes.ROUTES)
    schemas = document["components"]["schemas"]
    answers, bodies = used(document, schemas)
    outputs = [interface(schemas[n], output_name(n), Output()) for n in schemas if n in answers]
    inputs = [interface(schemas[n], input_name(n), Input()) for n in schemas if n in bodies]
    imports = 'import type { Embedding, Rates, Time } from "../options.js";\n'
    return {
        FOLDER / "wire.ts": HEADER + "\n" + "\n".join(outputs),
        FOLDER / "inputs.ts": HEADER + imports + "\n" + "\n".join(inputs),
    }


def used(document: dict[str, Any], schemas: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of the schemas that answers have, and those that bodies have."""
    answers: set[str] = set()
    bodies: set[str] = set()
    for path, methods in document["paths"].items():
        if path.startswith("/internal"):
            continue
        for operation in methods.values():
            follow({s: a for s, a in operation["responses"].items() if s < "400"}, schemas, answers)
            follow(operation.get("requestBody", {}), schemas, bodies)
    return answers, {name for name in bodies if short(name) in INPUTS}


def follow(value: Any, schemas: dict[str, Any], found: set[str]) -> None:
    """Add the names of the schemas that a value leads to."""
    for name in references(value):
        if name not in found:
            found.add(name)
            follow(schemas[name], schemas, found)


def references(value: Any) -> Iterator[str]:
    """Yield the names of the schemas that a value names."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def short(name: str) -> str:
    """Return the name of a schema with the last part of the module that it is of."""
    return ".".join(name.split(".")[-2:])


def output_name(name: str) -> str:
    """Return the name of a shape that is received."""
    return OUTPUTS.get(short(name), short(name))


def input_name(name: str) -> str:
    """Return the name of a shape that is sent."""
    return INPUTS[short(name)]


class Output:
    """What is received: as the wire has it, null where it says null."""

    name: Callable[[str], str] = staticmethod(output_name)
    anything = "Record<string, unknown>"
    array = "{}[]"

    def words(self, text: str) -> str:
        """Return a description."""
        return text

    def field(self, name: str, schema: dict[str, Any]) -> tuple[str, str]:
        """Return a field's name and type."""
        return name, type_of(schema, self)


class Input:
    """What is sent: in camelCase; vectors also as typed arrays, times also as dates."""

    name: Callable[[str], str] = staticmethod(input_name)
    # An interface of the caller's is no Record: it has no index signature.
    anything = "object"
    array = "readonly {}[]"

    def words(self, text: str) -> str:
        """Return a description."""
        return re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda match: camel(match[0]), text)

    def field(self, name: str, schema: dict[str, Any]) -> tuple[str, str]:
        """Return a field's name and type."""
        kind = type_of(schema, self)
        if name in TIMES:
            kind = "Time | null"
        if name == "limits":
            kind = "Rates | null"
        return camel(name), kind.replace("readonly number[]", "Embedding")


Side = Output | Input


def camel(name: str) -> str:
    """Return a name of the wire in camelCase."""
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def interface(schema: dict[str, Any], name: str, side: Side) -> str:
    """Return a schema as an interface, or as a type where it has no fields."""
    comment = doc(schema, "", side)
    if "properties" not in schema:
        return f"{comment}export type {name} = {type_of(schema, side)};\n"
    lines = []
    for member, inner in schema["properties"].items():
        field, kind = side.field(member, inner)
        mark = "" if member in schema.get("required", ()) else "?"
        if mark and isinstance(side, Input):
            kind += " | undefined"
        lines.append(f"{doc(inner, '  ', side)}  {field}{mark}: {kind};\n")
    return f"{comment}export interface {name} {{\n{''.join(lines)}}}\n"


def type_of(schema: dict[str, Any], side: Side) -> str:
    """Return a schema as a type."""
    if "$ref" in schema:
        return side.name(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(option, side) for option in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in schema["enum"])
    match schema.get("type"):
        case "array":
            inner = type_of(schema.get("items", {}), side)
            return side.array.format(f"({inner})" if " | " in inner else inner)
        case "object":
            values = schema.get("additionalProperties")
            if isinstance(values, dict) and values:
                return f"Record<string, {type_of(values, side)}>"
            return side.anything
        case "integer" | "number":
            return "number"
        case "string" | "boolean" | "null" as plain:
            return plain
    return "unknown"


def doc(schema: dict[str, Any], indent: str, side: Side) -> str:
    """Return the description as a comment."""
    words = side.words(schema.get("description", "")).split()
    if not words:
        return ""
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) > LINE - 6:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return f"{indent}/**\n" + "".join(f"{indent} * {line}\n" for line in lines) + f"{indent} */\n"


if __name__ == "__main__":
    sys.exit(main())
