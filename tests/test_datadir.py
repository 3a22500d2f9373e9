import asyncio
import errno
import json
import os
import sys

import pytest

from memoturnd import datadir
from memoturnd.datadir import boot_id, lock_data_dir, read_boot_id
from memoturnd.errors import ConfigurationError

HOLD = """
import sys
from pathlib import Path
from memoturnd.datadir import lock_data_dir

with lock_data_dir(Path(sys.argv[1]), listen="127.0.0.1:9999"):
    print("held", flush=True)
    sys.stdin.read()
"""


async def holder(path):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLD,
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await child.stdout.readline() == b"held\n"
    return child


def test_lock_makes_the_folder_and_says_who_holds_it(tmp_path):
    with lock_data_dir(tmp_path / "new" / "data", listen="127.0.0.1:8080") as lock:
        facts = json.loads((tmp_path / "new" / "data" / ".lock").read_text())

        assert lock.path == tmp_path / "new" / "data"
        assert facts["pid"] == os.getpid()
        assert facts["listen"] == "127.0.0.1:8080"
        assert facts["started_at"] > 1_600_000_000_000


async def test_second_process_is_refused_naming_the_first(tmp_path):
    child = await holder(tmp_path)
    try:
        with pytest.raises(ConfigurationError) as caught:
            lock_data_dir(tmp_path)
    finally:
        await child.communicate(b"")

    for fragment in (str(tmp_path), f"process {child.pid}", "127.0.0.1:9999", "MEMOTURN_DATA_DIR"):
        assert fragment in str(caught.value)


async def test_killed_holder_leaves_nothing_to_clean_up(tmp_path):
    child = await holder(tmp_path)
    child.kill()
    await child.communicate(b"")

    with lock_data_dir(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_refused_lock_does_not_harm_the_holder(tmp_path):
    with lock_data_dir(tmp_path, listen="first"):
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="first"):
                lock_data_dir(tmp_path, listen="second")


def test_closed_lock_can_be_taken_again(tmp_path):
    lock = lock_data_dir(tmp_path)
    lock.close()
    lock.close()

    lock_data_dir(tmp_path).close()


def test_lock_that_is_not_described_yet_is_still_refused(tmp_path):
    with lock_data_dir(tmp_path):
        (tmp_path / ".lock").write_text("{half")

        with pytest.raises(ConfigurationError, match="another process"):
            lock_data_dir(tmp_path)


def test_lock_does_not_pass_to_children(tmp_path):
    with lock_data_dir(tmp_path) as lock:
        assert not os.get_inheritable(lock._file)


def test_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("")

    with pytest.raises(ConfigurationError, match=r"cannot use the data directory .*data"):
        lock_data_dir(tmp_path / "data")
    with pytest.raises(ConfigurationError, match="cannot use the data directory"):
        lock_data_dir(tmp_path / "data" / "below")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_folder_that_cannot_be_written_is_refused_with_the_cause(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(datadir.os, "open", refuse)

    with pytest.raises(ConfigurationError, match=f"{os.strerror(number)}; make it a folder"):
        lock_data_dir(tmp_path)


def test_read_only_folder_with_a_writable_lock_file_is_refused(tmp_path, monkeypatch):
    lock_data_dir(tmp_path).close()
    monkeypatch.setattr(datadir.os, "access", lambda *_: False)  # root may write anywhere

    with pytest.raises(ConfigurationError, match="Permission denied"):
        lock_data_dir(tmp_path)

    monkeypatch.undo()
    lock_data_dir(tmp_path).close()


def test_boot_id_is_the_systems_and_stays():
    assert boot_id() == boot_id()
    if datadir.BOOT_ID_PATH.exists():
        assert boot_id() == datadir.BOOT_ID_PATH.read_text().strip()


def test_boot_id_without_the_systems_is_never_that_of_another_process(tmp_path):
    (tmp_path / "empty").write_text("\n")

    ids = {
        read_boot_id(tmp_path / "missing"),
        read_boot_id(tmp_path / "missing"),
        read_boot_id(tmp_path / "empty"),
    }

    assert len(ids) == 3
    assert all(len(text) >= 32 for text in ids)
