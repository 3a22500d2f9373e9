"""Registering the server in clients' files: nothing else in them changes, no token lands in them."""

import itertools
import json
import os
import re
import stat
import tomllib
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memoturn.errors import InvalidRequestError
from memoturn.mcp.install import files, plan
from memoturn.mcp.install.clients import CLIENTS, Launch, Machine
from memoturn.mcp.install.jsonc import BrokenFileError, get_value, remove_value, set_value
from memoturn.mcp.install.merge import installed, uninstalled

LAUNCH = Launch("/opt/bin/memoturn", ("--url", "http://n:1", "mcp"), {})
PATH = ("mcpServers", "memoturn")
TOKEN = "eyJ.secret.token"
COMMENTED = """// settings of the editor
{
    // the theme
    "theme": "dark", /* as the night */
    "mcpServers": {
        "other": { "command": "npx", "args": ["-y", "x"] }, // keep me
    },
    "last": [1, 2,],
}
"""
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=4)


def machine(tmp_path, **environ):
    return Machine("linux", tmp_path, environ)


@settings(deadline=None)
@given(
    objects, st.lists(st.text(max_size=4), min_size=1, max_size=3), values, st.sampled_from([None, 2, "\t"])
)
def test_one_member_is_set_and_removed_and_all_others_stay(before, path, value, indent):
    text = json.dumps(before, indent=indent)
    path = tuple(path)
    try:
        after = set_value(text, path, value)
    except BrokenFileError:
        way = before
        for key in path[:-1]:
            way = way.get(key, {})
            if not isinstance(way, dict):
                return
        raise
    expected = json.loads(json.dumps(before))
    way = expected
    for key in path[:-1]:
        way = way.setdefault(key, {})
    way[path[-1]] = value

    assert json.loads(after) == expected == {key: get_value(after, (key,)) for key in expected}
    if get_value(text, path) is None and len(path) == 1 and path[0] not in before:
        assert json.loads(remove_value(after, path)) == before
    del way[path[-1]]
    assert json.loads(remove_value(after, path)) == expected


def test_comments_and_layout_stay_to_the_letter():
    after = set_value(COMMENTED, ("mcpServers", "memoturn"), {"command": "m"})
    added = '\n        "memoturn": {\n            "command": "m"\n        }'

    assert after.replace(added, "", 1) == COMMENTED
    assert '["-y", "x"] }, // keep me\n        "memoturn"' in after
    other = {"command": "npx", "args": ["-y", "x"]}
    assert get_value(after, ("mcpServers",)) == {"other": other, "memoturn": {"command": "m"}}
    assert set_value(after, ("mcpServers", "memoturn"), {"command": "m"}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # The last one, which is where it is put.
        ('{"a": 1, // of a\n  // of ours\n  "m": {}\n}', '{"a": 1 // of a\n  // of ours\n}'),
        ('{\n  "a": 1, // of a\n  "m": {}, // of ours\n}', '{\n  "a": 1, // of a\n  // of ours\n}'),
        ('{\n  "a": 1 /* x */ , /* y */\n  "m": {} /* z */\n}', '{\n  "a": 1 /* x */  /* y */\n  /* z */\n}'),
        # One that others follow.
        ('{\n  "m": {},\n  // of b\n  "b": 2\n}\n', '{\n  // of b\n  "b": 2\n}\n'),
        ('{\r\n\t"m": {}, // of ours\r\n\t"b": 2\r\n}', '{\r\n\t// of ours\r\n\t"b": 2\r\n}'),
        # The only one.
        ('{\n  "m": {}\n}', "{}"),
        ('{\n  // nothing else\n  "m": {},\n}', "{\n  // nothing else\n}"),
        # In a line with others.
        ('{"a":1,"m":{},"b":2}', '{"a":1,"b":2}'),
        ('{ "a": 1, "m": {} }', '{ "a": 1 }'),
        ('{ "m": {}, "b": 2 }', '{ "b": 2 }'),
        # Twice.
        ('{"m": 1, "a": 1, "m": 2}', '{ "a": 1}'),
    ],
)
def test_what_is_removed_takes_no_comment_with_it(before, after):
    assert remove_value(before, ("m",)) == after


