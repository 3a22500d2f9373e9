"""`scripts/kind-smoke` is sound shell, and what it asks of a node is what a node answers; kind and kubectl are stand-ins here."""

import base64
import os
import subprocess
import sys
import threading
import time

import pytest
from processes import NodeHome

from chart.rendering import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "kind-smoke"
KUBECTL = """#!{python}
import base64, os, pathlib, socket, sys, threading, time
words, state = sys.argv[1:], pathlib.Path(os.environ["STATE"])
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.close()
if "port-forward" in words:
    port = int(next(word for word in words if word.endswith(":8080")).split(":")[0])
    server = socket.create_server(("127.0.0.1", port))
    while True:
        client, _ = server.accept()
        try:
            node = socket.create_connection(("127.0.0.1", int((state / "port").read_text())))
        except OSError:
            client.close()
            continue
        for pair in ((client, node), (node, client)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
elif "secret" in words:
    print((state / "key").read_text(), end="")
elif "delete" in words and "pods" in words:
    (state / "delete").touch()
    while (state / "delete").exists():
        time.sleep(0.05)
elif "get" in words and "pods" in words:
    print((state / "uid").read_text(), end="")
"""


def test_script_is_sound():
    from pathlib import Path

    shellcheck = Path(sys.executable).parent / "shellcheck"
    ran = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=60)

    assert (ran.returncode, ran.stdout) == (0, "")
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.parametrize("folder", [".", "scripts", "/"])
def test_script_says_what_it_does_wherever_it_is_called_from(folder):
    where = REPOSITORY / folder
    script = os.path.relpath(SCRIPT, where)
    path = script if "/" in script else f"./{script}"

    for word, code in (("--help", 0), ("--clutser", 2)):
        ran = subprocess.run([path, word], cwd=where, capture_output=True, text=True, check=False, timeout=30)
        assert ran.returncode == code
        assert "asks for the same memory with the\nsame token" in (ran.stderr if code else ran.stdout)


def test_an_image_by_digest_is_refused():
    """It cannot be loaded, and would be named wrongly to the chart."""
    env = {**os.environ, "IMAGE": f"memoturn/memoturnd@sha256:{'ab' * 32}"}
    ran = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=30)

    assert ran.returncode == 1
    assert "takes a tag" in ran.stderr


@pytest.mark.soak
@pytest.mark.parametrize("keeps", [True, False], ids=["the bucket stays", "the bucket goes"])
def test_it_is_content_with_a_node_whose_memory_survives_and_with_no_other(tmp_path, keeps):
    stubs, state = tmp_path / "bin", tmp_path / "state"
    for folder in (stubs, state):
        folder.mkdir()
    scripts = dict.fromkeys(("docker", "kind", "helm"), "#!/bin/sh\n")
    for name, text in {**scripts, "kubectl": KUBECTL.format(python=sys.executable)}.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    key = "platform-key-of-the-smoke-test"
    (state / "key").write_text(base64.b64encode(key.encode()).decode())
    (state / "uid").write_text("first")
    auth = {"AUTH": "on", "PLATFORM_KEY": key, "PERSIST_AUTH_KEY": "1"}
    with NodeHome(tmp_path / "node", **auth) as home:
        node = home.start()
        (state / "port").write_text(node.url.rpartition(":")[2])
        done = threading.Event()

        def replace_pod():
            while not (state / "delete").exists():
                if done.wait(0.05):
                    return
            node.stop()
            home.lose_disk()
            if not keeps:
                home.bucket.rename(tmp_path / "gone")
            (state / "port").write_text(home.start().url.rpartition(":")[2])
            (state / "uid").write_text("second")
            (state / "delete").unlink()

        replacing = threading.Thread(target=replace_pod)
        replacing.start()
        began_s = time.monotonic()
        ran = subprocess.run(
            [SCRIPT],
            env={"PATH": f"{stubs}:{os.environ['PATH']}", "STATE": str(state), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        done.set()
        replacing.join()

    assert (ran.returncode == 0) == keeps, ran.stderr
    assert ("same memory, with the same token" in ran.stderr) == keeps
    assert time.monotonic() - began_s < 100
