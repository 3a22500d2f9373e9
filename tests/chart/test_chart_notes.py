"""What Helm prints after an install: names that are there, and commands that lead to a memory that is recalled."""

import json
import os
import re
import shutil
import subprocess

import yaml
from processes import NodeHome

from chart.rendering import CHART, CLUSTER, NAMESPACE, NEWEST, OUTSIDE, RELEASE, helm, render

SHOWN = """kind: Notes
metadata: {name: notes}
text: {{ tpl (.Files.Get "files/notes.txt") . | quote }}
"""


def notes(folder, values):
    """The notes, which `helm template` leaves out, as an object of a copy of the chart."""
    copy = folder / "chart"
    shutil.copytree(CHART, copy)
    (copy / "templates" / "NOTES.txt").rename(copy / "files" / "notes.txt")
    (copy / "templates" / "shown.yaml").write_text(SHOWN)
    text = helm(
        "template", RELEASE, str(copy), "-n", NAMESPACE, "--kube-version", NEWEST, values=json.dumps(values)
    )
    (found,) = [one["text"] for one in yaml.safe_load_all(text) if one and one["kind"] == "Notes"]
    shutil.rmtree(copy)
    return found


def commands(text):
    """The commands, with their continued lines, by their first words."""
    lines = re.findall(r"^  ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return [line for line in lines if line.strip()]


def test_the_objects_that_they_name_are_there(tmp_path):
    for values in ({}, CLUSTER, OUTSIDE, {"fullnameOverride": "mine"}):
        objects, text = render(values), notes(tmp_path, values)
        there = {(one["kind"].lower(), one["metadata"]["name"]) for one in objects.all}
        given = {("secret", values["auth"]["existingSecret"])} if "auth" in values else set()

        named = re.findall(r"\b(statefulset|service)/(\S+)", text) + re.findall(r"get (secret) (\S+)", text)
        assert len(named) == 3
        assert set(named) <= there | given
        assert f"8080:{objects.one('Service', named[0][1])['spec']['ports'][0]['port']}" in text
        assert "-n agents " in text


def test_their_commands_lead_to_a_memory_that_is_recalled(tmp_path):
    told = [one for one in commands(notes(tmp_path, {})) if "kubectl" not in one and "127.0.0.1" not in one]
    key = "platform-key-of-the-notes-0123456789"

    with NodeHome(tmp_path / "node", AUTH="on", PLATFORM_KEY=key, PERSIST_AUTH_KEY="1") as home:
        environment = {"MEMOTURN_URL": home.start().url, "MEMOTURN_PLATFORM_KEY": key}
        ran = subprocess.run(
            ["sh", "-euc", "\n".join(told)],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert len(told) == 3
    assert ran.returncode == 0, ran.stderr
    stored, recalled = (json.loads(answer) for answer in ran.stdout.replace("}{", "}\n{").splitlines())
    assert stored["results"][0]["status"] == "created"
    assert recalled["memories"][0]["summary"] == "Alice is vegan"


def test_they_say_what_will_not_do_as_it_is(tmp_path):
    monitored = {"podMonitor": {"enabled": True}}
    named = {"networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]}}

    assert "everything is gone with the pod" in notes(tmp_path, {"objectStorage": {"backend": "file"}})
    assert "metricsFrom names nobody" in notes(tmp_path, monitored)
    assert "metricsFrom" not in notes(tmp_path, monitored | named)
    assert "for trying out" in notes(tmp_path, {})
    assert "for trying out" not in notes(tmp_path, OUTSIDE)
