"""Every public method of the client is called by a test here, against a live node and on both clients."""

import inspect
import re
from pathlib import Path

import memoturn
import pytest

CLASSES = (
    memoturn.AsyncMemoturn,
    memoturn.AsyncMemoryProfile,
    memoturn.AsyncDb,
    memoturn.AsyncCollection,
    memoturn.AsyncKeyValues,
    memoturn.AsyncVectors,
    memoturn.AsyncTimeline,
    memoturn.AsyncTranscriptSession,
    memoturn.AsyncBranches,
)
HERE = Path(__file__)


def called() -> set[str]:
    """Return the names of what the tests with a live node call."""
    texts = [path.read_text() for path in HERE.parent.glob("test_sdk_*.py")]
    live = [text for text in texts if re.search(r"\((\w+, )*api\b", text)]
    return {name for text in live for name in re.findall(r"\.(\w+)\(", text)}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_method_is_called(cls):
    methods = {
        name for name, value in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")
    }

    assert methods - called() == set()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_method_says_what_it_does(cls):
    for name, value in inspect.getmembers(cls):
        if not name.startswith("_"):
            assert inspect.getdoc(value), name
