"""The model of docs/scale.md is what follows from the measured figures that are in the tree."""

import re

import pytest

from bench import scale_model
from bench.scale_model import ASSUMPTIONS, FOUND, LIMITS, LINES, ORDER


@pytest.fixture(scope="module")
def measured():
    return scale_model.figures()


def test_document_has_what_follows_from_the_reports(measured):
    text = scale_model.DOCUMENT.read_text()

    assert text == scale_model.written(text, scale_model.rendered(measured)), (
        "docs/scale.md does not follow from bench/RESULTS*.md: run `python -m bench.scale_model`"
    )


def test_every_line_follows_from_names_that_are_there(measured):
    known = {assumed.name for assumed in ASSUMPTIONS} | measured.keys()
    for line in (*(line for part in ORDER for line in LINES[part]), *LIMITS):
        used = set(re.findall(r"\b[a-z]\w+", line.formula)) - {"ceil", "max", "e9", "e6", "e12", "e3"}
        assert used
        assert used <= known, line
        known.add(line.name)


def test_every_assumption_and_figure_of_another_report_is_used():
    formulas = " ".join(line.formula for line in (*(line for part in ORDER for line in LINES[part]), *LIMITS))
    for one in (*ASSUMPTIONS, *FOUND):
        assert re.search(rf"\b{one.name}\b", formulas), one


def test_figure_that_changes_changes_the_document(measured):
    before = scale_model.rendered(measured)
    after = scale_model.rendered({**measured, "catalog_profile_bytes": 2 * measured["catalog_profile_bytes"]})

    assert before["provisioned"] != after["provisioned"]
    text = scale_model.DOCUMENT.read_text()
    assert scale_model.written(text, after) != text


def test_figures_are_of_the_size_that_the_issue_asks_for(measured):
    assert measured["profiles"] >= 100_000
    assert measured["active"] * 100 >= measured["profiles"]
    assert measured["cache_many_placements"] >= 100_000


def test_what_nobody_uses_costs_nothing_that_grows_with_it(measured):
    assert measured["provisioned_owner_keys"] == 0
    assert measured["provisioned_descriptors"] < 200
    assert measured["node_provisioned_bytes"] < 1000
    assert measured["start_provisioned_s"] < 2 * measured["start_empty_s"] + 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01, "0.01"), (1.5, "1.5"), (12.345, "12.3"), (100_000_000, "100,000,000"), (98_765, "98,800"), (1, "1")],
)  # fmt: skip
def test_values_are_shown_with_three_digits(value, text):
    assert scale_model.shown(value) == text


def test_part_without_a_place_is_refused():
    with pytest.raises(ValueError, match="no place for etcd"):
        scale_model.written("nothing", {"etcd": "table"})