def test_a_remark_is_no_longer_than_it_is():
    before = '{"mcpServers": {"a": 1 /* x */}, "b": 2 /* y */\n}'
    after = set_value(before, PATH, {})
    assert get_value(after, ("mcpServers",)) == {"a": 1, "memoturn": {}}
    assert after.endswith('}, "b": 2 /* y */\n}')


def commented(random, end):
    """A file as people leave it: comments wherever they may be, blanks, commas behind the last."""
    numbers = itertools.count()

    def between():
        kinds = (" ", "\t", end, "/*c{}*/", f"/*c{{}}{end}*/", f"//c{{}}{end}")
        return "".join(random.choice(kinds).format(next(numbers)) for _ in range(random.choice((0, 0, 1, 3))))

    def listed(items):
        return ",".join(items) + ("," if items and random.random() < 0.3 else "") + between()

    def value(depth):
        if random.random() < 0.5 and depth < 3:
            return written(depth + 1)
        if random.random() < 0.2 and depth < 3:
            return f"[{listed([between() + value(depth + 1) for _ in range(random.randrange(3))])}]"
        return random.choice(["-2.5e3", "true", "null", '"s//x"', '"/*y*/"', '"q\\"}"'])

    def written(depth):
        keys = random.sample(["a", "b", "mcpServers", "memoturn"], random.randrange(4))
        items = [
            between()
            + json.dumps(key)
            + between()
            + ":"
            + between()
            + (written(depth + 1) if key == "mcpServers" else value(depth))
            + between()
            for key in keys
        ]
        return "{" + listed(items) + "}"

    return between() + written(0) + between()


def comments(text):
    return re.findall(r"/[/*]c\d+", text)


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False), st.sampled_from(["\n", "\r\n"]))
def test_comments_may_be_anywhere(random, end):
    before = commented(random, end)
    expected = {key: get_value(before, (key,)) for key in ("a", "b", "mcpServers", "memoturn")}
    servers = expected["mcpServers"] or {}
    after = set_value(before, PATH, {"command": "m"})
    gone = remove_value(after, PATH)

    for text, added in ((after, {"memoturn": {"command": "m"}}), (gone, {})):
        rest = {key: value for key, value in servers.items() if key != "memoturn"}
        assert {key: get_value(text, (key,)) for key in expected} == {**expected, "mcpServers": rest | added}
        if "memoturn" not in servers:
            assert comments(text) == comments(before)
        if end == "\r\n" and end in before:
            assert "\n" not in text.replace(end, "")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_was_put_in_and_is_taken_out_leaves_the_file_as_it_was(end):
    before = COMMENTED.replace('"x"] }, // keep me', '"x"] } // keep me').replace("\n", end)
    after = set_value(before, ("mcpServers", "memoturn"), {"command": "m", "args": []})
    assert after != before
    assert remove_value(after, ("mcpServers", "memoturn")) == before


def test_line_ends_of_both_kinds_stay_where_they_are():
    before = '{\r\n  "a": 1, // x\r\n  "b": 2 // y\n}\n'
    after = set_value(before, ("m",), {"command": "m"})
    assert after == before.replace("2 // y", '2, // y\r\n  "m": {\r\n    "command": "m"\r\n  }')
    assert get_value(after, ("m",)) == {"command": "m"}


