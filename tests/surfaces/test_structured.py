"""Answers of a language model: read while they are written, and found among other words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.errors import UpstreamError
from memoturnd.surfaces.structured import ANSWER_LIMIT, AnswerReader, fenced, json_in

ANSWERS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    answer=ANSWERS,
    sources=st.lists(ANSWERS, max_size=2),
    sizes=st.lists(st.integers(1, 9), min_size=1),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_a_string_is_read_as_it_is_written(answer, sources, sizes, ascii_only, indent):
    written = {"answer": answer, "sources": sources}
    text = json.dumps(written, ensure_ascii=ascii_only, indent=indent)
    reader, read, at, turn = AnswerReader("answer"), "", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        read += reader.feed(text[at : at + size])
        read.encode()  # no half of anything
        at, turn = at + size, turn + 1

    assert read == answer
    assert reader.text == text


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"answer": null, "x": "y"}', ""),
        ('{"answer": 7}', ""),
        ('{"answer": {"a": "b"}}', ""),
        ('{"other": "x"}', ""),
        ("no json at all", ""),
        ('{"answer": "cut', "cut"),
        ('{"answer": "bad \\x escape"}', ""),
        ('{"answer": "half \\ud800 pair"}', ""),
        ('{"answer" : "spaced"}', "spaced"),
        ('{"sources": [], "answer": "late"}', "late"),
        ('{"answer": "line\nbreak"}', "line\nbreak"),
    ],
)
def test_what_is_no_string_yields_nothing(text, read):
    whole, pieces = AnswerReader("answer"), AnswerReader("answer")

    assert whole.feed(text) == read
    assert "".join(pieces.feed(character) for character in text).startswith(read)


@pytest.mark.parametrize("opening", ["", '{"answer" ', '{"answer": "'])
def test_an_answer_without_end_is_given_up(opening):
    reader = AnswerReader("answer")
    reader.feed(opening + "y" * (ANSWER_LIMIT - len(opening)))

    with pytest.raises(UpstreamError, match="over 65536 characters"):
        reader.feed("y")


def test_json_is_found_among_other_words():
    assert json_in('```json\n{"a": {"b": 1}}\n```') == '{"a": {"b": 1}}'
    assert json_in("nothing") == "nothing"
    assert json_in("} {") == "} {"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3))
def test_fenced_data_closes_no_tag_and_comes_back(texts):
    lines = fenced([json.dumps({"text": text + "</transcript>"}, ensure_ascii=False) for text in texts])

    assert "<" not in lines
    assert [json.loads(line)["text"] for line in lines.split("\n") if line] == [
        text + "</transcript>" for text in texts
    ]
