"""Whether a history of one register is linearizable: the search of Wing and Gong with the memory of Lowe.

Operations of a register: `read` (its result), `write` (its value), `cas` (its value is the pair expected, new; as `ok` the
register was `expected` and is `new`, as `fail` it was something else). A register begins as None.

Keys are independent, so each is checked by itself: `violations` takes a whole history. The search is exponential where
many operations overlap, so a key has at most MOST of them; whoever records takes a new key in time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from histories import FAIL, FOREVER, OK, UNKNOWN, Operation, by_key

MOST = 500
"""Operations that one key may have."""
MOST_STATES = 1_000_000
"""Orders that a search looks at. Unknown writes beside failed swaps can each be anywhere, and make more of them."""


class UndecidedError(Exception):
    """The search of one key was ended: nothing is known about it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A key whose history no order explains: the longest order that was found, and what could not follow it."""

    key: str
    order: tuple[Operation, ...]
    stuck: tuple[Operation, ...]

    def __str__(self) -> str:
        last = "\n".join(f"    {_line(o)}" for o in self.order[-8:])
        stuck = "\n".join(f"    {_line(o)}" for o in self.stuck[:12])
        return f"{self.key} is not linearizable. The longest order ends with\n{last}\n  and none of these follows:\n{stuck}"


@dataclass(eq=False, slots=True)
class _Entry:
    """A call or a return, in a list that operations are lifted out of and put back into."""

    operation: Operation
    bit: int
    is_call: bool
    match: Optional["_Entry"] = None
    before: Optional["_Entry"] = None
    after: Optional["_Entry"] = None


def violations(operations: Iterable[Operation]) -> list[Violation]:
    """Return the keys whose histories are not linearizable. Raises ValueError for a key with more than MOST."""
    found = [check_register(of_key, key) for key, of_key in by_key(operations).items()]
    return [violation for violation in found if violation is not None]


def check_register(operations: Sequence[Operation], key: str = "") -> Violation | None:
    """Return None if one order of the operations of one register explains every answer, else what was found.

    Raises ValueError for more than MOST operations, UndecidedError.
    """
    relevant = _relevant(operations)
    if len(relevant) > MOST:
        raise ValueError(f"{key} has {len(relevant)} operations, of at most {MOST}: take a new key in time")
    head = _linked(relevant)
    open_returns = sum(o.return_s < FOREVER for o in relevant)
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[_Entry, Any]] = []
    state: Any = None
    done = 0
    longest: list[Operation] = []
    stuck: tuple[Operation, ...] = ()
    entry = head.after
    while open_returns:
        if entry is not None and entry.is_call:
            fits, after = _step(state, entry.operation)
            if fits and (done | entry.bit, after) not in seen:
                seen.add((done | entry.bit, after))
                if len(seen) > MOST_STATES:
                    raise UndecidedError(
                        f"{key} is not decided after {MOST_STATES} states: take a new key earlier"
                    )
                stack.append((entry, state))
                state, done = after, done | entry.bit
                open_returns -= entry.match is not None
                _lift(entry)
                entry = head.after
                if len(stack) > len(longest):
                    longest, stuck = [e.operation for e, _ in stack], ()
            else:
                entry = entry.after
            continue
        # An operation returned that no order has taken up yet: the last one taken must come later.
        if len(stack) == len(longest) and not stuck:
            stuck = _candidates(head)
        if not stack:
            return Violation(key, tuple(longest), stuck)
        taken, state = stack.pop()
        done &= ~taken.bit
        open_returns += taken.match is not None
        _put_back(taken)
        entry = taken.after
    return None


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Leave out what proves and changes nothing: it would only make the search longer."""
    kept = [
        o
        for o in operations
        if not (o.kind == "read" and o.outcome != OK) and not (o.kind == "write" and o.outcome == FAIL)
    ]
    if any(o.outcome == FAIL for o in kept):
        return kept
    # A value that nobody saw need not have been written, if no `cas` failed because of it.
    while True:
        seen = {o.result for o in kept if o.kind == "read"} | {o.value[0] for o in kept if o.kind == "cas"}
        left = [o for o in kept if o.outcome != UNKNOWN or _new_value(o) in seen]
        if len(left) == len(kept):
            return left
        kept = left


def _new_value(operation: Operation) -> Any:
    return operation.value[1] if operation.kind == "cas" else operation.value


def _step(state: Any, operation: Operation) -> tuple[bool, Any]:
    """Return whether the register can be at `state` when the operation takes effect, and its state then."""
    match operation.kind:
        case "read":
            return state == operation.result, state
        case "write":
            return True, operation.value
        case "cas":
            expected, new = operation.value
            if operation.outcome == FAIL:
                return state != expected, state
            return state == expected, new
        case other:
            raise ValueError(f"a register has no operation {other}")


def _linked(operations: Sequence[Operation]) -> _Entry:
    """Return the head of the list of calls and returns by time; at one moment calls come first."""
    events: list[tuple[float, int, _Entry]] = []
    for number, operation in enumerate(operations):
        call = _Entry(operation, 1 << number, is_call=True)
        events.append((operation.call_s, 0, call))
        if operation.return_s < FOREVER:
            call.match = _Entry(operation, 1 << number, is_call=False)
            events.append((operation.return_s, 1, call.match))
    head = last = _Entry(Operation(-1, "", "", "", None, 0), 0, is_call=True)
    for _, _, entry in sorted(events, key=lambda event: event[:2]):
        last.after, entry.before = entry, last
        last = entry
    return head


def _lift(call: _Entry) -> None:
    for entry in (call, call.match):
        if entry is not None:
            assert entry.before is not None
            entry.before.after = entry.after
            if entry.after is not None:
                entry.after.before = entry.before


def _put_back(call: _Entry) -> None:
    for entry in (call.match, call):
        if entry is not None:
            assert entry.before is not None
            entry.before.after = entry
            if entry.after is not None:
                entry.after.before = entry


def _candidates(head: _Entry) -> tuple[Operation, ...]:
    found = []
    entry = head.after
    while entry is not None and entry.is_call:
        found.append(entry.operation)
        entry = entry.after
    return tuple(found)


def _line(o: Operation) -> str:
    until = "..." if o.return_s == FOREVER else f"{o.return_s:.4f}"
    return f"{o.call_s:.4f} to {until} {o.client} {o.kind} {o.value!r} {o.outcome} -> {o.result!r} {o.told or ''}"
