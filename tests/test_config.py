import dataclasses
import os

import pytest

from memoturnd.config import (
    HOT_PROFILE_BYTES,
    Settings,
    bucket_connections,
    help_markdown,
    help_text,
    hot_cap,
)
from memoturnd.core.limits import Quotas
from memoturnd.core.policy import NOTHING, Rules
from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import SETTINGS, Address

GIB = 1024**3


def settings(**environ):
    return Settings.from_env({f"MEMOTURN_{name}": value for name, value in environ.items()}, is_tty=False)


def refused(**environ):
    with pytest.raises(ConfigurationError) as caught:
        settings(**environ)
    return str(caught.value)


def test_empty_environment_gives_the_documented_defaults():
    got = settings()

    assert str(got.data_dir) == "data"
    assert got.listen == Address("127.0.0.1", 8080)
    assert got.advertise == "http://127.0.0.1:8080"
    assert got.object_store == "file://data/objects"
    assert got.node_id == f"node-{os.getpid()}"
    assert (got.durability, got.sync, got.auth) == ("local", "normal", "off")
    assert (got.hot_cap, got.write_queue_depth, got.max_concurrency) == (50000, 256, 1024)
    assert (got.request_timeout_s, got.max_body_bytes, got.control_rate) == (30.0, 33554432, 10.0)
    assert (got.disk_budget_bytes, got.memory_budget_bytes) == (10 * GIB, GIB)
    assert (got.warm_after_s, got.cold_after_s, got.sqlite_threads) == (60.0, 3600.0, 4)
    assert (got.ship_interval_ms, got.ship_rate, got.ship_concurrency) == (200, 400.0, 16)
    assert (got.unshipped_max_bytes, got.unshipped_max_age_s, got.unshipped_wait_s) == (
        64 * 1024**2,
        5.0,
        5.0,
    )
    assert (got.log_level, got.log_format) == ("info", "json")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().hot_cap = 1


