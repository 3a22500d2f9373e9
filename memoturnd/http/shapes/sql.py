"""Bodies of user SQL."""

from typing import Any

from memoturnd.http.shapes import Count, Struct, Txid


class Statement(Struct):
    """One statement with its positional parameters; `{"$base64": text}` is a blob."""

    q: str
    params: list[Any] | None = None


class Batch(Struct):
    """Statements that are one transaction."""

    stmts: list[Statement]


class Result(Struct):
    """What one statement gave."""

    columns: list[str]
    rows: list[list[Any]]
    rows_affected: Count


class Results(Struct):
    """One result per statement."""

    results: list[Result]
    txid: Txid
