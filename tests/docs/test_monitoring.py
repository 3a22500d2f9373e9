"""The alert rules and the dashboard: their expressions are read by a parser, and name only what processes have."""

import json
import re

import promql_parser
import pytest
import yaml
from metric_support import of_each_process
from test_docs import DOCS

ALERTS = [
    rule
    for group in yaml.safe_load((DOCS / "monitoring" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in ALERTS),
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
]
OF_THE_SCRAPE = {"job", "instance"}


def samples():
    """The labels of each sample that a process shows, by its name."""
    found = {"up": set()}
    for families in of_each_process().values():
        for name, (kind, labels, _) in families.items():
            if name == "memoturn_build_info":
                labels = ("version", "python", "process")
            if kind == "histogram":
                found |= {
                    f"{name}_count": {*labels},
                    f"{name}_sum": {*labels},
                    f"{name}_bucket": {*labels, "le"},
                }
            else:
                found[name] = {*labels}
    return found


SAMPLES = samples()


def parsed(expression):
    """The expression's parts; Grafana's variables stand for a time."""
    return list(parts(promql_parser.parse(re.sub(r"\$__rate_interval", "5m", expression))))


def parts(node):
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if (child := getattr(node, name, None)) is not None:
            yield from parts(child)
    for child in getattr(node, "args", None) or []:
        yield from parts(child)


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_expressions_name_only_metrics_and_labels_that_are_there(title, expression):
    found = parsed(expression)
    selectors = [part for part in found if isinstance(part, promql_parser.VectorSelector)]
    labels = set().union(*(SAMPLES[selector.name] for selector in selectors)) | OF_THE_SCRAPE

    assert selectors
    for selector in selectors:
        assert {matcher.name for matcher in selector.matchers.matchers} <= SAMPLES[
            selector.name
        ] | OF_THE_SCRAPE
    for part in found:
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            assert set(part.modifier.labels) <= labels


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_counters_are_looked_at_by_their_rates_and_quantiles_by_bucket(title, expression):
    for part in parsed(expression):
        if isinstance(part, promql_parser.Call) and part.func.name in {"rate", "increase"}:
            name = part.args[0].vector_selector.name
            assert name.endswith(("_total", "_count", "_sum", "_bucket"))
        if isinstance(part, promql_parser.Call) and part.func.name == "histogram_quantile":
            assert "le" in part.args[1].modifier.labels


def test_alerts_say_what_is_wrong_and_how_bad_it_is():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) > 15
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


def test_operators_are_told_what_to_do_about_every_alert():
    told = (DOCS / "operations.md").read_text().partition("### Alerts\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", told, re.MULTILINE)

    assert [name for name, _, _ in rows] == [rule["alert"] for rule in ALERTS]
    assert all(does.strip() for _, _, does in rows)


def test_every_value_that_an_alert_compares_with_is_of_the_program():
    """Values of labels are words of the program: each that a rule names stands in what a process shows."""
    for title, expression in EXPRESSIONS:
        for name, value in re.findall(r'(outcome|reason|step|ending)=~?"([^"]+)"', expression):
            for one in value.split("|"):
                assert f'{name}="{one}"' in SHOWN, title


def shown():
    from gateway.metrics import GatewayMetrics
    from memoturnd.metrics import Metrics

    return (Metrics().render() + GatewayMetrics().render()).decode()


SHOWN = shown()
