"""`memoturn erase` and `memoturn memory erase` against a real node."""

import json
import time

import pytest

MARK = "a secret"


@pytest.fixture
def profile(cli):
    name = f"erase{time.monotonic_ns()}"
    found = cli("memory", "ingest", "cli", name, "--summary", MARK, "--topic", "t", "--json").json
    return name, found["results"][0]["id"]


def test_erasing_a_topic_takes_it_out_at_once_and_is_listed(cli, profile):
    name, memory_id = profile
    asked = cli("memory", "erase", "cli", name, "--topic", "t", "--grace", "0", "--json")
    assert (asked.code, asked.json["status"]) == (0, "pending")
    erasure = asked.json["erasure_id"]
    assert cli("memory", "get", "cli", name, memory_id).code == 3
    assert [line[0] for line in cli("memory", "erasures", "cli", name).lines] == [erasure]
    shown = cli("memory", "erasures", "cli", name, erasure, "--json").json
    assert (shown["target"], shown["memory_ids"]) == ({"topic_key": "t", "type": "fact"}, [memory_id])
    assert cli("memory", "erasures", "cli", name, "ers_0000000000000000").code == 3
    assert cli("memory", "erase", "cli", name, "--memory-id", "mem_0").code == 3
    assert cli("memory", "erase", "cli", name).code == 1


def test_erasing_in_a_database_takes_targets_as_json(cli, profile):
    spec = f"cli--{profile[0]}"
    cli("kv", "put", spec, "n", "k", "v")
    key, vector = '{"kv": {"ns": "n", "key": "k"}}', '{"vector": {"collection": "c", "id": "v"}}'
    erasure = cli("erase", "request", spec, key, vector, "--json").json["erasure_id"]
    assert cli("kv", "get", spec, "n", "k").code == 3
    assert [line[0] for line in cli("erase", "list", spec).lines] == [erasure]
    assert dict(cli("erase", "show", spec, erasure).lines)["erasure"] == erasure
    assert cli("erase", "request", spec, "{").code == 2


def test_a_receipt_that_cannot_be_proved_exits_7(cli, tmp_path):
    receipt, keys = tmp_path / "receipt.json", tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    for text in ("no json", "[]", '{"id": "ers_1"}', json.dumps({"payload": {}, "alg": "none"})):
        receipt.write_text(text)
        assert cli("erase", "verify", str(receipt), "--keys", str(keys)).code == 7
    assert cli("erase", "verify", str(tmp_path / "none.json"), "--keys", str(keys)).code == 1
