"""Every class of the error tree has its status, and the envelope has its two fields."""

import msgspec
import pytest

from memoturnd import errors
from memoturnd.http.envelope import STATUS, error_reply, internal_error_reply, status_of
from memoturnd.seams.leases import Owner
from memoturnd.seams.object_store import ObjectMissingError

ROWS = [
    (errors.InvalidRequestError("x"), 400, "invalid_request"),
    (errors.PayloadTooLargeError("x"), 413, "payload_too_large"),
    (errors.UnsupportedMediaError("x"), 415, "unsupported_media_type"),
    (errors.UnauthorizedError("x"), 401, "unauthorized"),
    (errors.ForbiddenError("x"), 403, "forbidden"),
    (errors.NotFoundError("x"), 404, "not_found"),
    (errors.DatabaseNotFoundError("x"), 404, "database_not_found"),
    (errors.BranchNotFoundError("x"), 404, "branch_not_found"),
    (errors.MethodNotAllowedError("x"), 405, "method_not_allowed"),
    (errors.ChangesGoneError("x"), 410, "changes_gone"),
    (errors.AlreadyExistsError("x"), 409, "already_exists"),
    (errors.ConflictError("x"), 409, "conflict"),
    (errors.FencedError("x"), 409, "conflict"),
    (errors.IdempotencyKeyReusedError("x"), 422, "idempotency_key_reused"),
    (errors.PreconditionFailedError("x"), 412, "precondition_failed"),
    (errors.RetryableError("x"), 503, "unavailable"),
    (errors.OverloadedError("x"), 429, "overloaded"),
    (errors.RequestTimeoutError("x"), 408, "request_timeout"),
    (errors.StoreUnavailableError("x"), 503, "unavailable"),
    (errors.StoreRefusedError("x"), 503, "unavailable"),
    (errors.StoreRefusedError("x"), 503, "unavailable"),
    (errors.DiskFullError("x"), 503, "unavailable"),
    (errors.NotDurableError("x"), 500, "not_durable"),
    (errors.NotOwnerError("x"), 421, "not_owner"),
    (errors.OutcomeUnknownError("x"), 500, "outcome_unknown"),
    (errors.UnansweredError("x"), 503, "unavailable"),
    (errors.UnconfiguredError("x"), 503, "unconfigured"),
    (errors.UpstreamError("x"), 502, "internal"),
    (errors.CorruptionError("x"), 500, "internal"),
    (errors.InvariantError("x"), 500, "internal"),
    (errors.ConfigurationError("x"), 500, "internal"),
    (errors.MemoturnError("x"), 500, "internal"),
    (ObjectMissingError("x"), 500, "internal"),
]


@pytest.mark.parametrize(("error", "status", "code"), ROWS, ids=lambda value: type(value).__name__)
def test_error_class_answers_its_status_and_code(error, status, code):
    answer = error_reply(error)

    assert answer.status == status_of(error) == status
    assert msgspec.json.decode(answer.body) == {"error": "x", "code": code}


UNAPPLIED = [
    (errors.NotOwnerError("x"), True),
    (errors.OverloadedError("x"), True),
    (errors.StoreUnavailableError("x"), True),
    (errors.DiskFullError("x"), True),
    (errors.RequestTimeoutError("x"), False),
    (errors.UnansweredError("x"), False),
    (errors.OutcomeUnknownError("x"), False),
    (errors.NotDurableError("x"), False),
    (errors.ConflictError("x"), False),
]


def test_every_row_of_the_table_and_every_class_of_the_tree_is_tried():
    tried = {type(error) for error, _, _ in ROWS}
    tree = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.MemoturnError)
    }

    assert set(STATUS) <= tried
    assert tree <= tried


@pytest.mark.parametrize(
    "error", [errors.OverloadedError("x", retry_after_s=7), errors.DiskFullError("x", retry_after_s=7)]
)
def test_error_that_passes_by_itself_says_when_to_come_back(error):
    assert (b"retry-after", b"7") in error_reply(error).headers


def test_retry_after_is_never_zero():
    assert (b"retry-after", b"1") in error_reply(errors.OverloadedError("x", retry_after_s=0)).headers


def test_timeout_does_not_invite_a_blind_retry():
    assert not [
        name for name, _ in error_reply(errors.RequestTimeoutError("x")).headers if name == b"retry-after"
    ]


def test_write_that_did_not_become_durable_says_so_and_does_not_invite_a_repeat():
    headers = error_reply(errors.NotDurableError("x")).headers

    assert (b"memoturn-durability", b"local") in headers
    assert not [name for name, _ in headers if name == b"retry-after"]


def test_missing_credential_names_the_scheme():
    assert (b"www-authenticate", b"Bearer") in error_reply(errors.UnauthorizedError("x")).headers


def test_internal_error_names_only_the_request_id():
    body = msgspec.json.decode(internal_error_reply("abc").body)

    assert body["code"] == "internal"
    assert body["error"].endswith("abc")


@pytest.mark.parametrize(("error", "said"), UNAPPLIED)
def test_what_was_surely_not_applied_is_said_to_be_so(error, said):
    assert ((b"memoturn-applied", b"false") in error_reply(error).headers) is said


def test_an_answer_that_is_not_the_owners_names_him():
    owner = Owner("n1", "http://n1:8080", 7)

    headers = error_reply(errors.NotOwnerError("x", owner)).headers

    assert headers[-3:] == [
        (b"memoturn-owner-node", b"n1"),
        (b"memoturn-owner", b"http://n1:8080"),
        (b"memoturn-owner-epoch", b"7"),
    ]
