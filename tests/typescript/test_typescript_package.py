"""What users get: the packed client in a fresh project, as ES module, CommonJS and types; every code block of its README, and the quickstart."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import node_packages
import pytest
from processes import NodeHome, RunningNode
from walkthrough import Shell, blocks, check, section, steps

pytestmark = pytest.mark.xdist_group("typescript")
ROOT = node_packages.SDK.parents[1]
QUICKSTART = section(ROOT / "docs" / "quickstart.md", "TypeScript")
(PROGRAM,) = blocks(QUICKSTART, "ts")
IMPORT = 'import { memoturn } from "@memoturn/sdk";\n'
OPTIONS = {
    "strict": True,
    "exactOptionalPropertyTypes": True,
    "noUncheckedIndexedAccess": True,
    "skipLibCheck": False,
    "module": "nodenext",
    "target": "es2022",
    "lib": ["es2023", "dom", "dom.iterable"],
    "types": ["node"],
}


@pytest.fixture(scope="module")
def open_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node as a new user has it: without authentication."""
    with NodeHome(tmp_path_factory.mktemp("open")) as home:
        yield home.start()


def compile_project(project: Path, *files: str, **options: bool | list[str]) -> None:
    config = {"compilerOptions": OPTIONS | options, "files": files}
    (project / "tsconfig.json").write_text(json.dumps(config))
    compiler = node_packages.SDK / "node_modules" / "typescript" / "bin" / "tsc"
    node_packages.run(str(compiler), "-p", ".", cwd=project)


def of(node: RunningNode, program: str) -> str:
    """The program of the quickstart, for this node."""
    assert program.count("memoturn()") == 1
    return program.replace("memoturn()", f'memoturn({{ url: "{node.url}" }})')


def as_commonjs(program: str) -> str:
    """The same as CommonJS, in which nothing is awaited outside of a function."""
    assert program.startswith(IMPORT)
    body = program.removeprefix(IMPORT)
    return f'const {{ memoturn }} = require("@memoturn/sdk");\n(async () => {{{body}}})();\n'


@pytest.mark.parametrize(("name", "form"), [("esm.mjs", str), ("cjs.cjs", as_commonjs)])
def test_the_quickstart_runs_as_either_kind_of_module(
    name: str, form: Callable[[str], str], project: Path, open_node: RunningNode
) -> None:
    (project / name).write_text(form(of(open_node, PROGRAM)))

    assert node_packages.run(name, cwd=project) == "Alice is vegan\n"


def test_the_quickstart_compiles_in_strict_mode(project: Path, open_node: RunningNode) -> None:
    (project / "quickstart.mts").write_text(of(open_node, PROGRAM))

    compile_project(project, "quickstart.mts")

    assert node_packages.run("quickstart.mjs", cwd=project) == "Alice is vegan\n"


def test_the_commands_of_the_quickstart_make_a_project(
    packages: None, open_node: RunningNode, tmp_path: Path
) -> None:
    """All of them, but for `npm ci`: its packages are there already."""
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    sdk = checkout / "sdk" / "typescript"
    ignored = shutil.ignore_patterns("node_modules", "dist", "build")
    shutil.copytree(node_packages.SDK, sdk, symlinks=True, ignore=ignored)
    (sdk / "node_modules").symlink_to((node_packages.SDK / "node_modules").resolve())
    home.mkdir()
    settings = {"HOME": str(home), "npm_config_offline": "true", "npm_config_cache": str(home / "cache")}

    with Shell(checkout, os.environ | settings) as shell:
        for command, said in steps(QUICKSTART):
            if command.startswith("npm ci "):
                continue
            if command.startswith("node "):
                (home / "first" / "first.mjs").write_text(of(open_node, PROGRAM))
            shown = shell.type(command)
            if "npm" not in command:
                check(command, said, shown)

    installed = home / "first" / "node_modules" / "@memoturn" / "sdk"
    assert (installed / "dist" / "esm" / "index.js").is_file(), "what is packed was built before"
    assert not installed.is_symlink()


def test_the_readme_compiles_and_runs(project: Path, open_node: RunningNode) -> None:
    readme = (node_packages.SDK / "README.md").read_text()
    blocks = re.findall(r"^```ts\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    story = "\n".join(blocks).replace("memoturn();", f'memoturn({{ url: "{open_node.url}" }});')
    story = story.replace(
        "memoturn({ platformKey", f'memoturn({{ url: "{open_node.url}", platformKey'
    ).replace('"eyJ..."', '"unused"')
    (project / "readme.mts").write_text(story)

    compile_project(project, "readme.mts")
    shown = node_packages.run("readme.mjs", cwd=project)

    assert shown.startswith("Alice is vegan\n")
    assert "2 Alice eats fish again\n1 Alice is vegan\n" in shown
    assert "somebody was faster" in shown


def test_the_examples_compile(project: Path) -> None:
    examples = ROOT / "examples" / "typescript"
    names = [path.name for path in examples.glob("*.mjs")]
    for name in names:
        (project / name).write_text((examples / name).read_text())

    compile_project(project, *names, allowJs=True, checkJs=True, noEmit=True)


def test_types_serve_commonjs_too(project: Path) -> None:
    (project / "types.cts").write_text(
        'import sdk = require("@memoturn/sdk");\n'
        "const options: sdk.MemoturnOptions = { retries: 0 };\n"
        "const profile: sdk.MemoryProfile = sdk.memoturn(options).memory('a', 'b');\n"
        "async function first(): Promise<string | undefined> {\n"
        "  const { memories, txid } = await profile.recall({ query: 'x', embedding: new Float32Array(2) });\n"
        "  const n: number = txid;\n"
        "  // @ts-expect-error - content is unknown, not any\n"
        "  memories[0]?.content.anything;\n"
        "  // @ts-expect-error - inputs are in camelCase\n"
        "  await profile.ingest([{ type: 'fact', summary: 's', topic_key: 'x' }]);\n"
        "  return memories[0]?.topic_key ?? `${n}`;\n"
        "}\n"
        "void first;\n"
    )

    compile_project(project, "types.cts")


def test_a_project_of_nodejs_needs_no_types_of_the_dom(project: Path) -> None:
    (project / "plain.mts").write_text(
        'import { memoturn, type Download } from "@memoturn/sdk";\n'
        "const download: Download = await memoturn().db('a').export();\n"
        "export const bytes: Uint8Array = await download.bytes();\n"
    )

    compile_project(project, "plain.mts", lib=["es2022"])


def test_the_package_holds_what_it_needs_and_nothing_of_the_node(project: Path) -> None:
    package = project / "node_modules" / "@memoturn" / "sdk"

    assert {path.name for path in package.iterdir()} == {
        "LICENSE",
        "README.md",
        "dist",
        "package.json",
        "src",
    }
    for path in package.glob("dist/**/*.js"):
        found = re.search(r"\bprocess\.|\bBuffer\b|\brequire\(\"(?!\.)|from \"(?!\.)", path.read_text())
        assert found is None, f"{path}: {found}"
    assert "dependencies" not in json.loads((package / "package.json").read_text())
    for nearest in package.glob("dist/*/package.json"):
        assert json.loads(nearest.read_text())["sideEffects"] is False
