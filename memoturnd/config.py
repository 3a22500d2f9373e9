"""The node's settings: environment variables, read once, checked all at once, then frozen.

The table in `memoturnd.settings_table` drives parsing, `memoturnd --help` and the documentation.
"""

import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from memoturnd.cluster_settings import cluster_problems, standing
from memoturnd.core.limits import Defaults, Quotas
from memoturnd.core.policy import NOTHING, Rules
from memoturnd.core.self_hosted import is_self_hosted
from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import KIB, SETTINGS, Address, Secret, Setting, did_you_mean

PREFIX = "MEMOTURN_"

LOCAL_MODEL = "all-minilm-l6-v2"
LOCAL_DIMENSIONS = 384
HOT_PROFILE_BYTES = 450 * KIB
HOT_PROFILE_DESCRIPTORS = 6
RESERVED_DESCRIPTORS = 256
"""Kept back from hot profiles for sockets, the catalog, objects being read and written, and logs."""

FILE = "_FILE"
"""What a secret's variable ends with where it names a file that holds the secret."""
_OWN_FILES = frozenset(setting.variable for setting in SETTINGS if setting.variable.endswith(FILE))
"""Files that are read again while the node runs, and so are settings of their own."""
_OF_CLIENTS = "URL TOKEN TOKEN_FILE TENANT CONFIG SOURCE NAMESPACE PROFILE BRANCH"
_OF_MCP = (
    "HOST PORT PIN READ_ONLY NO_DESTRUCTIVE ALLOW_HOST ALLOW_ORIGIN SESSIONS SESSIONS_PER_TOKEN SESSION_IDLE_S "
    "CALL_TIMEOUT_S ANSWER_BYTES"
)
CLIENT_VARIABLES = frozenset(
    PREFIX + name for name in (*_OF_CLIENTS.split(), *(f"MCP_{name}" for name in _OF_MCP.split()))
)
"""Settings of the clients, which may share the node's environment."""
GATEWAY_PREFIX = PREFIX + "GATEWAY_"
"""What settings of gateways alone begin with, which may share the node's environment."""
TEST_VARIABLES = (PREFIX + "TEST_", PREFIX + "REQUIRE_SERVICES", PREFIX + "SERVICES_DIR")
"""What settings of the test suite and of `scripts/services` begin with; they may be left in a developer's shell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of a node, checked. The fields are described in `SETTINGS`; units are last in names."""

    data_dir: Path
    listen: Address
    advertise: str
    node_id: str
    object_store: str
    s3_client: Literal["aiobotocore", "obstore"]
    s3_connections: int
    catalog: Secret | None
    etcd: Secret | None
    etcd_ca_file: Path | None
    etcd_prefix: str
    lease_ttl_s: int
    auth: Literal["off", "on"]
    cors_origins: tuple[str, ...]
    platform_key: Secret | None
    platform_key_file: Path | None
    cluster_key: Secret | None
    cluster_key_file: Path | None
    auth_key: Secret | None
    auth_key_file: Path | None
    persist_auth_key: bool
    token_audience: str | None
    token_max_lifetime_s: int
    durability: Literal["local", "replicated", "durable"]
    sync_replicas: int
    sync: Literal["normal", "full"]
    hot_cap: int
    memory_budget_bytes: int
    recall_cache_bytes: int
    disk_budget_bytes: int
    warm_after_s: float
    cold_after_s: float
    sqlite_threads: int
    write_queue_depth: int
    request_timeout_s: float
    max_body_bytes: int
    max_import_bytes: int
    max_concurrency: int
    control_rate: float
    ship_interval_ms: int
    ship_rate: float
    ship_concurrency: int
    unshipped_max_bytes: int
    unshipped_max_age_s: float
    unshipped_wait_s: float
    fine_retention_s: float
    coarse_retention_s: float
    policy_cache_s: float
    policy_ceiling: Rules
    maintenance_interval_s: float
    gc_grace_s: float
    delete_grace_s: float
    drill_interval_s: float
    tenant_quotas: Quotas
    namespace_quotas: Quotas
    usage_flush_s: float
    usage_retention_days: int
    embed_provider: Literal["off", "local", "openai", "voyage"]
    embed_api_key: Secret | None
    embed_base_url: str | None
    embed_model: str | None
    embed_local_path: Path | None
    embed_dimensions: int | None
    embed_timeout_s: float
    embed_batch: int
    embed_concurrency: int
    embed_self_hosted_hosts: tuple[str, ...]
    extract_provider: Literal["off", "anthropic", "openai"]
    extract_api_key: Secret | None
    extract_base_url: str | None
    extract_model: str | None
    assistant_provider: Literal["off", "anthropic", "openai"]
    assistant_api_key: Secret | None
    assistant_base_url: str | None
    assistant_model: str | None
    model_timeout_s: float
    model_concurrency: int
    audit: Literal["off", "on", "reads"]
    audit_flush_ms: int
    audit_spool_bytes: int
    audit_retention_s: float
    request_log: Literal["off", "problems", "all"]
    slow_request_ms: int
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["console", "json"]

    @property
    def embeds_at_home(self) -> bool:
        """Whether texts that are embedded stay with the operator. A provider's own address is never the operator's."""
        if self.embed_provider == "local":
            return True
        return self.embed_base_url is not None and is_self_hosted(
            self.embed_base_url, self.embed_self_hosted_hosts
        )

    @property
    def loopback_only(self) -> bool:
        """Whether the node serves only its own machine: it listens on loopback, without authentication."""
        return self.auth == "off" and self.listen.is_loopback

    @property
    def shared_dir(self) -> Path:
        """Where the catalog's file and the node's own keys are: with other workers of this machine, where there are any."""
        return self.data_dir

    @property
    def shares_catalog(self) -> bool:
        """Whether other nodes use the catalog."""
        return self.catalog is not None

    @property
    def default_quotas(self) -> Defaults:
        """The quotas of tenants and namespaces that have none of their own."""
        return Defaults(self.tenant_quotas, self.namespace_quotas)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, is_tty: bool | None = None) -> Self:
        """Return the settings in `environ`; an empty value counts as not set.

        `is_tty` says whether the log goes to a terminal (None looks at stderr). Raises ConfigurationError
        with every problem at once, one per line.
        """
        problems = _unknown_variables(environ)
        values = parsed(SETTINGS, environ, problems)
        problems += _contradictions(values)
        if problems:
            lines = "".join(f"\n  - {problem}" for problem in problems)
            raise ConfigurationError(f"the settings are wrong (memoturnd --help lists them):{lines}")
        _derive(values, is_tty=sys.stderr.isatty() if is_tty is None else is_tty)
        return cls(**values)


