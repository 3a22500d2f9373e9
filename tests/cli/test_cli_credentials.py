"""The command against a node that asks for credentials."""

import httpx
import pytest

PLATFORM_KEY = "platform-key-of-the-tests"


def minted(url, path, scope):
    answer = httpx.post(
        f"{url}/v1/{path}/tokens",
        json={"scope": scope},
        headers={"Authorization": f"Bearer {PLATFORM_KEY}"},
    )
    return answer.json()["token"]


def test_a_token_is_for_data_and_the_platform_key_for_databases(command, guarded):
    token = minted(guarded.url, "namespaces/credentials", "write")
    asked = ("--url", guarded.url, "--token", token, "--platform-key", PLATFORM_KEY)
    ingest = ("memory", "ingest", "credentials", "ann", "--topic", "diet", "--summary", "Ann is vegan")
    assert command(*ingest, *asked).code == 0
    recalled = command("memory", "recall", "credentials", "ann", "--topic", "diet", "--json", *asked)
    assert recalled.json["memories"][0]["summary"] == "Ann is vegan"
    listed = command("db", "list", "--prefix", "credentials--", "--json", *asked)
    assert [row["name"] for row in listed.json["databases"]] == ["credentials--ann"]


@pytest.mark.parametrize("credential", [(), ("--token", "x.y.z")])
def test_without_a_good_credential_the_command_says_so(command, guarded, credential):
    outcome = command("memory", "recall", "credentials", "ann", "x", "--url", guarded.url, *credential)
    assert outcome.code != 0
    assert "credential" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_token_that_does_not_cover_it_is_told_from_a_bad_one(command, guarded):
    token = minted(guarded.url, "namespaces/web", "read")
    outcome = command("memory", "recall", "credentials", "ann", "x", "--url", guarded.url, "--token", token)
    assert outcome.code != 0
    assert "does not cover" in outcome.stderr
    assert token not in outcome.stderr