def test_each_variable_reaches_its_field():
    given = {
        "DATA_DIR": ("/srv/memoturn", "data_dir"),
        "LISTEN": ("[::1]:9000", "listen"),
        "OBJECT_STORE": ("gs://bucket/there", "object_store"),
        "ETCD": ("http://e1:2379,e2:2379", "etcd"),
        "ETCD_PREFIX": ("/memoturn/blue/", "etcd_prefix"),
        "LEASE_TTL_S": ("7", "lease_ttl_s"),
        "S3_CLIENT": ("obstore", "s3_client"),
        "S3_CONNECTIONS": ("24", "s3_connections"),
        "HOT_CAP": ("11", "hot_cap"),
        "WRITE_QUEUE_DEPTH": ("12", "write_queue_depth"),
        "NODE_ID": ("node-a", "node_id"),
        "ADVERTISE": ("http://node-a:8080", "advertise"),
        "REQUEST_TIMEOUT": ("1.5", "request_timeout_s"),
        "MAX_BODY_BYTES": ("4096", "max_body_bytes"),
        "MAX_IMPORT_BYTES": ("8192", "max_import_bytes"),
        "MAX_CONCURRENCY": ("13", "max_concurrency"),
        "CONTROL_RATE": ("14.0", "control_rate"),
        "CORS_ORIGINS": ("https://app.example", "cors_origins"),
        "DURABILITY": ("durable", "durability"),
        "SYNC": ("full", "sync"),
        "SYNC_REPLICAS": ("2", "sync_replicas"),
        "DISK_BUDGET_BYTES": ("2097152", "disk_budget_bytes"),
        "MEMORY_BUDGET_BYTES": ("3145728", "memory_budget_bytes"),
        "RECALL_CACHE_BYTES": ("3145729", "recall_cache_bytes"),
        "WARM_AFTER_S": ("0.5", "warm_after_s"),
        "COLD_AFTER_S": ("16.0", "cold_after_s"),
        "SHIP_INTERVAL_MS": ("17", "ship_interval_ms"),
        "SHIP_RATE": ("18.0", "ship_rate"),
        "SHIP_CONCURRENCY": ("19", "ship_concurrency"),
        "UNSHIPPED_MAX_BYTES": ("2048", "unshipped_max_bytes"),
        "UNSHIPPED_MAX_AGE_S": ("21.0", "unshipped_max_age_s"),
        "UNSHIPPED_WAIT_S": ("22.0", "unshipped_wait_s"),
        "PITR_RETENTION_SECS": ("600.0", "fine_retention_s"),
        "PITR_SNAPSHOT_RETENTION_SECS": ("601.0", "coarse_retention_s"),
        "POLICY_CACHE_SECS": ("12.0", "policy_cache_s"),
        "POLICY_CEILING": ('{"ai_egress": {"ask": "deny"}}', "policy_ceiling"),
        "MAINTENANCE_INTERVAL_S": ("602.0", "maintenance_interval_s"),
        "GC_GRACE_SECS": ("603.0", "gc_grace_s"),
        "DELETE_GRACE_S": ("604.0", "delete_grace_s"),
        "DRILL_INTERVAL_S": ("602.0", "drill_interval_s"),
        "TENANT_QUOTAS": ("requests_per_s=5,databases=6", "tenant_quotas"),
        "NAMESPACE_QUOTAS": ("writes_per_s=0.5,bytes=7,memories=8", "namespace_quotas"),
        "USAGE_FLUSH_S": ("603.0", "usage_flush_s"),
        "USAGE_RETENTION_DAYS": ("604", "usage_retention_days"),
        "SQLITE_THREADS": ("23", "sqlite_threads"),
        "EMBED_PROVIDER": ("openai", "embed_provider"),
        "EMBED_API_KEY": ("sk-1", "embed_api_key"),
        "EMBED_BASE_URL": ("http://127.0.0.1:1/v1", "embed_base_url"),
        "EMBED_MODEL": ("bge-m3:latest", "embed_model"),
        "EMBED_LOCAL_PATH": ("/srv/minilm", "embed_local_path"),
        "EMBED_DIMENSIONS": ("256", "embed_dimensions"),
        "EMBED_TIMEOUT_S": ("2.5", "embed_timeout_s"),
        "EMBED_BATCH": ("31", "embed_batch"),
        "EMBED_CONCURRENCY": ("3", "embed_concurrency"),
        "EMBED_SELF_HOSTED_HOSTS": ("e.example.com,::1", "embed_self_hosted_hosts"),
        "EXTRACT_PROVIDER": ("openai", "extract_provider"),
        "EXTRACT_API_KEY": ("sk-2", "extract_api_key"),
        "EXTRACT_BASE_URL": ("http://127.0.0.1:2", "extract_base_url"),
        "EXTRACT_MODEL": ("small", "extract_model"),
        "ASSISTANT_PROVIDER": ("anthropic", "assistant_provider"),
        "ASSISTANT_API_KEY": ("sk-3", "assistant_api_key"),
        "ASSISTANT_BASE_URL": ("http://127.0.0.1:3/v1", "assistant_base_url"),
        "ASSISTANT_MODEL": ("large", "assistant_model"),
        "MODEL_TIMEOUT_S": ("33.0", "model_timeout_s"),
        "MODEL_CONCURRENCY": ("34", "model_concurrency"),
        "AUDIT": ("reads", "audit"),
        "AUDIT_FLUSH_MS": ("350", "audit_flush_ms"),
        "AUDIT_SPOOL_BYTES": ("1048577", "audit_spool_bytes"),
        "AUDIT_RETENTION_SECS": ("86401.0", "audit_retention_s"),
        "REQUEST_LOG": ("all", "request_log"),
        "SLOW_REQUEST_MS": ("250", "slow_request_ms"),
        "LOG_LEVEL": ("debug", "log_level"),
        "LOG_FORMAT": ("console", "log_format"),
        "CATALOG": ("postgresql://u:p@db/m", "catalog"),
        "AUTH": ("on", "auth"),
        "PLATFORM_KEY": ("pk-1", "platform_key"),
        "CLUSTER_KEY": ("ck-1", "cluster_key"),
        "AUTH_KEY": ("ak-1", "auth_key"),
        "PERSIST_AUTH_KEY": ("1", "persist_auth_key"),
        "TOKEN_AUDIENCE": ("here", "token_audience"),
        "TOKEN_MAX_LIFETIME_S": ("61", "token_max_lifetime_s"),
    }
    got = settings(**{name: text for name, (text, _) in given.items()})

    assert got.embed_api_key.reveal() == "sk-1"
    assert {field: str(getattr(got, field)) for _, field in given.values()} == {
        **{field: text for text, field in given.values()},
        "embed_api_key": "Secret(***)",
        "catalog": "Secret(***)",
        "etcd": "Secret(***)",
        "platform_key": "Secret(***)",
        "cluster_key": "Secret(***)",
        "auth_key": "Secret(***)",
        "persist_auth_key": "True",
        "extract_api_key": "Secret(***)",
        "assistant_api_key": "Secret(***)",
        "tenant_quotas": str(Quotas(requests_per_s=5.0, databases=6)),
        "namespace_quotas": str(Quotas(writes_per_s=0.5, bytes=7, memories=8)),
        "policy_ceiling": str(Rules(ask="deny")),
        "embed_self_hosted_hosts": "('e.example.com', '::1')",
        "cors_origins": "('https://app.example',)",
    }
    # Those that exclude what was given are tested by themselves.
    assert {f"MEMOTURN_{name}" for name in given} == {
        setting.variable for setting in SETTINGS if not setting.variable.endswith("_FILE")
    }
    assert {field for _, field in given.values()} == {
        field.name for field in dataclasses.fields(Settings) if not field.name.endswith("_file")
    }