def parsed(settings: Iterable[Setting], environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """Return the values of `settings` by their fields, None where neither set nor given a default; what is wrong joins `problems`."""
    values: dict[str, Any] = {}
    for setting in settings:
        text = environ.get(setting.variable, "") or setting.default
        try:
            if setting.variable + FILE not in _OWN_FILES and setting.secret:
                text = _from_file(setting, environ, text)
            values[setting.field] = setting.parse(text) if text else None
        except ValueError as error:
            shown = "***" if setting.secret else repr(text)
            problems.append(f"{setting.variable}={shown}: {error}")
    return values


def connections_limit(max_concurrency: int, nofile: int) -> int:
    """Return how many connections a node accepts: two for each request it serves, within a quarter of `nofile`."""
    return max(16, min(2 * max_concurrency, nofile // 4))


def bucket_connections(settings: Settings) -> int:
    """Return how many connections the object store may open: two pools to a bucket, none elsewhere."""
    local = settings.object_store.startswith(("file://", "mem://"))
    return 0 if local else 2 * settings.s3_connections


def hot_cap(hot_cap: int, nofile: int, memory_budget_bytes: int) -> int:
    """Return how many profiles may be hot at once, at least 1.

    The least of the setting, what `nofile` (the soft limit of open files; negative is unlimited) allows at 6
    descriptors per profile after a reserve, and what the memory budget allows at 450 KB per profile.
    """
    by_memory = memory_budget_bytes // HOT_PROFILE_BYTES
    by_files = (nofile - RESERVED_DESCRIPTORS) // HOT_PROFILE_DESCRIPTORS if nofile >= 0 else hot_cap
    return max(1, min(hot_cap, by_memory, by_files))


def help_text() -> str:
    """Return the settings for a terminal: each with its default, unit and meaning."""
    return rows_of_help(SETTINGS)


def rows_of_help(settings: Iterable[Setting]) -> str:
    """Return some settings for a terminal."""
    lines = ["Settings (environment variables):", ""]
    for setting in settings:
        unit = f" {setting.unit}" if setting.unit else ""
        lines.append(f"  {setting.variable}  (default: {setting.shown_default}{unit})")
        lines += textwrap.wrap(setting.help, 88, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def help_markdown() -> str:
    """Return the same as a Markdown table, for the documentation."""
    rows = [
        f"| `{setting.variable}` | `{setting.shown_default}` | {setting.unit} | {setting.help.replace('|', '/')} |"
        for setting in SETTINGS
    ]
    return "\n".join(["| variable | default | unit | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {setting.variable for setting in SETTINGS}
    known |= {setting.variable + FILE for setting in SETTINGS if setting.secret}
    strange = sorted(
        name
        for name in environ
        if name.startswith(PREFIX)
        and name not in known | CLIENT_VARIABLES
        and not name.startswith((*TEST_VARIABLES, GATEWAY_PREFIX))
    )
    return [f"{name} is not a setting{did_you_mean(name, known)}" for name in strange]


def _from_file(setting: Setting, environ: Mapping[str, str], text: str) -> str:
    """Return a secret, from the file that `..._FILE` names where that is set. Raises ValueError, which shows no secret."""
    path = environ.get(setting.variable + FILE, "")
    if not path:
        return text
    if text:
        raise ValueError(f"is set, and {setting.variable}{FILE} as well; set one of them")
    try:
        return Path(path).expanduser().read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise ValueError(f"{setting.variable}{FILE}={path!r} cannot be read: {reason}") from None


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = _credentials(values) + every_page(values)
    listen = values.get("listen")
    if listen is not None and not listen.is_loopback and values.get("auth") != "on":
        problems.append(
            f"MEMOTURN_LISTEN='{listen}': other machines could reach the node, which asks nobody for a credential; "
            "set MEMOTURN_AUTH=on, or listen on 127.0.0.1, [::1] or localhost",
        )
    warm_after_s, cold_after_s = values.get("warm_after_s"), values.get("cold_after_s")
    if warm_after_s is not None and cold_after_s is not None and cold_after_s < warm_after_s:
        problems.append(
            f"MEMOTURN_COLD_AFTER_S={cold_after_s:g} is below MEMOTURN_WARM_AFTER_S={warm_after_s:g}: "
            "a profile turns warm before it turns cold",
        )
    fine_s, coarse_s = values.get("fine_retention_s"), values.get("coarse_retention_s")
    if fine_s is not None and coarse_s is not None and fine_s and coarse_s < fine_s:
        problems.append(
            f"MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS={coarse_s:g} is below MEMOTURN_PITR_RETENTION_SECS={fine_s:g}: "
            "history is kept at every commit first, then at one an hour",
        )
    return (
        problems + cluster_problems(values) + _embedder_contradictions(values) + _models_without_name(values)
    )


def every_page(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with letting every page in: without authentication each could read and change everything."""
    if "*" not in (values.get("cors_origins") or ()) or values.get("auth") == "on":
        return []
    return [
        "MEMOTURN_CORS_ORIGINS='*' would let every web page read and change everything; name the origins, or set MEMOTURN_AUTH=on"
    ]


def _credentials(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the settings of authentication."""
    problems = [
        f"MEMOTURN_{field.upper()} and MEMOTURN_{field.upper()}{FILE} are both set; set one of them"
        for field in ("platform_key", "cluster_key", "auth_key")
        if values.get(field) is not None and values.get(f"{field}_file") is not None
    ]
    if values.get("auth") == "on" and not (values.get("platform_key") or values.get("platform_key_file")):
        problems.append(
            "MEMOTURN_AUTH='on' takes a MEMOTURN_PLATFORM_KEY or MEMOTURN_PLATFORM_KEY_FILE: nobody else can mint tokens"
        )
    return problems


def _embedder_contradictions(values: Mapping[str, Any]) -> list[str]:
    """Return what does not go together: the providers' own addresses take a key, and the local model is what it is."""
    provider = values.get("embed_provider")
    if provider == "local":
        fixed = {"embed_model": LOCAL_MODEL, "embed_dimensions": LOCAL_DIMENSIONS, "embed_base_url": None}
        return [
            f"MEMOTURN_{field.upper()}={value} is not for MEMOTURN_EMBED_PROVIDER='local', "
            f"which is {LOCAL_MODEL} with {LOCAL_DIMENSIONS} dimensions"
            for field, only in fixed.items()
            if (value := values.get(field)) not in {None, only}
        ]
    if provider in {"openai", "voyage"} and not (values.get("embed_api_key") or values.get("embed_base_url")):
        how = "MEMOTURN_EMBED_API_KEY, or the MEMOTURN_EMBED_BASE_URL of an endpoint that needs none"
        return [f"MEMOTURN_EMBED_PROVIDER={provider!r} takes a {how}"]
    return []


def _models_without_name(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the providers of language models: their address needs a key, most need a model."""
    problems = []
    settled = {**values, **_language_models(values)}
    for feature in ("extract", "assistant"):
        provider = settled.get(f"{feature}_provider")
        name = f"MEMOTURN_{feature.upper()}"
        if provider in {None, "off"}:
            continue
        if not settled.get(f"{feature}_api_key") and not settled.get(f"{feature}_base_url"):
            problems.append(
                f"{name}_PROVIDER={provider!r} takes a {name}_API_KEY, or the {name}_BASE_URL of an endpoint that needs none"
            )
        if provider == "openai" and not settled.get(f"{feature}_model"):
            problems.append(
                f"{name}_PROVIDER='openai' takes a {name}_MODEL: there is none that every endpoint has"
            )
    return problems


def _language_models(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of language models with what follows from others.

    The assistant's are the extractor's where they are not set; a key is not sent to another provider or address.
    """
    extract = {part: values.get(f"extract_{part}") for part in ("provider", "api_key", "base_url", "model")}
    if extract["provider"] is None:
        extract["provider"] = "anthropic" if extract["api_key"] or extract["base_url"] else "off"
    own = {part: values.get(f"assistant_{part}") for part in extract}
    if own["provider"] in {None, extract["provider"]} and extract["provider"] != "off":
        elsewhere = own["base_url"] is not None
        assistant = {
            part: value
            if (value := own[part]) is not None or (elsewhere and part == "api_key")
            else inherited
            for part, inherited in extract.items()
        }
    else:
        assistant = own
        if own["provider"] is None:
            assistant["provider"] = "anthropic" if own["api_key"] or own["base_url"] else "off"
    return {
        **{f"extract_{part}": value for part, value in extract.items()},
        **{f"assistant_{part}": value for part, value in assistant.items()},
    }


def _derive(values: dict[str, Any], *, is_tty: bool) -> None:
    values |= _language_models(values)
    derived = {
        "object_store": f"file://{values['data_dir'] / 'objects'}",
        **standing(values),
        "log_format": "console" if is_tty else "json",
        "embed_provider": "off" if values["embed_api_key"] is None else "voyage",
        "embed_self_hosted_hosts": (),
        "cors_origins": (),
        "policy_ceiling": NOTHING,
    }
    for field, value in derived.items():
        if values[field] is None:
            values[field] = value
