import pytest

from memoturnd.__main__ import main
from memoturnd.config import Settings
from memoturnd.errors import ConfigurationError
from memoturnd.workers.left_folders import folders_of_workers, left_by_workers
from memoturnd.workers.settings import check_workers, worker_settings
from memoturnd.workers.supervising import (
    FIRST_PAUSE_S,
    LIVED_S,
    MOST_PAUSE_S,
    gateways_for,
    next_pause_s,
)


def settings(tmp_path, **environ):
    given = {"DATA_DIR": str(tmp_path / "data"), **environ}
    return Settings.from_env({f"MEMOTURN_{name}": value for name, value in given.items()}, is_tty=False)


def test_workers_share_the_objects_the_catalog_and_the_keys_and_nothing_else(tmp_path):
    of_all = settings(tmp_path)
    first, second = (worker_settings(of_all, number, 2, {}) for number in range(2))

    assert first.object_store == second.object_store == f"file://{tmp_path}/data/objects"
    assert first.shared_dir == second.shared_dir == tmp_path / "data"
    assert first.leases_dir == second.leases_dir == tmp_path / "data" / "leases"
    assert (first.data_dir, second.data_dir) == tuple(
        tmp_path / "data" / "workers" / number for number in "01"
    )
    assert (first.node_id, second.node_id) == ("worker-0", "worker-1")
    assert first.shares_catalog
    assert str(first.listen) == "127.0.0.1:0"
    assert first.loopback_only
    assert not of_all.shares_catalog
    assert of_all.shared_dir == tmp_path / "data"


def test_what_the_machine_has_is_divided_among_workers(tmp_path):
    of_all = settings(tmp_path, MEMORY_BUDGET_BYTES="4194304", DISK_BUDGET_BYTES="8388608", HOT_CAP="3")
    one = worker_settings(of_all, 0, 4, {})

    assert (one.memory_budget_bytes, one.disk_budget_bytes, one.hot_cap) == (1048576, 2097152, 1)
    assert one.recall_cache_bytes == of_all.recall_cache_bytes // 4
    assert one.ship_rate == of_all.ship_rate


def test_name_of_the_machine_is_part_of_its_workers_names(tmp_path):
    one = worker_settings(settings(tmp_path, NODE_ID="a"), 1, 2, {"MEMOTURN_NODE_ID": "a"})

    assert one.node_id == "a-1"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OBJECT_STORE": "mem://"}, ["MEMOTURN_OBJECT_STORE", "inside one process"]),
        (
            {
                "ETCD": "http://127.0.0.1:1",
                "CATALOG": "postgresql://u@h/d",
                "CLUSTER_KEY": "k" * 32,
                "OBJECT_STORE": "s3://b",
            },
            ["MEMOTURN_ETCD", "--workers"],
        ),
    ],
)
def test_what_processes_cannot_share_is_refused(tmp_path, environ, words):
    with pytest.raises(ConfigurationError) as refused:
        check_workers(settings(tmp_path, **environ))

    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers"],
        ["--workers", "0"],
        ["--workers=65"],
        ["--workers", "two"],
        ["--workers", "2", "more"],
        ["--worker", "2/2"],
        ["--worker", "2"],
        ["--wrokers", "2"],
    ],
)
def test_wrong_arguments_are_refused_with_exit_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_process_that_crashes_again_and_again_waits_longer_each_time():
    pauses = [0.0]
    for _ in range(10):
        pauses.append(next_pause_s(pauses[-1], lived_s=1.0))

    assert pauses[1:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == MOST_PAUSE_S
    assert next_pause_s(MOST_PAUSE_S, lived_s=LIVED_S) == FIRST_PAUSE_S


def test_folders_that_hold_something_and_have_no_worker_are_found(tmp_path):
    root = tmp_path / "data"
    for number in range(4):
        (root / "workers" / str(number) / "audit").mkdir(parents=True)
    (root / "workers" / "notes").mkdir()
    (root / "workers" / "1" / "dbs" / "ab" / "abc" / "branch").mkdir(parents=True)
    (root / "workers" / "2" / "audit" / "000000000001.spool").write_bytes(b"e x y\n")
    (root / "workers" / "3" / "audit" / "000000000001.spool").write_bytes(b"")

    assert folders_of_workers(root) == [1, 2]
    assert folders_of_workers(root, first=2) == [2]
    assert folders_of_workers(tmp_path / "elsewhere") == []
    of_all = settings(tmp_path)
    assert [one.data_dir.name for one in left_by_workers(of_all, first=2)] == ["2"]
    assert left_by_workers(worker_settings(of_all, 0, 1, {})) == []


def test_there_is_a_gateway_for_every_two_workers():
    assert [gateways_for(workers) for workers in (1, 2, 3, 4, 64)] == [1, 1, 2, 2, 32]
