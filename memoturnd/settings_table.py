"""The table of the node's settings: names, parsers, defaults and meaning, in one place.

`memoturnd.config` reads the environment through it; `memoturnd --help` and the documentation print it.
"""

import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from memoturnd.core import canonical, policy
from memoturnd.core.limits import parse_quotas
from memoturnd.errors import ConfigurationError, InvalidRequestError
from memoturnd.stores.open import check_url

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
_MOST_SECONDS = 30 * 86400.0
_MOST_BYTES = 2**60
_MOST_PORT = 65535
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9_](?:[a-z0-9._-]{0,252})|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host name or IP address, and a port (0 lets the system choose)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Secret:
    """A value that is not shown: neither in logs nor in tracebacks."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        """Return the value, to be sent and not shown."""
        return self._text


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. An empty `default` is derived as `derived` says; a `secret` value is never shown."""

    variable: str
    field: str
    parse: Callable[[str], object]
    default: str
    unit: str
    help: str
    derived: str = ""
    secret: bool = False

    @property
    def shown_default(self) -> str:
        """The default as people read it."""
        return self.derived or self.default


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest of `known`, empty when none is near."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


# Parsers raise ValueError with what the value must be.


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return the parser of a whole number within bounds."""

    def parse(text: str) -> int:
        value = int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None
        if value is None or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return parse


_whole = whole_number


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) else math.nan
        if not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return value

    return parse


def _interval(most: float) -> Callable[[str], float]:
    number = _number(0, most)

    def parse(text: str) -> float:
        value = number(text)
        if 0 < value < 1:
            raise ValueError(f"must be 0 for never, or a number from 1 to {most:g}")
        return value

    return parse


def _choice(**choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}{did_you_mean(text, choices)}")
        return choices[text]

    return parse


def _path(text: str) -> Path:
    return Path(text).expanduser()


def listen_address(text: str) -> Address:
    """Parse HOST:PORT. Raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if found is None or int(found[3]) > _MOST_PORT:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return Address(found[1] or found[2], int(found[3]))


def _advertise(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT, without a path")
    _ = parts.port  # raises ValueError when it is not a port
    return text.rstrip("/")


def _node_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text):
        raise ValueError("must be 1 to 128 characters of A-Z a-z 0-9 . _ -")
    return text


def _object_store(text: str) -> str:
    try:
        check_url(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return text


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("must be 0 or 1")
    return text == "1"


def _audience(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", text):
        raise ValueError("must be 1 to 200 visible ASCII characters, without spaces")
    return text


def _catalog(text: str) -> Secret:
    if not re.fullmatch(r"postgres(ql)?://[\x21-\x7e]{1,4096}", text):
        raise ValueError(
            "must be postgresql://USER:PASSWORD@HOST/DATABASE, or empty for a file in the data directory"
        )
    return Secret(text)


_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"


def _etcd(text: str) -> Secret:
    """Members with one scheme in front; it may stand in front of each, as etcd's own tools write it."""
    scheme = re.match("https?://", text)
    text = text.replace(f",{scheme[0]}", ",") if scheme else text
    if not re.fullmatch(
        rf"https?://(?:[\x21-\x3f\x41-\x7e]+:[\x21-\x3f\x41-\x7e]*@)?{_HOST}(?:,{_HOST}){{0,15}}", text
    ):
        raise ValueError(
            "must be http://HOST:PORT or https://HOST:PORT, more members with commas behind, all by the same scheme, "
            "USER:PASSWORD@ in front of the first where they ask for it"
        )
    return Secret(text)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"/(?:[A-Za-z0-9._-]{1,64}/){1,8}", text):
        raise ValueError("must be /NAME/, of A-Z a-z 0-9 . _ -, with a slash at both ends")
    return text


def _keys(text: str) -> Secret:
    """Several secrets in one value, which are looked at where they are used."""
    if not re.fullmatch(r"[\x20-\x7e\r\n\t]{1,65536}", text):
        raise ValueError("must be ASCII text, up to 65536 characters")
    return Secret(text)


def _secret(text: str) -> Secret:
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", text):
        raise ValueError("must be 1 to 4096 visible ASCII characters, without spaces")
    return Secret(text)


def _model_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}", text):
        raise ValueError(
            "must be 1 to 100 characters of A-Z a-z 0-9 . _ : / @ + -, the first a letter or digit"
        )
    return text


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be http://HOST or https://HOST, with a port and a path where needed")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a password; give the key as a setting of its own")
    _ = parts.port  # raises ValueError when it is not a port
    return text.rstrip("/")


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip() for part in text.split(","))
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9._:-]{0,252}", host):
            raise ValueError("must be host names or IP addresses with commas between them, without ports")
    return hosts


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(dict.fromkeys(_origin(part.strip()) for part in text.split(",")))
    if "*" in origins and len(origins) > 1:
        raise ValueError("must be either * or origins, not both: * lets every page in")
    return origins


