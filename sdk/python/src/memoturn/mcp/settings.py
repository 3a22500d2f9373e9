"""What the server is told: where the node is, whose memory a call means, which tools there are, and every bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from memoturn.errors import InvalidRequestError

DEFAULT_NAMESPACE: Final = "default"
DEFAULT_PROFILE: Final = "default"
CALL_TIMEOUT_S: Final = 60.0
ANSWER_BYTES: Final = 64 * 1024
PORT: Final = 8765
SESSIONS_MAX: Final = 1000
SESSIONS_PER_TOKEN: Final = 64
SESSION_IDLE_S: Final = 3600.0
BODY_BYTES: Final = 4 * 1024 * 1024
BODY_TIMEOUT_S: Final = 20.0
CONNECTIONS_MAX: Final = 1000
STOP_GRACE_S: Final = 20.0
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Pin(IntEnum):
    """How much of the place is fixed, so that a model cannot name another; each includes those before it."""

    NONE = 0
    NAMESPACE = 1
    PROFILE = 2
    BRANCH = 3


@dataclass(frozen=True)
class Settings:
    """Settings of both transports. `namespace` and `profile` are None where nothing was said about them."""

    url: str = "http://127.0.0.1:8080"
    token: str | None = None
    source: str | None = None
    namespace: str | None = None
    profile: str | None = None
    branch: str = "main"
    pin: Pin = Pin.NONE
    read_only: bool = False
    destructive: bool = True
    call_timeout_s: float = CALL_TIMEOUT_S
    answer_bytes: int = ANSWER_BYTES

    def __post_init__(self) -> None:
        """Raise InvalidRequestError for a pin on what was not named."""
        missing = [
            option
            for option, value, needed in (
                ("--namespace", self.namespace, Pin.NAMESPACE),
                ("--profile", self.profile, Pin.PROFILE),
            )
            if self.pin >= needed and not value
        ]
        if missing:
            raise InvalidRequestError(
                f"--pin {self.pin.name.lower()} fixes what it does not know; name it with {' and '.join(missing)}",
                code="invalid_request",
            )


@dataclass(frozen=True)
class HttpSettings:
    """Settings of the HTTP transport alone. `hosts` and `origins` are allowed besides those of loopback."""

    host: str = "127.0.0.1"
    port: int = PORT
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    sessions_max: int = SESSIONS_MAX
    sessions_per_token: int = SESSIONS_PER_TOKEN
    session_idle_s: float = SESSION_IDLE_S
    body_bytes: int = BODY_BYTES
    body_timeout_s: float = BODY_TIMEOUT_S
    connections_max: int = CONNECTIONS_MAX
    stop_grace_s: float = STOP_GRACE_S

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        return self.host in LOOPBACK


def read_token(token: str | None, token_file: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the token of `--token-file` or MEMOTURN_TOKEN_FILE, else `token`. Raises InvalidRequestError."""
    name = token_file or environ.get("MEMOTURN_TOKEN_FILE")
    if name:
        return _token_in(Path(name).expanduser())
    if token and token.startswith("$"):
        raise InvalidRequestError(
            f"the token is the text {token[:40]!r}: the client has not put a value there; set that variable in the "
            "environment that the client is started from, or use --token-file",
            code="invalid_request",
        )
    return token or None


def _token_in(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"the token file {path} cannot be read ({error.__class__.__name__}); write the token to it, or unset "
            "MEMOTURN_TOKEN_FILE",
            code="invalid_request",
        ) from error
    if not text:
        raise InvalidRequestError(
            f"the token file {path} is empty; write the token to it", code="invalid_request"
        )
    return text
