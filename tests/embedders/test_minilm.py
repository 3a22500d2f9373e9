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
REFERENCE = json.loads((Path(__file__).parent / "minilm.json").read_text())["vectors"]


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


def test_what_is_beyond_the_limit_of_tokens_does_not_count(model):
    head = "tea " * 300

    assert np.array_equal(*model.embed([head + "coffee", head + "whisky and soda"]))


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