def test_windows_line_ends_and_a_byte_order_mark_stay():
    before = '\ufeff{\r\n  "a": 1\r\n}\r\n'
    after = set_value(before, ("mcpServers", "memoturn"), {"command": "m"})
    assert after.startswith('\ufeff{\r\n  "a": 1,\r\n  "mcpServers"')
    assert "\n" not in after.replace("\r\n", "")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1',
        '{"a" 1}',
        "[1]",
        '{"a": 1 "b": 2}',
        "{} {}",
        '{"a": tru}',
        "{a: 1}",
        "{'a': 1}",
        '{"a": "\\q"}',
        '{"a": ' + "[" * 200,
        '{"mcpServers": []}',
        '{"mcpServers": "x"}',
        "/* open",
        '{"a": 1,,}',
    ],
)
def test_a_broken_file_is_refused_and_says_where(text, tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=r"is broken .* it is not changed"):
        plan.plan("cursor", machine(tmp_path), plan.Options(), file=path)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_deeply_nested_file_does_not_take_long():
    text = "{}"
    for _ in range(90):
        text = '{"a": ' + text + "}"
    set_value(text, ("mcpServers", "memoturn"), {})


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_every_client_gets_it_keeps_the_rest_and_loses_it_again(client):
    if client.format == "toml":
        before = f'# mine\nmodel = "x" # why\n\n[{client.key}.other]\ncommand = "npx"\n'
        load = tomllib.loads
    else:
        before = json.dumps({"theme": "dark", client.key: {"other": {"command": "npx"}}}, indent=2)
        load = json.loads
    after = installed(client, before, "memoturn", LAUNCH)
    entry = load(after)[client.key]["memoturn"]

    assert load(after)[client.key]["other"] == {"command": "npx"}
    command = entry["command"] if isinstance(entry["command"], list) else [entry["command"], *entry["args"]]
    assert command == ["/opt/bin/memoturn", "--url", "http://n:1", "mcp"]
    assert installed(client, after, "memoturn", LAUNCH) == after
    assert load(uninstalled(client, after, "memoturn")) == load(before)
    assert uninstalled(client, before, "memoturn") == before
    assert load(installed(client, "", "memoturn", LAUNCH)) == {client.key: {"memoturn": entry}}
    if client.format == "toml":
        assert "# mine" in after
        assert "# why" in after


OTHERS = '[mcp_servers.other] # mine\ncommand = "npx"\n'


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# nothing yet\n",
        'model = "x"\n',
        OTHERS,
        OTHERS.replace("\n", "\r\n"),
        f"\ufeff{OTHERS}",
        f"[mcp_servers]\n# all of them\n{OTHERS}[z]\nq = 1 # last\n",
        f'{OTHERS}\n[model]\nx = 1\n\n[mcp_servers."b c"]\ncommand = "b"\n# the end\n',
        'mcp_servers.other.command = "npx"\nmodel = "x" # which has to stay at the top\n',
    ],
)
def test_a_toml_file_stays_to_the_letter(before):
    codex = CLIENTS["codex"]
    after = installed(codex, before, "memoturn", LAUNCH)
    assert tomllib.loads(after.removeprefix("\ufeff"))["mcp_servers"]["memoturn"]["args"] == list(LAUNCH.args)
    assert after.startswith(before)
    assert ("\r" in after) == ("\r" in before)
    assert installed(codex, after, "memoturn", LAUNCH) == after
    assert uninstalled(codex, after, "memoturn") == before
    assert uninstalled(codex, before, "memoturn") == before


def test_a_toml_entry_is_changed_and_removed_within_its_own_lines():
    codex = CLIENTS["codex"]
    above, below = f"{OTHERS}\n# of ours\n", '\n# of z\n[[z.list]]\ncommand = "z"\n'
    own = '[mcp_servers.memoturn]\ncommand = "old"\nstartup_timeout_sec = 20 # slow\n\n[mcp_servers.memoturn.env]\nX = "1"\n'
    after = installed(codex, above + own + below, "memoturn", LAUNCH)

    assert after.startswith(above)
    assert after.endswith(below)
    assert "startup_timeout_sec = 20 # slow" in after
    entry = tomllib.loads(after)["mcp_servers"]["memoturn"]
    assert entry == {"command": LAUNCH.command, "args": list(LAUNCH.args), "startup_timeout_sec": 20}
    assert installed(codex, after, "memoturn", LAUNCH) == after
    assert uninstalled(codex, after, "memoturn") == above + below


