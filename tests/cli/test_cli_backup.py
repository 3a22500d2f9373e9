"""Backup and restore of a whole namespace, against a real node."""

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from memoturn import BackupError, Memoturn, errors
from memoturn.backup import back_up, read_manifest, restore_backup, verify

_NUMBERS = itertools.count(1)
PROFILES = ("ann", "bob", "eve_2")


@pytest.fixture
def client(node_url):
    with Memoturn(node_url) as client:
        yield client


@pytest.fixture
def ns(client):
    """A namespace of three profiles, one with branches, one of which ends soon."""
    name = f"backup-{next(_NUMBERS)}"
    for number, profile in enumerate(PROFILES):
        client.memory(name, profile).ingest([{"type": "event", "summary": f"{profile} was here"}])
        db = client.db(f"{name}--{profile}")
        db.batch([("CREATE TABLE t(a)", ()), ("INSERT INTO t VALUES (?)", (number,))])
        db.kv.put("ns", "k", b"\x00\xff" * number)
    ann = client.db(f"{name}--ann")
    ann.branch.create("what-if")
    client.db(f"{name}--ann@what-if").sql("INSERT INTO t VALUES ('only here')")
    ann.branch.create("soon.gone", ttl=3600)
    return name


def state(client, ns, profile, branch="main"):
    db = client.db(f"{ns}--{profile}@{branch}")
    memories = client.memory(ns, profile).on_branch(branch).recall("here")["memories"]
    return (
        db.sql("SELECT rowid, a FROM t")["rows"],
        db.kv.get("ns", "k"),
        [(m["id"], m["summary"], m["created_at"]) for m in memories],
    )


def states(client, ns):
    found = {}
    for profile in client.profiles(ns):
        name = profile["profile"]
        branches = ["main", *(row["branch"] for row in client.db(f"{ns}--{name}").branch.list())]
        found |= {(name, branch): state(client, ns, name, branch) for branch in branches}
    return found


def interrupt_at(name):
    """A report that is interrupted when it is told of one branch, as by Ctrl-C."""

    def report(what, _number, _whole):
        if what == name:
            raise KeyboardInterrupt

    return report


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_namespace_is_saved_and_comes_back_under_another_name(cli, client, ns, tmp_path):
    folder, before = tmp_path / "saved", states(client, ns)

    saved = cli("backup", ns, str(folder), "--json")
    back = cli("restore-backup", str(folder), "--into", f"{ns}-copy", "--json")

    assert (saved.code, back.code) == (0, 0), saved.stderr + back.stderr
    assert (saved.json["profiles"], saved.json["files"], back.json["files"]) == (3, 5, 5)
    assert tree(folder) == [
        "ann/main.db", "ann/soon.gone.db", "ann/what-if.db", "bob/main.db", "eve_2/main.db", "manifest.json",
    ]  # fmt: skip
    assert states(client, f"{ns}-copy") == before
    (ends,) = (r for r in client.db(f"{ns}-copy--ann").branch.list() if r["branch"] == "soon.gone")
    assert 0 < ends["ttl_at"] - time.time() * 1000 <= 3_600_000


def test_manifest_says_what_each_file_is(client, ns, tmp_path):
    made = back_up(client, ns, tmp_path / "saved")

    assert made == read_manifest(tmp_path / "saved")
    assert (made["format"], made["namespace"]) == (1, ns)
    assert made["began_at"] <= made["files"][0]["exported_at"] <= made["ended_at"]
    for entry in made["files"]:
        path = tmp_path / "saved" / entry["profile"] / f"{entry['branch']}.db"
        with closing(sqlite3.connect(path)) as conn:
            assert conn.execute("SELECT txid FROM __memoturn_meta").fetchone() == (entry["txid"],)
            assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    by_branch = {(e["profile"], e["branch"]): e for e in made["files"]}
    fork = by_branch["ann", "what-if"]
    assert (fork["parent"], fork["fork_txid"]) == ("main", by_branch["ann", "main"]["txid"])


