"""What a credential opens, and that what one may hand on opens nothing more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import coverage, tokens
from memoturnd.core.coverage import Reach, Scope, Target, check, reach_of
from memoturnd.core.principal import SCOPES, SURFACES, Grant, Principal
from memoturnd.errors import ForbiddenError, InvalidRequestError, MemoturnError

NAMESPACES, PROFILES, BRANCHES = ["app", "web"], ["ann", "bob", "cy"], ["main", "dev", "try"]
DATABASES = [f"{ns}--{profile}" for ns in NAMESPACES for profile in PROFILES] + ["app", "notes"]
LIMITS = sorted(tokens.LIMIT_NAMES)
PLATFORM = Principal("platform")
INTERNAL = Principal("internal")


def bearer(grant, **more):
    return Principal("token", grant=grant, token_id="tok_1", issued_at=1, expires_at=10_000_000, **more)


def some(values):
    return st.none() | st.frozensets(st.sampled_from(values), min_size=1)


@st.composite
def grants(draw):
    of_namespace = draw(st.booleans())
    return Grant(
        draw(st.sampled_from(SCOPES)),
        db="" if of_namespace else draw(st.sampled_from(DATABASES)),
        ns=draw(st.sampled_from(NAMESPACES)) if of_namespace else "",
        branches=draw(some(BRANCHES)),
        surfaces=draw(some(sorted(SURFACES))),
        profiles=draw(some(PROFILES)) if of_namespace else None,
        limits=draw(st.dictionaries(st.sampled_from(LIMITS), st.floats(1, 5))),
    )


REACHES = [Reach(frozenset({surface})) for surface in sorted(SURFACES)]
REACHES += [Reach(frozenset()), Reach(SURFACES), Reach(frozenset({"branches"}), whole=True)]
DATA = [
    (scope, reach, Target(db, branches=frozenset({branch})))
    for scope in (Scope.READ, Scope.WRITE, Scope.ADMIN)
    for reach in REACHES
    for db in DATABASES
    for branch in BRANCHES
]
NAMED = [(Scope.NAMESPACE, Reach(frozenset()), Target(ns=ns)) for ns in NAMESPACES]
MINTING = [
    (Scope.NAMESPACE_ADMIN, Reach(frozenset()), target)
    for target in [*(Target(ns=ns) for ns in NAMESPACES), *(Target(db) for db in DATABASES)]
]


def opened(sender):
    """Everything of the small world that a sender may do."""
    found = set()
    for row in [*DATA, *NAMED, *MINTING]:
        try:
            check(sender, *row)
        except ForbiddenError:
            continue
        found.add(row)
    return found


@given(grants(), grants())
def test_what_a_minted_token_opens_is_a_subset_of_its_minters(own, asked):
    minter = bearer(own)
    try:
        grant = tokens.narrowed(minter, tokens.check_grant(asked))
    except MemoturnError:
        return
    assert opened(bearer(grant)) <= opened(minter)
    for name, most in own.limits.items():
        assert grant.limits[name] <= most
    assert not tokens.wider_than(own, grant)


@given(grants())
def test_a_token_may_be_minted_with_the_same_grant_and_no_other_lets_go_of_a_limit(own):
    assert tokens.narrowed(bearer(own), own) == own
    open_one = Grant(own.scope, own.db, own.ns)
    assert tokens.narrowed(bearer(own), open_one) == own


@given(grants())
def test_the_operator_mints_any(asked):
    assert tokens.narrowed(PLATFORM, asked) == asked


def test_what_a_greater_token_would_open_is_refused_by_the_name_of_what_is_greater():
    own = Grant("write", ns="app", branches=frozenset({"main"}), surfaces=frozenset({"kv"}),
                profiles=frozenset({"ann"}), limits={"writes_per_s": 2})  # fmt: skip
    for asked, what in [
        (Grant("admin", ns="app"), "scope"),
        (Grant("read", ns="web"), "another namespace"),
        (Grant("read", db="web--ann"), "another namespace"),
        (Grant("read", db="app--bob"), "another namespace"),
        (Grant("read", ns="app", branches=frozenset({"main", "dev"})), "branches"),
        (Grant("read", ns="app", surfaces=frozenset({"sql"})), "surfaces"),
        (Grant("read", ns="app", profiles=frozenset({"bob"})), "profiles"),
        (Grant("read", ns="app", limits={"writes_per_s": 3}), "writes_per_s"),
    ]:
        with pytest.raises(ForbiddenError, match=what):
            tokens.narrowed(bearer(own), asked)


def test_a_token_lives_no_longer_than_its_minter_and_than_is_allowed():
    minter = bearer(Grant("admin", ns="app"))
    assert tokens.lifetime_s(minter, 5000, now_ms=5_000_000, max_lifetime_s=9000) == 5000
    assert tokens.lifetime_s(minter, None, now_ms=5_000_000, max_lifetime_s=9000) == 3600
    assert tokens.lifetime_s(minter, None, now_ms=9_000_000, max_lifetime_s=9000) == 1000
    assert tokens.lifetime_s(PLATFORM, None, now_ms=0, max_lifetime_s=100) == 100
    with pytest.raises(ForbiddenError, match="outlive"):
        tokens.lifetime_s(minter, 5001, now_ms=5_000_000, max_lifetime_s=9000)
    with pytest.raises(InvalidRequestError, match="MAX_LIFETIME"):
        tokens.lifetime_s(PLATFORM, 9001, now_ms=0, max_lifetime_s=9000)


def test_a_long_row_of_tokens_minted_with_one_another_ends():
    minter = bearer(Grant("admin", ns="app"), parents=("x",) * tokens.PARENTS_LIMIT)
    with pytest.raises(ForbiddenError, match="minted with one another"):
        tokens.narrowed(minter, Grant("read", ns="app"))


@pytest.mark.parametrize(
    "grant",
    [
        Grant("read", ns="app", surfaces=frozenset({"all"})),
        Grant("read", ns="app", surfaces=frozenset()),
        Grant("read", ns="app", branches=frozenset({"../x"})),
        Grant("read", ns="app", branches=frozenset(f"b{n}" for n in range(101))),
        Grant("read", ns="app", profiles=frozenset({"A"})),
        Grant("read", db="notes", profiles=frozenset({"ann"})),
        Grant("read", ns="app", limits={"bytes": 1}),
        Grant("read", ns="app", limits={"writes_per_s": 0}),
        Grant("read", ns="app", limits={"writes_per_s": float("inf")}),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(grant):
    with pytest.raises(InvalidRequestError):
        tokens.check_grant(grant)


# ---- coverage


def test_keys_open_what_is_theirs_and_no_data_but_for_the_cluster_key():
    row = (Reach(frozenset()), Target("notes", "app"))
    for scope, kinds in {
        Scope.NONE: {"platform", "internal", "token"},
        Scope.PLATFORM: {"platform"},
        Scope.INTERNAL: {"internal"},
        Scope.NAMESPACE_ADMIN: {"platform"},
        Scope.NAMESPACE: {"internal"},
        Scope.READ: {"internal", "token"},
        Scope.WRITE: {"internal", "token"},
        Scope.ADMIN: {"internal", "token"},
    }.items():
        for sender in (PLATFORM, INTERNAL, bearer(Grant("admin", "notes"))):
            if sender.kind in kinds:
                check(sender, scope, *row)
            else:
                with pytest.raises(ForbiddenError):
                    check(sender, scope, *row)


@given(grants(), st.sampled_from(DATA))
def test_a_data_route_opens_exactly_where_everything_fits(grant, row):
    scope, reach, target = row
    ns, _, profile = target.db.partition("--")
    fits = (
        (grant.db == target.db or (grant.ns == ns and profile and profile in (grant.profiles or PROFILES)))
        and SCOPES.index(grant.scope) >= SCOPES.index(scope.value)
        and reach.surfaces <= (grant.surfaces or SURFACES)
        and (grant.branches is None or (target.branches <= grant.branches and not reach.whole))
    )
    assert (row in opened_rows(bearer(grant), [row])) == bool(fits)


def opened_rows(sender, rows):
    found = set()
    for row in rows:
        try:
            check(sender, *row)
        except ForbiddenError:
            continue
        found.add(row)
    return found


def test_a_route_that_nobody_knows_reaches_for_everything():
    assert reach_of("/v1/db/{db}/new") == Reach(SURFACES, whole=True)
    assert reach_of("/v1/db/{db}/kvs/{ns}") == Reach(SURFACES, whole=True)
    assert reach_of("/v1/db/{db}/kv/{ns}/{key}") == Reach(frozenset({"kv"}))


class Main:
    branch = "main"


@pytest.mark.parametrize(
    ("template", "params", "target"),
    [
        ("/v1/db/{db}/sql", {"db": "notes@dev"}, Target("notes", branches=frozenset({"dev"}))),
        ("/v1/db/{db}/branches/{branch}", {"db": "notes", "branch": "dev"},
         Target("notes", branches=frozenset({"main", "dev"}))),
        ("/v1/memory/{ns}/{profile}/recall", {"ns": "app", "profile": "ann"},
         Target("app--ann", "app", frozenset({"main"}))),
        ("/v1/memory/{ns}", {"ns": "app"}, Target(ns="app")),
        ("/v1/namespaces/{ns}/tokens", {"ns": "app"}, Target(ns="app")),
        ("/v1/databases/{db}/tokens", {"db": "app--ann"}, Target("app--ann")),
        ("/v1/databases", {}, Target()),
    ],
)  # fmt: skip
def test_a_path_names_its_target(template, params, target):
    assert coverage.target_of(params, template, Main()) == target


@pytest.mark.parametrize(
    ("template", "params"),
    [
        ("/v1/db/{db}/sql", {"db": "acme/notes"}),
        ("/v1/db/{db}/sql", {"db": "notes@"}),
        ("/v1/db/{db}/sql", {"db": "a--b--c"}),
        ("/v1/memory/{ns}/{profile}/recall", {"ns": "app--x", "profile": "ann"}),
        ("/v1/databases/{db}/tokens", {"db": "notes@dev"}),
    ],
)
def test_what_is_no_name_has_no_target(template, params):
    with pytest.raises(InvalidRequestError):
        coverage.target_of(params, template, Main())


def test_senders_of_two_tenants_never_have_one_name():
    everybody = [
        sender
        for tenant in ("default", "acme")
        for sender in (
            Principal("anonymous", tenant),
            Principal("platform", tenant),
            Principal("internal", tenant),
            Principal("token", tenant, Grant("read", "notes"), token_id="tok_1"),
            Principal("token", tenant, Grant("read", "notes"), token_id="tok_2", subject="tok_1"),
        )
    ]
    assert len({sender.name for sender in everybody}) == len(everybody)
