"""Where requests go, and where they go again: by the watch, by what nodes say, and when connections fail."""

import asyncio
import time

import httpx
import pytest
from gateway_support import Echo, behind_gateway, gateway, not_owner, raw_exchange, served
from proxy import Ending, FaultProxy, Mode
from structlog.testing import capture_logs

from memoturnd.core.placement import place
from memoturnd.seams.leases import LiveNode, NodeLeft, Owner, Placed, Placements

KEY = "/v1/db/notes/kv/n/k"
MAIN = ("notes", "main")
KEYED = {"Idempotency-Key": "k1"}


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


def counts(echoes):
    return [len(echo.seen) for echo in echoes]


def forwarded(echo):
    return [dict(headers).get(b"memoturn-forwarded") for _, _, _, headers, _ in echo.seen]


async def test_the_owner_gets_what_is_about_its_branch(client):
    owners = {
        MAIN: ("n1", 1),
        ("notes", "feature"): ("n2", 1),
        ("app--ann", "main"): ("n0", 1),
        ("acme/notes", "main"): ("n2", 2),
    }
    async with behind_gateway(3, owners=owners) as (parts, echoes):
        token = "e30.eyJ0ZW5hbnQiOiJhY21lIn0.c2ln"
        for path, headers, at in [
            (KEY, {}, 1),
            ("/v1/db/notes@feature/kv/n/k", {}, 2),
            ("/v1/db/notes/branches/feature/checkpoints", {}, 2),
            ("/v1/db/notes%40feature/kv/n/k", {}, 2),
            ("/v1/memory/app/ann/memories", {}, 0),
            (KEY, {"Memoturn-Tenant": "acme"}, 2),
            (KEY, {"Authorization": f"Bearer {token}"}, 2),
            (KEY, {"Authorization": "Bearer not.a.token"}, 1),
        ]:
            before = counts(echoes)
            await client.get(parts.url + path, headers=headers)
            assert [after - one for one, after in zip(before, counts(echoes), strict=True)].index(1) == at, (
                path
            )