def test_derived_defaults_follow_what_is_set():
    got = settings(DATA_DIR="/srv/m", LISTEN="localhost:9")

    assert got.object_store == "file:///srv/m/objects"
    assert got.advertise == "http://localhost:9"


def test_log_format_follows_the_terminal():
    assert Settings.from_env({}, is_tty=True).log_format == "console"
    assert Settings.from_env({}, is_tty=False).log_format == "json"
    assert Settings.from_env({"MEMOTURN_LOG_FORMAT": "json"}, is_tty=True).log_format == "json"


@pytest.mark.parametrize("text", ["standard", "local"])
def test_standard_and_local_durability_are_the_same(text):
    assert settings(DURABILITY=text).durability == "local"


def test_empty_value_counts_as_not_set():
    assert settings(HOT_CAP="", NODE_ID="") == settings()


def test_other_variables_and_those_of_clients_are_ignored():
    environ = {"PATH": "/bin", "MEMOTURNED": "x"} | {
        f"MEMOTURN_{name}": "x"
        for name in ("URL", "TOKEN", "TENANT", "SOURCE", "PROFILE", "MCP_PORT", "MCP_HOST", "MCP_PIN")
    }

    assert Settings.from_env(environ, is_tty=False) == settings()


def test_unknown_variable_is_refused_with_a_suggestion():
    assert "MEMOTURN_LISTN is not a setting; did you mean MEMOTURN_LISTEN?" in refused(LISTN="127.0.0.1:1")


def test_far_off_variable_is_refused_without_a_suggestion():
    message = refused(XYZZY_QQ="1")

    assert "MEMOTURN_XYZZY_QQ is not a setting" in message
    assert "did you mean" not in message


def test_value_of_an_unknown_variable_is_not_shown():
    assert "hush" not in refused(SECRET_KEY="hush")


def test_every_problem_is_listed_at_once():
    message = refused(
        HOT_CAP="many", SYNC="ful", LISTEN="0.0.0.0:8080", TYPO="1", DATA_DIR="/x", AUTH="on", AUTH_KEY="k"
    )

    lines = message.splitlines()[1:]
    assert len(lines) == 4
    for fragment in (
        "MEMOTURN_HOT_CAP='many'",
        "did you mean full?",
        "MEMOTURN_TYPO",
        "MEMOTURN_PLATFORM_KEY",
    ):
        assert fragment in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HOT_CAP", "0"),
        ("HOT_CAP", "-1"),
        ("HOT_CAP", "1.5"),
        ("HOT_CAP", "1_000"),
        ("HOT_CAP", " 5"),
        ("HOT_CAP", "५"),
        ("HOT_CAP", "9" * 40),
        ("REQUEST_TIMEOUT", "0"),
        ("REQUEST_TIMEOUT", "nan"),
        ("REQUEST_TIMEOUT", "inf"),
        ("REQUEST_TIMEOUT", "1e3"),
        ("REQUEST_TIMEOUT", "soon"),
        ("CONTROL_RATE", "-1"),
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "https://app.example/path"),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "https://user@app.example"),
        ("CORS_ORIGINS", "https://app.example:0"),
        ("CORS_ORIGINS", "https://app.example:65536"),
        ("CORS_ORIGINS", "https://app.example,"),
        ("CORS_ORIGINS", "https://app.example *"),
        ("CORS_ORIGINS", "*,https://app.example"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "https://b\xfccher.example"),
        ("SHIP_RATE", "0"),
        ("DISK_BUDGET_BYTES", "10GB"),
        ("DURABILITY", "Durable"),
        ("SYNC", "off"),
        ("LOG_LEVEL", "verbose"),
        ("REQUEST_LOG", "some"),
        ("SLOW_REQUEST_MS", "-1"),
        ("LOG_FORMAT", "xml"),
        ("NODE_ID", "a b"),
        ("NODE_ID", "a" * 129),
        ("NODE_ID", "a\n"),
        ("LISTEN", "8080"),
        ("LISTEN", "127.0.0.1"),
        ("LISTEN", "127.0.0.1:"),
        ("LISTEN", "127.0.0.1:65536"),
        ("LISTEN", "::1:8080"),
        ("LISTEN", ":8080"),
        ("LISTEN", "http://127.0.0.1:8080"),
        ("ADVERTISE", "node-a:8080"),
        ("ADVERTISE", "http://node-a:99999"),
        ("ADVERTISE", "http://node-a/path"),
        ("OBJECT_STORE", "s3://"),
        ("OBJECT_STORE", "ftp://bucket"),
        ("S3_CLIENT", "boto3"),
        ("S3_CONNECTIONS", "0"),
        ("OBJECT_STORE", "./objects"),
    ],
)
def test_bad_value_is_refused_naming_the_variable(name, text):
    assert f"MEMOTURN_{name}={text!r}" in refused(**{name: text})


