"""The route table: everything that the node serves, one line each.

The application, the authorization matrix and the API description are all made from this table, so a route
that is not here does not exist, and what is said here about one is true.
"""

from typing import Final

from control_plane.http.routes import CONTROL_ROUTES
from memoturnd.core import replica_wire as wire
from memoturnd.core.cluster_wire import STATUS
from memoturnd.core.release_wire import CHORE, RELEASE, SHIP
from memoturnd.core.tails import FORGET_PATH, PUSH_PATH, READ_PATH
from memoturnd.http import (
    asking,
    branches,
    changes,
    cluster,
    documents,
    erasures,
    history,
    kv,
    lines,
    memory,
    memory_upkeep,
    models,
    ops,
    releases,
    replicas,
    sql,
    tails,
    timelines,
    transfers,
    turns,
    vectors,
    verify,
)
from memoturnd.http.route import Body, Kind, Route, Scope

_MEMORY: Final = "/v1/memory/{ns}/{profile}"
_DB: Final = "/v1/db/{db}"
_BRANCH: Final = "/v1/db/{db}/branches/{branch}"
_KEY: Final = "/v1/db/{db}/kv/{ns}/{key}"
_DOCUMENTS: Final = "/v1/db/{db}/docs/{coll}"
_COLLECTION: Final = "/v1/db/{db}/vectors/{coll}"
_SESSION: Final = "/v1/db/{db}/memory/{session}"
_TIMELINE: Final = "/v1/db/{db}/timelines/{timeline}"

ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/health", ops.health, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/ready", ops.ready, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/metrics", ops.metrics, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/openapi.json", ops.api_description, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/v1/cluster", cluster.overview, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route(
        "GET", f"{_DB}/placement", cluster.placement, Kind.CONTROL, Body.NONE, Scope.PLATFORM, anywhere=True
    ),
    Route("POST", STATUS, cluster.status, Kind.PEER, Body.SMALL, Scope.INTERNAL),
    *CONTROL_ROUTES,
    Route("POST", PUSH_PATH, tails.push, Kind.PEER, Body.RAW, Scope.INTERNAL),
    Route("POST", READ_PATH, tails.read, Kind.PEER, Body.NONE, Scope.INTERNAL),
    Route("POST", FORGET_PATH, tails.forget, Kind.PEER, Body.NONE, Scope.INTERNAL),
    Route("POST", wire.SUBSCRIBE, replicas.subscribe, Kind.PEER, Body.SMALL, Scope.INTERNAL),
    Route("POST", wire.CONFIRM, replicas.confirm, Kind.PEER, Body.SMALL, Scope.INTERNAL),
    Route("POST", wire.CHANGED, replicas.changed, Kind.PEER, Body.SMALL, Scope.INTERNAL),
    Route("POST", RELEASE, releases.release, Kind.PEER, Body.NONE, Scope.INTERNAL),
    Route("POST", SHIP, releases.ship, Kind.PEER, Body.NONE, Scope.INTERNAL),
    Route("POST", CHORE, releases.chore, Kind.PEER, Body.SMALL, Scope.INTERNAL),
    Route("POST", wire.INGEST, replicas.ingest, Kind.PEER, Body.RAW, Scope.INTERNAL),
    Route("PUT", "/v1/databases/{db}/import", transfers.take, Kind.CONTROL, Body.FILE, Scope.PLATFORM),
    Route("POST", f"{_MEMORY}/memories", memory.ingest, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("POST", f"{_MEMORY}/recall", memory.recall, Kind.READ, Body.SMALL, Scope.READ),
    Route("POST", f"{_MEMORY}/ask", asking.ask, Kind.READ, Body.SMALL, Scope.READ, asks_model=True),
    Route("POST", f"{_MEMORY}/extract", asking.extract, Kind.WRITE, Body.LARGE, Scope.WRITE, asks_model=True),
    Route("GET", f"{_MEMORY}/memories/{{id}}", memory.get, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_MEMORY}/memories/{{id}}", memory.forget, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("GET", f"{_MEMORY}/memories", memory_upkeep.list_all, Kind.READ, Body.NONE, Scope.READ),
    Route("PATCH", f"{_MEMORY}/memories/{{id}}", memory_upkeep.patch, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route(
        "GET", f"{_MEMORY}/memories/{{id}}/history", memory_upkeep.history, Kind.READ, Body.NONE, Scope.READ
    ),
    Route("POST", f"{_MEMORY}/memories/{{id}}/undo", memory_upkeep.undo, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route(
        "POST", f"{_MEMORY}/memories/forget", memory_upkeep.forget_many, Kind.WRITE, Body.SMALL, Scope.WRITE
    ),
    Route("GET", f"{_MEMORY}/export", lines.export, Kind.READ, Body.NONE, Scope.READ),
    Route("POST", f"{_MEMORY}/import", lines.take, Kind.WRITE, Body.FILE, Scope.WRITE),
    Route("GET", f"{_MEMORY}/topics", memory_upkeep.list_topics, Kind.READ, Body.NONE, Scope.READ),
    Route("GET", f"{_MEMORY}/topics/{{topic_key}}", memory_upkeep.topic, Kind.READ, Body.NONE, Scope.READ),
    Route("GET", f"{_MEMORY}/models", models.list_all, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_MEMORY}/models/{{name}}", models.drop, Kind.WRITE, Body.NONE, Scope.ADMIN),
    Route("POST", f"{_MEMORY}/reembed", models.begin, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_MEMORY}/reembed", models.progress, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_MEMORY}/reembed", models.cancel, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("GET", f"{_MEMORY}/sessions", memory.sessions, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_MEMORY}/sessions/{{sid}}", memory.end_session, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("POST", f"{_MEMORY}/erasures", erasures.erase_of_profile, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_MEMORY}/erasures", erasures.list_of_profile, Kind.READ, Body.NONE, Scope.READ, at=False),
    Route(
        "GET",
        f"{_MEMORY}/erasures/{{id}}",
        erasures.get_of_profile,
        Kind.READ,
        Body.NONE,
        Scope.READ,
        at=False,
    ),
    Route("POST", f"{_DB}/erasures", erasures.erase_of_database, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_DB}/erasures", erasures.list_of_database, Kind.READ, Body.NONE, Scope.READ, at=False),
    Route(
        "GET", f"{_DB}/erasures/{{id}}", erasures.get_of_database, Kind.READ, Body.NONE, Scope.READ, at=False
    ),
    Route("POST", f"{_DB}/sql", sql.run, Kind.WRITE, Body.LARGE, Scope.READ, at=True),
    Route("POST", f"{_DB}/sync", branches.sync, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_DB}/export", transfers.export, Kind.READ, Body.NONE, Scope.ADMIN),
    Route("POST", f"{_DB}/verify", verify.verify, Kind.CONTROL, Body.NONE, Scope.ADMIN),
    Route("POST", f"{_DB}/branches", branches.create, Kind.WRITE, Body.SMALL, Scope.ADMIN),
    Route("GET", f"{_DB}/branches", branches.list_all, Kind.READ, Body.NONE, Scope.ADMIN, at=False),
    Route("GET", f"{_DB}/changes", changes.of_database, Kind.READ, Body.NONE, Scope.READ, at=False),
    Route("GET", f"{_MEMORY}/changes", changes.of_profile, Kind.READ, Body.NONE, Scope.READ, at=False),
    Route("GET", f"{_DB}/restore-points", history.restore_points, Kind.READ, Body.NONE, Scope.READ, at=False),
    Route("DELETE", _BRANCH, branches.delete, Kind.WRITE, Body.NONE, Scope.ADMIN),
    Route("POST", f"{_BRANCH}/undelete", branches.undelete, Kind.WRITE, Body.NONE, Scope.ADMIN),
    Route("POST", f"{_BRANCH}/checkpoint", branches.checkpoint, Kind.WRITE, Body.SMALL, Scope.ADMIN),
    Route(
        "GET",
        f"{_BRANCH}/checkpoints",
        branches.list_checkpoints,
        Kind.READ,
        Body.NONE,
        Scope.ADMIN,
        at=False,
    ),
    Route(
        "DELETE",
        f"{_BRANCH}/checkpoints/{{name}}",
        branches.delete_checkpoint,
        Kind.WRITE,
        Body.NONE,
        Scope.ADMIN,
    ),
    Route("POST", f"{_BRANCH}/rewind", branches.rewind, Kind.WRITE, Body.SMALL, Scope.ADMIN),
    Route("POST", f"{_BRANCH}/rewind/undo", branches.undo_rewind, Kind.WRITE, Body.NONE, Scope.ADMIN),
    Route("GET", f"{_DB}/kv/{{ns}}", kv.list_keys, Kind.READ, Body.NONE, Scope.READ),
    Route("POST", f"{_DB}/kv/{{ns}}", kv.batch, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("GET", _KEY, kv.get, Kind.READ, Body.NONE, Scope.READ),
    Route("PUT", _KEY, kv.put, Kind.WRITE, Body.RAW, Scope.WRITE),
    Route("DELETE", _KEY, kv.delete, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("POST", f"{_KEY}/increment", kv.increment, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_DB}/docs", documents.list_collections, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", _DOCUMENTS, documents.drop, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("POST", f"{_DOCUMENTS}/insert", documents.insert, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("POST", f"{_DOCUMENTS}/find", documents.find, Kind.READ, Body.SMALL, Scope.READ),
    Route("POST", f"{_DOCUMENTS}/count", documents.count, Kind.READ, Body.SMALL, Scope.READ),
    Route("POST", f"{_DOCUMENTS}/distinct", documents.distinct, Kind.READ, Body.SMALL, Scope.READ),
    Route("POST", f"{_DOCUMENTS}/update", documents.update, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("POST", f"{_DOCUMENTS}/delete", documents.delete, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("POST", f"{_DOCUMENTS}/indexes", documents.create_index, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_DOCUMENTS}/indexes", documents.list_indexes, Kind.READ, Body.NONE, Scope.READ),
    Route(
        "DELETE", f"{_DOCUMENTS}/indexes/{{path}}", documents.drop_index, Kind.WRITE, Body.NONE, Scope.WRITE
    ),
    Route("GET", f"{_DB}/vectors", vectors.collections, Kind.READ, Body.NONE, Scope.READ),
    Route("POST", _COLLECTION, vectors.upsert, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("GET", _COLLECTION, vectors.list_ids, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", _COLLECTION, vectors.drop, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("POST", f"{_COLLECTION}/search", vectors.search, Kind.READ, Body.SMALL, Scope.READ),
    Route("POST", f"{_COLLECTION}/delete", vectors.delete_many, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("GET", f"{_COLLECTION}/{{id}}", vectors.get, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_COLLECTION}/{{id}}", vectors.delete, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("POST", f"{_SESSION}/turns", turns.append, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("GET", f"{_SESSION}/turns", turns.window, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_SESSION}/turns", turns.delete_range, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("GET", f"{_SESSION}/turns/{{seq}}", turns.get, Kind.READ, Body.NONE, Scope.READ),
    Route("DELETE", f"{_SESSION}/turns/{{seq}}", turns.delete, Kind.WRITE, Body.NONE, Scope.WRITE),
    Route("POST", f"{_SESSION}/search", turns.search, Kind.READ, Body.SMALL, Scope.READ),
    Route("POST", f"{_DB}/memory/search", turns.search_all, Kind.READ, Body.SMALL, Scope.READ),
    Route("GET", f"{_DB}/timelines", timelines.list_all, Kind.READ, Body.NONE, Scope.READ),
    Route("POST", f"{_TIMELINE}/rows", timelines.append, Kind.WRITE, Body.LARGE, Scope.WRITE),
    Route("POST", f"{_TIMELINE}/query", timelines.query, Kind.READ, Body.SMALL, Scope.READ),
    Route("GET", _TIMELINE, timelines.get, Kind.READ, Body.NONE, Scope.READ),
    Route("PUT", _TIMELINE, timelines.put, Kind.WRITE, Body.SMALL, Scope.WRITE),
    Route("DELETE", _TIMELINE, timelines.delete, Kind.WRITE, Body.NONE, Scope.WRITE),
)