@pytest.mark.parametrize(
    "path", ["/internal/cluster/status", "/internal/replica/tail/read", "/internal/nothing", "/internal/"]
)
async def test_routes_between_nodes_end_at_the_gateway(client, path):
    async with behind_gateway() as (parts, echoes):
        for method in ("POST", "DELETE", "GET"):
            answer = await client.request(method, parts.url + path, headers={"X-Memoturn-Internal": "key"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

        await client.get(f"{parts.url}/internally")
        assert [path for echo in echoes for _, path, *_ in echo.seen] == [b"/internally"]


async def test_the_branch_of_a_memory_route_is_in_the_query_or_a_header(client):
    owners = {("app--ann", "b"): ("n0", 1), ("app--ann", "main"): ("n1", 1)}
    async with behind_gateway(2, owners=owners) as (parts, echoes):
        url = f"{parts.url}/v1/memory/app/ann/memories"
        await client.get(url, params={"branch": "b"})
        await client.get(url, headers={"Memoturn-Branch": "b"})
        assert counts(echoes) == [2, 0]
        await client.get(url, params={"branch": "main"}, headers={"Memoturn-Branch": "b"})
        assert counts(echoes) == [2, 1]


async def test_what_nobody_owns_goes_to_its_place_and_may_not_be_forwarded_again(client):
    async with behind_gateway(3) as (parts, echoes):
        for _ in range(3):
            await client.put(parts.url + KEY, content=b"x")
        home = place("notes", parts.placements.nodes.values()).node_id

        assert counts(echoes) == [3 if f"n{n}" == home else 0 for n in range(3)]
        assert forwarded(echoes[int(home[1])]) == [b"1"] * 3


async def test_what_concerns_no_database_is_spread_and_left_to_the_nodes(client):
    async with behind_gateway(3) as (parts, echoes):
        for path in ["/v1/databases", "/v1/nothing", "/v1/db/BAD NAME/kv/n/k"] * 10:
            await client.get(parts.url + path)

        assert sorted(counts(echoes)) == [10, 10, 10]
        assert set(forwarded(echoes[0])) == {None}


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_node_that_names_the_owner_is_believed_and_nobody_sees_it(client, method):
    async with behind_gateway(2, owners={MAIN: ("n0", 1)}) as (parts, echoes):
        echoes[0].answers = [not_owner("n1", parts.urls["n1"])]
        first = await client.request(method, parts.url + KEY, content=b"body")
        second = await client.request(method, parts.url + KEY, content=b"body")

    assert [first.status_code, second.status_code] == [200, 200]
    assert counts(echoes) == [1, 2]
    assert echoes[1].seen[0][4] == b"body"


async def test_an_older_owner_is_not_believed(client):
    async with behind_gateway(2, owners={MAIN: ("n0", 5)}) as (parts, echoes):
        parts.placements.learned(MAIN, Owner("n1", parts.urls["n1"], 4))
        await client.get(parts.url + KEY)

    assert counts(echoes) == [1, 0]


async def test_nodes_that_name_each_other_do_not_make_a_ring(client):
    async with behind_gateway(2, owners={MAIN: ("n0", 1)}, timeout_s=1.0) as (parts, echoes):
        for number, echo in enumerate(echoes):
            echo.status, echo.headers, echo.body = not_owner(
                f"n{1 - number}", parts.urls[f"n{1 - number}"], 7
            )
        answer = await client.put(parts.url + KEY, content=b"x")

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["memoturn-applied"] == "false"
    assert answer.headers["retry-after"] == "1"
    assert sum(counts(echoes)) < 20


async def test_a_write_waits_for_the_new_owner_of_a_branch_that_is_under_way(client):
    async with behind_gateway(2, owners={MAIN: ("n0", 1)}) as (parts, echoes):
        status, headers, body = not_owner("", "")
        echoes[0].status, echoes[0].headers, echoes[0].body = status, headers[:1], body
        writing = asyncio.create_task(client.put(parts.url + KEY, content=b"x"))
        await asyncio.sleep(0.3)
        parts.placements.take(Placed("id", *MAIN, Owner("n1", parts.urls["n1"], 2)))
        began_s = time.monotonic()
        answer = await writing
        waited_s = time.monotonic() - began_s

    assert answer.status_code == 200
    assert waited_s < 0.3
    assert len(echoes[1].seen) == 1


async def test_a_503_that_was_not_applied_is_tried_again_and_then_heard(client):
    async with behind_gateway(1, owners={MAIN: ("n0", 1)}) as (parts, [echo]):
        busy = (
            503,
            [(b"memoturn-applied", b"false"), (b"retry-after", b"1")],
            b'{"error":"e","code":"unavailable"}',
        )
        echo.answers = [busy]
        assert (await client.put(parts.url + KEY, content=b"x")).status_code == 200
        echo.answers = [busy] * 10
        answer = await client.put(parts.url + KEY, content=b"x")

    assert (answer.status_code, answer.json()["error"]) == (503, "e")
    assert len(echo.seen) == 2 + 3


async def test_a_503_that_may_be_applied_is_not_tried_again(client):
    async with behind_gateway(1, owners={MAIN: ("n0", 1)}) as (parts, [echo]):
        echo.answers = [(503, [], b"{}")]
        assert (await client.put(parts.url + KEY, content=b"x")).status_code == 503
        assert len(echo.seen) == 1


# ---- connections that fail


class Faulty:
    """An echo behind a proxy that owns the database, and another one."""

    def __init__(self, parts, proxy, owner, other):
        self.parts, self.proxy, self.owner, self.other = parts, proxy, owner, other


@pytest.fixture
async def faulty():
    owner, other = Echo(), Echo()
    async with (
        served(owner) as url,
        served(other) as other_url,
        FaultProxy("127.0.0.1", int(url.rsplit(":", 1)[1])) as proxy,
        gateway(timeout_s=3.0) as parts,
    ):
        parts.knows({"n0": proxy.url, "n1": other_url}, {MAIN: ("n0", 1)})
        yield Faulty(parts, proxy, owner, other)


async def test_an_owner_that_refuses_connections_is_reached_by_way_of_another_node(client, faulty):
    await faulty.proxy.refuse()

    for method, headers in [("GET", {}), ("PUT", {}), ("PUT", KEYED)]:
        answer = await client.request(method, faulty.parts.url + KEY, headers=headers, content=b"x")
        assert answer.status_code == 200

    assert len(faulty.other.seen) == 3
    assert set(forwarded(faulty.other)) == {None}  # so that it forwards to the owner, if it can


@pytest.mark.parametrize("ending", [Ending.RESET, Ending.CLOSE])
async def test_a_write_whose_answer_was_lost_is_repeated_only_with_a_key(client, faulty, ending):
    faulty.proxy.drop_replies("^PUT ", times=1, ending=ending)
    answer = await client.put(faulty.parts.url + KEY, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (500, "outcome_unknown")
    assert "memoturn-applied" not in answer.headers
    assert "retry-after" not in answer.headers
    assert len(faulty.owner.seen) == 1
    assert len(faulty.other.seen) == 0

    faulty.proxy.drop_replies("^(PUT|DELETE|POST) ", times=1, ending=ending)
    assert (await client.put(faulty.parts.url + KEY, content=b"x", headers=KEYED)).status_code == 200
    assert len(faulty.owner.seen) + len(faulty.other.seen) == 3


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_no_write_is_sent_twice_by_the_http_client_itself(client, faulty, method):
    """On a connection that was used before, which is where clients repeat by themselves."""
    assert (await client.get(faulty.parts.url + KEY)).status_code == 200
    faulty.proxy.drop_replies(f"^{method} ", times=1, ending=Ending.CLOSE)

    path = f"{KEY}/increment" if method == "POST" else KEY
    answer = await client.request(method, faulty.parts.url + path)

    assert answer.json()["code"] == "outcome_unknown"
    assert len(faulty.owner.seen) == 2


async def test_a_read_whose_answer_was_lost_is_repeated(client, faulty):
    faulty.proxy.drop_replies("^(GET|POST) ", times=1)
    assert (await client.get(faulty.parts.url + KEY)).status_code == 200
    faulty.proxy.drop_replies("^(GET|POST) ", times=1)
    assert (await client.post(f"{faulty.parts.url}/v1/db/notes/docs/c/find", json={})).status_code == 200

    assert len(faulty.owner.seen) + len(faulty.other.seen) == 4


async def test_a_request_that_kills_whoever_gets_it_ends(client, faulty):
    faulty.parts.placements.take(NodeLeft("n1"))
    faulty.proxy.drop_replies("^GET ", times=100)

    answer = await client.get(faulty.parts.url + KEY)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "memoturn-applied" not in answer.headers
    assert 2 <= len(faulty.owner.seen) <= 4
    assert "127.0.0.1" not in answer.text


async def test_clients_are_told_of_a_node_by_its_name_and_operators_by_its_address(client, faulty):
    faulty.parts.placements.take(NodeLeft("n1"))
    faulty.parts.app._timeout_s = 0.2
    faulty.proxy.drop_replies("^PUT ", times=1)
    lost = await client.put(faulty.parts.url + KEY, content=b"x")
    await faulty.proxy.refuse()
    with capture_logs() as logs:
        refused = await client.put(faulty.parts.url + KEY, content=b"x")

    for answer, status in ((lost, 500), (refused, 503)):
        assert answer.status_code == status
        assert "node n0" in answer.json()["error"]
        assert "127.0.0.1" not in answer.text
    (told,) = (line for line in logs if line["event"] == "a request is given up")
    assert "127.0.0.1" in told["detail"]


async def test_an_owner_that_says_nothing_ends_with_its_lease(client, faulty):
    faulty.proxy.mode = Mode.BLACKHOLE
    reading = asyncio.create_task(client.get(faulty.parts.url + KEY))
    writing = asyncio.create_task(client.put(faulty.parts.url + KEY, content=b"x"))
    keyed = asyncio.create_task(client.put(faulty.parts.url + KEY, content=b"x", headers=KEYED))
    while faulty.proxy.count("^(GET|PUT) ") < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    faulty.parts.placements.take(NodeLeft("n0"))
    faulty.parts.placements.take(
        Placed("id", *MAIN, Owner("n1", faulty.parts.placements.nodes["n1"].address, 2))
    )

    assert (await reading).status_code == 200
    assert (await keyed).status_code == 200
    assert (await writing).json()["code"] == "outcome_unknown"
    assert len(faulty.other.seen) == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_a_write_that_was_lost_once_is_not_said_to_be_unapplied(client, faulty, status):
    """By what the node says of a later attempt, which is true of that one alone."""
    faulty.parts.placements.take(NodeLeft("n1"))
    faulty.proxy.drop_replies("^PUT ", times=1)
    faulty.owner.status, faulty.owner.headers = status, [(b"memoturn-applied", b"false")]

    answer = await client.put(faulty.parts.url + KEY, content=b"x", headers=KEYED)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "memoturn-applied" not in answer.headers
    assert len(faulty.owner.seen) >= 2


async def test_a_body_that_is_gone_is_not_sent_again(client, faulty):
    faulty.proxy.drop_replies("^PUT ", times=1)

    async def large():
        for _ in range(40):
            yield b"x" * 65536

    answer = await client.put(f"{faulty.parts.url}{KEY}", content=large(), headers=KEYED)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert len(faulty.owner.seen) == 1
    assert len(faulty.other.seen) == 0


async def test_a_long_body_that_was_not_begun_finds_its_way(client, faulty):
    await faulty.proxy.refuse()

    async def large():
        for _ in range(40):
            yield b"x" * 65536

    assert (await client.put(faulty.parts.url + KEY, content=large())).status_code == 200
    assert len(faulty.other.seen[0][4]) == 40 * 65536


async def test_a_node_that_fails_is_left_alone_and_tried_again(client, faulty):
    faulty.parts.placements.take(NodeLeft("n1"))
    await faulty.proxy.refuse()
    answers = await asyncio.gather(*(client.get(faulty.parts.url + KEY) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {503}
    attempts = faulty.parts.metrics.attempts._value.get()
    assert attempts < 60  # of hundreds, had each waited for itself
    assert (await client.get(f"{faulty.parts.url}/ready")).status_code == 503

    await faulty.proxy.accept()
    assert (await client.get(faulty.parts.url + KEY)).status_code == 200
    assert (await client.get(f"{faulty.parts.url}/ready")).status_code == 200


# ---- reads that any node may answer

CACHED = {"Memoturn-Consistency": "cached"}


async def test_a_cached_read_leaves_an_owner_that_says_nothing(client, faulty):
    faulty.proxy.mode = Mode.BLACKHOLE
    primary = asyncio.create_task(client.get(faulty.parts.url + KEY))

    began_s = time.monotonic()
    answer = await client.get(faulty.parts.url + KEY, headers=CACHED)
    first_s = time.monotonic() - began_s

    assert answer.status_code == 200
    assert 0.9 < first_s < 2
    assert forwarded(faulty.other) == [None]
    assert not primary.done()  # that one is the owner's to answer

    for _ in range(2):
        await client.get(faulty.parts.url + KEY, headers=CACHED)
    began_s = time.monotonic()
    assert (await client.get(faulty.parts.url + KEY, headers=CACHED)).status_code == 200
    assert time.monotonic() - began_s < 0.5  # the owner is known to be silent by now
    assert len(faulty.other.seen) == 4
    primary.cancel()
    await asyncio.gather(primary, return_exceptions=True)


async def test_a_cached_read_is_waited_for_longer_where_every_node_is_slow(client):
    async def slow(scope, receive, send):
        await asyncio.sleep(1.5)
        await Echo()(scope, receive, send)

    async with served(slow) as url, served(slow) as other, gateway() as parts:
        parts.knows({"n0": url, "n1": other}, {MAIN: ("n0", 1)})
        assert (await client.get(parts.url + KEY, headers=CACHED)).status_code == 200


async def test_a_cached_read_that_one_node_refuses_is_anothers(client):
    async with behind_gateway(2, owners={MAIN: ("n0", 1)}) as (parts, echoes):
        echoes[0].status, echoes[0].headers = 503, [(b"memoturn-applied", b"false")]

        assert (await client.get(parts.url + KEY, headers=CACHED)).status_code == 200
        assert counts(echoes) == [1, 1]
        assert (await client.get(parts.url + KEY)).status_code == 503


# ---- bounds, and what the gateway answers itself


async def test_requests_beyond_what_may_run_and_wait_are_turned_away(client):
    held = asyncio.Event()

    async def slow(scope, receive, send):
        del scope, receive
        await held.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with served(slow) as url, gateway(gateway_concurrency=1) as parts:
        parts.knows({"n0": url})
        tasks = [asyncio.create_task(client.get(parts.url + KEY)) for _ in range(30)]
        done, _ = await asyncio.wait(tasks, timeout=1)
        shed = [task.result() for task in done]
        assert {(answer.status_code, answer.json()["code"]) for answer in shed} == {(429, "overloaded")}
        assert all(answer.headers["memoturn-applied"] == "false" for answer in shed)
        held.set()
        answers = await asyncio.gather(*tasks)

    assert 5 < len([answer for answer in answers if answer.status_code == 200]) < 15


async def test_bodies_beyond_the_memory_for_them_are_turned_away(client):
    async with behind_gateway(gateway_body_bytes=1 << 20) as (parts, [echo]):
        assert (await client.put(parts.url + KEY, content=b"x" * 1_000_000)).status_code == 200
        answer = await client.put(parts.url + KEY, content=b"x" * 2_000_000)
        assert answer.status_code == 429
        assert (await client.put(parts.url + KEY, content=b"x" * 1_000_000)).status_code == 200

    assert len(echo.seen) == 2


async def test_a_write_that_finds_no_free_connection_was_not_sent_and_goes_another_way(client):
    gate = asyncio.Event()

    async def events(scope, receive, send):
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await gate.wait()
        await send({"type": "http.response.body", "body": b""})

    other = Echo()
    async with served(events) as url, served(other) as other_url, gateway() as parts:
        parts.forwarder._connections = 1
        parts.knows({"n0": url, "n1": other_url}, {MAIN: ("n0", 1)})
        async with client.stream("GET", f"{parts.url}/v1/db/notes/changes"):
            answer = await client.put(parts.url + KEY, content=b"1")
            gate.set()

    assert answer.status_code == 200
    assert len(other.seen) == 1


async def test_bodies_count_while_they_come(client):
    head = b"PUT %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 900000\r\n\r\n" % KEY.encode()
    async with behind_gateway(gateway_body_bytes=1 << 20, request_timeout_s=0.5) as (parts, [echo]):
        slow = asyncio.create_task(raw_exchange(parts.url, head + b"x" * 800_000))
        await asyncio.sleep(0.2)
        held_bytes = parts.app._bodies.held_bytes
        refused = await client.put(parts.url + KEY, content=b"x" * 500_000)
        late = await slow

        assert held_bytes == 800_000
        assert refused.status_code == 429
        assert late.startswith(b"HTTP/1.1 503")
        assert parts.app._bodies.held_bytes == 0
    assert echo.seen == []


async def test_ready_means_that_requests_can_be_routed(client):
    async with gateway() as parts:
        assert (await client.get(f"{parts.url}/health")).text == "ok"
        assert (await client.get(f"{parts.url}/ready")).status_code == 503
        parts.placements.take(Placements((), ()))
        assert (await client.get(f"{parts.url}/ready")).json()["code"] == "unavailable"
        parts.placements.take(LiveNode("n0", "http://127.0.0.1:1"))
        ready = await client.get(f"{parts.url}/ready")
        assert (ready.status_code, ready.json()) == (200, {"nodes": 1, "placements": 0})
        metrics = (await client.get(f"{parts.url}/metrics")).text
        assert "memoturn_gateway_nodes 1.0" in metrics
        assert (await client.head(f"{parts.url}/health")).content == b""


async def test_without_a_node_a_request_waits_and_is_then_unavailable(client):
    async with gateway(timeout_s=0.5) as parts:
        parts.placements.take(Placements((), ()))
        answer = await client.put(parts.url + KEY, content=b"x", headers={"Memoturn-Request-Id": "mine"})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["memoturn-request-id"] == "mine"
        assert answer.headers["memoturn-applied"] == "false"


async def test_owners_that_are_known_have_a_bound(client):
    async with behind_gateway() as (parts, _):
        parts.placements.limit = 10
        for number in range(50):
            parts.placements.take(
                Placed(f"id{number}", f"db{number}", "main", Owner("n0", parts.urls["n0"], 1))
            )
        assert parts.placements.owners == 10
        assert parts.placements.owner(("db49", "main")) is not None
        assert (await client.get(f"{parts.url}/v1/db/db0/kv/n/k")).status_code == 200


async def test_a_watch_that_ends_is_opened_again_and_what_is_known_stays(monkeypatch):
    import gateway.placements as module

    monkeypatch.setattr(module, "WATCH_AGAIN_S", 0.01)

    class Watching:
        opened = 0

        async def watch(self):
            self.opened += 1
            yield Placements(
                (Placed("id", *MAIN, Owner("n0", "http://a", 1)),), (LiveNode("n0", "http://a"),)
            )
            raise OSError("gone")

    watching = Watching()
    async with gateway() as parts:
        feeding = asyncio.create_task(parts.placements.feed(watching))
        while watching.opened < 3:
            await asyncio.sleep(0.01)
            assert parts.placements.owner(MAIN) is not None or not parts.placements.is_fed
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


# ---- hedged reads


@pytest.mark.parametrize(
    ("headers", "method", "hedged"),
    [
        ({"Memoturn-Consistency": "cached"}, "GET", True),
        ({"Memoturn-Consistency": "primary"}, "GET", False),
        ({}, "GET", False),
        ({"Memoturn-Consistency": "cached"}, "PUT", False),
    ],
)
async def test_only_reads_that_take_a_replicas_answer_are_hedged(client, headers, method, hedged):
    gate = asyncio.Event()
    quick = Echo()
    quick.body = b"replica"

    async def slow(scope, receive, send):
        del scope, receive
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"owner"})

    async with served(slow) as url, served(quick) as other, gateway(gateway_hedge_ms=30) as parts:
        parts.knows({"n0": url, "n1": other}, {MAIN: ("n0", 1)})
        asking = asyncio.create_task(client.request(method, parts.url + KEY, headers=headers))
        await asyncio.sleep(0.3)
        gate.set()
        answer = await asking

    assert answer.content == (b"replica" if hedged else b"owner")
    assert len(quick.seen) == hedged


async def test_a_read_whose_body_is_too_long_to_be_kept_is_sent_once(client):
    gate = asyncio.Event()
    quick, owner = Echo(), Echo()

    async def slow(scope, receive, send):
        await gate.wait()
        await owner(scope, receive, send)

    async with served(slow) as url, served(quick) as other, gateway(gateway_hedge_ms=30) as parts:
        parts.knows({"n0": url, "n1": other}, {MAIN: ("n0", 1)})
        asking = asyncio.create_task(
            client.post(
                f"{parts.url}/v1/db/notes/vectors/c/search",
                headers={"Memoturn-Consistency": "cached"},
                content=b"x" * (3 << 20),
            )
        )
        await asyncio.sleep(0.3)
        gate.set()
        answer = await asking

    assert answer.status_code == 200
    assert len(owner.seen) == 1
    assert parts.metrics.hedges._value.get() == 0
