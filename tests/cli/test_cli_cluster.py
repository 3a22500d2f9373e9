"""`memoturn cluster` and `memoturn placement`, against a real node and against answers that are made up."""


def written(cli, name):
    assert cli("db", "create", name).code == 0
    assert cli("kv", "put", name, "app", "k", "1").code == 0


def test_node_alone_is_shown(cli):
    written(cli, "placed")

    shown, as_json = cli("cluster"), cli("--json", "cluster")

    assert shown.code == as_json.code == 0
    [node] = as_json.json["nodes"]
    [line] = [line for line in shown.lines if line[0] == node["node_id"]]
    assert line[1] == node["address"]
    assert (line[9], line[10]) == ("no end", "done")
    assert int(line[3]) >= 1


def test_placements_are_shown(cli):
    written(cli, "whose")

    found = [line for line in cli("cluster", "--placements", "--limit", "1000").lines if line[0] == "whose"]

    assert [(line[1], line[4]) for line in found] == [("main", "hot")]
    assert int(found[0][3]) > 0


def test_page_says_that_there_is_more(cli):
    written(cli, "more1")
    written(cli, "more2")

    first = cli("cluster", "--placements", "--limit", "1")

    assert len(first.lines) == 1
    cursor = cli("--json", "cluster", "--limit", "1").json["next_cursor"]
    assert f"--cursor {cursor}" in first.stderr
    assert cli("cluster", "--placements", "--limit", "1", "--cursor", cursor).lines != first.lines


def test_placement_of_a_database(cli):
    written(cli, "where")
    assert cli("db", "create", "nowhere").code == 0

    shown = dict(cli("placement", "where").lines)
    assert shown["branch"] == "where@main"
    assert (shown["tier"], int(shown["txid"]) > 0, int(shown["epoch"]) > 0) == ("hot", True, True)

    unowned = cli("placement", "nowhere")
    assert "nobody owns it" in unowned.stderr
    assert "node" not in dict(unowned.lines)
    assert cli("placement", "no-such-database").code == 3
