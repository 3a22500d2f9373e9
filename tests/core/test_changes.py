"""What a round says of its changes: by place, the last word on each key, and within bounds."""

import pytest

from memoturnd.core.changes import KEYS_LIMIT, ROUND_LIMIT_BYTES, WITHIN_LIMIT, Noted, parse, shown


def told(noted, surfaces=None, **line):
    change = parse(noted.line(7, 1000, **line))
    return shown(change, surfaces)


def entries(noted):
    return told(noted)["changes"]


def test_one_key_is_one_short_line():
    noted = Noted()
    noted.put("kv", "ns", "k")

    assert noted.line(7, 1000) == '[7,1000,[["kv","ns",["k"]]]]\n'
    assert told(noted) == {"txid": 7, "at": 1000, "changes": [{"surface": "kv", "in": "ns", "put": ["k"]}]}


def test_the_last_word_on_a_key_counts():
    noted = Noted()
    noted.put("kv", "ns", "a")
    noted.deleted("kv", "ns", "b")
    noted.deleted("kv", "ns", "a")
    noted.put("kv", "ns", "b")
    noted.put("turns", "s", 3)

    assert entries(noted) == [
        {"surface": "kv", "in": "ns", "put": ["b"], "deleted": ["a"]},
        {"surface": "turns", "in": "s", "put": [3]},
    ]


def test_what_was_dropped_has_no_earlier_keys():
    noted = Noted()
    noted.put("documents", "c", "old")
    noted.dropped("documents", "c")
    noted.put("documents", "c", "new")

    assert entries(noted) == [{"surface": "documents", "in": "c", "put": ["new"], "dropped": True}]


def test_beyond_the_bound_it_says_where_alone():
    noted = Noted()
    noted.put_all("documents", "c", (f"d{n}" for n in range(KEYS_LIMIT + 1)))
    noted.deleted("kv", "ns", "k")

    whole, rest = entries(noted)
    assert (len(whole["put"]), whole["more"]) == (KEYS_LIMIT, True)
    assert rest == {"surface": "kv", "in": "ns", "more": True}


def test_exactly_as_many_as_the_bound_are_all_named():
    noted = Noted()
    noted.put_all("documents", "c", (f"d{n}" for n in range(KEYS_LIMIT)))

    assert "more" not in entries(noted)[0]


def test_long_keys_are_not_named():
    noted = Noted()
    noted.put_all("kv", "ns", (f"{n}".ljust(1000, "x") for n in range(20)))

    assert len(noted.line(7, 1000)) < ROUND_LIMIT_BYTES
    assert entries(noted) == [{"surface": "kv", "in": "ns", "more": True}]


def test_places_are_bounded_too():
    noted = Noted()
    for n in range(2 * WITHIN_LIMIT):
        noted.more("documents", f"c{n}")

    found = entries(noted)
    assert len(found) == WITHIN_LIMIT + 1
    assert found[-1] == {"surface": "documents", "more": True}


def test_an_op_that_fails_takes_its_keys_back():
    noted = Noted()
    noted.put("kv", "ns", "stays")
    mark = noted.mark()
    noted.put("kv", "ns", "goes")
    noted.why = "imported"
    noted.back_to(mark)

    assert told(noted) == {
        "txid": 7,
        "at": 1000,
        "changes": [{"surface": "kv", "in": "ns", "put": ["stays"]}],
    }


def test_where_anything_may_have_changed_no_key_is_named():
    noted = Noted()
    noted.put("kv", "ns", "k")
    noted.why = "erased"

    assert told(noted) == {"txid": 7, "at": 1000, "changes": [], "all": "erased"}
    assert "k" not in parse(noted.line(7, 1000)).entries


def test_a_feed_of_some_surfaces_has_no_others():
    noted = Noted()
    noted.put("kv", "ns", "k")

    assert told(noted, frozenset({"kv"}))["changes"]
    assert told(noted, frozenset({"sql"})) is None
    noted.why = "rewound"
    assert told(noted, frozenset({"sql"}))["all"] == "rewound"


def test_it_is_false_until_something_is_noted():
    noted = Noted()
    assert not noted
    noted.more("kv", "ns")
    assert noted
    noted.clear()
    assert not noted


@pytest.mark.parametrize("key", ["a\nb", "a\u2028b", "\x85", "\x00", '"', "\\", "😀"])
def test_any_key_comes_back(key):
    noted = Noted()
    noted.put("kv", key, key)
    noted.deleted("kv", key, f"{key}2")

    line = noted.line(7, 1000)
    assert line.count("\n") == 1
    assert entries(noted) == [{"surface": "kv", "in": key, "put": [key], "deleted": [f"{key}2"]}]


def test_lost_rounds_are_said_where_there_may_be_some():
    assert parse(Noted().line(1025, 1000, lost_after=7)).lost_after == 7
    assert parse(Noted().line(8, 1000)).lost_after is None
