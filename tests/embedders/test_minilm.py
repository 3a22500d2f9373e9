"""The local model against vectors that another implementation made of the same weights."""

import base64
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from local_model import needs_model

from memoturnd.embedders import files

pytestmark = needs_model
REFERENCE = [
    row
    for row in json.loads((Path(__file__).parent / "minilm.json").read_text())["vectors"]
    if len(row["text"]) < 1000  # the other implementation cuts long texts, which are read in parts here
]


@pytest.fixture(scope="module")
def model():
    from memoturnd.embedders.minilm import MiniLM

    return MiniLM(files.find_files())


def wanted():
    return np.array([np.frombuffer(base64.b64decode(row["float32"]), "<f4") for row in REFERENCE])


def test_each_text_has_the_vector_of_the_other_implementation(model):
    got = np.concatenate([model.embed([row["text"]]) for row in REFERENCE])

    assert np.abs(got - wanted()).max() < 1e-6


def test_texts_of_a_batch_do_not_change_each_other(model):
    texts = [row["text"] for row in REFERENCE]
    order = np.random.default_rng(1).permutation(3 * len(texts)) % len(texts)

    got = model.embed([texts[at] for at in order])

    assert np.abs(got - wanted()[order]).max() < 1e-6


def test_gelu_is_exact_to_float32():
    from memoturnd.embedders.minilm import gelu

    x = np.linspace(-8, 8, 100_001, dtype=np.float32)
    exact = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.tolist()]

    assert np.abs(gelu(x.copy()) - exact).max() < 2e-6


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "\ud7ff", "😀" * 500, "x" * 16_000, "word " * 3000, "[PAD]", "\u202e\u0301"]
)
def test_every_text_has_a_vector_of_unit_length(model, text):
    (vector,) = model.embed([text])

    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_meaning_is_near_where_words_are_not(model):
    questions = ["What does she drink in the morning?", "Where does he work?", "Any pets?"]
    answers = [
        "Ana starts her day with green tea",
        "Tom is a nurse at the city hospital",
        "They own two cats",
    ]

    near = model.embed(questions) @ model.embed(answers).T

    assert near.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_file_that_was_changed_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in files.DIGESTS:
        shutil.copy(files.find_files() / name, folder)
        files.check_file(folder / name)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\x01")

    with pytest.raises(ValueError, match="install the package again"):
        files.check_file(path)


def test_the_package_of_the_model_is_not_run():
    import sys

    from memoturnd.embedders.minilm import MiniLM

    MiniLM(files.find_files())

    assert files.MODULE not in sys.modules


def test_a_long_text_is_read_in_parts_and_its_vector_is_their_mean(model):
    sentences = ["The cat sleeps on the warm stove. ", "Prices of copper rose in the spring. "]
    long = sentences[0] * 30 + sentences[1] * 30
    ids = model._tokenizer.encode(long).ids
    from memoturnd.embedders import minilm

    parts = minilm._parts(ids)
    rows = model._rows(parts)
    got = model.embed(["short", long, "another"])

    assert len(parts) == -(-(len(ids) - 2) // (minilm.TOKENS_LIMIT - 2)) > 1
    assert max(map(len, parts)) <= minilm.TOKENS_LIMIT
    assert [token for part in parts for token in part[1:-1]] == ids[1:-1]
    mean = rows.mean(axis=0)
    assert got[1] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert got[[0, 2]] == pytest.approx(model.embed(["short", "another"]), abs=1e-5)
    about = model.embed(sentences)
    assert (about @ got[1]).min() > 0.4  # the end of a text counts as much as its beginning


def test_what_follows_the_last_part_does_not_count(model):
    from memoturnd.embedders import minilm

    ids = [1, *range(10, 10 + 100_000), 2]

    parts = minilm._parts(ids)

    assert len(parts) == minilm.PARTS_LIMIT
    assert sum(len(part) - 2 for part in parts) == minilm.PARTS_LIMIT * (minilm.TOKENS_LIMIT - 2)
