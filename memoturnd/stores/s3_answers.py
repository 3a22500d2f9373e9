"""What an answer of a bucket means: the one table from status and error code to what the caller may conclude.

No I/O, so that every dialect (AWS, MinIO, Ceph RGW, Azure and others) is a row of a test.
"""

from enum import Enum


class Answer(Enum):
    """What a failed request proves."""

    LOST = "lost"
    """The condition does not hold; nothing was written, and this request never will."""
    CONFLICT = "conflict"
    """Another request on the key is under way; nothing was written. Read again, then decide."""
    MISSING = "missing"
    """No object has that key."""
    BEYOND = "beyond"
    """The range starts where the object has ended already."""
    REFUSED = "refused"
    """Credentials, bucket, region or policy are wrong: nothing was done, and repeating it does not help."""
    UNCLEAR = "unclear"
    """The store failed or was busy: a write may have landed, or may still land."""


_TRANSIENT = {
    # 4xx by status, and yet only this request was unlucky.
    "BadDigest",
    "IncompleteBody",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "XAmzContentSHA256Mismatch",
}

_NO_OBJECT = {"NoSuchKey", "BlobNotFound"}
_EXISTS = {"BlobAlreadyExists"}
_HINTS = {
    "NoSuchBucket": "the bucket does not exist there; make it, or set MEMOTURN_OBJECT_STORE and the endpoint right",
    "ContainerNotFound": "the container does not exist there; make it, or set MEMOTURN_OBJECT_STORE right",
    "InvalidBucketName": "the store takes no bucket of that name; set MEMOTURN_OBJECT_STORE right",
    "InvalidAccessKeyId": "the store does not know the access key; check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is not the one of the access key; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the session token has expired; renew the credentials",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN, and unset it for long-lived keys",
    "RequestTimeTooSkewed": "the clock of this machine and the store's differ too much; set the clock",
    "AuthorizationHeaderMalformed": "the region is wrong; set AWS_REGION to the bucket's",
    "PermanentRedirect": "the bucket is in another region or behind another endpoint; set AWS_REGION",
    "NotImplemented": "the store does not know such a request; choose another one",
}
_DENIED = "these credentials may not do that; docs/object-stores.md has the policy that a node needs"
_OTHER = "check endpoint, region, bucket and credentials"


def meaning(status: int, code: str, *, bodiless: bool = False) -> Answer:
    """Return what an answer with HTTP `status` (300 or more) and error `code` proves.

    `bodiless` is an answer to HEAD, which cannot carry a code. Elsewhere a 404 means a missing object only when it
    says so: a wrong endpoint and a missing bucket answer 404 too, and must not look like an empty store.
    """
    if code in _TRANSIENT or status == 429:  # noqa: PLR2004 - too many requests
        return Answer.UNCLEAR
    match status:
        case 412:
            return Answer.LOST
        case 409:
            return Answer.LOST if code in _EXISTS else Answer.CONFLICT
        case 404:
            return Answer.MISSING if bodiless or code in _NO_OBJECT else Answer.REFUSED
        case 416:
            return Answer.BEYOND
        case _ if status >= 500:  # noqa: PLR2004 - the store's own failures
            return Answer.REFUSED if code == "NotImplemented" else Answer.UNCLEAR
        case _:
            return Answer.REFUSED


def hint(status: int, code: str) -> str:
    """Return what to do about a refusal. Nothing that the store said is repeated: it may quote credentials."""
    if code in _HINTS:
        return _HINTS[code]
    return _DENIED if status in {401, 403} else _OTHER


class EtagDialect:
    """How a store wants an etag spelled in a condition: as it gave it, in quotes, or bare (Ceph RGW).

    Both spellings are tried until one was taken; the other one is never taken by mistake, since the bare text is
    the same version.
    """

    def __init__(self) -> None:
        self._quoted: bool | None = None

    def spellings(self, etag: str) -> tuple[str, ...]:
        """Return what to send for `etag`, the likelier first."""
        bare = etag.strip('"')
        if self._quoted is None and bare != etag:
            return (etag, bare)
        return (bare,) if self._quoted is False else (etag,)

    def took(self, spelled: str) -> None:
        """Learn from a condition that held."""
        self._quoted = spelled.startswith('"')