def test_profiles_come_back_under_their_own_names_once_they_are_gone(client, ns, tmp_path):
    before = states(client, ns)
    back_up(client, ns, tmp_path / "saved")
    for profile in PROFILES:
        client.delete_database(f"{ns}--{profile}")

    restore_backup(client, tmp_path / "saved")

    assert states(client, ns) == before
    floor = client.db(f"{ns}--bob")
    assert (
        floor.kv.get("ns", "k", min_txid=read_manifest(tmp_path / "saved")["files"][3]["txid"]) == b"\x00\xff"
    )


def test_restore_replaces_nothing(cli, client, ns, tmp_path):
    folder = tmp_path / "saved"
    back_up(client, ns, folder)
    client.memory(f"{ns}-part", "bob").ingest([{"type": "event", "summary": "another bob"}])

    refused = cli("restore-backup", str(folder), "--into", f"{ns}-part")

    assert refused.code == 4
    assert "bob" in refused.stderr
    assert [row["profile"] for row in client.profiles(f"{ns}-part")] == ["bob"]

    resumed = cli("restore-backup", str(folder), "--into", f"{ns}-part", "--resume", "--json")

    assert (resumed.json["files"], resumed.json["there"]) == (4, ["bob@main"])
    memories = client.memory(f"{ns}-part", "bob").recall("bob")["memories"]
    assert [m["summary"] for m in memories] == ["another bob"]
    assert state(client, f"{ns}-part", "ann", "what-if") == state(client, ns, "ann", "what-if")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "swap"])
def test_damaged_file_is_named_before_anything_is_changed(cli, client, ns, tmp_path, damage):
    folder = tmp_path / "saved"
    back_up(client, ns, folder)
    file = folder / "bob" / "main.db"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[5000] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "remove":
        file.unlink()
    else:
        shutil.copy(folder / "eve_2" / "main.db", file)

    done = cli("restore-backup", str(folder), "--into", f"{ns}-copy")

    assert done.code == 1
    assert "bob/main.db" in done.stderr
    assert client.profiles(f"{ns}-copy") == []


@pytest.mark.parametrize("change", [
    lambda m: m.update(format=2),
    lambda m: m.update(namespace="../x"),
    lambda m: m.pop("files"),
    lambda m: m["files"].pop(),
    lambda m: m["files"].append(m["files"][0]),
    lambda m: m["files"][0].update(branch="../../../etc/passwd"),
    lambda m: m["files"][0].update(profile="/etc"),
    lambda m: m["files"][0].update(txid=99),
    lambda m: m["files"][0].update(sha256="x"),
    lambda m: m["files"][0].update(ttl_at="soon"),
])  # fmt: skip
def test_manifest_that_was_changed_is_refused(client, ns, tmp_path, change):
    back_up(client, ns, tmp_path / "saved")
    path = tmp_path / "saved" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))

    with pytest.raises(BackupError):
        restore_backup(client, tmp_path / "saved", into=f"{ns}-copy")
    assert client.profiles(f"{ns}-copy") == []


def test_manifest_cut_off_anywhere_is_refused(client, ns, tmp_path):
    back_up(client, ns, tmp_path / "saved")
    path = tmp_path / "saved" / "manifest.json"
    text = path.read_text()
    for size in range(0, len(text), 97):
        path.write_text(text[:size])
        with pytest.raises(BackupError):
            read_manifest(tmp_path / "saved")


