import unicodedata

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core.text import LENGTH_LIMIT, STOP_WORDS, TOKEN_LIMIT, match_expression, tokens


@pytest.fixture(scope="module")
def fts():
    conn = apsw.Connection(":memory:")
    conn.execute("CREATE VIRTUAL TABLE t USING fts5(a, tokenize='porter unicode61')")
    conn.execute("INSERT INTO t VALUES ('the user prefers dark themes, NOT light ones'), ('Größe 42 日本語')")
    return conn


def fts_query(query):
    words = tokens(query)
    return match_expression(words) if words else None


def test_stop_words_are_dropped_unless_nothing_else_is_there():
    assert tokens("What is the user's dark-theme?") == ["user", "dark", "theme"]
    assert tokens("to be or not to be") == ["to", "be", "or", "not"]
    assert "the" in STOP_WORDS


@pytest.mark.parametrize("empty", ["", "   ", "?!", "___", '"', "\0", "🎉"])
def test_a_query_without_words_is_none(empty):
    assert fts_query(empty) is None


def test_operators_and_quotes_are_words_like_any_other():
    assert (
        fts_query('dark" OR NEAR(x) a* col:y -z ^w')
        == '"dark" OR "near" OR "x" OR "col" OR "y" OR "z" OR "w"'
    )
    assert fts_query("dark\0theme_x") == '"dark" OR "theme" OR "x"'


def test_words_are_distinct_and_bounded():
    assert tokens("Dark dark DARK") == ["dark"]
    assert len(tokens(" ".join(f"w{n}" for n in range(500)))) == TOKEN_LIMIT
    assert tokens("a " * (LENGTH_LIMIT // 2) + "theme") == ["a"]


def test_stemming_and_scripts_meet(fts):
    def found(query):
        return fts.execute("SELECT count(*) FROM t WHERE t MATCH ?", (fts_query(query),)).get

    assert found("preferring a theme?") == 1
    assert found("größe") == 1
    assert found(unicodedata.normalize("NFD", "größe")) == 1
    assert found("日本語") == 1
    assert found("nothing") == 0


@given(st.text())
def test_no_query_is_a_syntax_error(query):
    expression = fts_query(query)
    if expression is not None:
        conn = apsw.Connection(":memory:")
        conn.execute("CREATE VIRTUAL TABLE t USING fts5(a, tokenize='porter unicode61')")
        conn.execute("SELECT count(*) FROM t WHERE t MATCH ?", (expression,)).fetchall()
        conn.close()
