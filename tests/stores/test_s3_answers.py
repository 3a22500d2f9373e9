"""The dialects of S3 as a table: what each answer may be taken for."""

import pytest

from memoturnd.errors import StoreRefusedError
from memoturnd.stores.repeat import put_again
from memoturnd.stores.s3_answers import Answer, EtagDialect, hint, meaning

ANSWERS = [
    # a conditional write that lost
    (412, "PreconditionFailed", Answer.LOST),  # AWS, MinIO, R2, RGW (also for a missing object)
    (412, "ConditionNotMet", Answer.LOST),  # Azure
    (409, "BlobAlreadyExists", Answer.LOST),  # Azure, create
    # read again, then decide
    (409, "ConditionalRequestConflict", Answer.CONFLICT),  # AWS
    (409, "OperationAborted", Answer.CONFLICT),  # AWS
    # no such object, and what only looks like it
    (404, "NoSuchKey", Answer.MISSING),
    (404, "BlobNotFound", Answer.MISSING),
    (404, "NoSuchBucket", Answer.REFUSED),
    (404, "ContainerNotFound", Answer.REFUSED),
    (404, "", Answer.REFUSED),  # a web server that is no object store
    (404, "404", Answer.REFUSED),
    (416, "InvalidRange", Answer.BEYOND),
    # it may have landed
    (500, "InternalError", Answer.UNCLEAR),  # also the losers of a race at RGW
    (503, "SlowDown", Answer.UNCLEAR),
    (503, "ServiceUnavailable", Answer.UNCLEAR),
    (503, "SlowDownWrite", Answer.UNCLEAR),  # MinIO
    (503, "XMinioServerNotInitialized", Answer.UNCLEAR),
    (507, "XMinioStorageFull", Answer.UNCLEAR),
    (502, "", Answer.UNCLEAR),
    (429, "TooManyRequests", Answer.UNCLEAR),
    (400, "RequestTimeout", Answer.UNCLEAR),
    (400, "IncompleteBody", Answer.UNCLEAR),
    (400, "BadDigest", Answer.UNCLEAR),
    # somebody has to change a setting
    (400, "InvalidArgument", Answer.REFUSED),
    (400, "ExpiredToken", Answer.REFUSED),
    (401, "", Answer.REFUSED),
    (403, "AccessDenied", Answer.REFUSED),
    (403, "SignatureDoesNotMatch", Answer.REFUSED),
    (403, "RequestTimeTooSkewed", Answer.REFUSED),
    (301, "PermanentRedirect", Answer.REFUSED),
    (405, "MethodNotAllowed", Answer.REFUSED),
    (501, "NotImplemented", Answer.REFUSED),
]


@pytest.mark.parametrize(("status", "code", "expected"), ANSWERS)
def test_answer_means(status, code, expected):
    assert meaning(status, code) is expected


def test_answer_to_head_has_no_code():
    assert meaning(404, "404", bodiless=True) is Answer.MISSING
    assert meaning(403, "403", bodiless=True) is Answer.REFUSED


@pytest.mark.parametrize(
    ("status", "code"), [(s, c) for s, c, expected in ANSWERS if expected is Answer.REFUSED]
)
def test_every_refusal_says_what_to_do(status, code):
    assert len(hint(status, code)) > 20


def test_spelling_of_etags_is_learnt_from_what_was_taken():
    dialect = EtagDialect()
    assert dialect.spellings('"abc"') == ('"abc"', "abc")

    dialect.took("abc")  # Ceph RGW

    assert dialect.spellings('"def"') == ("def",)

    dialect.took('"def"')
    assert dialect.spellings('"abc"') == ('"abc"',)


def test_etag_without_quotes_has_one_spelling():
    assert EtagDialect().spellings("1761234567890") == ("1761234567890",)


@pytest.mark.parametrize("refusals", [0, 1, 2, 3])
async def test_put_is_repeated_while_it_is_refused_three_times_at_most(refusals):
    calls = []

    async def put():
        calls.append(1)
        if len(calls) <= refusals:
            raise StoreRefusedError("403 AccessDenied")

    if refusals < 3:
        await put_again(put)
        assert len(calls) == refusals + 1
    else:
        with pytest.raises(StoreRefusedError):
            await put_again(put)
        assert len(calls) == 3
