"""The standard AWS_* settings, read the same way for both S3 clients, and what is wrong with them."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import NoCredentialsError, PartialCredentialsError, ProfileNotFound
from botocore.session import Session

from memoturnd.errors import StoreRefusedError

DEFAULT_REGION = "us-east-1"
"""The region to sign for when none is set: stores with an endpoint of their own seldom have any."""


def region_of(session: Session) -> str:
    """Return AWS_REGION, AWS_DEFAULT_REGION, or what the profile says."""
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or DEFAULT_REGION
    return str(region)


def endpoint_of(session: Session) -> str | None:
    """Return the endpoint that is set, None for Amazon's own. Raises StoreRefusedError when it is no URL."""
    url = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or session.get_scoped_config().get("endpoint_url")
    )
    if not url:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise StoreRefusedError(
            "object store: AWS_ENDPOINT_URL must be http://HOST:PORT or https://HOST:PORT"
        )
    return str(url)


def bundle_of(session: Session) -> bytes | None:
    """Return the certificates to trust besides the system's, None when none are set. Raises StoreRefusedError."""
    path = session.get_config_variable("ca_bundle")
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise StoreRefusedError(
            f"object store: AWS_CA_BUNDLE={path} cannot be read: {error.strerror}"
        ) from None


def shown(url: str) -> str:
    """Return an endpoint as it may be shown: without user, password, path or query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}"


def unusable(error: Exception) -> StoreRefusedError:
    """Return the error for settings that no request can be made with."""
    match error:
        case StoreRefusedError():
            return error
        case NoCredentialsError():
            text = (
                "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run where "
                "the machine has a role"
            )
        case PartialCredentialsError():
            text = "half of the credentials are missing: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        case ProfileNotFound():
            text = "AWS_PROFILE names a profile that is in no AWS configuration file"
        case _:
            text = f"the AWS settings do not work ({type(error).__name__}): check AWS_* and MEMOTURN_OBJECT_STORE"
    return StoreRefusedError(f"object store: {text}")
