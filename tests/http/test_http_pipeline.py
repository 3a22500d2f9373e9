"""What every request passes through, with handlers that a test chooses."""

import asyncio
import contextlib
import re

import httpx
import pytest
import structlog
from http_support import client_of, limits

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.core.limits import Defaults
from memoturnd.engine.accounts import Accounts
from memoturnd.engine.metering import Meter
from memoturnd.errors import (
    CorruptionError,
    DatabaseNotFoundError,
    InvariantError,
    NotDurableError,
    OverloadedError,
)
from memoturnd.http.admission import OpenAdmission
from memoturnd.http.app import SMALL_BODY_BYTES, create_app
from memoturnd.http.envelope import reply
from memoturnd.http.route import Body, Kind, Route, Scope
from memoturnd.http.tree import Tree
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import SystemClock

HOST = [(b"host", b"localhost:8080")]


class Stage:
    """Just enough of a node for handlers that do not need one."""

    def __init__(self):
        self.metrics = Metrics()
        self.admission = OpenAdmission()
        catalog, clock = SqliteCatalog(":memory:"), SystemClock()
        self.accounts = Accounts(catalog, clock, self.metrics, Defaults())
        self.meter = Meter(
            catalog, clock, self.metrics, flush_s=3600.0, retention_days=1, main_of=self.profile
        )

    async def profile(self, name):
        raise DatabaseNotFoundError(name)


def route(handler, *, method="POST", template="/x", kind=Kind.WRITE, body=Body.SMALL):
    return Route(method, template, handler, kind, body, Scope.NONE)


def serving(*routes, clock=None, stage=None, **changes):
    return client_of(create_app(stage or Stage(), limits(**changes), clock=clock, routes=routes))


async def echo(call):
    return reply({"params": call.params, "size": len(call.body)})


