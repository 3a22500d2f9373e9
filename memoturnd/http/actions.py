"""What each route does, in the words of the audit stream; a route that is not here fails a test.

`db.` is of the directory, `memory.`, `kv.` and so on of what a profile holds. What only shows something is audited where
reads are; administrative acts always are; everything else where the namespace's policy or the node's settings ask for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from memoturnd.http.route import Kind, Route


class Weight(Enum):
    """When an act is audited."""

    READ = "read"
    DATA = "data"
    ADMINISTRATIVE = "administrative"


@dataclass(frozen=True, slots=True)
class Act:
    """An action and its weight."""

    action: str
    weight: Weight


_MEMORY: Final = "/v1/memory/{ns}/{profile}"
_DB: Final = "/v1/db/{db}"
_BRANCH: Final = "/v1/db/{db}/branches/{branch}"
_KEY: Final = "/v1/db/{db}/kv/{ns}/{key}"
_DOCUMENTS: Final = "/v1/db/{db}/docs/{coll}"
_VECTORS: Final = "/v1/db/{db}/vectors/{coll}"
_SESSION: Final = "/v1/db/{db}/memory/{session}"
_TIMELINE: Final = "/v1/db/{db}/timelines/{timeline}"

ACTIONS: Final[Mapping[str, str]] = {
    "POST /v1/databases": "db.create",
    "GET /v1/databases": "db.list",
    "DELETE /v1/databases/{db}": "db.delete",
    "POST /v1/databases/{db}/undelete": "db.undelete",
    "PUT /v1/databases/{db}/import": "db.import",
    "GET /v1/cluster": "cluster.get",
    f"GET {_DB}/placement": "placement.get",
    "GET /v1/namespaces": "db.list_namespaces",
    "POST /v1/tenants": "tenant.create",
    "GET /v1/tenants": "tenant.list",
    "GET /v1/tenants/{tenant}": "tenant.get",
    "DELETE /v1/tenants/{tenant}": "tenant.delete",
    "DELETE /internal/databases/{db}/{uuid}": "node.delete_database",
    "GET /v1/memory/{ns}": "db.list_profiles",
    "GET /v1/namespaces/{ns}/policy": "policy.get",
    "PUT /v1/namespaces/{ns}/policy": "policy.update",
    f"GET {_MEMORY}/policy": "policy.get",
    f"PUT {_MEMORY}/policy": "policy.update",
    "GET /v1/databases/{db}/usage": "usage.get",
    "GET /v1/namespaces/{ns}/usage": "usage.get",
    "GET /v1/namespaces/{ns}/quotas": "quota.get",
    "PUT /v1/namespaces/{ns}/quotas": "quota.update",
    "GET /v1/tenants/{tenant}/quotas": "quota.get",
    "PUT /v1/tenants/{tenant}/quotas": "quota.update",
    "GET /v1/namespaces/{ns}/audit": "audit.read",
    "GET /v1/namespaces/{ns}/audit/export": "audit.export",
    "POST /v1/databases/{db}/tokens": "token.mint",
    "GET /v1/databases/{db}/tokens": "token.list",
    "POST /v1/databases/{db}/tokens/revoke": "token.revoke_all",
    "DELETE /v1/databases/{db}/tokens/{id}": "token.revoke",
    "POST /v1/namespaces/{ns}/tokens": "token.mint",
    "GET /v1/namespaces/{ns}/tokens": "token.list",
    "POST /v1/namespaces/{ns}/tokens/revoke": "token.revoke_all",
    "DELETE /v1/namespaces/{ns}/tokens/{id}": "token.revoke",
    "POST /v1/tokens/revoke": "token.revoke_all",
    "GET /v1/keys": "key.list",
    "POST /v1/keys/rotate": "key.rotate",
    f"POST {_MEMORY}/memories": "memory.ingest",
    f"POST {_MEMORY}/recall": "memory.recall",
    f"POST {_MEMORY}/ask": "memory.ask",
    f"POST {_MEMORY}/extract": "memory.extract",
    f"GET {_MEMORY}/memories/{{id}}": "memory.get",
    f"DELETE {_MEMORY}/memories/{{id}}": "memory.forget",
    f"GET {_MEMORY}/memories": "memory.list",
    f"PATCH {_MEMORY}/memories/{{id}}": "memory.update",
    f"GET {_MEMORY}/memories/{{id}}/history": "memory.history",
    f"POST {_MEMORY}/memories/{{id}}/undo": "memory.undo",
    f"POST {_MEMORY}/memories/forget": "memory.forget",
    f"GET {_MEMORY}/export": "memory.export",
    f"POST {_MEMORY}/import": "memory.import",
    f"GET {_MEMORY}/topics": "memory.topics",
    f"GET {_MEMORY}/topics/{{topic_key}}": "memory.topic",
    f"GET {_MEMORY}/models": "memory.models",
    f"DELETE {_MEMORY}/models/{{name}}": "memory.model_delete",
    f"POST {_MEMORY}/reembed": "memory.reembed",
    f"GET {_MEMORY}/reembed": "memory.reembed_progress",
    f"DELETE {_MEMORY}/reembed": "memory.reembed_cancel",
    f"GET {_MEMORY}/sessions": "memory.sessions",
    f"DELETE {_MEMORY}/sessions/{{sid}}": "memory.session_end",
    f"POST {_MEMORY}/erasures": "erasure.requested",
    f"GET {_MEMORY}/erasures": "erasure.list",
    f"GET {_MEMORY}/erasures/{{id}}": "erasure.get",
    f"POST {_DB}/erasures": "erasure.requested",
    f"GET {_DB}/erasures": "erasure.list",
    f"GET {_DB}/erasures/{{id}}": "erasure.get",
    f"POST {_DB}/sql": "sql.run",
    f"POST {_DB}/sync": "db.sync",
    f"GET {_DB}/export": "export",
    f"POST {_DB}/verify": "db.verify",
    f"POST {_DB}/branches": "branch.create",
    f"GET {_DB}/branches": "branch.list",
    f"GET {_DB}/changes": "changes.read",
    f"GET {_MEMORY}/changes": "changes.read",
    f"GET {_DB}/restore-points": "branch.restore_points",
    f"DELETE {_BRANCH}": "branch.delete",
    f"POST {_BRANCH}/undelete": "branch.undelete",
    f"POST {_BRANCH}/checkpoint": "branch.checkpoint",
    f"GET {_BRANCH}/checkpoints": "branch.checkpoints",
    f"DELETE {_BRANCH}/checkpoints/{{name}}": "branch.checkpoint_delete",
    f"POST {_BRANCH}/rewind": "branch.rewind",
    f"POST {_BRANCH}/rewind/undo": "branch.rewind_undo",
    f"GET {_DB}/kv/{{ns}}": "kv.list",
    f"POST {_DB}/kv/{{ns}}": "kv.batch",
    f"GET {_KEY}": "kv.get",
    f"PUT {_KEY}": "kv.put",
    f"DELETE {_KEY}": "kv.delete",
    f"POST {_KEY}/increment": "kv.increment",
    f"GET {_DB}/settings": "db.settings",
    f"PUT {_DB}/settings": "db.settings_set",
    f"GET {_DB}/docs": "documents.collections",
    f"DELETE {_DOCUMENTS}": "documents.drop",
    f"POST {_DOCUMENTS}/insert": "documents.insert",
    f"POST {_DOCUMENTS}/find": "documents.find",
    f"POST {_DOCUMENTS}/count": "documents.count",
    f"POST {_DOCUMENTS}/distinct": "documents.distinct",
    f"POST {_DOCUMENTS}/update": "documents.update",
    f"POST {_DOCUMENTS}/delete": "documents.delete",
    f"POST {_DOCUMENTS}/indexes": "documents.index_create",
    f"GET {_DOCUMENTS}/indexes": "documents.indexes",
    f"DELETE {_DOCUMENTS}/indexes/{{path}}": "documents.index_delete",
    f"GET {_DB}/vectors": "vectors.collections",
    f"POST {_VECTORS}": "vectors.upsert",
    f"GET {_VECTORS}": "vectors.list",
    f"DELETE {_VECTORS}": "vectors.drop",
    f"POST {_VECTORS}/search": "vectors.search",
    f"POST {_VECTORS}/delete": "vectors.delete",
    f"GET {_VECTORS}/{{id}}": "vectors.get",
    f"DELETE {_VECTORS}/{{id}}": "vectors.delete",
    f"POST {_SESSION}/turns": "turns.append",
    f"GET {_SESSION}/turns": "turns.list",
    f"DELETE {_SESSION}/turns": "turns.delete",
    f"GET {_SESSION}/turns/{{seq}}": "turns.get",
    f"DELETE {_SESSION}/turns/{{seq}}": "turns.delete",
    f"POST {_SESSION}/search": "turns.search",
    f"POST {_DB}/memory/search": "turns.search",
    f"GET {_DB}/timelines": "timelines.list",
    f"POST {_TIMELINE}/rows": "timelines.append",
    f"POST {_TIMELINE}/query": "timelines.query",
    f"GET {_TIMELINE}": "timelines.get",
    f"PUT {_TIMELINE}": "timelines.update",
    f"DELETE {_TIMELINE}": "timelines.delete",
}
"""The action of each route, by its method and template. Those of Kind.OPEN and Kind.PEER have none: they show nobody's things
to anybody."""

_ADMINISTRATIVE: Final = ("db.create", "db.delete", "db.undelete", "db.import", "db.settings_set", "token.", "policy.", "quota.", "tenant.", "node.", "key.", "erasure.")  # fmt: skip
_SHOWING: Final = frozenset({"db.verify", "sql.check"})
_TAKEN_AWAY: Final = frozenset({"export", "memory.export", "audit.export"})
"""What takes all of it away is not audited like a read of some of it."""


def act_of(route: Route) -> Act | None:
    """Return what a route does, None for one that is never audited. Raises LookupError for one without an action."""
    if route.kind in {Kind.OPEN, Kind.PEER}:
        return None
    action = ACTIONS.get(route.operation)
    if action is None:
        raise LookupError(f"{route.operation} has no action: name it in memoturnd/http/actions.py")
    if action in _TAKEN_AWAY:
        return Act(action, Weight.DATA)
    if action in _SHOWING or route.kind is Kind.READ or route.method == "GET":
        return Act(action, Weight.READ)
    if action.startswith(_ADMINISTRATIVE):
        return Act(action, Weight.ADMINISTRATIVE)
    return Act(action, Weight.DATA)
