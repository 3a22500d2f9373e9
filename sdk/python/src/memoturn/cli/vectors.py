"""`memoturn vectors`: embeddings of your own, in collections."""

from typing import Annotated, Any, cast

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import compact
from memoturn.cli.run import (
    At,
    DryRun,
    Filter,
    Limit,
    Lines,
    Spec,
    Yes,
    add,
    confirm,
    current,
    group,
    parse_embedding,
    parse_filter,
    parse_lines,
    parse_object,
    stamp,
    would,
)
from memoturn.types import NewVector

app = group("Store and search vectors.")

_Collection = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="Name of the collection.", show_default=False)
]
_Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the vector.", show_default=False)]
_Vector = Annotated[
    str, typer.Argument(metavar="VECTOR", help="JSON array of numbers; `-` is stdin.", show_default=False)
]


def collections(ctx: typer.Context, spec: Spec, *, at: At = None) -> None:
    """List collections, with their dimensions and how many vectors each has."""
    run = current(ctx)
    rows = list(run.client.db(spec).vectors.iter_collections(at=at))
    run.out.rows(
        {"collections": rows},
        ["collection", "dimensions", "vectors"],
        [(row["name"], row["dimensions"], row["count"]) for row in rows],
        empty=f"{spec} has no collections of vectors",
    )


def upsert(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    vector_id: _Id,
    vector: _Vector,
    *,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Object that goes with it.", show_default=False)
    ] = None,
) -> None:
    """Store a vector; what is there under its id is replaced."""
    run = current(ctx)
    embedding = parse_embedding(vector, "VECTOR") or []
    extra = None if metadata is None else parse_object(metadata, "--metadata")
    done = run.client.db(spec).vectors.upsert(
        collection, vector_id, embedding, extra, durability=run.durability
    )
    run.out.done(done, f"{done['status']} {vector_id}")
    stamp(run, done)


def load(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    vectors: Lines = "-",
) -> None:
    """Store up to 1000 vectors as one commit: {"id", "embedding", "metadata"}, one a line."""
    run = current(ctx)
    rows = cast("list[NewVector]", parse_lines(vectors, "JSON"))
    done = run.client.db(spec).vectors.upsert_many(collection, rows, durability=run.durability)
    shown = [(row["id"], row["status"]) for row in done["results"]]
    run.out.rows(done, ["id", "status"], shown, empty="nothing was stored")
    stamp(run, done)


def get(ctx: typer.Context, spec: Spec, collection: _Collection, vector_id: _Id, *, at: At = None) -> None:
    """Show one vector with its metadata."""
    run = current(ctx)
    found = run.client.db(spec).vectors.get(collection, vector_id, at=at)
    if found is None:
        run.out.error(f"{collection} has no vector {vector_id}", "`memoturn vectors list` shows the ids.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    shown = {
        "id": found["id"],
        "metadata": compact(found["metadata"]),
        "embedding": compact(found["embedding"]),
    }
    run.out.record(found, shown)


def list_ids(
    ctx: typer.Context, spec: Spec, collection: _Collection, *, limit: Limit = 100, at: At = None
) -> None:
    """List ids with their metadata, ascending."""
    run = current(ctx)
    rows = list(run.client.db(spec).vectors.iter_metadata(collection, limit=limit, at=at))
    run.out.rows(
        {"vectors": rows},
        ["id", "metadata"],
        [(row["id"], compact(row["metadata"])) for row in rows],
        empty=f"{collection} is empty",
    )


def search(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    vector: _Vector,
    *,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Most hits.")] = 10,
    where: Filter = None,
    max_distance: Annotated[float | None, typer.Option(min=0, max=2, help="No hit is further.")] = None,
    metadata: Annotated[bool, typer.Option("--metadata", help="Show the metadata.")] = False,
    at: At = None,
) -> None:
    """Find the nearest vectors by cosine, of those whose metadata the filter lets through."""
    run = current(ctx)
    hits = run.client.db(spec).vectors.search(
        collection,
        parse_embedding(vector, "VECTOR") or [],
        k=k,
        filter=parse_filter(where),
        max_distance=max_distance,
        include_metadata=metadata,
        at=at,
    )
    rows: list[Any] = [
        (hit["id"], f"{hit['distance']:.6f}", *([compact(hit.get("metadata"))] if metadata else []))
        for hit in hits
    ]
    columns = ["id", "distance", *(["metadata"] if metadata else [])]
    run.out.rows({"hits": hits}, columns, rows, empty="nothing was found")


def delete(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids.")] = None,
    *,
    where: Filter = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete vectors by ids, or all whose metadata a filter matches."""
    run = current(ctx)
    if (ids is None or not ids) == (where is None):
        raise typer.BadParameter("give ids, or --filter", param_hint="ID")
    vectors, matching = run.client.db(spec).vectors, parse_filter(where)
    if dry_run:
        there = [one for one in ids or [] if vectors.get(collection, one) is not None]
        if ids:
            would(run, {"ids": there}, f"delete {len(there)} of {len(ids)} vectors")
        else:
            would(run, _matched(run, spec, collection, matching or {}), "delete the vectors that match")
        return
    confirm(f"Delete {'these' if ids else 'all matching'} vectors of {collection}?", yes=yes)
    done = (
        vectors.delete_many(collection, ids=ids, durability=run.durability)
        if ids
        else vectors.delete_many(collection, filter=matching, durability=run.durability)
    )
    run.out.done(done, f"deleted {done['deleted']} vectors")
    stamp(run, done)


def _matched(run: Any, spec: str, collection: str, matching: dict[str, Any]) -> dict[str, Any]:
    """Return how many vectors a filter matches, up to 1000: by a search that everything is near enough for."""
    vectors = run.client.db(spec).vectors
    known = next((one for one in vectors.iter_collections() if one["name"] == collection), None)
    if known is None:
        return {"matched": 0, "is_all": True}
    hits = vectors.search(collection, [1.0] * known["dimensions"], k=1000, filter=matching)
    return {"matched": len(hits), "is_all": len(hits) < 1000}  # noqa: PLR2004 - what a search returns at most


def drop(
    ctx: typer.Context, spec: Spec, collection: _Collection, *, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Drop a collection with its vectors; also fine when there is none."""
    run = current(ctx)
    vectors = run.client.db(spec).vectors
    if dry_run:
        count = next((one["count"] for one in vectors.iter_collections() if one["name"] == collection), 0)
        would(run, {"collection": collection, "vectors": count}, f"drop {collection} with {count} vectors")
        return
    confirm(f"Drop the vectors {collection} of {spec}?", yes=yes)
    vectors.drop(collection, durability=run.durability)
    run.out.done({"dropped": collection}, f"dropped {collection}")


add(app, "collections", collections, "memoturn vectors collections orders")
add(
    app,
    "upsert",
    upsert,
    "memoturn vectors upsert orders pages p1 '[0.1, 0.9]' --metadata '{\"lang\": \"en\"}'",
)
add(app, "load", load, "memoturn vectors load orders pages < vectors.jsonl")
add(app, "get", get, "memoturn vectors get orders pages p1")
add(app, "list", list_ids, "memoturn vectors list orders pages")
add(app, "search", search, "memoturn vectors search orders pages '[0.1, 0.9]' --k 5 --metadata")
add(
    app,
    "delete",
    delete,
    "memoturn vectors delete orders pages p1 p2",
    'memoturn vectors delete orders pages --filter \'{"lang": "en"}\' --dry-run',
)
add(app, "drop", drop, "memoturn vectors drop orders pages --dry-run")
