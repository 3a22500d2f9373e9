"""The code of the Python client's README runs as it stands, against a node with authentication on, and with one in the process."""

import pytest
from code_blocks import Block, blocks
from memoturn import Memoturn

TENANT = "readme"
SHOWN = [block for block in blocks("sdk/python/README.md") if block.language == "python"]
ON_A_NODE = 'Memoturn("http://127.0.0.1:8080", source="chat")'


@pytest.fixture(scope="module")
def credentials(guarded, platform_key) -> dict[str, str]:
    """What opens the names of a tenant that is nobody else's."""
    with Memoturn(guarded.url, platform_key=platform_key) as operator:
        operator.create_tenant(TENANT)
    with Memoturn(guarded.url, platform_key=platform_key, tenant=TENANT) as operator:
        token = operator.create_namespace_token("app", "admin")["token"]
    return {"token": token, "platform_key": platform_key, "tenant": TENANT}


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.place)
def test_the_blocks_of_the_readme_run(block: Block, guarded, credentials, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    embedded = ".embedded(" in block.text
    assert embedded != (ON_A_NODE in block.text), (
        "its client is another one than this test puts its node in for"
    )
    here = f"Memoturn({guarded.url!r}, source='chat', **credentials)"

    exec(compile(block.text.replace(ON_A_NODE, here), block.place, "exec"), {"credentials": credentials})

    said = capsys.readouterr().out
    if embedded:
        assert (tmp_path / "data" / "dbs").is_dir()
    else:
        assert "Alice is vegan" in said
        assert (tmp_path / "alice.db").read_bytes().startswith(b"SQLite format 3\0")