@pytest.mark.parametrize(
    "text", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080", "example.com:80", "localhost.evil.com:1"]
)
def test_address_that_others_can_reach_is_refused_without_authentication(text):
    message = refused(LISTEN=text)

    assert "MEMOTURN_AUTH=on" in message
    assert "127.0.0.1" in message
    assert settings(LISTEN=text, AUTH="on", PLATFORM_KEY="k").loopback_only is False


@pytest.mark.parametrize("text", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:8080", "localhost:8080"])
def test_loopback_addresses_are_accepted(text):
    got = settings(LISTEN=text)

    assert str(got.listen) == text
    assert got.advertise == f"http://{text}"
    assert got.loopback_only


@pytest.mark.parametrize("text", ["ON", "OFF", "true", "1"])
def test_authentication_is_on_or_off(text):
    assert "must be one of off, on" in refused(AUTH=text)


def test_authentication_takes_a_platform_key():
    assert "MEMOTURN_PLATFORM_KEY" in refused(AUTH="on")
    assert settings(AUTH="on", PLATFORM_KEY="k").platform_key.reveal() == "k"


def test_a_secret_comes_from_the_environment_or_from_a_file_and_not_from_both(tmp_path):
    path = tmp_path / "secret"
    path.write_text("hush-hush\n")
    for name in ("PLATFORM_KEY", "CLUSTER_KEY", "AUTH_KEY"):
        got = settings(**{f"{name}_FILE": str(path)})
        assert getattr(got, f"{name.lower()}_file") == path
        message = refused(**{name: "hush-hush", f"{name}_FILE": str(path)})
        assert "both set" in message
        assert "hush" not in message
    for name in ("EMBED_API_KEY", "EXTRACT_API_KEY", "ASSISTANT_API_KEY"):
        got = settings(**{f"{name}_FILE": str(path)})
        assert getattr(got, name.lower()).reveal() == "hush-hush"
        message = refused(**{name: "hush-hush", f"{name}_FILE": str(path)})
        assert "set one of them" in message
        assert "hush" not in message
        assert "cannot be read" in refused(**{f"{name}_FILE": str(tmp_path / "missing")})
    path.write_text("a b \x01")
    message = refused(EMBED_API_KEY_FILE=str(path))
    assert "visible ASCII" in message
    assert "a b" not in message


def test_cold_before_warm_is_refused():
    assert "MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS=5 is below MEMOTURN_PITR_RETENTION_SECS=10" in refused(
        PITR_RETENTION_SECS="10", PITR_SNAPSHOT_RETENTION_SECS="5"
    )
    assert settings(PITR_RETENTION_SECS="0", PITR_SNAPSHOT_RETENTION_SECS="0").fine_retention_s == 0
    assert "MEMOTURN_COLD_AFTER_S=5 is below MEMOTURN_WARM_AFTER_S=10" in refused(
        WARM_AFTER_S="10", COLD_AFTER_S="5"
    )


@pytest.mark.parametrize(
    ("setting", "nofile", "memory_bytes", "expected"),
    [
        (50, 1_000_000, 100 * GIB, 50),
        (50_000, 1024, 100 * GIB, 128),
        (50_000, 1_000_000, HOT_PROFILE_BYTES * 77, 77),
        (50_000, -1, 100 * GIB, 50_000),
        (50_000, 100, GIB, 1),
        (50_000, 1_000_000, 1, 1),
    ],
)
def test_hot_cap_is_the_least_of_setting_descriptors_and_memory(setting, nofile, memory_bytes, expected):
    assert hot_cap(setting, nofile, memory_bytes) == expected


def test_help_shows_every_setting_with_its_default_and_unit():
    for text in (help_text(), help_markdown()):
        for setting in SETTINGS:
            assert setting.variable in text
            assert setting.shown_default in text
            assert setting.help.split()[0] in text
    assert "MEMOTURN_SHIP_INTERVAL_MS  (default: 200 milliseconds)" in help_text()


def test_help_has_no_line_wider_than_a_terminal():
    assert max(len(line) for line in help_text().splitlines()) <= 100


def test_every_default_parses():
    for setting in SETTINGS:
        assert setting.default or setting.derived
        if setting.default:
            setting.parse(setting.default)


def test_settings_of_the_test_suite_may_be_left_in_the_shell():
    settings(TEST_S3_ENDPOINT="http://127.0.0.1:9000", REQUIRE_SERVICES="1", SERVICES_DIR="/tmp/x")

    with pytest.raises(ConfigurationError, match="TESTS3"):
        settings(TESTS3="x")


@pytest.mark.parametrize(
    ("url", "connections"), [("s3://b", 14), ("gs://b", 14), ("mem://", 0), ("file://x", 0)]
)
def test_connections_to_a_bucket_are_kept_back_from_profiles(url, connections):
    assert bucket_connections(settings(OBJECT_STORE=url, S3_CONNECTIONS="7")) == connections


# ---- embeddings


def test_nothing_is_embedded_unless_asked_for():
    assert settings().embed_provider == "off"


def test_a_key_alone_switches_voyage_on():
    assert settings(EMBED_API_KEY="pa-1").embed_provider == "voyage"
    assert settings(EMBED_API_KEY="pa-1", EMBED_PROVIDER="off").embed_provider == "off"


def test_unknown_embedding_provider_is_refused_with_what_there_is():
    assert "did you mean voyage?" in refused(EMBED_PROVIDER="voyager")


@pytest.mark.parametrize("provider", ["openai", "voyage"])
def test_the_providers_own_address_takes_a_key(provider):
    assert "takes a MEMOTURN_EMBED_API_KEY" in refused(EMBED_PROVIDER=provider)
    settings(EMBED_PROVIDER=provider, EMBED_BASE_URL="http://127.0.0.1:11434")


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1:80", "http://", "http://u:p@h", "http://h?k=1", "http://h:x"]
)
def test_address_of_an_endpoint_is_checked(url):
    assert "MEMOTURN_EMBED_BASE_URL" in refused(EMBED_BASE_URL=url)


