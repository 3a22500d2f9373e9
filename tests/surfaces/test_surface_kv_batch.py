import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import InvalidRequestError, PayloadTooLargeError, PreconditionFailedError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import kv, kv_batch


def new_profile():
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("COMMIT")
    return conn


async def apply(profile, **body):
    return (await kv_batch.apply(profile, "n", kv_batch.parse_batch(body))).value


async def entries(profile):
    page = (await kv.page(profile, "n", with_values=True)).value
    return {entry["key"]: entry["value"] for entry in page["entries"]}


async def test_a_batch_is_one_commit_with_a_result_per_item(profile, plain):
    await kv.put(profile, "n", "old", b"\xff", metadata='{"a":1}')
    await kv.put(profile, "n", "gone", b"1")
    etag = (await kv.get(profile, "n", "old")).value.etag

    results = await apply(
        profile,
        gets=["old", "gone", "new"],
        puts=[
            {"key": "new", "value": "text", "metadata": {"b": 2}, "ttl": 5},
            {"key": "old", "value": {"$base64": "AAE="}},
        ],
        deletes=["gone", {"key": "never"}],
    )

    new, old = [(await kv.get(profile, "n", key)).value for key in ("new", "old")]
    assert profile.txid == 3
    assert plain(results) == {
        "gets": [
            {
                "key": "old",
                "etag": etag,
                "size_bytes": 1,
                "metadata": {"a": 1},
                "expires_at": None,
                "status": "found",
                "value": {"$base64": "/w=="},
            },
            {
                "key": "gone",
                "etag": results["gets"][1]["etag"],
                "size_bytes": 1,
                "metadata": None,
                "expires_at": None,
                "status": "found",
                "value": "1",
            },
            {"key": "new", "status": "absent"},
        ],
        "puts": [
            {"key": "new", "status": "stored", "etag": new.etag},
            {"key": "old", "status": "stored", "etag": old.etag},
        ],
        "deletes": [{"key": "gone", "status": "deleted"}, {"key": "never", "status": "absent"}],
    }
    assert (new.value, new.metadata, new.expires_at_ms) == (b"text", '{"b":2}', profile.now_ms + 5000)
    assert (old.value, old.metadata, old.expires_at_ms) == (b"\x00\x01", None, None)


async def test_one_condition_that_does_not_hold_undoes_the_batch(profile):
    await kv.put(profile, "n", "a", b"1")

    for unmet in (
        {"puts": [{"key": "b", "value": ""}, {"key": "a", "value": "", "if_none_match": "*"}]},
        {"puts": [{"key": "b", "value": "", "if_match": "*"}]},
        {"puts": [{"key": "b", "value": ""}], "deletes": [{"key": "a", "if_match": "0011"}]},
    ):
        with pytest.raises(PreconditionFailedError, match=r"(puts|deletes)\[\d\]"):
            await apply(profile, **unmet)

    assert (await entries(profile), profile.txid) == ({"a": "1"}, 1)


async def test_a_partial_batch_leaves_out_what_does_not_hold_and_tells_it(profile):
    tag = (await kv.put(profile, "n", "a", b"1")).value

    results = await apply(
        profile,
        partial=True,
        puts=[
            {"key": "a", "value": "2", "if_match": "0011"},
            {"key": "b", "value": "2", "if_none_match": "*"},
            {"key": "c", "value": "2", "if_match": "*"},
        ],
        deletes=[{"key": "d", "if_match": "*"}],
    )

    assert results["puts"][0] == {"key": "a", "status": "precondition_failed", "etag": tag}
    assert results["puts"][1]["status"] == "stored"
    assert results["puts"][2] == {"key": "c", "status": "precondition_failed", "etag": None}
    assert results["deletes"] == [{"key": "d", "status": "precondition_failed", "etag": None}]
    assert await entries(profile) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("spelled", ["{}", '"{}"'])
async def test_conditions_take_etags_with_and_without_quotes(profile, spelled):
    tag = (await kv.put(profile, "n", "a", b"1")).value

    await apply(profile, puts=[{"key": "a", "value": "2", "if_match": spelled.format(tag)}])

    assert await entries(profile) == {"a": "2"}


async def test_a_batch_that_changes_nothing_commits_nothing(profile):
    await apply(profile, puts=[])
    await apply(profile, gets=["a"], deletes=["a"])
    await apply(profile, partial=True, puts=[{"key": "a", "value": "", "if_match": "*"}])

    assert profile.txid == 0


async def test_values_that_are_too_large_together_are_not_got(profile):
    for key in "ab":
        await kv.put(profile, "n", key, bytes(3_000_000))

    assert len((await apply(profile, gets=["a"]))["gets"]) == 1
    with pytest.raises(PayloadTooLargeError, match="fewer"):
        await apply(profile, gets=["a", "b"], puts=[{"key": "c", "value": ""}])
    assert "c" not in await entries(profile)


async def test_large_batches_are_applied_in_the_pool(profile):
    await apply(profile, puts=[{"key": f"k{n}", "value": ""} for n in range(32)])
    await apply(profile, puts=[{"key": f"k{n}", "value": ""} for n in range(33)])
    await apply(profile, puts=[{"key": "k", "value": "x" * 70_000}])

    assert [work for _, work in profile.works] == [Work.POINT, Work.HEAVY, Work.HEAVY]


