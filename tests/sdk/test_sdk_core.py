"""What the clients decide without a network: positions, files, syntax of old Pythons."""

import ast
import threading
from pathlib import Path

import memoturn
import pytest
from memoturn import Memoturn
from memoturn._core.files import Part
from memoturn._core.positions import Place, Position, Positions
from scripted import ScriptedServer

PACKAGE = Path(memoturn.__file__).parent
ANN = Place("app--ann", "main")


def test_positions_only_grow_but_where_they_are_replaced():
    positions = Positions()

    positions.see(ANN, 7, 3)
    positions.see(ANN, 5, 4)
    positions.see(ANN, 0, 0)
    assert positions.of(ANN) == Position(7, 4)
    positions.replace(ANN, 2, 0)
    assert positions.of(ANN) == Position(2, 0)


def test_positions_are_those_of_the_branches_that_were_used_last():
    positions = Positions(limit=3)

    for n in range(3):
        positions.see(Place("db", str(n)), n + 1, 0)
    positions.see(Place("db", "0"), 9, 0)
    positions.see(Place("db", "new"), 1, 0)

    assert [positions.of(Place("db", name)).txid for name in ("0", "1", "2", "new")] == [9, 0, 3, 1]


def test_a_database_is_forgotten_with_its_branches_and_no_other():
    positions = Positions()
    for place in (ANN, Place("app--ann", "dev"), Place("app--bob", "main")):
        positions.see(place, 1, 0)

    positions.forget("app--ann", "dev")
    assert positions.of(ANN).txid == 1
    positions.forget("app--ann")

    assert [
        positions.of(Place(*place)).txid for place in (ANN, ("app--ann", "dev"), ("app--bob", "main"))
    ] == [
        0,
        0,
        1,
    ]


def test_threads_lose_no_position():
    positions = Positions(limit=50)

    def see(first: int) -> None:
        for n in range(2000):
            positions.see(Place("db", str(n % 40)), first + n, n)

    threads = [threading.Thread(target=see, args=(first,)) for first in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [positions.of(Place("db", str(n))).txid for n in range(40)] == [4 + 1960 + n for n in range(40)]


def test_a_file_is_sent_from_its_beginning_each_time(tmp_path):
    file = tmp_path / "made.db"
    file.write_bytes(bytes(range(256)) * 2000)
    made = {"name": "copy", "branch": "main", "uuid": "0", "created_at": 1, "txid": 1}
    answers = [{"status": 503}, {"status": 201, "json": made}]

    with ScriptedServer(answers) as server, Memoturn(server.url) as client:
        assert client.import_database(file, "copy")["txid"] == 1
        server.finish()

    assert [request.body == file.read_bytes() for request in server.requests] == [True, True]


@pytest.mark.parametrize("overwrite", [True, False])
def test_two_that_write_to_one_name_mix_nothing(tmp_path, overwrite):
    target = tmp_path / "one.db"
    first, second = Part(target, overwrite=overwrite), Part(target, overwrite=overwrite)

    first.open().write(b"first" * 1000)
    second.open().write(b"second")
    first.keep()
    if overwrite:
        second.keep()
    else:
        with pytest.raises(FileExistsError):
            second.keep()
        second.drop()

    assert target.read_bytes() == (b"second" if overwrite else b"first" * 1000)
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_whose_answer_was_lost_is_not_sent_again(tmp_path):
    (tmp_path / "made.db").write_bytes(b"x")

    with ScriptedServer([{"cut": "silent"}]) as server, Memoturn(server.url) as client:
        with pytest.raises(memoturn.UnknownOutcomeError) as lost:
            client.import_database(tmp_path / "made.db", "copy")
        server.finish()

    assert lost.value.idempotency_key is None


def test_an_answer_says_what_it_reached(guarded, mint):
    with Memoturn(guarded.url, token=mint("reached")) as client:
        ann = client.memory("reached", "ann")
        local = ann.ingest([{"type": "event", "summary": "it happened"}])
        durable = ann.ingest([{"type": "event", "summary": "and again"}], durability="durable")

    assert local["durability"] in {"local", "durable"}
    assert durable["durability"] == "durable"
    assert durable["durable_txid"] >= durable["txid"] > local["txid"]


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_oldest_python_understands_it(file):
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 10))
