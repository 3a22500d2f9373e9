"""What the documents tell to install renders: each `helm install` with its own values, and the values that a page shows."""

import shlex
import subprocess

import pytest
import yaml
from code_blocks import PAGES, blocks, holds_commands, steps
from service_programs import Helm

from chart.rendering import NEWEST, REPOSITORY, program, render

INSTALLS = sorted(
    {
        command.partition("  #")[0].strip()
        for page in PAGES
        for block in blocks(page)
        if holds_commands(block)
        for command, _ in steps(block)
        if command.startswith("helm install ")
    }
)
assert len(INSTALLS) > 1
SHOWN = [block for block in blocks("charts/memoturn/README.md") if block.language == "yaml"]


@pytest.mark.parametrize("command", INSTALLS)
def test_what_a_page_installs_renders(command: str):
    words = [word for word in shlex.split(command) if word != "--create-namespace"]
    assert words[:2] == ["helm", "install"]

    ran = subprocess.run(
        [program(Helm), "template", *words[2:], "--kube-version", NEWEST],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    kinds = [one["kind"] for one in yaml.load_all(ran.stdout, Loader=yaml.CSafeLoader) if one]
    assert "StatefulSet" in kinds


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.place)
def test_values_that_the_readme_shows_are_taken(block):
    values = yaml.safe_load(block.text)

    (nodes,) = (one for one in render(values).of("StatefulSet") if one["metadata"]["name"] == "memoturn")

    assert nodes["spec"]["replicas"] == values["dataplane"]["replicas"]
