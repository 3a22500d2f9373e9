"""A real node that is killed while it works: the stream has every act that was acknowledged, and proves it."""

import base64
import concurrent.futures
import json
import random
import time

import httpx
from memoturn.audit import StreamVerifier, is_head
from processes import NodeHome

KILLS = 3


def put_until_killed(url, name, acknowledged):
    with httpx.Client(base_url=url, timeout=10) as client:
        number = 0
        while True:
            number += 1
            request_id = f"{name}-{number}"
            try:
                answer = client.put(
                    f"/v1/db/app--{name}/kv/ns/k", content=b"x", headers={"memoturn-request-id": request_id}
                )
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                acknowledged.append((request_id, answer.json()["txid"]))


def stream_of(node):
    with httpx.Client(base_url=node.url, timeout=30) as client:
        lines = client.get("/v1/namespaces/app/audit/export").text.splitlines()
    return [json.loads(line) for line in lines]


def test_no_event_of_an_acknowledged_write_is_lost_to_kill_9(tmp_path):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    acknowledged = []
    with NodeHome(tmp_path, AUDIT="on", AUDIT_FLUSH_MS="150") as home:
        for _ in range(KILLS):
            node = home.start(NODE_ID=f"node-{chance.randrange(10)}")
            names = [f"u{n}" for n in range(3)]
            for name in names:
                item = {"type": "event", "summary": "begin"}
                path = f"{node.url}/v1/memory/app/{name}/memories"
                assert httpx.post(path, json={"memories": [item]}).status_code == 201
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                running = [pool.submit(put_until_killed, node.url, name, acknowledged) for name in names]
                time.sleep(0.3 + chance.random())
                node.kill()
                for one in running:
                    one.result()
        node = home.start()
        lines = stream_of(node)
        node.stop()
        files = {line["key"]: line["data"] for line in lines if line["kind"] == "object"}

    verifier = StreamVerifier("app")
    found = {}
    for line in lines:
        if line["kind"] in {"object", "head"}:
            data = base64.b64decode(line["data"])
            if is_head(line["key"]):
                verifier.add_head(line["key"], data, when=line["when"])
                continue
            verifier.add_object(line["key"], data)
            for row in data.splitlines():
                told = json.loads(row)
                assert told["id"] not in found, f"twice (seed {seed})"
                found[told["id"]] = (told["request_id"], told.get("txid"))
    told = set(found.values())
    assert verifier.report()["problems"] == [], f"seed {seed}"
    assert len(files) > KILLS
    assert len(acknowledged) > 50
    assert [row for row in acknowledged if row not in told] == [], f"seed {seed}"


def test_what_was_not_flushed_at_the_kill_is_there_after_the_start(tmp_path):
    with NodeHome(tmp_path, AUDIT_FLUSH_MS="600000") as home:
        node = home.start()
        for name in ("one", "two"):
            assert httpx.post(f"{node.url}/v1/databases", json={"name": name}).status_code == 201
        node.kill()
        assert not list(home.bucket.rglob("*.jsonl"))
        node = home.start()
        page = httpx.get(f"{node.url}/v1/namespaces/_platform/audit").json()

        assert [e["db"] for e in page["events"]] == ["one", "two"]
        assert page["complete"] is True
        assert node.stop() == 0