def assert_envelope(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"error", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["memoturn-request-id"]


async def test_unknown_path_answers_the_envelope():
    async with serving(route(echo)) as client:
        assert_envelope(await client.get("/nowhere"), 404, "not_found")
        assert_envelope(await client.get("/"), 404, "not_found")
        assert_envelope(await client.get("/x/"), 404, "not_found")
        assert_envelope(await client.get("//x"), 404, "not_found")


async def test_unknown_method_answers_the_envelope_and_names_the_others():
    async with serving(route(echo), route(echo, method="GET", kind=Kind.READ, body=Body.NONE)) as client:
        answer = await client.put("/x")

    assert_envelope(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_head_answers_like_get_without_the_body():
    async with serving(route(echo, method="GET", kind=Kind.READ, body=Body.NONE)) as client:
        answer = await client.head("/x")

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_path_parts_are_decoded_after_they_are_split():
    async with serving(route(echo, template="/x/{a}/{b}")) as client:
        answer = await client.post("/x/one%2Ftwo/%C3%A9%2520")

    assert answer.json()["params"] == {"a": "one/two", "b": "é%20"}


@pytest.mark.parametrize("part", ["%ff", "a%00b", "%ed%a0%80"])
async def test_path_part_that_is_not_text_answers_the_envelope(part):
    async with serving(route(echo, template="/x/{a}")) as client:
        assert_envelope(await client.post(f"/x/{part}"), 400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "limit"), [(Body.SMALL, SMALL_BODY_BYTES), (Body.LARGE, 3 << 20), (Body.RAW, 3 << 20)]
)
async def test_body_up_to_its_limit_is_taken_and_one_byte_more_is_not(body, limit):
    async with serving(route(echo, body=body), max_body_bytes=3 << 20) as client:
        assert (await client.post("/x", content=b"x" * limit)).json()["size"] == limit
        assert_envelope(await client.post("/x", content=b"x" * (limit + 1)), 413, "payload_too_large")


async def test_streamed_body_over_its_limit_is_cut_off():
    async def chunks():
        for _ in range(1000):
            yield b"x" * 65536

    async with serving(route(echo)) as client:
        assert_envelope(await client.post("/x", content=chunks()), 413, "payload_too_large")


async def test_other_content_type_on_a_json_route_is_refused_and_on_a_raw_route_taken():
    async with serving(route(echo), route(echo, template="/raw", body=Body.RAW)) as client:
        headers = {"content-type": "text/plain"}

        assert_envelope(
            await client.post("/x", content=b"{}", headers=headers), 415, "unsupported_media_type"
        )
        assert (await client.post("/raw", content=b"{}", headers=headers)).status_code == 200


async def test_slow_request_answers_408_and_warns_about_queued_writes():
    async def slow(call):
        await asyncio.sleep(10)

    stage = Stage()
    async with serving(route(slow), stage=stage, request_timeout_s=0.05) as client:
        answer = await client.post("/x")

    assert_envelope(answer, 408, "request_timeout")
    assert "already queued still applies" in answer.json()["error"]
    assert b'memoturn_sheds_total{reason="request_timeout"} 1.0' in stage.metrics.render()


async def test_timeout_inside_a_handler_is_not_the_requests_own():
    async def breaks(call):
        raise TimeoutError("of something else")

    async with serving(route(breaks)) as client:
        assert_envelope(await client.post("/x"), 500, "internal")


async def test_handler_whose_work_was_cancelled_elsewhere_still_answers():
    async def waits(call):
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    async with serving(route(waits)) as client:
        assert_envelope(await client.post("/x"), 500, "internal")


async def test_cancelled_request_stays_cancelled_and_leaves_no_slot_taken():
    async def held(call):
        await asyncio.sleep(10)

    stage = Stage()
    async with serving(route(held), stage=stage) as client:
        request = asyncio.create_task(client.post("/x"))
        await asyncio.sleep(0.02)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert b"memoturn_http_in_flight_requests 0.0" in stage.metrics.render()


async def test_damaged_data_is_named_and_logged():
    async def breaks(call):
        raise CorruptionError("object v1/x is damaged")

    with structlog.testing.capture_logs() as logs:
        async with serving(route(breaks)) as client:
            answer = await client.post("/x")

    assert_envelope(answer, 500, "internal")
    assert "v1/x" in answer.json()["error"]
    assert [entry["event"] for entry in logs] == ["request_failed", "request"]


@pytest.mark.parametrize("error", [ValueError("secret"), InvariantError("secret")])
async def test_unexpected_failure_is_logged_under_the_request_id_and_not_shown(error):
    async def breaks(call):
        raise error

    with structlog.testing.capture_logs() as logs:
        async with serving(route(breaks)) as client:
            answer = await client.post("/x", headers={"memoturn-request-id": "abc-1"})

    assert_envelope(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "abc-1" in answer.json()["error"]
    failed, request = logs
    assert failed == {"event": "request_failed", "log_level": "error", "route": "/x", "exc_info": error}
    assert (request["event"], request["status"]) == ("request", 500)


async def test_write_that_is_applied_but_not_durable_says_what_to_do_instead_of_a_repeat():
    async def late(call):
        raise NotDurableError("txid 7 is committed; do not repeat the write")

    with structlog.testing.capture_logs() as logs:
        async with serving(route(late)) as client:
            answer = await client.post("/x")

    assert_envelope(answer, 500, "not_durable")
    assert answer.json()["error"] == "txid 7 is committed; do not repeat the write"
    assert answer.headers["memoturn-durability"] == "local"
    assert "retry-after" not in answer.headers
    assert [entry["event"] for entry in logs] == ["request"]


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.Z_9", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("", False)]
)
async def test_request_id_is_taken_over_when_it_is_sane(sent, kept):
    async with serving(route(echo)) as client:
        answer = await client.post("/x", headers={"memoturn-request-id": sent})

    assert (answer.headers["memoturn-request-id"] == sent) is kept
    assert answer.headers["memoturn-request-id"]


async def test_overload_says_when_to_come_back():
    async def full(call):
        raise OverloadedError("the write queue is full", retry_after_s=3)

    async with serving(route(full)) as client:
        answer = await client.post("/x")

    assert_envelope(answer, 429, "overloaded")
    assert answer.headers["retry-after"] == "3"


async def test_control_routes_share_one_rate_and_others_are_free_of_it(hand_clock):
    control = [route(echo, template=f"/{name}", kind=Kind.CONTROL) for name in ("a", "b")]
    stage = Stage()
    async with serving(*control, route(echo), clock=hand_clock, stage=stage, control_rate=2) as client:
        assert [(await client.post(f"/{name}")).status_code for name in "abab"] == [200] * 4
        refused = await client.post("/a")
        assert (await client.post("/x")).status_code == 200
        hand_clock.at_s += 0.5
        assert (await client.post("/b")).status_code == 200

    assert_envelope(refused, 429, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert b'memoturn_sheds_total{reason="control_rate"} 1.0' in stage.metrics.render()


async def test_request_over_the_concurrency_waits_and_open_routes_do_not():
    free = asyncio.Event()

    async def held(call):
        await free.wait()
        return reply({})

    stage = Stage()
    routes = (route(held), route(echo, template="/open", method="GET", kind=Kind.OPEN, body=Body.NONE))
    async with serving(*routes, stage=stage, max_concurrency=1) as client:
        first, second = asyncio.create_task(client.post("/x")), asyncio.create_task(client.post("/x"))
        await asyncio.sleep(0.02)
        metrics = stage.metrics.render()
        assert (await client.get("/open")).status_code == 200
        free.set()
        answers = [await first, await second]

    assert b"memoturn_http_in_flight_requests 1.0" in metrics
    assert b"memoturn_http_waiting_requests 1.0" in metrics
    assert [answer.status_code for answer in answers] == [200, 200]
    assert b"memoturn_http_in_flight_requests 0.0" in stage.metrics.render()


async def test_more_waiting_requests_than_the_bound_are_shed():
    async def held(call):
        await asyncio.sleep(10)

    stage = Stage()
    async with serving(route(held), stage=stage, max_concurrency=1, request_timeout_s=0.2) as client:
        answers = await asyncio.gather(*(client.post("/x") for _ in range(10)))

    # One namespace may not take all the places to wait.
    assert sorted(answer.status_code for answer in answers) == [408] * 7 + [429] * 3
    assert b'memoturn_sheds_total{reason="concurrency"} 3.0' in stage.metrics.render()


def body_bytes(stage):
    found = re.search(r"^memoturn_http_body_bytes (\S+)$", stage.metrics.render().decode(), re.MULTILINE)
    return float(found[1])


async def chunked(data):
    yield data


@pytest.mark.parametrize("sent", [bytes, chunked], ids=["declared", "streamed"])
async def test_bodies_over_the_memory_that_all_share_are_shed_until_others_are_done(sent):
    free = asyncio.Event()

    async def held(call):
        await free.wait()
        return reply({"size": len(call.body)})

    stage = Stage()
    bounds = {"max_body_bytes": 1000, "memory_budget_bytes": 8000}
    async with serving(route(held), stage=stage, **bounds) as client:
        first = [asyncio.create_task(client.post("/x", content=sent(b"x" * 900))) for _ in range(2)]
        await asyncio.sleep(0.02)
        refused = await client.post("/x", content=sent(b"x" * 201))
        third = asyncio.create_task(client.post("/x", content=sent(b"x" * 200)))
        await asyncio.sleep(0.02)
        full = body_bytes(stage)
        free.set()
        answers = [await task for task in (*first, third)]
        after = await client.post("/x", content=sent(b"x" * 1000))

    assert_envelope(refused, 429, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert full == 2000
    assert [answer.json()["size"] for answer in (*answers, after)] == [900, 900, 200, 1000]
    assert body_bytes(stage) == 0
    assert b"memoturn_http_body_limit_bytes 2000.0" in stage.metrics.render()
    assert b'memoturn_sheds_total{reason="body_memory"} 1.0' in stage.metrics.render()


async def test_one_body_of_the_largest_size_fits_whatever_the_memory_budget():
    stage = Stage()
    async with serving(route(echo), stage=stage, max_body_bytes=1000, memory_budget_bytes=10) as client:
        assert (await client.post("/x", content=b"x" * 1000)).status_code == 200

    assert b"memoturn_http_body_limit_bytes 1000.0" in stage.metrics.render()


async def test_memory_of_a_body_is_free_again_however_its_request_ends():
    async def breaks(call):
        raise ValueError

    async def full(call):
        raise OverloadedError("the write queue is full")

    async def slow(call):
        await asyncio.sleep(10)

    stage = Stage()
    routes = [route(handler, template=f"/{handler.__name__}") for handler in (breaks, full, slow)]
    async with serving(*routes, stage=stage, request_timeout_s=0.05) as client:
        ends = [
            (await client.post(f"/{name}", content=b"{}")).status_code for name in ("breaks", "full", "slow")
        ]
        request = asyncio.create_task(client.post("/slow", content=b"{}"))
        await asyncio.sleep(0.01)
        held = body_bytes(stage)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert (ends, held) == ([500, 429, 408], 2)
    assert body_bytes(stage) == 0
    assert b'memoturn_sheds_total{reason="body_memory"} 0.0' in stage.metrics.render()


async def test_requests_are_timed_by_template_and_never_by_path():
    stage = Stage()
    async with serving(route(echo, template="/x/{a}"), stage=stage) as client:
        await client.post("/x/alice")
        await client.request("BREW", "/x/alice")
        await client.get("/alice")

    text = stage.metrics.render().decode()
    assert 'memoturn_http_request_seconds_count{method="POST",route="/x/{a}",status="2xx"} 1.0' in text
    assert 'memoturn_http_request_seconds_count{method="other",route="/x/{a}",status="4xx"} 1.0' in text
    assert 'memoturn_http_request_seconds_count{method="GET",route="unmatched",status="4xx"} 1.0' in text
    assert "alice" not in text


async def test_client_that_goes_away_gets_no_answer_and_leaves_no_slot_taken():
    stage = Stage()
    app = create_app(stage, limits(), routes=[route(echo)])
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "headers": HOST,
    }
    await app(scope, receive, send)

    assert sent == []
    assert b"memoturn_http_in_flight_requests 0.0" in stage.metrics.render()


async def test_lifespan_runs_around_the_application():
    steps = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        steps.append("up")
        yield
        steps.append("down")

    app = create_app(Stage(), limits(), lifespan=lifespan, routes=[route(echo)])
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        steps.append(message["type"])

    await app({"type": "lifespan"}, receive, send)

    assert steps == ["up", "lifespan.startup.complete", "down", "lifespan.shutdown.complete"]


@pytest.mark.parametrize(
    "templates", [("/a/{x}", "/a/b"), ("/a/b", "/a/{x}"), ("/a/{x}", "/a/{x}"), ("/a/{x}/c", "/a/{y}/c")]
)
def test_table_whose_paths_would_be_ambiguous_is_refused(templates):
    with pytest.raises(InvariantError):
        Tree([route(echo, template=template) for template in templates])


def test_fixed_part_beside_a_parameter_is_refused_unless_it_ends_the_path():
    routes = [
        route(echo, template="/a/{x}", method="GET", body=Body.NONE),
        route(echo, template="/a/b/c"),
    ]

    with pytest.raises(InvariantError):
        Tree(routes)


async def test_fixed_part_beside_a_parameter_takes_other_methods():
    routes = [
        route(echo, template="/a/{x}", method="GET", body=Body.NONE),
        route(echo, template="/a/b"),
        route(echo, template="/a/{x}/c", body=Body.NONE),
    ]
    async with serving(*routes) as client:
        named = await client.get("/a/b")
        fixed = await client.post("/a/b", json={})
        below = await client.post("/a/b/c", json={})
        other = await client.post("/a/x", json={})

    assert named.json()["params"] == below.json()["params"] == {"x": "b"}
    assert fixed.status_code == 200
    assert (other.status_code, other.headers["allow"]) == (405, "GET, HEAD")


async def test_request_without_a_raw_path_is_still_found():
    app = create_app(Stage(), limits(), routes=[route(echo, template="/x/{a}", body=Body.NONE)])
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x/é b", "query_string": b"", "headers": HOST}
    await app(scope, None, send)

    assert sent[0]["status"] == 200
    assert isinstance(httpx.Response(200, content=sent[1]["body"]).json()["params"]["a"], str)
