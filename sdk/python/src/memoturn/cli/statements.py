"""Splits SQL text into statements the way SQLite's own shell does."""

import re
import sqlite3

_BLANK = re.compile(r"(?:\s+|;|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.DOTALL)


def split(text: str) -> list[str]:
    """Return the statements of `text`; semicolons in literals, comments and triggers do not end one."""
    statements: list[str] = []
    start = 0
    for found in re.finditer(";", text):
        candidate = text[start : found.end()]
        if sqlite3.complete_statement(candidate):
            statements.append(candidate)
            start = found.end()
    statements.append(text[start:])
    return [statement.strip() for statement in statements if not _BLANK.fullmatch(statement)]
