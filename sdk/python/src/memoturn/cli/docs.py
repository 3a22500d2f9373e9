"""`memoturn docs`: JSON documents in collections."""

from typing import Annotated, Any

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import compact
from memoturn.cli.run import (
    At,
    DryRun,
    Filter,
    Spec,
    Yes,
    add,
    confirm,
    current,
    group,
    parse_filter,
    parse_lines,
    parse_object,
    stamp,
    would,
)

app = group("Insert, find, update and delete JSON documents.")

_Collection = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="Name of the collection.", show_default=False)
]
_Path = Annotated[
    str, typer.Argument(metavar="PATH", help="Field, as in `address.city`.", show_default=False)
]
_Sort = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Order, as in \'{"age": -1, "name": 1}\'.', show_default=False),
]
_Many = Annotated[bool, typer.Option("--multi", help="All that match, not the first alone.")]
_Everything = Annotated[str, typer.Argument(metavar="FILTER", help="JSON filter; '{}' matches all.")]


def collections(ctx: typer.Context, spec: Spec, *, at: At = None) -> None:
    """List collections, with how many documents and indexes each has."""
    run = current(ctx)
    rows = list(run.client.db(spec).iter_collections(at=at))
    run.out.rows(
        {"collections": rows},
        ["collection", "documents", "indexes"],
        [(row["name"], row["count"], row["indexes"]) for row in rows],
        empty=f"{spec} has no collections",
    )


def insert(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    documents: Annotated[
        str, typer.Argument(metavar="JSON", help="An object, an array, or one a line; `-` is stdin.")
    ] = "-",
) -> None:
    """Insert documents as one commit; those without an `_id` get one."""
    run = current(ctx)
    docs = parse_lines(documents, "JSON")
    made = run.client.db(spec).collection(collection).insert(docs, durability=run.durability)
    run.out.rows(made, ["_id"], [(one,) for one in made["ids"]], empty="nothing was inserted")
    stamp(run, made)


def get(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The `_id`.", show_default=False)],
    *,
    at: At = None,
) -> None:
    """Show one document."""
    run = current(ctx)
    found = run.client.db(spec).collection(collection).get(document_id, at=at)
    if found is None:
        run.out.error(f"{collection} has no document {document_id}", "`memoturn docs find` finds them.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    run.out.json(found)


def find(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    *,
    where: Filter = None,
    sort: _Sort = None,
    limit: Annotated[int, typer.Option(min=1, help="Most documents.")] = 100,
    fields: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Show these fields alone.", show_default=False),
    ] = None,
    at: At = None,
) -> None:
    """Print the documents that match, one JSON object a line."""
    run = current(ctx)
    rows = (
        run.client.db(spec)
        .collection(collection)
        .iter_find(
            parse_filter(where),
            sort=None if sort is None else parse_object(sort, "--sort"),
            projection=None if fields is None else {name.strip(): True for name in fields.split(",")},
            limit=limit,
            at=at,
        )
    )
    count = 0
    for row in rows:
        run.out.line(row)
        count += 1
    if not count:
        run.out.note("no document matches")


def count(
    ctx: typer.Context, spec: Spec, collection: _Collection, *, where: Filter = None, at: At = None
) -> None:
    """Count the documents that match."""
    run = current(ctx)
    number = run.client.db(spec).collection(collection).count(parse_filter(where), at=at)
    run.out.done({"count": number}, str(number))


def distinct(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    path: _Path,
    *,
    where: Filter = None,
    at: At = None,
) -> None:
    """List the different values of a field."""
    run = current(ctx)
    found = run.client.db(spec).collection(collection).distinct(path, parse_filter(where), at=at)
    shown = [(one if isinstance(one, str) else compact(one),) for one in found["values"]]
    run.out.rows(found, ["value"], shown, empty=f"no document has {path}")
    if found["more"] and not run.out.as_json:
        run.out.note("there are more")


