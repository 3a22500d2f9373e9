"""The reference of the command line is what the commands say of themselves."""

import re

import cli_docs


def test_the_page_is_made_of_the_commands_as_they_are():
    assert cli_docs.TARGET.read_text(encoding="utf-8") == cli_docs.document(), (
        "docs/cli.md is old: .venv/bin/python scripts/cli_docs.py"
    )


def test_every_command_is_on_it_with_an_example():
    page = cli_docs.document()
    sections = re.split(r"^### ", page, flags=re.MULTILINE)[1:]
    assert len(sections) > 100
    for section in sections:
        name = section.split("\n")[0]
        assert f"    {name}" in section or f"({name}" in section, name