@pytest.mark.parametrize(
    "before",
    [
        'mcp_servers = { other = { command = "npx" } }\n',
        "[[mcp_servers]]\na = 1\n",
        '[mcp_servers]\nmemoturn = { command = "old" }\n',
        f'[mcp_servers.memoturn]\ncommand = "old"\n{OTHERS}[mcp_servers.memoturn.env]\nX = "1"\n',
        'text = """\n[mcp_servers.memoturn]\n"""\n[mcp_servers.memoturn]\ncommand = "old"\n',
    ],
)
def test_a_toml_file_that_cannot_be_changed_in_one_place_is_refused_with_what_to_put_there(before):
    codex = CLIENTS["codex"]
    with pytest.raises(InvalidRequestError, match=r"(?s)yourself.*\[mcp_servers\.memoturn\]\ncommand = "):
        installed(codex, before, "memoturn", LAUNCH)
    if "memoturn" in before:
        with pytest.raises(InvalidRequestError, match=r"take mcp_servers\.memoturn out"):
            uninstalled(codex, before, "memoturn")


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_no_client_gets_the_token_itself(client, tmp_path):
    for environ in ({"MEMOTURN_TOKEN": TOKEN}, {}):
        made = plan.plan(client.name, machine(tmp_path, **environ), plan.Options(token=TOKEN))
        assert TOKEN not in made.after
        assert TOKEN not in made.text()
        assert TOKEN not in json.dumps(made.shown())
        by_reference = client.reference is not None and environ
        assert ("MEMOTURN_TOKEN_FILE" in made.after) is not bool(by_reference)
        assert (made.secret is None) is bool(by_reference)


def test_a_reference_is_written_as_its_client_reads_it(tmp_path):
    def entry(name):
        made = plan.plan(name, machine(tmp_path, MEMOTURN_TOKEN=TOKEN), plan.Options(token=TOKEN))
        load = tomllib.loads if CLIENTS[name].format == "toml" else json.loads
        return load(made.after)[CLIENTS[name].key]["memoturn"]

    assert entry("claude-code")["env"] == {"MEMOTURN_TOKEN": "${MEMOTURN_TOKEN}"}
    assert entry("gemini")["env"] == {"MEMOTURN_TOKEN": "${MEMOTURN_TOKEN}"}
    assert {entry(name)["env"]["MEMOTURN_TOKEN"] for name in ("cursor", "vscode", "windsurf")} == {
        "${env:MEMOTURN_TOKEN}"
    }
    assert entry("opencode")["environment"] == {"MEMOTURN_TOKEN": "{env:MEMOTURN_TOKEN}"}
    assert entry("codex")["env_vars"] == ["MEMOTURN_TOKEN"]


def test_what_the_user_switched_in_the_entry_stays(tmp_path):
    path = tmp_path / ".cursor" / "mcp.json"
    path.parent.mkdir()
    path.write_text(
        '{"mcpServers": {"memoturn": {"command": "old", "args": ["x"], "disabled": true, "timeout": 9}}}'
    )
    plan.plan("cursor", machine(tmp_path), plan.Options()).carry_out()
    entry = json.loads(path.read_text())["mcpServers"]["memoturn"]

    assert entry["disabled"] is True
    assert entry["timeout"] == 9
    assert entry["command"] != "old"


def test_the_old_file_is_kept_and_the_new_one_has_its_rights(tmp_path):
    path = tmp_path / ".cursor" / "mcp.json"
    path.parent.mkdir()
    path.write_text('{"a": 1}')
    path.chmod(0o640)
    done = plan.plan("cursor", machine(tmp_path), plan.Options(token=TOKEN)).carry_out()

    assert done.written.backup.read_text() == '{"a": 1}'
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    secret = done.plan.secret[0]
    assert secret.read_text().strip() == TOKEN
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    again = plan.plan("cursor", machine(tmp_path), plan.Options(token=TOKEN)).carry_out()
    assert not again.written.changed
    other = plan.plan("cursor", machine(tmp_path), plan.Options(name="second")).carry_out()
    assert other.written.backup != done.written.backup
    assert sorted(json.loads(path.read_text())["mcpServers"]) == ["memoturn", "second"]


def test_a_file_that_somebody_else_writes_meanwhile_is_not_overwritten(tmp_path):
    made = plan.plan("cursor", machine(tmp_path), plan.Options())
    made.path.parent.mkdir()
    made.path.write_text('{"newer": 1}')
    with pytest.raises(InvalidRequestError, match="changed meanwhile"):
        made.carry_out()
    assert made.path.read_text() == '{"newer": 1}'


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / ".cursor" / "mcp.json"
    path.parent.mkdir()
    path.write_text("{}")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidRequestError, match="No space left"):
        plan.plan("cursor", machine(tmp_path), plan.Options()).carry_out()
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]


