"""Whose memory a call means: what the model named, what the settings say, and what they do not let it name."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from memoturn.errors import InvalidRequestError
from memoturn.mcp.settings import DEFAULT_NAMESPACE, DEFAULT_PROFILE, Pin, Settings

ARGUMENTS: Final = ("profile", "branch")
"""Arguments of every tool that say where; they are taken out before the tool sees the others."""

_JWT_PARTS: Final = 3
_MAIN: Final = "main"


@dataclass(frozen=True)
class Place:
    """A branch of a profile."""

    namespace: str
    profile: str
    branch: str

    @property
    def database(self) -> str:
        """The name of the profile's database."""
        return f"{self.namespace}--{self.profile}"

    @property
    def spec(self) -> str:
        """The address of the branch on database routes."""
        return self.database if self.branch == _MAIN else f"{self.database}@{self.branch}"

    def __str__(self) -> str:
        """Return the place as people write it: `app/alice`, or `app/alice@what-if`."""
        name = f"{self.namespace}/{self.profile}"
        return name if self.branch == _MAIN else f"{name}@{self.branch}"


def default_place(settings: Settings, token: str | None) -> Place:
    """Return the place of a call that names none: of the settings, else of the token, else `default/default`.

    What a token says of itself is not verified here: it is only where the node is asked, which verifies it.
    """
    namespace, profile = settings.namespace, settings.profile
    if profile is None and token:
        claimed_namespace, claimed_profile = _claims(token)
        if namespace is None or namespace == claimed_namespace:
            namespace, profile = claimed_namespace or namespace, claimed_profile
    return Place(namespace or DEFAULT_NAMESPACE, profile or DEFAULT_PROFILE, settings.branch)


def resolve(
    settings: Settings, default: Place, named: Mapping[Literal["profile", "branch"], object]
) -> Place:
    """Return the place that `named` (of `ARGUMENTS`) means. Raises InvalidRequestError, also for what is pinned."""
    namespace, profile, branch = default.namespace, default.profile, default.branch
    if (text := _text(named, "profile")) is not None:
        namespace, profile = _profile(settings, default, text)
    if (text := _text(named, "branch")) is not None:
        if settings.pin >= Pin.BRANCH and text != default.branch:
            raise _refused(f"the branch is fixed to {default.branch}", "leave out branch")
        branch = text
    return Place(namespace, profile, branch)


def place_schema(settings: Settings, default: Place) -> dict[str, Any]:
    """Return the JSON schemas of the arguments that a model may name, by argument."""
    schemas: dict[str, Any] = {}
    if settings.pin < Pin.PROFILE:
        form = "name" if settings.pin >= Pin.NAMESPACE else "namespace/name"
        schemas["profile"] = {
            "type": "string",
            "description": f"Whose: {form}; default {default.profile if form == 'name' else default}",
        }
    if settings.pin < Pin.BRANCH:
        schemas["branch"] = {"type": "string", "description": f"Default {default.branch}"}
    return schemas


def _profile(settings: Settings, default: Place, text: str) -> tuple[str, str]:
    before, slash, after = text.rpartition("/")
    namespace, profile = (before, after) if slash else (default.namespace, text)
    if settings.pin >= Pin.NAMESPACE and namespace != default.namespace:
        raise _refused(f"the namespace is fixed to {default.namespace}", "name the profile alone")
    if settings.pin >= Pin.PROFILE and profile != default.profile:
        raise _refused(f"the profile is fixed to {default.profile}", "leave out profile")
    if not namespace or not profile or "@" in text:
        raise _refused(f"{text!r} is no profile", "write it as namespace/name, and the branch in branch")
    return namespace, profile


def _text(
    named: Mapping[Literal["profile", "branch"], object], argument: Literal["profile", "branch"]
) -> str | None:
    value = named.get(argument)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _refused(f"{argument} is not a string", "send a string, or leave it out")
    return value


def _refused(what: str, then: str) -> InvalidRequestError:
    return InvalidRequestError(f"{what}; {then}", code="invalid_request")


def _claims(token: str) -> tuple[str | None, str | None]:
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None, None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        database, namespace = payload.get("db"), payload.get("ns")
    except (ValueError, binascii.Error, AttributeError, RecursionError):
        return None, None
    if isinstance(database, str) and "--" in database:
        before, _, after = database.partition("--")
        return before, after
    return (namespace, None) if isinstance(namespace, str) and namespace else (None, None)
