"""The API reference of the TypeScript client is made without a warning, and names every class and method that it has at run time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import node_packages
import pytest

pytestmark = pytest.mark.xdist_group("typescript")
SCRIPT = node_packages.SDK.parents[1] / "scripts" / "typescript_reference.py"
WITHIN_S = 110
LISTED = """
import * as sdk from "./dist/esm/index.js";
const ours = (prototype) => prototype && ![Object, Error].some((kind) => kind.prototype === prototype);
const members = (kind) => {
  const found = [];
  for (let at = kind.prototype; ours(at); at = Object.getPrototypeOf(at)) found.push(...Object.getOwnPropertyNames(at));
  return found.filter((name) => name !== "constructor"); // users get objects of the client
};
const isClass = (value) => typeof value === "function" && `${value}`.startsWith("class");
const kinds = Object.entries(sdk).map(([name, value]) => [name, isClass(value) ? members(value) : []]);
console.log(JSON.stringify(Object.fromEntries(kinds)));
"""


@pytest.fixture(scope="module")
def written(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pages, and `reference.json` beside them."""
    folder = tmp_path_factory.mktemp("reference")
    command = [
        sys.executable,
        str(SCRIPT),
        "--out",
        str(folder / "pages"),
        "--json",
        str(folder / "reference.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if done.returncode == 3:
        node_packages.refuse(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def named(project: Any) -> dict[str, set[str]]:
    """The members of everything that the reference shows, by its name."""
    return {
        one["name"]: {member["name"] for member in one.get("children", ())} for one in project["children"]
    }


def test_it_names_every_class_function_and_method_of_the_built_client(written: Path, built: Path) -> None:
    shown = named(json.loads((written / "reference.json").read_text()))
    listed = json.loads(node_packages.run("--input-type=module", "--eval", LISTED))

    assert sum(len(members) for members in listed.values()) > 150
    assert set(listed) - set(shown) == set()
    missing = {
        f"{name}.{member}"
        for name, members in listed.items()
        for member in members
        if member not in shown[name]
    }
    assert missing == set()


def test_classes_have_a_page_each(written: Path) -> None:
    pages = {page.stem for page in (written / "pages" / "classes").glob("*.html")}

    assert {"Memoturn", "MemoryProfile", "Db", "Collection", "MemoturnError"} <= pages
