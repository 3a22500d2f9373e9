"""The values are the programs' settings: all of them, under their names, with their bounds, and described."""

import json
import re

import pytest
import yaml

from chart.rendering import CHART, CLUSTER, OUTSIDE, REPOSITORY, leaves, merged, render
from chart.values_table import README, table
from gateway.settings import GATEWAY_SETTINGS
from memoturnd.config import CLIENT_VARIABLES, FILE
from memoturnd.settings_table import SETTINGS

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TABLE = yaml.safe_load((CHART / "files" / "settings.yaml").read_text())
BY_VARIABLE = {setting.variable: setting for setting in (*SETTINGS, *GATEWAY_SETTINGS)}
MAPPED = [
    (f"{section}.{value}", variable)
    for section in ("server", "ai", "gateway")
    for value, variable in TABLE[section].items()
]
HOW = (
    "give it a line in charts/memoturn/files/settings.yaml, a default of null in values.yaml, its type and text in "
    "values.schema.json, and run tests/chart/values_table.py"
)


def schema_of(path):
    node = SCHEMA
    for name in path.split("."):
        node = node["properties"][name]
    return node


def test_every_setting_has_a_value():
    mapped = {variable for _, variable in MAPPED}
    missing = {name for name in BY_VARIABLE if name not in mapped | set(TABLE["owned"])}

    assert missing == set(), HOW
    assert mapped.isdisjoint(TABLE["owned"])
    assert len(mapped) == len(MAPPED)


def test_no_value_is_for_a_setting_that_is_not_there():
    files = {name + FILE for name, setting in BY_VARIABLE.items() if setting.secret}

    assert {variable for _, variable in MAPPED} <= set(BY_VARIABLE)
    assert set(TABLE["owned"]) <= set(BY_VARIABLE) | files
    assert set(TABLE["gatewayShares"]) <= {setting.variable for setting in GATEWAY_SETTINGS}


def test_gateways_get_all_that_they_share_with_nodes():
    by_others = {
        "MEMOTURN_ETCD",
        "MEMOTURN_ETCD_CA_FILE",
        "MEMOTURN_ETCD_PREFIX",
        "MEMOTURN_LEASE_TTL_S",
        "MEMOTURN_AUTH",
    }
    own = {variable for variable in BY_VARIABLE if variable.startswith("MEMOTURN_GATEWAY_")}

    assert {s.variable for s in GATEWAY_SETTINGS} == by_others | own | set(TABLE["gatewayShares"])


def test_every_setting_of_the_mcp_server_is_known():
    rows = (REPOSITORY / "docs" / "mcp.md").read_text().partition("### Settings")[2].partition("###")[0]
    known = TABLE["mcp"] + TABLE["mcpOwned"]

    assert len(known) == len(set(known))
    assert set(known) == set(re.findall(r"`(MEMOTURN_\w+)`", rows))


@pytest.mark.parametrize(
    "values", [{}, merged(CLUSTER, {"mcp": {"enabled": True}}), OUTSIDE], ids=["alone", "cluster", "outside"]
)
def test_every_variable_that_is_set_is_one_that_somebody_reads(values):
    objects = render(values, {"ai": {"existingSecret": "models"}})
    node = {s.variable for s in SETTINGS} | {s.variable + FILE for s in SETTINGS if s.secret}
    known = {
        "dataplane": node,
        "control-plane": node,
        "migrate": node,
        "gateway": {s.variable for s in GATEWAY_SETTINGS},
        "mcp": CLIENT_VARIABLES,
    }

    for part, names in known.items():
        if part in objects.pods():
            assert {n for n in objects.env(part) if n.startswith("MEMOTURN_")} <= names, part


@pytest.mark.parametrize(("path", "variable"), MAPPED)
def test_bounds_of_a_value_are_those_of_its_setting(path, variable):
    schema, parse = schema_of(path), BY_VARIABLE[variable].parse
    step = 1 if "integer" in schema.get("type", []) else 0.001

    for bound, beyond in (("minimum", -step), ("maximum", step)):
        if bound in schema:
            parse(
                f"{schema[bound]:g}"
                if isinstance(schema[bound], float) and schema[bound] < 1
                else str(int(schema[bound]))
            )
            with pytest.raises(ValueError, match="must be"):
                parse(f"{schema[bound] + beyond:.3f}" if step < 1 else str(schema[bound] + beyond))
    for choice in schema.get("enum", []):
        assert choice is None or parse(choice) is not None
    if "enum" in schema:
        with pytest.raises(ValueError, match="must be one of"):
            parse("something-else")


