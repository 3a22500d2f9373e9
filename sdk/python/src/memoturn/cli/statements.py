"""Splits SQL text into statements the way SQLite's own shell does."""

import re
import sqlite3

from memoturn.errors import InvalidRequestError

_BLANK = re.compile(r"(?:\s+|;|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.DOTALL)


def split(text: str) -> list[str]:
    """Return the statements of `text`; semicolons in literals, comments and triggers do not end one.

    Raises InvalidRequestError for what no SQL can hold: NUL, and bytes that are no text.
    """
    statements: list[str] = []
    start = 0
    for found in re.finditer(";", text):
        candidate = text[start : found.end()]
        if _is_complete(candidate):
            statements.append(candidate)
            start = found.end()
    statements.append(text[start:])
    return [statement.strip() for statement in statements if not _BLANK.fullmatch(statement)]


def _is_complete(text: str) -> bool:
    try:
        return sqlite3.complete_statement(text)
    except ValueError as error:
        raise InvalidRequestError(f"this is no SQL: {error}", code="invalid_request") from error