@pytest.mark.parametrize(
    ("name", "value"),
    [("EMBED_MODEL", "bge-m3"), ("EMBED_DIMENSIONS", "256"), ("EMBED_BASE_URL", "http://h")],
)
def test_the_local_model_is_what_it_is(name, value):
    assert "all-minilm-l6-v2 with 384 dimensions" in refused(EMBED_PROVIDER="local", **{name: value})
    assert settings(EMBED_PROVIDER="local", EMBED_MODEL="all-minilm-l6-v2", EMBED_DIMENSIONS="384")


def test_a_key_is_never_shown():
    got = settings(EMBED_API_KEY="sk-very-secret")

    assert "sk-very-secret" not in f"{got!r} {got} {got.embed_api_key!r} {got.embed_api_key}"
    assert "secret" not in refused(EMBED_API_KEY="sk very secret")


# ---- language models


def models(**env):
    got = settings(**env)
    found = []
    for feature in ("extract", "assistant"):
        provider, key, url, model = (
            getattr(got, f"{feature}_{part}") for part in ("provider", "api_key", "base_url", "model")
        )
        found.append((provider, key and key.reveal(), url, model))
    return found


URL = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("env", "extract", "assistant"),
    [
        ({}, ("off", None, None, None), ("off", None, None, None)),
        ({"EXTRACT_API_KEY": "k"}, ("anthropic", "k", None, None), ("anthropic", "k", None, None)),
        (
            {"EXTRACT_API_KEY": "k", "ASSISTANT_API_KEY": "a", "ASSISTANT_MODEL": "m"},
            ("anthropic", "k", None, None),
            ("anthropic", "a", None, "m"),
        ),
        ({"ASSISTANT_API_KEY": "a"}, ("off", None, None, None), ("anthropic", "a", None, None)),
        (
            {"EXTRACT_PROVIDER": "openai", "EXTRACT_BASE_URL": URL, "EXTRACT_MODEL": "m"},
            ("openai", None, URL, "m"),
            ("openai", None, URL, "m"),
        ),
        ({"EXTRACT_BASE_URL": URL}, ("anthropic", None, URL, None), ("anthropic", None, URL, None)),
        (
            {"EXTRACT_API_KEY": "k", "ASSISTANT_PROVIDER": "off"},
            ("anthropic", "k", None, None),
            ("off", None, None, None),
        ),
        (
            {"EXTRACT_API_KEY": "k", "EXTRACT_PROVIDER": "off"},
            ("off", "k", None, None),
            ("off", None, None, None),
        ),
    ],
)
def test_the_assistants_model_is_the_extractors_unless_it_is_set(env, extract, assistant):
    assert models(**env) == [extract, assistant]


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"ASSISTANT_BASE_URL": URL},
        {"ASSISTANT_PROVIDER": "openai", "ASSISTANT_BASE_URL": URL, "ASSISTANT_MODEL": "m"},
    ],
)
def test_a_key_goes_to_no_other_provider_or_address(elsewhere):
    _, assistant = models(EXTRACT_API_KEY="k", **elsewhere)

    assert (assistant[1], assistant[2]) == (None, URL)


