"""The command where its streams are not what it would like: pipes that close, none at all, no space, other encodings."""

import json
import os
import subprocess
import sys

import pytest

SUMMARY = "Ünïcode 漢字 🎉 \N{RIGHT-TO-LEFT OVERRIDE}"

MANY_ROWS = "with recursive c(n) as (select 1 union all select n + 1 from c limit 9000) select n, hex(zeroblob(50)) from c"


def shell(line: str, node_url: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of bash, in which `memoturn` is the command; the exit code of a pipe is that of what failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    environment |= {"MEMOTURN_URL": node_url, "PYTHONIOENCODING": "utf-8", **variables}
    function = f'memoturn() {{ "{sys.executable}" -m memoturn "$@"; }}; set -o pipefail'
    return subprocess.run(
        ["bash", "-c", f"{function}; {line}"], env=environment, capture_output=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def stocked(node_url) -> str:
    """A node with a profile and a database that say much."""
    script = """
import os, sys
from memoturn import Memoturn
with Memoturn(sys.argv[1]) as client:
    client.memory("streams", "ann").ingest([{"type": "fact", "summary": sys.argv[2]}])
    client.db("streams--ann").collection("long").insert([{"n": n, "text": "x" * 500} for n in range(1000)])
"""
    subprocess.run([sys.executable, "-c", script, node_url, SUMMARY], check=True, timeout=30)
    return node_url


@pytest.mark.parametrize(
    "line",
    [
        "memoturn docs find streams--ann long --limit 1000 | head -c 100",
        "memoturn docs find streams--ann long --limit 1000 --json | head -1",
        "memoturn export streams--ann - | head -c 16",
        "memoturn memory list streams ann | true",
        "memoturn memory list streams ann 2>&1 | true",
        f"memoturn sql streams--ann '{MANY_ROWS}' | head -1",
        "for n in $(seq 300); do echo 'select hex(zeroblob(500));'; done | memoturn shell streams--ann 2>&1 | head -1",
        "memoturn changes streams--ann --since 0 | head -1",
        "memoturn --help | true",
        "memoturn kv put --help | true",
        "memoturn doctor | head -1",
    ],
)
def test_whoever_has_read_enough_is_no_failure(stocked, line):
    done = shell(line, stocked)

    assert (done.returncode, b"Traceback" in done.stderr, b"rror" in done.stderr) == (0, False, False), (
        done.stderr
    )


def test_a_failure_is_one_whether_or_not_somebody_reads(stocked):
    done = shell("memoturn kv get streams--ann n none 2>/dev/null | true", stocked)

    assert done.returncode == 3


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("memoturn memory list streams ann >&-", 0),
        ("memoturn memory list streams ann 2>&-", 0),
        ("memoturn memory list streams ann <&- >&- 2>&-", 0),
        ("memoturn kv delete streams--ann n none <&-", 0),
        ("memoturn sql streams--ann <&-", 2),
        ("memoturn shell streams--ann <&-", 0),
    ],
)
def test_streams_that_the_process_was_started_without_are_no_failure(stocked, line, code):
    done = shell(line, stocked)

    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - of a device
@pytest.mark.parametrize("command", ["memory list streams ann", "docs find streams--ann long", "version"])
def test_what_cannot_be_written_is_a_failure_that_says_so(stocked, command):
    done = shell(f"memoturn {command} > /dev/full", stocked)

    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_an_encoding_does_not_have_is_spelled_out(stocked, encoding):
    variables = {"PYTHONIOENCODING": encoding}

    shown = shell("memoturn memory list streams ann", stocked, **variables)
    listed = shell("memoturn memory list streams ann --json", stocked, **variables)
    error = shell("memoturn kv get streams--ann n 漢字", stocked, **variables)

    assert (shown.returncode, listed.returncode, error.returncode) == (0, 0, 3), shown.stderr + listed.stderr
    assert ("漢字" if encoding == "utf-8" else "\\u6f22\\u5b57") in shown.stdout.decode(encoding)
    text = listed.stdout.decode(encoding)
    assert json.loads(text)["memories"][0]["summary"] == SUMMARY
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text + shown.stdout.decode(encoding)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_locale_does_not_matter(stocked, locale):
    environment = {"LC_ALL": locale, "LANG": locale, "PYTHONIOENCODING": ""}

    done = shell(
        "memoturn memory list streams ann && memoturn kv put streams--ann n 漢字 é", stocked, **environment
    )

    assert done.returncode == 0, done.stderr
    assert "漢字" in done.stdout.decode()


@pytest.mark.parametrize(
    ("command", "stdin"),
    [
        ("sql streams--ann", b"select '\xff'"),
        ("docs insert streams--ann c", b'{"a": "\xff"}'),
        ("turns append streams--ann s user -", b"\xff"),
        ("memory extract streams ann", b'[{"role": "user", "content": "\xff"}]'),
        ("policy set streams --dry-run", b'{"a": "\xff"}'),
    ],
)
def test_bytes_that_are_no_text_are_wrong_usage(command, stocked, stdin, tmp_path):
    file = tmp_path / "stdin"
    file.write_bytes(stdin)

    done = shell(f"memoturn {command} < {file}", stocked)

    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"text" in done.stderr or b"JSON" in done.stderr


def test_the_mark_that_some_editors_begin_a_file_with_is_left_out(stocked):
    mark = "printf '\\xef\\xbb\\xbf"

    assert shell(f"{mark}select 7' | memoturn sql streams--ann", stocked).stdout == b"7\n"
    assert shell(f'{mark}{{"_id": "a"}}\' | memoturn docs insert streams--ann c', stocked).stdout == b"a\n"