def update(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    where: _Everything,
    change: Annotated[str, typer.Argument(metavar="UPDATE", help='JSON, as in \'{"$set": {"a": 1}}\'.')],
    *,
    multi: _Many = False,
    sort: _Sort = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Insert one where nothing matches.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Update the first document that matches, or with --multi all of them, as one commit."""
    run = current(ctx)
    matching, wanted = parse_object(where, "FILTER"), parse_object(change, "UPDATE")
    order = None if sort is None else parse_object(sort, "--sort")
    documents = run.client.db(spec).collection(collection)
    if dry_run:
        found = documents.count(matching)
        going = found if multi else min(found, 1)
        told = "insert one" if upsert and not found else f"update {going} of {found} documents that match"
        would(run, {"matched": found, "updated": going}, told)
        return
    done = documents.update(
        matching, wanted, multi=multi, sort=order, upsert=upsert, durability=run.durability
    )
    inserted = done.get("upserted_id")
    run.out.done(done, f"inserted {inserted}" if inserted else f"updated {done['modified']} documents")
    stamp(run, done)


def delete(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    where: _Everything,
    *,
    multi: _Many = False,
    sort: _Sort = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete the first document that matches, or with --multi all of them, as one commit."""
    run = current(ctx)
    matching = parse_object(where, "FILTER")
    order = None if sort is None else parse_object(sort, "--sort")
    documents = run.client.db(spec).collection(collection)
    if dry_run:
        found = documents.count(matching)
        going = found if multi else min(found, 1)
        would(run, {"matched": found, "deleted": going}, f"delete {going} of {found} documents that match")
        return
    confirm(
        f"Delete {'all documents' if multi else 'the first document'} of {collection} that match?", yes=yes
    )
    done = documents.delete(matching, multi=multi, sort=order, durability=run.durability)
    run.out.done(done, f"deleted {done['deleted']} documents")
    stamp(run, done)


def drop(
    ctx: typer.Context, spec: Spec, collection: _Collection, *, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Drop a collection with its documents and indexes; also fine when there is none."""
    run = current(ctx)
    documents = run.client.db(spec).collection(collection)
    if dry_run:
        number, indexes = documents.count(), len(documents.indexes())
        told = {"collection": collection, "documents": number, "indexes": indexes}
        would(run, told, f"drop {collection}: {number} documents, {indexes} indexes")
        return
    confirm(f"Drop collection {collection} of {spec}?", yes=yes)
    documents.drop(durability=run.durability)
    run.out.done({"dropped": collection}, f"dropped {collection}")


def indexes(ctx: typer.Context, spec: Spec, collection: _Collection, *, at: At = None) -> None:
    """List the indexes of a collection."""
    run = current(ctx)
    rows = run.client.db(spec).collection(collection).indexes(at=at)
    run.out.rows(
        {"indexes": rows},
        ["path", "unique"],
        [(row["path"], "unique" if row["unique"] else "") for row in rows],
        empty=f"{collection} has no indexes",
    )


def create_index(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    path: _Path,
    *,
    unique: Annotated[bool, typer.Option("--unique", help="No two documents with equal values.")] = False,
) -> None:
    """Index a field, for equality, ranges and sorting; also fine when it is there."""
    run = current(ctx)
    made = (
        run.client.db(spec)
        .collection(collection)
        .create_index(path, unique=unique, durability=run.durability)
    )
    run.out.done(made, f"indexed {path} of {collection}")
    stamp(run, made)


def drop_index(
    ctx: typer.Context,
    spec: Spec,
    collection: _Collection,
    path: _Path,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Drop an index; also fine when there is none. The documents stay."""
    run = current(ctx)
    documents = run.client.db(spec).collection(collection)
    if dry_run:
        there: Any = [row for row in documents.indexes() if row["path"] == path]
        would(run, {"indexes": there}, f"drop {len(there)} index on {path}")
        return
    confirm(f"Drop the index on {path} of {collection}?", yes=yes)
    documents.drop_index(path, durability=run.durability)
    run.out.done({"dropped": path}, f"dropped the index on {path}")


add(app, "collections", collections, "memoturn docs collections orders")
add(
    app,
    "insert",
    insert,
    'memoturn docs insert orders people \'{"name": "Ann", "age": 30}\'',
    "memoturn docs insert orders people < people.jsonl",
)
add(app, "get", get, "memoturn docs get orders people 01KB2T6V4Z8D0J3W5Y7N9Q1R2S")
add(
    app,
    "find",
    find,
    'memoturn docs find orders people --filter \'{"age": {"$gte": 18}}\' --sort \'{"age": -1}\' --fields name,age',
)
add(app, "count", count, "memoturn docs count orders people")
add(app, "distinct", distinct, "memoturn docs distinct orders people name")
add(
    app,
    "update",
    update,
    'memoturn docs update orders people \'{"name": "Ann"}\' \'{"$inc": {"age": 1}}\'',
    "memoturn docs update orders people '{}' '{\"$unset\": {\"age\": 1}}' --multi --dry-run",
)
add(app, "delete", delete, 'memoturn docs delete orders people \'{"age": {"$lt": 18}}\' --multi --dry-run')
add(app, "drop", drop, "memoturn docs drop orders people --dry-run")
add(app, "indexes", indexes, "memoturn docs indexes orders people")
add(app, "create-index", create_index, "memoturn docs create-index orders people name --unique")
add(app, "drop-index", drop_index, "memoturn docs drop-index orders people name")
