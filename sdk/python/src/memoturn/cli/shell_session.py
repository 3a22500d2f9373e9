"""One shell: what a line of it means, and what it does. Knows nothing of terminals, so that a pipe drives it as well."""

import shlex
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from memoturn.cli.output import Cell, when
from memoturn.cli.run import Run
from memoturn.cli.sql import show_batch
from memoturn.cli.statements import split
from memoturn.errors import InvalidRequestError

if TYPE_CHECKING:
    from memoturn import Db, MemoryProfile

_KEPT_S: Final = 10.0
_TABLES: Final = (
    "select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%' order by 1"
)


class Leave(Exception):  # noqa: N818 - no error: the user has seen enough
    """The user leaves."""


@dataclass
class Session:
    """A shell on one branch of a database, at its head or at a past state."""

    run: Run
    spec: str | None = None
    at: str | None = None
    timing: bool = False
    _known: dict[str, tuple[float, list[str]]] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """What stands before a line."""
        place = self.spec or "(no database)"
        return f"{place}:{self.at}> " if self.at else f"{place}> "

    @property
    def db(self) -> "Db":
        """The database in use. Raises InvalidRequestError without one."""
        if self.spec is None:
            raise InvalidRequestError(
                "no database is in use; say .use DB, or DB@BRANCH", code="invalid_request"
            )
        return self.run.client.db(self.spec)

    @property
    def profile(self) -> "MemoryProfile":
        """The profile that the database is of. Raises InvalidRequestError where it is of none."""
        db = self.db
        ns, dashes, profile = db.name.partition("--")
        if not dashes:
            raise InvalidRequestError(
                f"{db.name} is no profile: its name is not NS--PROFILE", code="invalid_request"
            )
        return self.run.client.memory(ns, profile).on_branch(db.branch_name)

    def execute(self, text: str) -> None:
        """Do what a whole entry says: a meta command, or statements as one transaction. Raises MemoturnError, Leave."""
        begun = time.monotonic()
        if text.lstrip().startswith("."):
            self._meta(text.strip())
        elif statements := split(text):
            batch = self.db.batch(
                [(one, ()) for one in statements], durability=self.run.durability, at=self.at
            )
            show_batch(self.run, batch)
            self._known.clear()
        if self.timing:
            self.run.out.note(f"{1000 * (time.monotonic() - begun):.1f} ms")

    def _meta(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        command = META.get(word)
        if command is None:
            raise InvalidRequestError(
                f"there is no {word}; .help shows what there is", code="invalid_request"
            )
        try:
            words = [rest.strip()] if command.is_text and rest.strip() else shlex.split(rest)
        except ValueError as error:
            raise InvalidRequestError(f"{word}: {error}", code="invalid_request") from error
        if not command.least <= len(words) <= command.most:
            raise InvalidRequestError(f"use it as {word} {command.takes}".rstrip(), code="invalid_request")
        command.does(self, *words)

    # ---- what completion asks for, remembered for a moment

    def databases(self, prefix: str) -> list[str]:
        """Return some databases whose names start so."""
        return self._remembered(
            f"databases {prefix}",
            lambda: [row["name"] for row in self.run.client.iter_databases(prefix=prefix, limit=50)],
        )

    def branches(self) -> list[str]:
        """Return the branches of the database in use."""
        return self._remembered(
            f"branches {self.db.name}", lambda: ["main", *(row["branch"] for row in self.db.branch.iter())]
        )

    def checkpoints(self) -> list[str]:
        """Return the checkpoints of the branch in use."""
        branch = self.db.branch_name
        return self._remembered(
            f"checkpoints {self.spec}",
            lambda: [row["checkpoint"] for row in self.db.branch.iter_checkpoints(branch, limit=200)],
        )

    def tables(self) -> list[str]:
        """Return the tables and views of the state in use."""
        return self._remembered(
            f"tables {self.spec} {self.at}",
            lambda: [str(row[0]) for row in self.db.sql(_TABLES, at=self.at)["rows"]],
        )

    def columns(self) -> list[str]:
        """Return the columns of all tables of the state in use."""

        def ask() -> list[str]:
            names = self.tables()[:100]
            asked: list[tuple[str, tuple[str, ...]]] = [
                ("select name from pragma_table_info(?)", (name,)) for name in names
            ]
            results = self.db.batch(asked, at=self.at)["results"] if asked else []
            return sorted({str(row[0]) for result in results for row in result["rows"]})

        return self._remembered(f"columns {self.spec} {self.at}", ask)

    def _remembered(self, key: str, ask: Callable[[], list[str]]) -> list[str]:
        known = self._known.get(key)
        if known is None or time.monotonic() - known[0] > _KEPT_S:
            if len(self._known) > 100:  # noqa: PLR2004 - as many as one types within ten seconds
                self._known.clear()
            known = self._known[key] = (time.monotonic(), ask())
        return known[1]


def is_complete(text: str) -> bool:
    """Return whether an entry is whole: a meta command, nothing, or statements up to their last semicolon.

    What no SQL can hold is as whole as it gets: doing it tells what is wrong with it.
    """
    stripped = text.strip()
    try:
        return not stripped or stripped.startswith(".") or sqlite3.complete_statement(text)
    except ValueError:
        return True


# ---- meta commands


@dataclass(frozen=True)
class Meta:
    """A meta command; `takes` is how it is used, `is_text` whether all behind it is one text."""

    does: Callable[..., None]
    takes: str
    help: str
    least: int = 0
    most: int = 0
    is_text: bool = False


def _use(session: Session, spec: str) -> None:
    if spec.startswith("@"):
        spec = session.db.name + (spec if spec != "@main" else "")
    session.run.client.db(spec).branch.restore_points(session.run.client.db(spec).branch_name, limit=1)
    session.spec, session.at = spec, None


def _at(session: Session, revision: str | None = None) -> None:
    if revision in {None, "head"}:
        session.at = None
        return
    shown = session.db.batch([("select 1", ())], at=revision)
    session.at = revision
    session.run.out.note(f"reads show txid {shown['txid']}; .at head comes back")


def _tables(session: Session) -> None:
    rows = session.db.sql(_TABLES, at=session.at)["rows"]
    session.run.out.rows(
        {"tables": [row[0] for row in rows]}, ["table"], [(str(r[0]),) for r in rows], empty="no tables"
    )


def _schema(session: Session, table: str | None = None) -> None:
    query = (
        "select sql from sqlite_master where sql is not null and (?1 is null or tbl_name = ?1) order by rowid"
    )
    query = query.replace(" order by rowid", " order by type = 'index', name")
    rows = session.db.sql(query, [table], at=session.at)["rows"]
    for row in rows:
        session.run.out.done({"sql": row[0]}, f"{row[0]!s};")
    if not rows:
        session.run.out.note("nothing was made here")


def _recall(session: Session, words: str) -> None:
    found = session.profile.recall(words, at=session.at)
    rows: list[list[Cell]] = [
        [f"{hit['score']:.6f}", hit["type"], hit["topic_key"], hit["summary"], hit["id"]]
        for hit in found["memories"]
    ]
    columns = ["score", "type", "topic", "summary", "id"]
    session.run.out.rows(found, columns, rows, empty="nothing recalled", under=("id",))


def _memories(session: Session, limit: str = "20") -> None:
    if not (limit.isascii() and limit.isdigit() and int(limit)):
        raise InvalidRequestError(".memories takes a number", code="invalid_request")
    found = list(session.profile.iter_memories(limit=int(limit), at=session.at))
    rows: list[list[Cell]] = [
        [when(one["created_at"]), one["type"], one["topic_key"], one["summary"], one["id"]] for one in found
    ]
    columns = ["created", "type", "topic", "summary", "id"]
    session.run.out.rows({"memories": found}, columns, rows, empty="no memories", under=("id",))


def _branches(session: Session) -> None:
    rows = session.db.branch.list()
    session.run.out.rows(
        {"branches": rows},
        ["branch", "parent", "fork txid", "created"],
        [("main", None, None, None)]
        + [(row["branch"], row["parent"], row["fork_txid"], when(row["created_at"])) for row in rows],
        empty="",
    )


def _fork(session: Session, name: str, revision: str | None = None) -> None:
    made = session.db.branch.create(name, from_branch=session.db.branch_name, at=revision or session.at)
    session.run.out.note(f"forked txid {made['fork_txid']}; .use {made['spec']} goes there")
    session._known.clear()  # noqa: SLF001 - its own module


def _checkpoint(session: Session, name: str) -> None:
    made = session.db.branch.checkpoint(session.db.branch_name, name)
    session.run.out.done(made, f"checkpoint {name} names txid {made['txid']}")
    session._known.clear()  # noqa: SLF001 - its own module


def _checkpoints(session: Session) -> None:
    rows = session.db.branch.checkpoints(session.db.branch_name)
    session.run.out.rows(
        {"checkpoints": rows},
        ["name", "txid", "created"],
        [(row["checkpoint"], row["txid"], when(row["created_at"])) for row in rows],
        empty="no checkpoints",
    )


def _databases(session: Session, prefix: str = "") -> None:
    rows = list(session.run.client.iter_databases(prefix=prefix, limit=200))
    session.run.out.rows(
        {"databases": rows},
        ["name", "created"],
        [(row["name"], when(row["created_at"])) for row in rows],
        empty="no databases",
    )


def _sync(session: Session) -> None:
    txid = session.db.sync()
    session.run.out.done({"txid": txid}, f"object storage has everything up to txid {txid}")


def _timing(session: Session, state: str | None = None) -> None:
    session.timing = not session.timing if state is None else state == "on"
    session.run.out.note(f"timing is {'on' if session.timing else 'off'}")


def _help(session: Session) -> None:
    rows = [(f"{name} {meta.takes}".strip(), meta.help) for name, meta in META.items()]
    session.run.out.rows({"commands": rows}, ["command", "does"], rows, empty="")


def _quit(_: Session) -> None:
    raise Leave


META: Final[dict[str, Meta]] = {
    ".use": Meta(_use, "DB[@BRANCH]|@BRANCH", "work on this database or branch", 1, 1),
    ".at": Meta(
        _at, "[REVISION]", "read a past state: txid, checkpoint, head~N, time; head comes back", 0, 1
    ),
    ".tables": Meta(_tables, "", "list tables and views"),
    ".schema": Meta(_schema, "[TABLE]", "show how tables were made", 0, 1),
    ".recall": Meta(_recall, "WORDS", "find memories of the profile", 1, 1, is_text=True),
    ".memories": Meta(_memories, "[N]", "list the newest memories of the profile", 0, 1),
    ".branches": Meta(_branches, "", "list branches"),
    ".fork": Meta(_fork, "NAME [REVISION]", "fork this branch", 1, 2),
    ".checkpoint": Meta(_checkpoint, "NAME", "name the head of this branch", 1, 1),
    ".checkpoints": Meta(_checkpoints, "", "list checkpoints of this branch"),
    ".databases": Meta(_databases, "[PREFIX]", "list databases", 0, 1),
    ".sync": Meta(_sync, "", "wait until object storage has everything"),
    ".timing": Meta(_timing, "[on|off]", "say how long each entry took", 0, 1),
    ".help": Meta(_help, "", "show this"),
    ".quit": Meta(_quit, "", "leave; so does Ctrl-D"),
}


def completions(session: Session, text: str) -> tuple[Sequence[str], str]:
    """Return what the last word of the text may become, and that word. Raises MemoturnError."""
    if text.lstrip().startswith("."):
        return _meta_completions(session, text.lstrip())
    word = text[len(text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")) :]
    if not word:
        return [], ""
    upper = word.isupper()
    keywords = [one.upper() if upper else one for one in KEYWORDS]
    names = [*session.tables(), *session.columns()] if session.spec else []
    found = [one for one in [*names, *keywords] if one.lower().startswith(word.lower())]
    return list(dict.fromkeys(found)), word


def _meta_completions(session: Session, text: str) -> tuple[Sequence[str], str]:
    command, space, rest = text.partition(" ")
    if not space:
        return [name for name in META if name.startswith(command)], command
    word = rest.rpartition(" ")[2]
    found: list[str] = []
    if command == ".use":
        name, at, _ = word.partition("@")
        if at and session.spec and name in {"", session.db.name}:
            found = [f"{name}@{branch}" for branch in session.branches()]
        elif not at:
            found = session.databases(word)
    elif command in {".at", ".fork"} and session.spec:
        found = ["head", *session.checkpoints()]
    elif command == ".schema":
        found = session.tables()
    elif command == ".timing":
        found = ["on", "off"]
    return [one for one in found if one.startswith(word)], word


_WORDS: Final = """
    select from where and or not null is in like between exists case when then else end as distinct group by having order
    asc desc limit offset join left inner cross on using union all intersect except values insert into update set delete
    create table index view trigger drop alter add column rename to if primary key unique check default references
    foreign autoincrement integer text real blob strict without rowid with recursive returning conflict do nothing replace
    explain count sum avg min max coalesce length substr upper lower json json_extract json_each date datetime
"""
KEYWORDS: Final = tuple(_WORDS.split())
