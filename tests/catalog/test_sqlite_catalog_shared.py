"""One embedded catalog, used by the processes of several workers at once."""

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import apsw
from catalog_process import NAMES

SCRIPT = Path(__file__).with_name("catalog_process.py")


def test_processes_that_share_the_file_create_each_name_and_claim_each_chore_once(tmp_path):
    path = tmp_path / "registry.db"
    commands = [[sys.executable, SCRIPT, str(path), str(number)] for number in range(4)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    counted = Counter(line for lines in said for line in lines)
    assert set(counted.values()) == {1}
    assert sum(line.startswith("made") for line in counted) == NAMES
    assert sum(line.startswith("claimed") for line in counted) == NAMES
    with contextlib.closing(apsw.Connection(str(path))) as catalog:
        assert catalog.execute("SELECT count(*) FROM databases").get == NAMES
        assert catalog.execute("PRAGMA integrity_check").get == "ok"
