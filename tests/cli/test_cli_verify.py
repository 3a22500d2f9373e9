"""`memoturn verify` against a real node: what it prints, and its exit codes."""

import itertools

import httpx
import pytest
from memoturn import Memoturn, UnknownOutcomeError
from processes import NodeHome

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with NodeHome(tmp_path_factory.mktemp("home") / "home") as home:
        yield home


@pytest.fixture(scope="module")
def node(home):
    node = home.start()
    yield node
    assert node.stop() == 0


@pytest.fixture
def verify(command, node):
    def call(name, *arguments):
        return command("--url", node.url, "verify", f"app--{name}", *arguments)

    return call


@pytest.fixture
def profile(command, node):
    """A profile of the test's own with a few durable commits and a fork."""
    name = f"v{next(_NUMBERS)}"
    for text in ("a", "b", "c"):
        assert command(
            "--url", node.url, "--durable", "memory", "ingest", "app", name, "--summary", text, "--type", "event"
        ).code == 0  # fmt: skip
    assert command("--url", node.url, "branch", "create", f"app--{name}", "f").code == 0
    return name


def segments(home, name):
    """Return the segments of a profile, oldest first."""
    for path in home.bucket.glob("v1/*/database.json"):
        if f'"app--{name}"' in path.read_text():
            return sorted(path.parent.glob("branches/*/segments/*"))
    raise AssertionError(name)


@pytest.mark.parametrize("arguments", [(), ("--deep",)])
def test_clean_database_exits_0_and_says_what_was_looked_at(verify, profile, arguments):
    done = verify(profile, *arguments)

    fields = dict(done.lines)
    assert done.code == 0
    assert (fields["outcome"], fields["branches"]) == ("clean", "2")
    assert int(fields["objects"]) >= 5
    assert ("all" in fields["states restored"]) is bool(arguments)


def test_damage_exits_7_and_names_object_branches_and_txids(verify, profile, home):
    damaged = segments(home, profile)[1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    key = str(damaged.relative_to(home.bucket))

    done = verify(profile)
    shown = verify(profile, "--json")

    assert done.code == shown.code == 7
    assert key in done.text
    rows = [row for row in done.lines if key in row[-1]]
    assert {row[1] for row in rows} == {"main", "f"}
    assert all(row[2] != "none" for row in rows)
    assert {finding["key"] for finding in shown.json["findings"]} == {key}
    assert shown.json["outcome"] == "damaged"
    assert shown.json["damaged_objects"] == 1


def test_same_seed_looks_at_the_same_sample(verify, profile):
    first = verify(profile, "--json").json
    again = verify(profile, "--json", "--seed", first["seed"]).json

    assert first == again


def test_unknown_database_exits_3(verify):
    assert verify("nobody").code == 3


def test_answer_without_a_summary_is_an_unknown_outcome():
    lines = b'{"event":"progress","checked":1,"of":2,"bytes":3}\n'
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=lines))
    seen = []
    memoturn = Memoturn("http://node", http_client=httpx.Client(transport=transport))

    with pytest.raises(UnknownOutcomeError, match="before its summary"):
        memoturn.db("p").verify(progress=lambda *now: seen.append(now))

    assert seen == [(1, 2)]


def test_what_could_not_be_looked_at_exits_5(command, monkeypatch):
    found = {
        "outcome": "unfinished",
        "deep": False,
        "seed": "a",
        "branches": 1,
        "objects": 2,
        "bytes": 3,
        "states": 0,
        "findings": [],
        "damaged_objects": 0,
        "unreachable_objects": None,
        "unreachable_bytes": None,
        "unreachable_keys": [],
        "unfinished": ["the store is away"],
    }
    monkeypatch.setattr("memoturn.Db.verify", lambda *_, **__: found)

    done = command("verify", "p")

    assert done.code == 5
    assert "not looked at: the store is away" in done.stderr