def test_files_of_one_client_have_tokens_of_their_own(tmp_path):
    here = machine(tmp_path)
    own = plan.plan("cursor", here, plan.Options(token="own")).carry_out()
    project = plan.plan("cursor", here, plan.Options(token="project's"), project=tmp_path / "p").carry_out()
    secrets = [done.plan.secret[0] for done in (own, project)]

    assert [secret.read_text() for secret in secrets] == ["own\n", "project's\n"]
    assert str(secrets[1]) in project.written.path.read_text()
    plan.plan("cursor", here, plan.Options(), project=tmp_path / "p", uninstall=True).carry_out()
    assert [secret.exists() for secret in secrets] == [True, False]


def test_a_token_that_is_replaced_is_told_though_the_file_says_the_same(tmp_path):
    here = machine(tmp_path)
    plan.plan("zed", here, plan.Options(token="old")).carry_out()
    again = plan.plan("zed", here, plan.Options(token="new")).carry_out()

    assert not again.written.changed
    assert str(again.plan.secret[0]) in again.text()
    assert "nothing was changed" not in again.text()


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "dotfiles.json", tmp_path / "mcp.json"
    real.write_text("{}")
    link.symlink_to(real)
    files.write(link, "{}", '{"a": 1}')
    assert link.is_symlink()
    assert real.read_text() == '{"a": 1}'


def test_each_client_has_its_place_on_each_system():
    home = PurePosixPath("/h")
    linux, mac = Machine("linux", home, {}), Machine("darwin", PurePosixPath("/m"), {})
    windows = Machine("win32", PureWindowsPath(r"C:\u"), {"APPDATA": r"C:\u\AppData\Roaming"})

    def places(name):
        return [str(CLIENTS[name].path(where)) for where in (linux, mac, windows)]

    assert places("claude-desktop") == [
        "/h/.config/Claude/claude_desktop_config.json",
        "/m/Library/Application Support/Claude/claude_desktop_config.json",
        r"C:\u\AppData\Roaming\Claude\claude_desktop_config.json",
    ]
    assert places("vscode") == [
        "/h/.config/Code/User/mcp.json",
        "/m/Library/Application Support/Code/User/mcp.json",
        r"C:\u\AppData\Roaming\Code\User\mcp.json",
    ]
    assert places("zed") == [
        "/h/.config/zed/settings.json",
        "/m/.config/zed/settings.json",
        r"C:\u\AppData\Roaming\Zed\settings.json",
    ]
    assert places("cursor")[2] == r"C:\u\.cursor\mcp.json"
    assert str(CLIENTS["codex"].path(Machine("linux", home, {"CODEX_HOME": "/c"}))) == "/c/config.toml"


def test_a_project_has_files_of_its_own(tmp_path):
    options, here = plan.Options(), machine(tmp_path)
    assert plan.plan("claude-code", here, options, project=tmp_path).path == tmp_path / ".mcp.json"
    assert plan.plan("vscode", here, options, project=tmp_path).path == tmp_path / ".vscode" / "mcp.json"
    with pytest.raises(InvalidRequestError, match="--project"):
        plan.plan("claude-desktop", here, options, project=tmp_path)


@pytest.mark.parametrize(
    ("client", "options"),
    [
        ("emacs", plan.Options()),
        ("cursor", plan.Options(name="a b")),
        ("cursor", plan.Options(name="")),
        ("cursor", plan.Options(pin="profile")),
        ("cursor", plan.Options(namespace="app", pin="branch")),
    ],
)
def test_what_cannot_be_is_refused(client, options, tmp_path):
    with pytest.raises(InvalidRequestError):
        plan.plan(client, machine(tmp_path), options)


def test_what_is_said_on_the_line_is_what_the_server_is_started_with(tmp_path):
    options = plan.Options(
        url="https://m.example", namespace="app", profile="alice", branch="b", pin="branch", read_only=True
    )
    made = plan.plan("cursor", machine(tmp_path), options)
    entry = json.loads(made.after)["mcpServers"]["memoturn"]

    said = [
        "--url",
        "https://m.example",
        "mcp",
        "--namespace",
        "app",
        "--profile",
        "alice",
        "--branch",
        "b",
        "--pin",
        "branch",
    ]
    assert entry["args"][-len(said) - 1 :] == [*said, "--read-only"]
    assert Path(entry["command"]).is_absolute()
