"""The image's definition: what it is made of, what goes to its builder, and that its commands run as nobody on a root that cannot be written.

No Docker can be had on every machine, so its steps are followed here: the wheels are built, and what they hold is run in a sandbox. The whole build, with
libraries from the network, is the long test.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from chart.rendering import CHART, REPOSITORY
from chart.sandbox import IMAGE_ENV, USER, run_command
from memoturnd import __version__

DOCKERFILE = REPOSITORY / "Dockerfile"
COMMANDS = ("memoturnd", "memoturn-gateway", "memoturn-control", "memoturn")


def instructions() -> list[tuple[str, str]]:
    """The instructions with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()
    ]


def final_stage() -> list[tuple[str, str]]:
    starts = [index for index, (name, _) in enumerate(instructions()) if name == "FROM"]
    return instructions()[starts[-1] + 1 :]


def test_linter_has_nothing_to_say():
    hadolint = Path(sys.executable).parent / "hadolint"
    ran = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)

    assert (ran.returncode, ran.stdout) == (0, "")


def test_both_stages_are_of_one_pinned_base():
    base = next(value for name, value in instructions() if name == "ARG")
    stages = [value for name, value in instructions() if name == "FROM"]

    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert stages == ["${BASE} AS build", "${BASE}"]


def test_last_stage_runs_nothing_and_is_nobody():
    names = [name for name, _ in final_stage()]
    stage = dict(final_stage())

    assert "RUN" not in names
    assert "HEALTHCHECK" not in names, "probes are the orchestrator's"
    assert stage["USER"] == f"{USER}:{USER}"
    assert stage["CMD"] == '["memoturnd"]'
    given = dict(word.split("=", 1) for word in stage["ENV"].split())
    assert {name: value for name, value in given.items() if name != "PATH"} == IMAGE_ENV
    assert [value.split()[0] for name, value in final_stage() if name == "COPY"] == ["--from=build"] * 2
    assert f'org.opencontainers.image.version="{__version__}"' in stage["LABEL"]


def test_user_is_that_of_the_chart():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert values["podSecurityContext"]["runAsUser"] == values["podSecurityContext"]["fsGroup"] == USER


def test_wheels_hold_the_commands_and_the_migrations(wheels):
    names, commands = set(), ""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names |= set(archive.namelist())
            commands += archive.read(
                next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
            ).decode()

    assert {command for command in COMMANDS if re.search(rf"^{command} = ", commands, re.MULTILINE)} == set(
        COMMANDS
    )
    revisions = {
        f"control_plane/migrations/versions/{one.name}"
        for one in (REPOSITORY / "migrations/versions").glob("0*.py")
    }
    assert revisions
    assert revisions <= names
    assert not [name for name in names if name.startswith("tests")]


def test_builder_gets_what_it_copies_and_nothing_else():
    allowed = {
        line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = [
        value.split()[:-1] for name, value in instructions() if name == "COPY" and "--from" not in value
    ]

    assert {name for group in copied for name in group} == allowed
    assert all((REPOSITORY / name).exists() for name in allowed)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_as_nobody_on_a_root_that_cannot_be_written(command, pods, installed):
    ran = run_command(pods / f"image-{command}", installed, command, "--help")

    assert ran.returncode == 0, ran.stderr
    assert f"usage: {command} " in ran.stdout.lower().replace("\n", " ")


def test_the_sandbox_is_one(pods, installed):
    """Else the tests above would prove nothing."""
    code = (
        "import os, pathlib\n"
        "def writes(path):\n"
        "    try:\n"
        "        (pathlib.Path(path) / 'x').write_text('x')\n"
        "        return True\n"
        "    except OSError:\n"
        "        return False\n"
        "caps = [line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapBnd'))]\n"
        "print(os.getuid(), [p for p in ('/', '/opt/memoturn', '/opt/libraries', '/run/secrets', '/var/lib', '/dev/shm', '/tmp') if writes(p)], set(caps))"
    )
    ran = run_command(pods / "image-sandbox", installed, "-c", code)

    assert ran.stdout.strip() == f"{USER} ['/tmp'] {{'{'0' * 16}'}}", ran.stderr


@pytest.mark.soak
def test_the_steps_of_the_build_make_commands_that_run(tmp_path):
    """What the RUN lines of the first stage do, in folders of this machine."""
    context = tmp_path / "src"
    for name, value in instructions():
        if name == "COPY" and "--from" not in value:
            *sources, target = value.split()
            for source in sources:
                there = context / target / (source if target == "./" else "")
                there.parent.mkdir(parents=True, exist_ok=True)
                if (REPOSITORY / source).is_dir():
                    shutil.copytree(REPOSITORY / source, there, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(REPOSITORY / source, there)
    steps = [(name, value) for name, value in instructions() if name in {"RUN", "WORKDIR"}]
    where = {
        "/src": context,
        "/build": tmp_path / "build",
        "/wheels": tmp_path / "wheels",
        "/opt/memoturn": tmp_path / "opt",
        "/data": tmp_path / "data",
    }

    def here(text: str) -> str:
        for path, folder in where.items():
            text = re.sub(rf"(?<![\w/]){path}(?=[/ \n]|$)", str(folder), text)
        return text.replace("python -m venv", f"{sys.executable} -m venv")

    folder = context
    for name, value in steps:
        if name == "WORKDIR":
            folder = Path(here(value))
            if folder.is_relative_to("/var"):
                break
        else:
            subprocess.run(
                ["sh", "-euc", here(value)],
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "MODEL": ""},
                check=True,
                timeout=600,
            )

    for command in COMMANDS:
        program = [tmp_path / "opt" / "bin" / command, "--help"]
        ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, ran.stderr
