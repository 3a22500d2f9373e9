"""Export and import by the command and the client, against a real node."""

import hashlib
import io
import itertools
import sqlite3
from contextlib import closing

import httpx
import pytest
from memoturn import Memoturn, errors

_NUMBERS = itertools.count(1)


@pytest.fixture
def db(cli):
    """A database of its own with a table, a key, and a checkpoint before the last write."""
    name = f"transfer-{next(_NUMBERS)}"
    cli("db", "create", name)
    cli("sql", name, "create table t(a); insert into t values (1)")
    cli("branch", "checkpoint", name, "main", "a:b")
    cli("kv", "put", name, "ns", "k", "value")
    return name


def rows(path, sql):
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(sql).fetchall()


def test_export_saves_a_file_that_any_sqlite_opens(cli, db, tmp_path):
    file = tmp_path / "one.db"

    done = cli("export", db, str(file), "--json")

    assert done.code == 0, done.stderr
    assert done.json["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert done.json["size_bytes"] == file.stat().st_size
    assert done.stderr == f"txid {done.json['txid']} (durable {done.json['durable_txid']})\n"
    assert rows(file, "SELECT a FROM t") == [(1,)]
    assert rows(file, "SELECT v FROM __memoturn_kv") == [(b"value",)]
    assert [path.name for path in tmp_path.iterdir()] == ["one.db"]


def test_export_takes_a_branch_and_a_revision(cli, db, tmp_path):
    cli("branch", "create", db, "side")
    cli("sql", f"{db}@side", "insert into t values (2)")
    found = {}
    for state in (f"{db}:a:b", f"{db}:head~1", f"{db}@side", f"{db}@side:head~1"):
        assert cli("export", state, str(tmp_path / "x.db"), "--force").code == 0, state
        found[state.removeprefix(db)] = (
            rows(tmp_path / "x.db", "SELECT count(*) FROM __memoturn_kv")[0][0],
            rows(tmp_path / "x.db", "SELECT count(*) FROM t")[0][0],
        )

    assert found == {":a:b": (0, 1), ":head~1": (0, 1), "@side": (1, 2), "@side:head~1": (1, 1)}


def test_export_to_stdout_is_the_file_and_nothing_else(cli, db, tmp_path):
    done = cli("export", db, "-")
    cli("export", db, str(tmp_path / "one.db"))

    assert done.stdout == (tmp_path / "one.db").read_bytes()
    assert done.stderr.startswith("txid ")


def test_export_replaces_nothing_unless_told_to(cli, db, tmp_path):
    file = tmp_path / "one.db"
    file.write_text("mine")

    refused = cli("export", db, str(file))

    assert (refused.code, file.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    assert cli("export", db, str(file), "--force").code == 0
    assert cli("export", db, str(tmp_path / "missing" / "one.db")).code == 2
    assert cli("export", f"{db}:", str(tmp_path / "two.db")).code == 2


def test_export_that_fails_leaves_no_file(cli, db, tmp_path):
    assert cli("export", "nothing", str(tmp_path / "one.db")).code == 3
    assert cli("export", f"{db}:999", str(tmp_path / "one.db")).code == 4
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_written_is_named(cli, db):
    done = cli("export", db, "/proc/one.db")

    assert done.code == 1
    assert "/proc/.one.db." in done.stderr


def test_import_makes_a_database_of_an_export(cli, db, tmp_path):
    file, name = tmp_path / "one.db", f"{db}-copy"
    exported = cli("export", db, str(file), "--json").json

    done = cli("import", str(file), name, "--json")

    assert done.code == 0, done.stderr
    assert (done.json["name"], done.json["branch"], done.json["txid"]) == (name, "main", exported["txid"])
    assert cli("kv", "get", name, "ns", "k").stdout == b"value"
    again = cli("import", str(file), name)
    assert again.code == 4
    assert "already exists" in again.stderr


def test_import_makes_a_branch(cli, db, tmp_path):
    file = tmp_path / "one.db"
    cli("export", f"{db}:a:b", str(file))

    done = cli("import", str(file), f"{db}@old")

    assert done.code == 0, done.stderr
    assert cli("kv", "list", f"{db}@old", "ns").text == ""
    assert cli("import", str(file), f"{db}@").code == 2


def test_import_of_what_is_no_database_says_so(cli, tmp_path):
    file = tmp_path / "one.db"
    file.write_text("hello")

    done = cli("import", str(file), "no-database")

    assert done.code == 1
    assert "not a SQLite database" in done.stderr
    assert cli("import", str(tmp_path / "missing.db"), "no-database").code == 2
    assert "no-database" not in cli("db", "list").text


def test_client_saves_to_an_open_file_and_reports_progress(node_url, db):
    target, seen = io.BytesIO(), []
    with Memoturn(node_url) as memoturn:
        head = memoturn.db(db)
        saved = head.export(target, progress=lambda moved, whole: seen.append((moved, whole)))

    assert seen[-1] == (saved["size_bytes"], saved["size_bytes"])
    assert head.last_txid == saved["txid"]
    assert hashlib.sha256(target.getvalue()).hexdigest() == saved["sha256"]


def test_client_imports_and_reports_progress(node_url, db, tmp_path):
    seen = []
    with Memoturn(node_url) as memoturn:
        memoturn.db(db).export(tmp_path / "one.db")
        with pytest.raises(FileExistsError):
            memoturn.db(db).export(tmp_path / "one.db")
        made = memoturn.import_database(
            tmp_path / "one.db", f"{db}--copy", progress=lambda moved, whole: seen.append((moved, whole))
        )
        with pytest.raises(errors.AlreadyExistsError):
            memoturn.import_database(tmp_path / "one.db", f"{db}--copy")
        with pytest.raises(errors.InvalidRequestError):
            memoturn.import_database(tmp_path / "one.db", f"{db}-2", ttl=5)

    assert made["name"] == f"{db}--copy"
    assert seen[-1][0] == seen[-1][1] == (tmp_path / "one.db").stat().st_size


def test_download_that_is_cut_short_leaves_no_file(tmp_path):
    def short(_request):
        return httpx.Response(200, headers={"Content-Length": "10"}, content=iter([b"12345"]))

    (tmp_path / "one.db").write_text("mine")
    with httpx.Client(transport=httpx.MockTransport(short)) as http:
        db = Memoturn(http_client=http).db("x")
        with pytest.raises(errors.ServerError, match="after 5 of 10 bytes"):
            db.export(tmp_path / "one.db", overwrite=True)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("one.db", "mine")]
