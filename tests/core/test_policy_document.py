"""The policies of a namespace as stored: bytes that prove themselves, and changes."""

import pytest

from memoturnd.core import policy_document
from memoturnd.core.policy import NOTHING, Rules
from memoturnd.core.policy_document import decode, encode, key_of, new, with_override, with_policy
from memoturnd.errors import ConflictError, CorruptionError, InvalidRequestError

SAID = {"memory": {"task_ttl_max_secs": 600, "later": 1}, "later": {"x": [1, 2.5, None]}}
ORIGINALS = (
    b'{"schema_version":1,"namespace":"acme","revision":3,"updated_at":5,'
    b'"policy":{"memory":{"task_ttl_max_secs":600}},"profiles":{"ann":{"memory":{"task_ttl_max_secs":60}}},"later":7}'
)


def read(data, tenant="default", namespace="acme"):
    return decode(data, tenant=tenant, namespace=namespace)


def document():
    made = with_policy(new("default", "acme"), SAID)
    return with_override(made, "ann", {"memory": {"task_ttl_max_secs": 60}, "later": 2}, NOTHING)


def test_document_comes_back_with_what_is_not_known():
    made = document()

    back = read(encode(made))

    assert back == made
    assert back.policy == SAID
    assert back.rules == Rules(task_ttl_max_secs=600)
    assert back.overrides == {"ann": Rules(task_ttl_max_secs=60)}


def test_document_of_the_original_is_read_and_keeps_its_members():
    back = read(ORIGINALS)

    assert (back.revision, back.rules.task_ttl_max_secs, back.more) == (3, 600, {"later": 7})
    assert read(encode(back)).more == {"later": 7}


def test_any_flipped_bit_is_damage():
    data = encode(document())

    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptionError, match="cannot be read"):
            read(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not valid JSON"),
        (b"[]", "does not begin"),
        (b'{"schema_version":2,"namespace":"acme","revision":1,"updated_at":1}', "use a newer one"),
        (ORIGINALS.replace(b"acme", b"emca"), "of namespace 'emca'"),
        (ORIGINALS.replace(b'"namespace"', b'"tenant":"t","namespace"'), "of tenant 't'"),
        (ORIGINALS.replace(b'"revision":3', b'"revision":-3'), "its revision"),
        (ORIGINALS.replace(b"600", b"6"), "policy.memory.task_ttl_max_secs"),
        (ORIGINALS.replace(b":60}", b":1}"), "profiles.ann.memory.task_ttl_max_secs"),
        (ORIGINALS.replace(b'"ann"', b'"A"'), "profile 'A'"),
        (ORIGINALS.replace(b'"policy":{', b'"policy":1,"x":{'), "policy is 1"),
        (ORIGINALS.replace(b'"profiles":{', b'"profiles":1,"x":{'), "its profiles"),
        (ORIGINALS.replace(b"{", b'{ "sum":"0",', 1), "does not begin"),
    ],
)
def test_what_no_node_writes_is_damage_that_says_why(data, why):
    with pytest.raises(CorruptionError, match="policies of namespace acme cannot be read") as damaged:
        read(data)

    assert why in str(damaged.value)


def test_document_of_another_tenant_is_refused():
    with pytest.raises(CorruptionError, match="of tenant 'default'"):
        read(encode(document()), tenant="other")


def test_each_tenants_namespace_has_a_key_of_its_own():
    assert key_of("default", "acme") == "v1/_policy/acme.json"
    assert key_of("t", "acme") == "v1/_policy/t/acme.json"


def test_profile_that_loosens_is_told_every_field():
    made = with_policy(new("default", "acme"), {"memory": {"task_ttl_max_secs": 600}})

    with pytest.raises(ConflictError) as refused:
        with_override(
            made,
            "ann",
            {
                "memory": {"task_ttl_max_secs": 601},
                "erasure": {"purge_on_forget": False},
                "retention": {"pitr_secs": 90},
            },
            Rules(purge_on_forget=True, pitr_secs=80),
        )

    for field in ("memory.task_ttl_max_secs", "erasure.purge_on_forget", "retention.pitr_secs"):
        assert field in str(refused.value)


def test_clearing_a_profiles_policy_leaves_the_others():
    made = with_override(document(), "bob", {}, NOTHING)

    cleared = with_override(made, "ann", None, NOTHING)

    assert (dict(cleared.profiles), dict(cleared.overrides)) == ({"bob": {}}, {"bob": NOTHING})


def test_so_many_profiles_have_policies_of_their_own_and_no_more():
    made = new("default", "acme")
    for number in range(policy_document.PROFILES_LIMIT):
        made = with_override(made, f"p{number}", {}, NOTHING)

    with pytest.raises(InvalidRequestError, match="1000 profiles"):
        with_override(made, "one-more", {}, NOTHING)
    with_override(made, "p7", {"erasure": {"grace_secs": 60}}, NOTHING)


def test_document_that_is_too_large_is_refused():
    made = new("default", "acme")
    for number in range(80):
        made = with_override(made, f"p{number}", {"x": "x" * 16_000}, NOTHING)

    with pytest.raises(InvalidRequestError, match="at most 1048576"):
        encode(made)