def _origin(text: str) -> str:
    """Return an origin as browsers write it: in small letters, without the port that its scheme has anyway."""
    found = _ORIGIN.fullmatch(text.lower())
    if text != "*" and (found is None or int(found["port"] or 1) not in range(1, _MOST_PORT + 1)):
        raise ValueError(
            "must be origins such as https://app.example or http://localhost:5173, with commas between them: scheme, host and "
            f"port without a path or a `/` at the end, and no patterns; or * alone for every page. {text!r} is none"
        )
    if found is None:
        return text
    plain = {"http": "80", "https": "443"}.get(found["scheme"]) == found["port"]
    return (
        found["scheme"] + "://" + found["host"] + ("" if plain or not found["port"] else f":{found['port']}")
    )


def _ceiling(text: str) -> policy.Rules:
    try:
        return policy.parse_ceiling(canonical.decode_json(text.encode(), where="the ceiling"))
    except InvalidRequestError as error:
        raise ValueError(str(error)) from error


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "MEMOTURN_DATA_DIR",
        "data_dir",
        _path,
        "./data",
        "",
        "Folder for the catalog and the cache of profile files. One process at a time.",
    ),
    Setting(
        "MEMOTURN_LISTEN",
        "listen",
        listen_address,
        "127.0.0.1:8080",
        "",
        "Address to listen on. Without authentication only loopback is accepted; port 0 lets the system choose.",
    ),
    Setting(
        "MEMOTURN_ADVERTISE",
        "advertise",
        _advertise,
        "",
        "",
        "Address at which other nodes and gateways reach this one. In a cluster, a node that listens everywhere says the "
        "one that it has on its way to etcd.",
        derived="http://{listen}",
    ),
    Setting(
        "MEMOTURN_NODE_ID",
        "node_id",
        _node_id,
        "",
        "",
        "Name under which this node holds its leases. In a cluster each node has its own: the host's name and an id that "
        "stays in the data directory, unless one is set.",
        derived="node-{process id}",
    ),
    Setting(
        "MEMOTURN_OBJECT_STORE",
        "object_store",
        _object_store,
        "",
        "",
        "Where segments, snapshots and manifests live, the source of truth: s3://BUCKET/PREFIX, gs://, az://, "
        "file://PATH, or mem:// to lose all. Buckets take their credentials from the standard AWS_*, GOOGLE_* and "
        "AZURE_* variables.",
        derived="file://{data dir}/objects",
    ),
    Setting(
        "MEMOTURN_S3_CLIENT",
        "s3_client",
        _choice(aiobotocore="aiobotocore", obstore="obstore"),
        "aiobotocore",
        "",
        "Library that talks to s3://: aiobotocore, or obstore, which takes less processor time.",
    ),
    Setting(
        "MEMOTURN_S3_CONNECTIONS",
        "s3_connections",
        _whole(1, 4096),
        "32",
        "connections",
        "Connections to a bucket: so many for conditional writes, and as many for everything else.",
    ),
    Setting(
        "MEMOTURN_CATALOG",
        "catalog",
        _catalog,
        "",
        "",
        "Where databases, tokens and quotas are known: postgresql://USER:PASSWORD@HOST/DATABASE, which several nodes "
        "share, or a file of this node. `memoturn-control migrate` brings its schema up to date.",
        derived="{data dir}/registry.db",
        secret=True,
    ),
    Setting(
        "MEMOTURN_ETCD",
        "etcd",
        _etcd,
        "",
        "",
        "The etcd in which the nodes of a cluster agree on who owns what: http(s)://USER:PASSWORD@HOST:2379,HOST:2379,... "
        "with all its members. Takes a catalog, an object store and a cluster key that the nodes share.",
        derived="none: this node is alone",
        secret=True,
    ),
    Setting(
        "MEMOTURN_ETCD_CA_FILE",
        "etcd_ca_file",
        _path,
        "",
        "",
        "File with the certificates by which https:// members of etcd are known.",
        derived="those of the system",
    ),
    Setting(
        "MEMOTURN_ETCD_PREFIX",
        "etcd_prefix",
        _prefix,
        "/memoturn/",
        "",
        "What the cluster's keys in etcd begin with; each cluster has its own.",
    ),
    Setting(
        "MEMOTURN_LEASE_TTL_S",
        "lease_ttl_s",
        _whole(2, 60),
        "10",
        "seconds",
        "How long etcd waits for a node that says nothing before others may own what it owned. The same on every node.",
    ),
    Setting(
        "MEMOTURN_AUTH",
        "auth",
        _choice(off="off", on="on"),
        "off",
        "",
        "on asks every request for a credential; off serves only this machine, and whoever is on it.",
    ),
    Setting(
        "MEMOTURN_CORS_ORIGINS",
        "cors_origins",
        _origins,
        "",
        "",
        "Origins of web pages that may use the API from browsers, such as https://app.example, with commas between them. * is "
        "every page, and takes MEMOTURN_AUTH=on.",
        derived="none",
    ),
    Setting(
        "MEMOTURN_PLATFORM_KEY",
        "platform_key",
        _keys,
        "",
        "",
        "Key of the operator, who makes databases and mints tokens. Several while it is being changed, with commas between.",
        derived="none",
        secret=True,
    ),
    Setting(
        "MEMOTURN_PLATFORM_KEY_FILE",
        "platform_key_file",
        _path,
        "",
        "",
        "File with that key instead, which is read again when it changes.",
        derived="none",
    ),
    Setting(
        "MEMOTURN_CLUSTER_KEY",
        "cluster_key",
        _keys,
        "",
        "",
        "Key that nodes show one another; it must not be the platform key. Several while it is being changed.",
        derived="made of the signing key",
        secret=True,
    ),
    Setting(
        "MEMOTURN_CLUSTER_KEY_FILE",
        "cluster_key_file",
        _path,
        "",
        "",
        "File with that key instead, which is read again when it changes.",
        derived="none",
    ),
    Setting(
        "MEMOTURN_AUTH_KEY",
        "auth_key",
        _keys,
        "",
        "",
        "Keys that sign tokens: the base64 of Ed25519 keys in PKCS#8, commas or lines between; the first signs, all verify.",
        derived="{data dir}/auth.pkcs8, made at the first start",
        secret=True,
    ),
    Setting(
        "MEMOTURN_AUTH_KEY_FILE",
        "auth_key_file",
        _path,
        "",
        "",
        "File with those keys instead, which is read again when it changes.",
        derived="none",
    ),
    Setting(
        "MEMOTURN_PERSIST_AUTH_KEY",
        "persist_auth_key",
        _flag,
        "0",
        "",
        "1 keeps the signing key that is made at the first start in the object store, where every node finds it, and whoever reads the bucket.",
    ),
    Setting(
        "MEMOTURN_TOKEN_AUDIENCE",
        "token_audience",
        _audience,
        "",
        "",
        "What minted tokens name as their audience; a token that names another is refused.",
        derived="none",
    ),
    Setting(
        "MEMOTURN_TOKEN_MAX_LIFETIME_S",
        "token_max_lifetime_s",
        _whole(60, 400 * 86400),
        str(90 * 86400),
        "seconds",
        "Longest life of a token, when it is minted and when it is shown.",
    ),
    Setting(
        "MEMOTURN_DURABILITY",
        "durability",
        _choice(standard="local", local="local", replicated="replicated", durable="durable"),
        "standard",
        "",
        "What a write that does not say otherwise waits for: local (or standard) is the commit on this node, "
        "replicated also the disks of MEMOTURN_SYNC_REPLICAS other nodes, durable is the object store.",
    ),
    Setting(
        "MEMOTURN_SYNC_REPLICAS",
        "sync_replicas",
        _whole(1, 8),
        "1",
        "nodes",
        "Other nodes that hold a write at level replicated before its answer, each on its disk.",
    ),
    Setting(
        "MEMOTURN_SYNC",
        "sync",
        _choice(normal="normal", full="full"),
        "normal",
        "",
        "Whether a local commit is fsynced. normal survives a killed process, full also a power loss.",
    ),
    Setting(
        "MEMOTURN_HOT_CAP",
        "hot_cap",
        _whole(1, 10_000_000),
        "50000",
        "profiles",
        "Most profiles with open connections. The limit of open files and the memory budget lower it further.",
    ),
    Setting(
        "MEMOTURN_MEMORY_BUDGET_BYTES",
        "memory_budget_bytes",
        _whole(MIB, _MOST_BYTES),
        str(GIB),
        "bytes",
        "Memory for hot profiles, counted at 450 KB each; request bodies may take a quarter as much besides.",
    ),
    Setting(
        "MEMOTURN_RECALL_CACHE_BYTES",
        "recall_cache_bytes",
        _whole(0, _MOST_BYTES),
        str(256 * MIB),
        "bytes",
        "Memory for the embeddings and words of recently recalled profiles, and for collections of vectors that are "
        "searched, besides. 0 keeps none: recall and search then read the files.",
    ),
    Setting(
        "MEMOTURN_DISK_BUDGET_BYTES",
        "disk_budget_bytes",
        _whole(MIB, _MOST_BYTES),
        str(10 * GIB),
        "bytes",
        "Disk for cached profile files. Above it, shipped and idle profiles go cold.",
    ),
    Setting(
        "MEMOTURN_WARM_AFTER_S",
        "warm_after_s",
        _number(0.01, _MOST_SECONDS),
        "60",
        "seconds",
        "Idle time after which a profile's connections are closed.",
    ),
    Setting(
        "MEMOTURN_COLD_AFTER_S",
        "cold_after_s",
        _number(0.01, _MOST_SECONDS),
        "3600",
        "seconds",
        "Idle time after which a shipped profile's file is removed from this node.",
    ),
    Setting(
        "MEMOTURN_SQLITE_THREADS",
        "sqlite_threads",
        _whole(1, 256),
        "4",
        "threads",
        "Threads for statements too heavy for the event loop.",
    ),
    Setting(
        "MEMOTURN_WRITE_QUEUE_DEPTH",
        "write_queue_depth",
        _whole(1, 1_000_000),
        "256",
        "requests",
        "Writes that may wait for one branch; beyond it the answer is 429.",
    ),
    Setting(
        "MEMOTURN_REQUEST_TIMEOUT",
        "request_timeout_s",
        _number(0.01, 3600),
        "30",
        "seconds",
        "Longest time that a request may take.",
    ),
    Setting(
        "MEMOTURN_MAX_BODY_BYTES",
        "max_body_bytes",
        _whole(KIB, GIB),
        str(32 * MIB),
        "bytes",
        "Largest request body, for the routes that take large ones.",
    ),
    Setting(
        "MEMOTURN_MAX_IMPORT_BYTES",
        "max_import_bytes",
        _whole(KIB, 1024 * GIB),
        str(256 * MIB),
        "bytes",
        "Largest SQLite file that is imported; it takes up to three times as much disk meanwhile.",
    ),
    Setting(
        "MEMOTURN_MAX_CONCURRENCY",
        "max_concurrency",
        _whole(1, 1_000_000),
        "1024",
        "requests",
        "Requests served at once; more of them wait for their turn.",
    ),
    Setting(
        "MEMOTURN_CONTROL_RATE",
        "control_rate",
        _number(0.01, 1_000_000),
        "10",
        "requests per second",
        "Requests that create, list or delete databases; beyond it the answer is 429.",
    ),
    Setting(
        "MEMOTURN_SHIP_INTERVAL_MS",
        "ship_interval_ms",
        _whole(1, 60_000),
        "200",
        "milliseconds",
        "How long a branch collects commits before they are shipped, while the ship rate allows.",
    ),
    Setting(
        "MEMOTURN_SHIP_RATE",
        "ship_rate",
        _number(0.1, 1_000_000),
        "400",
        "ships per second",
        "Segments with their manifests that this node may ship; when it is short, the oldest go first.",
    ),
    Setting(
        "MEMOTURN_SHIP_CONCURRENCY",
        "ship_concurrency",
        _whole(1, 1024),
        "16",
        "ships",
        "Branches shipped at the same time.",
    ),
    Setting(
        "MEMOTURN_UNSHIPPED_MAX_BYTES",
        "unshipped_max_bytes",
        _whole(KIB, _MOST_BYTES),
        str(64 * MIB),
        "bytes",
        "Unshipped commits that a branch may hold before its writes wait.",
    ),
    Setting(
        "MEMOTURN_UNSHIPPED_MAX_AGE_S",
        "unshipped_max_age_s",
        _number(0.01, _MOST_SECONDS),
        "5",
        "seconds",
        "Age of the oldest unshipped commit of a branch before its writes wait: the most that a lost disk takes.",
    ),
    Setting(
        "MEMOTURN_UNSHIPPED_WAIT_S",
        "unshipped_wait_s",
        _number(0, 3600),
        "5",
        "seconds",
        "How long such a write waits before it fails with a retryable error.",
    ),
    Setting(
        "MEMOTURN_PITR_RETENTION_SECS",
        "fine_retention_s",
        _number(0, 100 * 365 * 86400),
        "86400",
        "seconds",
        "How long every commit can be read, forked and rewound to. 0 keeps all history for ever.",
    ),
    Setting(
        "MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS",
        "coarse_retention_s",
        _number(0, 100 * 365 * 86400),
        "2592000",
        "seconds",
        "How long about one commit an hour is kept. Older ones are kept only where a checkpoint or fork needs them.",
    ),
    Setting(
        "MEMOTURN_POLICY_CACHE_SECS",
        "policy_cache_s",
        _number(0, 3600),
        "30",
        "seconds",
        "How long a namespace's policy is taken as read before it is read again: so late another node's change is seen.",
    ),
    Setting(
        "MEMOTURN_POLICY_CEILING",
        "policy_ceiling",
        _ceiling,
        "",
        "",
        'Policy as JSON that no namespace can be looser than, such as {"ai_egress": {"embed": "self_hosted_only"}}.',
        derived="none",
    ),
    Setting(
        "MEMOTURN_MAINTENANCE_INTERVAL_S",
        "maintenance_interval_s",
        _number(1, _MOST_SECONDS),
        "600",
        "seconds",
        "How long after a change a database is looked through by the collector and for retention.",
    ),
    Setting(
        "MEMOTURN_GC_GRACE_SECS",
        "gc_grace_s",
        _number(600, _MOST_SECONDS),
        "600",
        "seconds",
        "How long an object that nothing names stays. Longer than any upload, fork or restore may take.",
    ),
    Setting(
        "MEMOTURN_DELETE_GRACE_S",
        "delete_grace_s",
        _number(0, _MOST_SECONDS),
        "86400",
        "seconds",
        "How long a deleted branch can be undeleted, and the objects of a deleted database stay; at least the GC grace.",
    ),
    Setting(
        "MEMOTURN_DRILL_INTERVAL_S",
        "drill_interval_s",
        _interval(_MOST_SECONDS),
        "3600",
        "seconds",
        "Time between drills, each of which restores one state of one branch and checks it. 0 never does.",
    ),
    Setting(
        "MEMOTURN_TENANT_QUOTAS",
        "tenant_quotas",
        parse_quotas,
        "off",
        "",
        "Quotas of each tenant that has none of its own: NAME=NUMBER,... of requests_per_s, writes_per_s, bytes, "
        "databases, memories. What is not named is not limited.",
    ),
    Setting(
        "MEMOTURN_NAMESPACE_QUOTAS",
        "namespace_quotas",
        parse_quotas,
        "off",
        "",
        "The same for each namespace.",
    ),
    Setting(
        "MEMOTURN_USAGE_FLUSH_S",
        "usage_flush_s",
        _number(1, 3600),
        "5",
        "seconds",
        "How long usage is counted in memory before it is put into the catalog: what a crash loses of it.",
    ),
    Setting(
        "MEMOTURN_USAGE_RETENTION_DAYS",
        "usage_retention_days",
        _whole(1, 3660),
        "400",
        "days",
        "How long the usage of a day is kept.",
    ),
    Setting(
        "MEMOTURN_EMBED_PROVIDER",
        "embed_provider",
        _choice(off="off", local="local", openai="openai", voyage="voyage"),
        "",
        "",
        "Who makes the embeddings that clients do not send: off, local (a model on this machine, without network), "
        "voyage, or openai, which is every endpoint that speaks like OpenAI's.",
        derived="voyage with an API key, else off",
    ),
    Setting(
        "MEMOTURN_EMBED_API_KEY",
        "embed_api_key",
        _secret,
        "",
        "",
        "Key of the embedding endpoint. An endpoint of one's own may need none.",
        derived="none",
        secret=True,
    ),
    Setting(
        "MEMOTURN_EMBED_BASE_URL",
        "embed_base_url",
        _endpoint,
        "",
        "",
        "Address of the embedding endpoint, with or without /v1 at its end.",
        derived="the provider's",
    ),
    Setting(
        "MEMOTURN_EMBED_MODEL",
        "embed_model",
        _model_name,
        "",
        "",
        "Embedding model: the provider's own name for it.",
        derived="voyage-3.5, text-embedding-3-small or all-minilm-l6-v2",
    ),
    Setting(
        "MEMOTURN_EMBED_LOCAL_PATH",
        "embed_local_path",
        _path,
        "",
        "",
        "Folder with the local model's model.safetensors and tokenizer.json, which must be the ones that are known.",
        derived="the installed package's",
    ),
    Setting(
        "MEMOTURN_EMBED_DIMENSIONS",
        "embed_dimensions",
        _whole(1, 8192),
        "",
        "dimensions",
        "Dimensions that the endpoint is asked for, where its model offers several.",
        derived="the model's own",
    ),
    Setting(
        "MEMOTURN_EMBED_TIMEOUT_S",
        "embed_timeout_s",
        _number(0.05, 600),
        "10",
        "seconds",
        "Longest time that one call of the embedder may take. A recall waits 3 seconds at most.",
    ),
    Setting(
        "MEMOTURN_EMBED_BATCH",
        "embed_batch",
        _whole(1, 1000),
        "64",
        "texts",
        "Texts that one call of the embedder holds; the local one takes at most 16.",
    ),
    Setting(
        "MEMOTURN_EMBED_CONCURRENCY",
        "embed_concurrency",
        _whole(1, 64),
        "4",
        "calls",
        "Calls of the embedder at once: so many for what is stored, and as many for queries; of the local one at most 2.",
    ),
    Setting(
        "MEMOTURN_EMBED_SELF_HOSTED_HOSTS",
        "embed_self_hosted_hosts",
        _hosts,
        "",
        "",
        "Hosts of embedding endpoints that count as one's own for policies, with commas between them.",
        derived="none; private addresses and local names do anyway",
    ),
    Setting(
        "MEMOTURN_EXTRACT_PROVIDER",
        "extract_provider",
        _choice(off="off", anthropic="anthropic", openai="openai"),
        "",
        "",
        "Whose language model proposes memories from transcripts: openai is every endpoint with chat completions like OpenAI's.",
        derived="anthropic with an API key or base URL, else off",
    ),
    Setting(
        "MEMOTURN_EXTRACT_API_KEY",
        "extract_api_key",
        _secret,
        "",
        "",
        "Its key. An endpoint of one's own may need none.",
        derived="none",
        secret=True,
    ),
    Setting(
        "MEMOTURN_EXTRACT_BASE_URL",
        "extract_base_url",
        _endpoint,
        "",
        "",
        "Its address, with or without /v1 at its end.",
        derived="the provider's",
    ),
    Setting(
        "MEMOTURN_EXTRACT_MODEL",
        "extract_model",
        _model_name,
        "",
        "",
        "The model, by the provider's own name for it; openai takes one.",
        derived="claude-opus-4-8 at anthropic",
    ),
    Setting(
        "MEMOTURN_ASSISTANT_PROVIDER",
        "assistant_provider",
        _choice(off="off", anthropic="anthropic", openai="openai"),
        "",
        "",
        "Whose language model answers questions from memories: openai is every endpoint with chat completions like OpenAI's.",
        derived="MEMOTURN_EXTRACT_PROVIDER, else as that one",
    ),
    Setting(
        "MEMOTURN_ASSISTANT_API_KEY",
        "assistant_api_key",
        _secret,
        "",
        "",
        "Its key. An endpoint of one's own may need none.",
        derived="MEMOTURN_EXTRACT_API_KEY",
        secret=True,
    ),
    Setting(
        "MEMOTURN_ASSISTANT_BASE_URL",
        "assistant_base_url",
        _endpoint,
        "",
        "",
        "Its address, with or without /v1 at its end.",
        derived="MEMOTURN_EXTRACT_BASE_URL, else the provider's",
    ),
    Setting(
        "MEMOTURN_ASSISTANT_MODEL",
        "assistant_model",
        _model_name,
        "",
        "",
        "The model, by the provider's own name for it; openai takes one.",
        derived="MEMOTURN_EXTRACT_MODEL, else claude-opus-4-8 at anthropic",
    ),
    Setting(
        "MEMOTURN_MODEL_TIMEOUT_S",
        "model_timeout_s",
        _number(0.05, 3600),
        "120",
        "seconds",
        "Longest that an extraction or a question waits for the language model, all of its calls together.",
    ),
    Setting(
        "MEMOTURN_MODEL_CONCURRENCY",
        "model_concurrency",
        _whole(1, 1024),
        "8",
        "calls",
        "Calls of language models at once; eight times as many wait, beyond that the answer is 429.",
    ),
    Setting(
        "MEMOTURN_AUDIT",
        "audit",
        _choice(off="off", on="on", reads="reads"),
        "off",
        "",
        "Whether acts on data are audited even where no policy asks for it: off, on, or reads for reads too. Administrative acts always are.",
    ),
    Setting(
        "MEMOTURN_AUDIT_FLUSH_MS",
        "audit_flush_ms",
        _whole(100, 600_000),
        "2000",
        "milliseconds",
        "How long audit events are collected before they are put into object storage; 512 of a stream go at once.",
    ),
    Setting(
        "MEMOTURN_AUDIT_SPOOL_BYTES",
        "audit_spool_bytes",
        _whole(MIB, _MOST_BYTES),
        str(64 * MIB),
        "bytes",
        "Audit events that may wait for object storage, on disk and in memory; beyond it audited requests wait, and are refused then.",
    ),
    Setting(
        "MEMOTURN_AUDIT_RETENTION_SECS",
        "audit_retention_s",
        _interval(_MOST_SECONDS * 1000),
        "0",
        "seconds",
        "How long audit events are kept where no policy says so, day by day. 0 keeps them for ever.",
    ),
    Setting(
        "MEMOTURN_REQUEST_LOG",
        "request_log",
        _choice(off="off", problems="problems", all="all"),
        "problems",
        "",
        "Which requests have a line in the log: problems are answers of 5xx and slow ones. At most 200 lines a second.",
    ),
    Setting(
        "MEMOTURN_SLOW_REQUEST_MS",
        "slow_request_ms",
        _whole(0, 600_000),
        "1000",
        "milliseconds",
        "From when on a request is slow, unless it waits for a model, a change or a file; 0 for never.",
    ),
    Setting(
        "MEMOTURN_LOG_LEVEL",
        "log_level",
        _choice(debug="debug", info="info", warning="warning", error="error"),
        "info",
        "",
        "Least severity that is logged: debug, info, warning or error.",
    ),
    Setting(
        "MEMOTURN_LOG_FORMAT",
        "log_format",
        _choice(console="console", json="json"),
        "",
        "",
        "How log lines look: console or json.",
        derived="console on a terminal, else json",
    ),
)