def test_every_mapped_value_reaches_the_pods():
    given = {
        "server": {value: sample(f"server.{value}") for value in TABLE["server"]},
        "ai": {value: sample(f"ai.{value}") for value in TABLE["ai"]} | {"existingSecret": "models"},
        "gateway": {value: sample(f"gateway.{value}") for value in TABLE["gateway"]},
    }
    given["ai"] |= {"embedProvider": "openai"}
    given["dataplane"] = {"resources": {"limits": {"memory": "4Ti"}}, "cacheSize": "16Ti"}
    objects = render(OUTSIDE, given)

    for path, variable in MAPPED:
        part = "gateway" if path.startswith("gateway.") else "dataplane"
        value = objects.env(part)[variable]
        assert BY_VARIABLE[variable].parse(value) is not None, f"{path} -> {variable}={value!r}"
    for variable in TABLE["gatewayShares"]:
        assert objects.env("gateway")[variable] == objects.env("dataplane")[variable]


def sample(path):
    """A value that is allowed: large numbers, since those print badly where nothing is done about it."""
    schema = schema_of(path)
    if "enum" in schema:
        return schema["enum"][-2]
    if "maximum" in schema:
        return min(schema["maximum"], 2**40) if "integer" in schema["type"] else min(schema["maximum"], 2.5e6)
    if "pattern" in schema:
        texts = ("https://models.example/v1", "bytes=1000000000,memories=5", "/models", "some-model")
        return next(text for text in texts if re.match(schema["pattern"], text))
    if schema["type"] == "boolean":
        return True
    if "object" in schema["type"]:
        return {"ai_egress": {"embed": "self_hosted_only"}}
    return ["https://a.example"] if path == "server.corsOrigins" else ["a.example", "b.example"]


def test_large_numbers_are_written_out():
    values = {
        "server": {"unshippedMaxBytes": 1099511627776, "shipRate": 0.5, "pitrSnapshotRetentionSecs": 31536000}
    }
    env = render(values).env("dataplane")

    assert env["MEMOTURN_UNSHIPPED_MAX_BYTES"] == "1099511627776"
    assert env["MEMOTURN_SHIP_RATE"] == "0.5"
    assert env["MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS"] == "31536000"


# ---- the description


def test_schema_describes_every_value_and_no_other():
    described = {path for path, _, _ in leaves(VALUES, SCHEMA)}

    assert all("description" in schema for _, _, schema in leaves(VALUES, SCHEMA))
    for path in described:
        node = VALUES
        for name in path.split("."):
            node = node[name]
    assert paths(VALUES, described) == set()


def paths(values, described, prefix=""):
    """Places in the values that are neither described nor in something that is."""
    left = set()
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path not in described:
            left |= paths(value, described, path + ".") if isinstance(value, dict) and value else {path}
    return left


def test_schema_lets_nothing_through_that_it_does_not_name():
    open_objects = []

    def walk(node, path):
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties") is not False:
                open_objects.append(path)
            for name, below in node.items():
                walk(below, f"{path}/{name}")

    walk(SCHEMA, "")

    assert open_objects == []


MAY_BE_NULL = {"resources", "networkPolicy.dnsTo", "server.logFormat", "podDisruptionBudget.maxUnavailable"}


def test_what_the_templates_cannot_do_without_is_required():
    """`gateway:` with nothing below it takes all of its defaults away, and templates would end with a nil pointer."""
    missing = []

    def walk(schema, values, path):
        for name, value in values.items():
            below, key = schema["properties"][name], f"{path}{name}"
            if isinstance(value, dict) and "properties" in below:
                walk(below, value, f"{key}.")
            if (
                value not in (None, "", [], {})
                and not {name, key} & MAY_BE_NULL
                and name not in schema["required"]
            ):
                missing.append(key)

    for part in ("podSecurityContext", "securityContext"):
        assert SCHEMA["properties"][part]["required"]
    walk(SCHEMA, {name: value for name, value in VALUES.items() if not name.endswith("ecurityContext")}, "")

    assert missing == []


def test_readme_has_the_table_of_values():
    assert table() in README.read_text(), "run tests/chart/values_table.py"
