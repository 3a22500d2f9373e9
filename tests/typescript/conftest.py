"""A node with authentication, a language model and an embedder, and the client's tests built for it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fake_embedder
import fake_model
import node_packages
import pytest
import service_chromium
from processes import NodeHome
from service_base import free_port
from typescript_support import PLATFORM_KEY, Served


@pytest.fixture(scope="session")
def packages() -> None:
    """The packages of npm, in their place."""
    node_packages.with_packages(node_packages.SDK)


@pytest.fixture(scope="session")
def built(packages: None) -> Path:
    """The client and its tests, built."""
    node_packages.run("scripts/build.mjs")
    node_packages.run("node_modules/typescript/bin/tsc", "-p", "tsconfig.test.json")
    return node_packages.SDK / "build" / "test"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Start the node, on a free port."""
    pages_port = free_port()
    with (
        fake_model.serving_model_beside() as model,
        fake_embedder.serving_endpoint_beside() as embedder,
        NodeHome(tmp_path_factory.mktemp("typescript")) as home,
    ):
        settings = {
            **fake_model.settings_of(model),
            **fake_embedder.settings_of(embedder),
            "AUTH": "on",
            "PLATFORM_KEY": PLATFORM_KEY,
            "CORS_ORIGINS": f"http://127.0.0.1:{pages_port}",
        }
        yield Served(home.start(**settings), pages_port)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    path = service_chromium.found()
    if path is None:
        node_packages.refuse("there is no Chromium: `scripts/services get chromium`")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def project(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh project with the packed client installed, from nothing but its tarball."""
    folder = tmp_path_factory.mktemp("project")
    npm = shutil.which("npm")
    assert npm is not None
    settings = ["--offline", "--no-audit", "--no-fund", "--cache", str(folder / "cache")]
    pack = [npm, "pack", "--pack-destination", str(folder), *settings]
    subprocess.run(pack, cwd=node_packages.SDK, capture_output=True, timeout=60, check=True)
    (tarball,) = folder.glob("*.tgz")
    (folder / "package.json").write_text('{"name": "fresh", "private": true}')
    subprocess.run(
        [npm, "install", str(tarball), *settings], cwd=folder, capture_output=True, timeout=60, check=True
    )
    assert [path.name for path in (folder / "node_modules").glob("[!.]*")] == ["@memoturn"]
    # Beside what the client brought: the compiler, and types of Node.js, which a project has of its own.
    (folder / "node_modules" / "@types").symlink_to(node_packages.SDK / "node_modules" / "@types")
    return folder


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("MEMOTURN_TEST_")]:
        monkeypatch.delenv(name)
