"""The gateway's settings: environment variables, read once, checked all at once. Those that nodes have too mean the same here."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from memoturnd.config import (
    CLIENT_VARIABLES,
    FILE,
    PREFIX,
    TEST_VARIABLES,
    every_page,
    parsed,
    rows_of_help,
)
from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import (
    MIB,
    SETTINGS,
    Address,
    Secret,
    Setting,
    did_you_mean,
    listen_address,
    whole_number,
)

_SHARED: Final = frozenset(
    {
        "MEMOTURN_ETCD",
        "MEMOTURN_ETCD_CA_FILE",
        "MEMOTURN_ETCD_PREFIX",
        "MEMOTURN_LEASE_TTL_S",
        "MEMOTURN_AUTH",
        "MEMOTURN_CORS_ORIGINS",
        "MEMOTURN_REQUEST_TIMEOUT",
        "MEMOTURN_MODEL_TIMEOUT_S",
        "MEMOTURN_REQUEST_LOG",
        "MEMOTURN_SLOW_REQUEST_MS",
        "MEMOTURN_LOG_LEVEL",
        "MEMOTURN_LOG_FORMAT",
    }
)
GATEWAY_SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "MEMOTURN_GATEWAY_LISTEN",
        "listen",
        listen_address,
        "127.0.0.1:8090",
        "",
        "Address to listen on. Anything but loopback takes MEMOTURN_AUTH=on, which the nodes must have as well: they ask for "
        "credentials, the gateway does not.",
    ),
    Setting(
        "MEMOTURN_GATEWAY_CONCURRENCY",
        "gateway_concurrency",
        whole_number(1, 100_000),
        "1024",
        "",
        "Requests that wait for nodes at once; eight times as many wait for their turn, the rest is 429.",
    ),
    Setting(
        "MEMOTURN_GATEWAY_BODY_BYTES",
        "gateway_body_bytes",
        whole_number(MIB, 2**40),
        str(256 * MIB),
        "bytes",
        "Memory for the bodies of requests, of which the first 1 MiB is kept to be sent again; beyond it requests are 429.",
    ),
    Setting(
        "MEMOTURN_GATEWAY_HEDGE_MS",
        "gateway_hedge_ms",
        whole_number(0, 60_000),
        "0",
        "ms",
        "After how long a read with `Memoturn-Consistency: cached` goes to a second node as well; 0 for never.",
    ),
    *(setting for setting in SETTINGS if setting.variable in _SHARED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Every setting of a gateway, checked. The fields are described in `GATEWAY_SETTINGS`; units are last in names."""

    listen: Address
    gateway_concurrency: int
    gateway_body_bytes: int
    gateway_hedge_ms: int
    etcd: Secret
    etcd_ca_file: Path | None
    etcd_prefix: str
    lease_ttl_s: int
    auth: Literal["off", "on"]
    cors_origins: tuple[str, ...]
    request_timeout_s: float
    model_timeout_s: float
    request_log: Literal["off", "problems", "all"]
    slow_request_ms: int
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["console", "json"]

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, is_tty: bool | None = None) -> Self:
        """Return the settings in `environ`. Raises ConfigurationError with every problem at once, one per line."""
        problems = _strange(environ)
        values = parsed(GATEWAY_SETTINGS, environ, problems)
        problems += _contradictions(values)
        if problems:
            lines = "".join(f"\n  - {problem}" for problem in problems)
            raise ConfigurationError(f"the settings are wrong (memoturn-gateway --help lists them):{lines}")
        values["cors_origins"] = values["cors_origins"] or ()
        if values["log_format"] is None:
            tty = sys.stderr.isatty() if is_tty is None else is_tty
            values["log_format"] = "console" if tty else "json"
        return cls(**values)


def help_text() -> str:
    """Return the settings for a terminal."""
    return rows_of_help(GATEWAY_SETTINGS)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = every_page(values)
    if values.get("etcd") is None:
        problems.append("MEMOTURN_ETCD is not set: it is where the gateway learns which node owns what")
    listen = values.get("listen")
    if listen is not None and not listen.is_loopback and values.get("auth") != "on":
        problems.append(
            f"MEMOTURN_GATEWAY_LISTEN='{listen}': other machines could reach nodes that ask nobody for a credential; set "
            "MEMOTURN_AUTH=on here and at the nodes, or listen on 127.0.0.1, [::1] or localhost"
        )
    return problems


def _strange(environ: Mapping[str, str]) -> list[str]:
    """Return what is no setting at all; those of nodes may be there, and are not looked at."""
    known = {setting.variable for setting in (*GATEWAY_SETTINGS, *SETTINGS)}
    known |= {setting.variable + FILE for setting in SETTINGS if setting.secret}
    return [
        f"{name} is not a setting{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in known | CLIENT_VARIABLES
        and not name.startswith(TEST_VARIABLES)
    ]