WRONG = [
    ([], "body"),
    ({"puts": {}}, "puts"),
    ({"puts": [1]}, r"puts\[0\]"),
    ({"puts": [{"value": ""}]}, r"puts\[0\].key"),
    ({"puts": [{"key": "", "value": ""}]}, r"puts\[0\].key"),
    ({"puts": [{"key": "k" * 1025, "value": ""}]}, r"puts\[0\].key"),
    ({"puts": [{"key": "k"}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": 1}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": {"a": 1}}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": {"$base64": "é"}}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": {"$base64": "AA"}}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": {"$base64": None}}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": "a\0"}]}, r"puts\[0\].value"),
    ({"puts": [{"key": "k", "value": "", "ttl": -1}]}, r"puts\[0\].ttl"),
    ({"puts": [{"key": "k", "value": "", "metadata": []}]}, r"puts\[0\].metadata"),
    ({"puts": [{"key": "k", "value": "", "if_match": 1}]}, r"puts\[0\].if_match"),
    ({"puts": [{"key": "k", "value": "", "if_match": ""}]}, r"puts\[0\].if_match"),
    ({"puts": [{"key": "k", "value": "", "if_none_match": '"a'}]}, r"puts\[0\].if_none_match"),
    ({"puts": [{"key": "k", "value": "", "if_match": "a, b"}]}, r"puts\[0\].if_match"),
    ({"deletes": [1]}, r"deletes\[0\]"),
    ({"deletes": [{}]}, r"deletes\[0\].key"),
    ({"deletes": ["a", "b", {"key": "a"}]}, r"deletes\[2\]"),
    ({"puts": [{"key": "a", "value": ""}], "deletes": ["a"]}, r"deletes\[0\]"),
    ({"gets": [{"key": "a"}]}, r"gets\[0\]"),
    ({"gets": ["a"] * 501, "deletes": ["b"] * 500}, "1001"),
    ({"puts": [], "partial": 1}, "partial"),
]


@pytest.mark.parametrize(("body", "named"), WRONG)
def test_a_bad_batch_is_refused_by_the_name_of_what_is_wrong(body, named):
    with pytest.raises(InvalidRequestError, match=named):
        kv_batch.parse_batch(body)


# ---- against a dictionary

KEYS = st.sampled_from(["a", "b", "ä", "c\x01"])
VALUES = st.binary(max_size=4)
CONDITIONS = st.sampled_from(["none", "right", "wrong", "absent", "present"])
ITEMS = st.lists(
    st.tuples(KEYS, st.one_of(st.none(), VALUES), CONDITIONS), max_size=5, unique_by=lambda item: item[0]
)


def asked(condition, tag):
    match condition:
        case "right":
            return {"if_match": tag or "0123"}
        case "wrong":
            return {"if_match": "0123456789abcdef"}
        case "absent":
            return {"if_none_match": "*"}
        case "present":
            return {"if_match": "*"}
    return {}


def allowed(condition, tag):
    return {"none": True, "wrong": False, "absent": tag is None}.get(condition, tag is not None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ITEMS, st.booleans()), max_size=6))
def test_batches_do_to_a_profile_what_they_do_to_a_dictionary(batches):
    conn = new_profile()
    model, tags = {}, set()
    for txid, (items, partial) in enumerate(batches, start=1):
        conn.round_txid = txid
        body = {"puts": [], "deletes": [], "gets": sorted(model), "partial": partial}
        for key, value, condition in items:
            item = {"key": key, **asked(condition, kv.find_etag(conn, 0, "n", key))}
            if value is None:
                body["deletes"].append(item)
            else:
                body["puts"].append({**item, "value": kv.shown(value)})
        held = [allowed(condition, kv.find_etag(conn, 0, "n", key)) for key, _, condition in items]
        conn.execute("BEGIN")
        try:
            results, changed = kv_batch.apply_batch(conn, 0, "n", kv_batch.parse_batch(body))
        except PreconditionFailedError:
            conn.execute("ROLLBACK")
            assert not partial
            assert not all(held)
            continue
        conn.execute("COMMIT")
        assert partial or all(held)
        assert {g["key"]: g["value"] for g in results["gets"]} == {k: kv.shown(v) for k, v in model.items()}
        before = dict(model)
        for (key, value, _), holds in zip(items, held, strict=True):
            if holds and value is None:
                model.pop(key, None)
            elif holds:
                model[key] = value
        stored = [put["etag"] for put in results["puts"] if put["status"] == "stored"]
        assert not tags.intersection(stored)
        tags.update(stored)
        assert changed == bool(stored or before.keys() - model.keys())
        page = kv.read_page(conn, 0, "n", with_values=True)
        assert {e["key"]: e["value"] for e in page["entries"]} == {k: kv.shown(v) for k, v in model.items()}
        assert page["keys"] == sorted(model)
    conn.close()


@pytest.mark.parametrize("body", [{}, {"put": [{"key": "k", "value": "v"}]}, {"partial": True}])
def test_a_batch_that_names_no_list_is_refused(body):
    with pytest.raises(InvalidRequestError, match="none of gets, puts and deletes"):
        kv_batch.parse_batch(body)