def test_what_a_language_model_lacks_is_named():
    assert "MEMOTURN_EXTRACT_API_KEY" in refused(EXTRACT_PROVIDER="anthropic")
    assert "MEMOTURN_ASSISTANT_API_KEY" in refused(EXTRACT_API_KEY="k", ASSISTANT_PROVIDER="openai")
    assert "MEMOTURN_EXTRACT_MODEL" in refused(EXTRACT_PROVIDER="openai", EXTRACT_API_KEY="k")
    assert "did you mean openai?" in refused(EXTRACT_PROVIDER="openal")
    shown = refused(EXTRACT_API_KEY="sk very secret", ASSISTANT_API_KEY="sk very secret")
    assert "very secret" not in shown
    assert "very" not in repr(settings(EXTRACT_API_KEY="very"))


@pytest.mark.parametrize(
    ("ceiling", "why"),
    [
        ("{", "not valid JSON"),
        ("[]", "takes an object"),
        ('{"memory": {"task_ttl_max_sec": 60}}', "memory.task_ttl_max_sec, which no policy has"),
        ('{"retention": {"pitr_secs": 1}}', "the ceiling.retention.pitr_secs is 1"),
        ('{"audit": {"retention_secs": 60}}', "of the namespace"),
    ],
)
def test_ceiling_that_would_not_hold_ends_the_start(ceiling, why):
    assert why in refused(POLICY_CEILING=ceiling)


def test_without_a_ceiling_nothing_is_asked():
    assert settings().policy_ceiling == NOTHING
    assert settings().embed_self_hosted_hosts == ()


@pytest.mark.parametrize("hosts", ["http://a", "a,,b", "a b", "a:1/x"])
def test_hosts_are_names_or_addresses(hosts):
    assert "MEMOTURN_EMBED_SELF_HOSTED_HOSTS" in refused(EMBED_SELF_HOSTED_HOSTS=hosts)


def test_origins_are_kept_as_browsers_write_them():
    given = "HTTPS://App.Example:443, http://localhost:5173,http://localhost:80 ,http://[::1]:3000, tauri://localhost"

    assert settings(CORS_ORIGINS=given).cors_origins == (
        "https://app.example",
        "http://localhost:5173",
        "http://localhost",
        "http://[::1]:3000",
        "tauri://localhost",
    )
    assert settings().cors_origins == ()


def test_every_page_is_let_in_only_where_credentials_are_asked_for():
    assert "name the origins, or set MEMOTURN_AUTH=on" in refused(CORS_ORIGINS="*")
    assert settings(CORS_ORIGINS="*", AUTH="on", PLATFORM_KEY="k").cors_origins == ("*",)
