"""`memoturn audit` against a real node, and against what it took away from one."""

import json


def written(cli):
    assert cli("db", "create", "audited").code == 0
    assert cli("db", "delete", "audited", "--yes").code == 0


def test_events_are_read(cli):
    written(cli)

    found = cli("audit", "query", "_platform", "--action", "db.", "--from", "1h")

    assert found.code == 0
    assert [line[1:5:3] for line in found.lines][-2:] == [["db.create", "audited"], ["db.delete", "audited"]]
    assert cli("audit", "query", "_platform", "--outcome", "error", "--to", "1000").lines == []


def test_a_live_stream_is_proven_and_its_heads_remembered(cli, tmp_path):
    written(cli)
    heads = tmp_path / "heads"

    first = cli("--json", "audit", "verify", "_platform", "--save", str(heads))
    written(cli)
    second = cli("--json", "audit", "verify", "_platform", "--since", str(heads))

    assert (first.code, first.json["outcome"]) == (0, "sound")
    assert (second.code, second.json["outcome"]) == (0, "sound")
    assert second.json["events"] > first.json["events"]
    remembered = json.loads(heads.read_text())
    [chain] = remembered["_platform"]
    remembered["_platform"][chain]["seq"] += 10**6
    heads.write_text(json.dumps(remembered))
    back = cli("audit", "verify", "_platform", "--since", str(heads))
    assert back.code == 7
    assert "rolled_back" in back.text


def test_an_export_is_proven_without_a_node_and_damage_is_found(cli, tmp_path):
    written(cli)
    folder = tmp_path / "taken"

    assert cli("audit", "export", "_platform", str(folder)).code == 0
    assert cli("audit", "verify", f"{folder}/").code == 0
    assert cli("audit", "export", "_platform", str(folder)).code == 2
    victim = max(folder.rglob("*.jsonl"))
    victim.write_bytes(victim.read_bytes().replace(b'"ok"', b'"no"', 1))
    found = cli("audit", "verify", f"{folder}/")
    assert (found.code, "cut" in found.text or "broken" in found.text) == (7, True)
    victim.unlink()
    assert cli("audit", "verify", f"{folder}/").code == 7


def test_what_is_asked_wrongly_is_told(cli, tmp_path):
    (tmp_path / "empty").mkdir()

    assert cli("audit", "verify", f"{tmp_path}/empty").code == 1
    assert cli("audit", "query", "_platform", "--from", "yesterday").code == 2
    assert cli("audit", "query", "Not A Name").code == 1
