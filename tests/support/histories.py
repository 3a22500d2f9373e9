"""What clients did and what they were told: one JSON line for each call and one for each return.

    history = History(path)
    operation = history.call("c1", "write", "durable/k7", "v1", level="durable")
    history.ok(operation, txid=4, durable_txid=4)       # or .failed(operation), .unknown(operation)

`ok`: it took effect, and its result is this. `fail`: it surely took no effect. `unknown`: it may have, it may yet, or it
never will. An operation without a return line is unknown. Times are of one steady clock, in seconds.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
FOREVER = float("inf")


@dataclass(slots=True)
class Operation:
    """One call of one client. `value` is what it wrote, or for `cas` the pair (expected, new); `result` what it read."""

    number: int
    client: str
    kind: str
    key: str
    value: Any
    call_s: float
    level: str = ""
    return_s: float = FOREVER
    outcome: str = UNKNOWN
    result: Any = None
    told: dict[str, Any] = field(default_factory=dict)
    """What else the answer said: `txid`, `durable_txid`, `status`, ..."""

    @property
    def known(self) -> bool:
        return self.outcome == OK


class History:
    """Operations in the order of their calls; with a path also in a file, line by line as it happens."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.operations: list[Operation] = []
        self._numbers = itertools.count()
        self._clock = clock
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path else None

    def call(self, client: str, kind: str, key: str, value: Any = None, *, level: str = "") -> Operation:
        """Note that a client is about to send this."""
        operation = Operation(next(self._numbers), client, kind, key, value, self._clock(), level)
        self.operations.append(operation)
        self._line(
            call=operation.number,
            at_s=operation.call_s,
            client=client,
            kind=kind,
            key=key,
            value=value,
            level=level,
        )
        return operation

    def ok(self, operation: Operation, result: Any = None, **told: Any) -> None:
        self._return(operation, OK, result, told)

    def failed(self, operation: Operation, **told: Any) -> None:
        self._return(operation, FAIL, None, told)

    def unknown(self, operation: Operation, **told: Any) -> None:
        self._return(operation, UNKNOWN, None, told)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _return(self, operation: Operation, outcome: str, result: Any, told: dict[str, Any]) -> None:
        now = self._clock()
        # Whether and when an unknown one takes effect is open for ever, so it never returns.
        operation.return_s = FOREVER if outcome == UNKNOWN else now
        operation.outcome, operation.result = outcome, result
        operation.told = {**told, "told_s": now}
        self._line(**{"return": operation.number}, at_s=now, outcome=outcome, result=result, told=told)

    def _line(self, **event: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()


def read_history(lines: Iterable[str]) -> list[Operation]:
    """Return the operations of a file of lines."""
    operations: dict[int, Operation] = {}
    for line in lines:
        event = json.loads(line)
        if "call" in event:
            value = tuple(event["value"]) if isinstance(event["value"], list) else event["value"]
            operations[event["call"]] = Operation(
                event["call"],
                event["client"],
                event["kind"],
                event["key"],
                value,
                event["at_s"],
                event["level"],
            )
        else:
            operation = operations[event["return"]]
            operation.outcome, operation.result = event["outcome"], event["result"]
            operation.told = {**event["told"], "told_s": event["at_s"]}
            operation.return_s = FOREVER if event["outcome"] == UNKNOWN else event["at_s"]
    return list(operations.values())


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Group operations by their key, in their order."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.key, []).append(operation)
    return found
