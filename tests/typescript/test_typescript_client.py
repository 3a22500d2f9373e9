"""The TypeScript client: its form, its types, its package, and its own tests against a live node."""

import json
from pathlib import Path

import node_packages
import pytest
import typescript_types
from typescript_support import Served

ROOT = node_packages.SDK.parents[1]
pytestmark = pytest.mark.xdist_group("typescript")
TESTS = ("functions", "scripts", "vectors", "surface")


def test_the_types_are_those_of_the_api() -> None:
    for path, text in typescript_types.files().items():
        assert path.read_text() == text, "run scripts/typescript_types.py"


def test_the_code_is_in_form(packages: None) -> None:
    node_packages.run("node_modules/@biomejs/biome/bin/biome", "check", "--error-on-warnings")


@pytest.mark.parametrize("name", TESTS)
def test_of_its_own(name: str, built: Path, served: Served) -> None:
    shown = node_packages.run("--test", str(built / f"{name}.test.js"), **served.env)

    assert "# fail 0" in shown
    assert "# pass 0" not in shown


def test_in_a_browser(built: Path, served: Served, chromium: str) -> None:
    shown = node_packages.run(
        "--test", str(built / "browser.test.js"), **served.env, MEMOTURN_TEST_CHROMIUM=chromium
    )

    assert "# fail 0" in shown
    assert "# pass 3" in shown


def test_every_test_of_its_own_is_run() -> None:
    files = {path.name for path in (node_packages.SDK / "test").glob("*.test.ts")}

    assert files == {f"{name}.test.ts" for name in (*TESTS, "browser")}


def test_the_package_is_in_form(built: Path) -> None:
    node_packages.run("node_modules/publint/src/cli.js", "--strict")


@pytest.mark.soak
def test_its_types_are_found_by_every_way_to_resolve_them(built: Path) -> None:
    node_packages.run("node_modules/@arethetypeswrong/cli/dist/index.js", "--pack", ".", "--no-color")


def test_the_version_is_that_of_the_python_client() -> None:
    package = json.loads((node_packages.SDK / "package.json").read_text())
    python = (ROOT / "sdk" / "python" / "pyproject.toml").read_text()

    assert f'version = "{package["version"]}"' in python
    assert package.get("dependencies", {}) == {}