def test_backup_that_was_cut_off_goes_on_where_it_was(client, ns, tmp_path):
    folder = tmp_path / "saved"
    with pytest.raises(KeyboardInterrupt):
        back_up(client, ns, folder, report=interrupt_at("bob@main"))
    with pytest.raises(BackupError, match="cut off"):
        restore_backup(client, folder, into=f"{ns}-copy")
    kept = {name: (folder / name).stat().st_mtime_ns for name in tree(folder) if name.endswith(".db")}
    assert set(kept) == {"ann/main.db", "ann/soon.gone.db", "ann/what-if.db"}
    with (folder / "progress.jsonl").open("a") as progress:
        progress.write('{"profile": "bo')  # what a kill in the middle of a line leaves
    with pytest.raises(KeyboardInterrupt):
        back_up(client, ns, folder, report=interrupt_at("eve_2@main"))
    damaged = folder / "ann" / "what-if.db"
    damaged.write_bytes(damaged.read_bytes()[:-1])

    made = back_up(client, ns, folder)

    assert len(made["files"]) == 5
    verify(folder, read_manifest(folder))
    after = {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert {name for name in kept if kept[name] != after[name]} == {"ann/what-if.db"}
    assert not (folder / "progress.jsonl").exists()


def test_backup_that_was_killed_is_finished_by_the_next_run(node_url, client, ns, tmp_path):
    for number in range(30):
        client.memory(ns, f"p{number}").ingest([{"type": "event", "summary": f"p{number} was here"}])
    folder = tmp_path / "saved"
    command = [sys.executable, "-m", "memoturn", "--url", node_url, "backup", ns, str(folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}

    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end_s = time.monotonic() + 30
    while not list(folder.glob("*/main.db")) and time.monotonic() < end_s:
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    cut_off = not (folder / "manifest.json").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert cut_off
    assert again.returncode == 0, again.stderr
    manifest = read_manifest(folder)
    assert len({entry["profile"] for entry in manifest["files"]}) == 33
    verify(folder, manifest)


def test_restore_that_was_cut_off_goes_on_with_what_is_missing(client, ns, tmp_path):
    folder = tmp_path / "saved"
    back_up(client, ns, folder)

    with pytest.raises(KeyboardInterrupt):
        restore_backup(client, folder, into=f"{ns}-copy", report=interrupt_at("ann@what-if"))
    with pytest.raises(errors.AlreadyExistsError):
        restore_backup(client, folder, into=f"{ns}-copy")
    done = restore_backup(client, folder, into=f"{ns}-copy", resume=True)

    assert "ann@main" in done.there
    assert states(client, f"{ns}-copy") == states(client, ns)


def test_folder_of_something_else_is_not_written_to(cli, client, ns, tmp_path):
    (tmp_path / "mine").write_text("x")
    assert cli("backup", ns, str(tmp_path)).code == 1
    assert cli("backup", ns, str(tmp_path / "mine")).code == 1
    back_up(client, ns, tmp_path / "saved")
    again = cli("backup", ns, str(tmp_path / "saved"))
    assert (again.code, "whole backup" in again.stderr) == (1, True)
    assert cli("restore-backup", str(tmp_path)).code == 1

    with pytest.raises(KeyboardInterrupt):
        back_up(client, ns, tmp_path / "other", report=interrupt_at("ann@main"))
    other = cli("backup", f"{ns}-other", str(tmp_path / "other"))
    assert (other.code, "another backup" in other.stderr) == (1, True)


def test_branches_whose_time_is_over_stay_away(client, ns, tmp_path):
    client.db(f"{ns}--bob").branch.create("brief", ttl=1)
    made = back_up(client, ns, tmp_path / "saved")
    assert "brief" in {entry["branch"] for entry in made["files"]}
    time.sleep(1.1)

    done = restore_backup(client, tmp_path / "saved", into=f"{ns}-copy")

    assert done.expired == ["bob@brief"]
    assert "brief" not in {row["branch"] for row in client.db(f"{ns}-copy--bob").branch.list()}


def test_busy_node_is_waited_for(client, ns, tmp_path, node_url):
    waits = []

    class Busy:
        def __init__(self, inner, refusals):
            self._inner, self._left = inner, refusals

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def import_database(self, *args, **options):
            self._left -= 1
            if self._left >= 0:
                raise errors.OverloadedError("busy", retry_after=2)
            return self._inner.import_database(*args, **options)

    back_up(client, ns, tmp_path / "saved")
    restore_backup(Busy(client, 3), tmp_path / "saved", into=f"{ns}-copy", sleep=waits.append)

    assert waits == [2, 2, 2]
    assert states(client, f"{ns}-copy") == states(client, ns)


def test_empty_namespace_is_a_backup_of_nothing(client, tmp_path):
    made = back_up(client, "empty-namespace", tmp_path / "saved")

    assert made["files"] == []
    assert restore_backup(client, tmp_path / "saved", into="empty-too").files == 0
