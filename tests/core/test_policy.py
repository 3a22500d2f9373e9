"""Policies: what they take, what holds of several, and what a profile may not loosen."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import policy
from memoturnd.core.coverage import reach_of
from memoturnd.core.policy import NOTHING, Rules, capped, effective, loosened, merge, parse, parse_new
from memoturnd.core.principal import SURFACES
from memoturnd.core.retention import Windows
from memoturnd.errors import InvalidRequestError

SECONDS = st.none() | st.integers(60, 10**7)
FULL = {
    "retention": {"pitr_secs": 60, "pitr_snapshot_secs": 3600},
    "memory": {
        "task_ttl_max_secs": 61,
        "event_max_age_secs": 62,
        "superseded_max_age_secs": 63,
        "superseded_max_count": 1,
    },
    "erasure": {"purge_on_forget": True, "grace_secs": 64},
    "audit": {"enabled": True, "include_reads": True, "retention_secs": 65},
    "ai_egress": {"extract": "deny", "ask": "deny", "embed": "self_hosted_only"},
}
LEVELS = {
    "pitr_secs": SECONDS,
    "pitr_snapshot_secs": SECONDS,
    "task_ttl_max_secs": SECONDS,
    "event_max_age_secs": SECONDS,
    "superseded_max_age_secs": SECONDS,
    "superseded_max_count": st.none() | st.integers(1, 10**6),
    "purge_on_forget": st.booleans(),
    "erasure_grace_secs": SECONDS,
    "audit_enabled": st.booleans(),
    "audit_include_reads": st.booleans(),
    "audit_retention_secs": SECONDS,
    "extract": st.sampled_from(["allow", "deny"]),
    "ask": st.sampled_from(["allow", "deny"]),
    "embed": st.sampled_from(["allow", "self_hosted_only", "deny"]),
}
RULES = st.builds(Rules, **LEVELS)
STRICTNESS = {"allow": 0, "self_hosted_only": 1, "deny": 2}


def is_as_strict(value, than):
    """Whether a value of a field asks for as much as another does, spelled out."""
    if isinstance(value, bool):
        return value or not than
    if isinstance(value, str):
        return STRICTNESS[value] >= STRICTNESS[than]
    return than is None or (value is not None and value <= than)


def document_of(rules):
    """The policy that says just that: what asks for nothing is left out."""
    said = {}
    for section, members in FULL.items():
        for name in members:
            rule = "erasure_grace_secs" if (section, name) == ("erasure", "grace_secs") else name
            rule = f"audit_{rule}" if section == "audit" else rule
            value = getattr(rules, rule)
            if value != getattr(NOTHING, rule):
                said.setdefault(section, {})[name] = value
    return said


# ---- merging


@given(RULES, RULES)
def test_merging_is_the_same_in_either_order(one, other):
    assert merge(one, other) == merge(other, one)


@given(RULES, RULES, RULES)
def test_merging_is_the_same_however_it_is_grouped(one, two, three):
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(RULES)
def test_merging_with_itself_or_with_nothing_changes_nothing(one):
    assert merge(one, one) == one
    assert merge(one, NOTHING) == merge(NOTHING, one) == merge(one, Rules()) == one


@given(st.lists(RULES, max_size=4))
def test_what_holds_is_never_looser_than_any_of_its_parts(layers):
    held = effective(*layers)

    for layer in layers:
        for field in fields(Rules):
            assert is_as_strict(getattr(held, field.name), getattr(layer, field.name)), field.name


@given(RULES, RULES)
def test_each_field_of_a_merge_is_that_of_one_of_both(one, other):
    merged = merge(one, other)

    for field in fields(Rules):
        assert getattr(merged, field.name) in (getattr(one, field.name), getattr(other, field.name))


def test_coarse_window_below_the_fine_one_ends_both():
    assert effective(Rules(pitr_secs=3600), Rules(pitr_snapshot_secs=600)).pitr_secs == 600
    assert effective(Rules(pitr_secs=600), Rules(pitr_snapshot_secs=3600)).pitr_secs == 600


# ---- what a profile may not


@given(RULES, RULES)
def test_fields_that_loosen_are_just_those_that_would_have_no_effect(base, rules):
    said = document_of(rules)

    looser = loosened(base, said)

    merged = merge(base, rules)
    for path, rule in paths().items():
        value = getattr(rules, rule)
        has_effect = getattr(merged, rule) == value
        assert (path in looser) == (value != getattr(NOTHING, rule) and not has_effect), path


def paths():
    return {
        f"{section}.{name}": (
            "erasure_grace_secs"
            if (section, name) == ("erasure", "grace_secs")
            else f"audit_{name}"
            if section == "audit"
            else name
        )
        for section, members in FULL.items()
        for name in members
    }


def test_saying_false_or_allow_outright_loosens_what_asks_for_more():
    base = Rules(purge_on_forget=True, audit_enabled=True, embed="self_hosted_only", ask="deny")
    said = {
        "erasure": {"purge_on_forget": False},
        "audit": {"enabled": False, "include_reads": False},
        "ai_egress": {"embed": "allow", "ask": "allow", "extract": "allow"},
    }

    assert loosened(base, said) == [
        "erasure.purge_on_forget",
        "audit.enabled",
        "ai_egress.ask",
        "ai_egress.embed",
    ]


def test_asking_for_the_same_loosens_nothing():
    said = {section: dict(members) for section, members in FULL.items()}

    assert loosened(parse(FULL), said) == []


# ---- reading


def test_every_field_is_read():
    assert parse(FULL) == Rules(
        60, 3600, 61, 62, 63, 1, True, 64, True, True, 65, "deny", "deny", "self_hosted_only"
    )
    assert parse({}) == parse({"retention": None, "memory": {"task_ttl_max_secs": None}}) == NOTHING


def test_members_that_are_not_known_are_left_alone():
    assert (
        parse({"later": {"x": 1}, "memory": {"later": 2, "superseded_max_count": 3}}).superseded_max_count
        == 3
    )


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ([], "policy"),
        (None, "policy"),
        ({"retention": 5}, "policy.retention"),
        ({"retention": {"pitr_secs": 59}}, "policy.retention.pitr_secs"),
        ({"retention": {"pitr_secs": True}}, "policy.retention.pitr_secs"),
        ({"retention": {"pitr_secs": 60.0}}, "policy.retention.pitr_secs"),
        ({"retention": {"pitr_secs": "60"}}, "policy.retention.pitr_secs"),
        ({"retention": {"pitr_secs": 9 * 10**12}}, "policy.retention.pitr_secs"),
        ({"retention": {"pitr_snapshot_secs": 0}}, "policy.retention.pitr_snapshot_secs"),
        ({"retention": {"pitr_secs": 90, "pitr_snapshot_secs": 80}}, "policy.retention.pitr_snapshot_secs"),
        ({"memory": {"task_ttl_max_secs": 1}}, "policy.memory.task_ttl_max_secs"),
        ({"memory": {"event_max_age_secs": -1}}, "policy.memory.event_max_age_secs"),
        ({"memory": {"superseded_max_age_secs": {}}}, "policy.memory.superseded_max_age_secs"),
        ({"memory": {"superseded_max_count": 0}}, "policy.memory.superseded_max_count"),
        ({"erasure": {"purge_on_forget": 1}}, "policy.erasure.purge_on_forget"),
        ({"erasure": {"grace_secs": 59}}, "policy.erasure.grace_secs"),
        ({"audit": {"enabled": "yes"}}, "policy.audit.enabled"),
        ({"audit": {"include_reads": 0}}, "policy.audit.include_reads"),
        ({"audit": {"retention_secs": 10}}, "policy.audit.retention_secs"),
        ({"ai_egress": {"extract": "self_hosted_only"}}, "policy.ai_egress.extract"),
        ({"ai_egress": {"ask": True}}, "policy.ai_egress.ask"),
        ({"ai_egress": {"embed": "never"}}, "policy.ai_egress.embed"),
    ],
)
def test_what_a_field_does_not_take_is_refused_by_its_name(said, named):
    with pytest.raises(InvalidRequestError, match=rf"^{named} ") as refused:
        parse(said)

    assert ": " in str(refused.value)


def test_profile_has_no_retention_of_the_stream_that_all_share():
    with pytest.raises(InvalidRequestError, match=r"policy\.audit\.retention_secs"):
        parse({"audit": {"retention_secs": 60}}, of_namespace=False)


def test_policy_that_is_too_large_is_refused():
    with pytest.raises(InvalidRequestError, match="at most 16384"):
        parse_new({"later": "x" * policy.POLICY_LIMIT_BYTES})


@pytest.mark.parametrize(
    "said", [{"memory": {"task_ttl_max_sec": 60}}, {"later": {}}, {"later": {"x": 1}}, {"later": 1}]
)
def test_ceiling_takes_no_member_that_it_does_not_know(said):
    if said == {"later": {}}:
        assert policy.parse_ceiling(said) == NOTHING  # it says nothing
        return
    with pytest.raises(InvalidRequestError, match="which no policy has"):
        policy.parse_ceiling(said)


# ---- who may set one


def test_policy_of_a_profile_takes_a_token_for_all_of_it():
    reach = reach_of("/v1/memory/{ns}/{profile}/policy")

    assert reach.whole
    assert reach.surfaces == SURFACES


# ---- what follows


def test_effective_object_has_the_contracts_members():
    assert NOTHING.shown() == {
        "pitr_secs": None,
        "pitr_snapshot_secs": None,
        "task_ttl_max_secs": None,
        "event_max_age_secs": None,
        "superseded_max_age_secs": None,
        "superseded_max_count": None,
        "purge_on_forget": False,
        "erasure_grace_secs": 86_400,
        "audit_enabled": False,
        "audit_include_reads": False,
        "audit_retention_secs": None,
        "extract": "allow",
        "ask": "allow",
        "embed": "allow",
        "reads": None,
    }


@pytest.mark.parametrize(
    ("embed", "own", "foreign"),
    [("allow", True, True), ("self_hosted_only", True, False), ("deny", False, False)],
)
def test_who_may_embed(embed, own, foreign):
    rules = Rules(embed=embed)

    assert (rules.lets_embed(self_hosted=True), rules.lets_embed(self_hosted=False)) == (own, foreign)


@given(st.integers(0, 10**9), st.integers(0, 10**10), SECONDS, SECONDS)
def test_windows_are_never_longer_than_the_nodes_or_the_rules(fine_ms, more_ms, fine_s, coarse_s):
    windows = Windows(fine_ms, fine_ms + more_ms, 3_600_000)

    made = capped(windows, effective(Rules(pitr_secs=fine_s, pitr_snapshot_secs=coarse_s)))

    if fine_s is None and coarse_s is None:
        assert made == windows
        return
    assert 0 < made.fine_ms <= made.coarse_ms
    if fine_ms:
        assert made.fine_ms <= fine_ms
        assert made.coarse_ms <= windows.coarse_ms
    if fine_s is not None:
        assert made.fine_ms <= 1000 * fine_s
    if coarse_s is not None:
        assert made.coarse_ms <= 1000 * coarse_s


def test_reads_of_the_newest_state_are_the_stricter_ones():
    nobody, copies, newest = (parse({"consistency": {"reads": r}}) for r in (None, "cached", "primary"))

    assert effective(nobody, nobody).reads is None
    assert effective(nobody, copies).reads == effective(copies, nobody).reads == "cached"
    assert effective(copies, newest).reads == effective(newest, copies).reads == "primary"
    with pytest.raises(InvalidRequestError, match=r"consistency\.reads"):
        parse({"consistency": {"reads": "stale"}})
