"""What the command exits with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    UNREACHABLE = 6
    DAMAGED = 7
    INTERRUPTED = 130


HELP = (
    "Exit codes: 0 done; 1 refused by the server, or called off at the question; 2 wrong usage; 3 not found; "
    "4 conflict or unmet precondition; 5 the server cannot do it now, or the outcome is not known; "
    "6 no connection to a node; 7 `verify` found damage, or `erase verify` a receipt that is not genuine; "
    "130 interrupted by Ctrl-C."
)
