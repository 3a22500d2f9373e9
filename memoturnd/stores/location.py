"""Where objects live, as a URL says it: a scheme, a bucket (or container), and the keys' common prefix."""

import re
from dataclasses import dataclass
from typing import Self

from memoturnd.errors import ConfigurationError
from memoturnd.stores.keys import MAX_KEY_CHARS, MAX_PART_CHARS, is_key

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9._-]{1,61}[a-z0-9])?")
MAX_PREFIX_CHARS = 200


@dataclass(frozen=True, slots=True)
class Location:
    """`{scheme}://{bucket}/{prefix}`; `prefix` is empty or ends in `/`."""

    scheme: str
    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the location that `url` names. Raises ConfigurationError, which never repeats a password."""
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.rstrip("/")
        if not _BUCKET.fullmatch(bucket):
            raise ConfigurationError(
                f"{scheme}:// must be followed by a bucket (3 to 63 of a-z 0-9 . _ -), as in {scheme}://bucket/prefix; "
                "keys and endpoints are no part of it"
            )
        if prefix and (len(prefix) > MAX_PREFIX_CHARS or not is_key(prefix)):
            raise ConfigurationError(
                f"{prefix[:MAX_PART_CHARS]!r} is not a prefix of objects: use parts of A-Z a-z 0-9 . _ - joined by /, "
                f"at most {MAX_PREFIX_CHARS} characters"
            )
        return cls(scheme, bucket, f"{prefix}/" if prefix else "")

    def key(self, key: str) -> str:
        """Return the full name of an object."""
        return self.prefix + key

    def relative(self, name: str) -> str | None:
        """Return the key of a full name as listed; None for what is not an object of ours, a folder marker say."""
        key = name.removeprefix(self.prefix)
        return key if name.startswith(self.prefix) and is_key(key) and len(name) <= MAX_KEY_CHARS else None
