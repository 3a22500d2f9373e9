"""What an erasure would take: how much of the newest state each target names. Asks the server, changes nothing."""

from typing import TYPE_CHECKING, Any, cast

from memoturn.cli.output import compact
from memoturn.cli.run import Run, would
from memoturn.errors import InvalidRequestError
from memoturn.types import ErasureTarget

if TYPE_CHECKING:
    from memoturn import Db, MemoryProfile

_MOST = 1000


def profile_target(
    memory_id: str | None, topic: str | None, kind: str, session: str | None, *, turns: bool, memories: bool
) -> ErasureTarget:
    """Return the target that the options of `memory erase` name."""
    target: dict[str, Any] = {}
    if memory_id is not None:
        target = {"memory_id": memory_id}
    elif topic is not None:
        target = {"topic_key": topic, "type": kind}
    elif session is not None:
        target = {"session_id": session, "turns": turns, "memories": memories}
    return cast("ErasureTarget", target)


def show_would_erase(run: Run, db: "Db", targets: list[ErasureTarget]) -> None:
    """Say what each target names in the newest state; history is searched by the erasure itself."""
    found = [{"target": target, **_named(run, db, cast("dict[str, Any]", target))} for target in targets]
    told = "; ".join(
        f"{compact(one['target'])}: "
        + ", ".join(f"{count} {name}" for name, count in one.items() if name != "target")
        for one in found
    )
    would(run, {"targets": found}, f"erase from the newest state and from history {told}")


def counted_session(memories: "MemoryProfile", session: str, *, turns: bool) -> dict[str, int]:
    """Return how many tasks, and turns where they go too, ending a session takes along."""
    tasks = memories.list_memories(types=["task"], session_id=session, limit=_MOST)["memories"]
    going = {"tasks": len(tasks)}
    if turns:
        going["turns"] = sum(1 for _ in memories.session(session).iter_turns())
    return going


def _named(run: Run, db: "Db", target: dict[str, Any]) -> dict[str, Any]:
    """Return how many things of each kind a target names. Raises InvalidRequestError for one that the server refuses."""
    match target:
        case {"memory_id": str(memory_id)}:
            memory = _profile(run, db).get(memory_id)
            return {"memories": 0 if memory is None else 1}
        case {"topic_key": str(topic), "type": kind}:
            chain = _profile(run, db).topic(topic, type=kind)
            return {"memories": sum(one["count"] for one in chain["chains"]) if chain else 0}
        case {"session_id": str(session)}:
            going = counted_session(_profile(run, db), session, turns=bool(target.get("turns")))
            if target.get("memories"):
                of_session = _profile(run, db).forget_many(session_id=session, dry_run=True)
                going["memories"] = of_session.get("matched", of_session["forgotten"])
            return going
        case {"turn": {"session_id": str(session), "seq": int(seq)}}:
            return {"turns": 0 if db.session(session).get(seq) is None else 1}
        case {"document": {"collection": str(collection), "id": str(document_id)}}:
            return {"documents": db.collection(collection).count({"_id": document_id})}
        case {"document": {"collection": str(collection), "filter": dict(matching)}}:
            return {"documents": db.collection(collection).count(matching)}
        case {"kv": {"ns": str(ns), "key": str(key)}}:
            return {"keys": 0 if db.kv.get(ns, key) is None else 1}
        case {"kv": {"ns": str(ns), "prefix": str(prefix)}}:
            return {"keys": sum(1 for _ in db.kv.iter_keys(ns, prefix=prefix))}
        case {"vector": {"collection": str(collection), "id": str(vector_id)}}:
            return {"vectors": 0 if db.vectors.get(collection, vector_id) is None else 1}
        case {"timeline": {"name": str(name), "key": str(key)}}:
            return {"rows": sum(one["count"] for one in db.timeline(name).aggregate(key=key))}
    raise InvalidRequestError(
        f"{compact(target)} names nothing: name one of memory_id, topic_key with type, session_id, turn, document, kv, "
        "vector, timeline, with all that it takes",
        code="invalid_request",
    )


def _profile(run: Run, db: "Db") -> "MemoryProfile":
    ns, _, profile = db.name.partition("--")
    return run.client.memory(ns, profile).on_branch(db.branch_name)
