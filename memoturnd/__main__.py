"""The `memoturnd` command: one node, configured by environment variables."""

import os
import sys

import uvloop

from memoturnd import __version__
from memoturnd.app import serve, set_up_logging
from memoturnd.config import Settings, help_text
from memoturnd.errors import ConfigurationError, MemoturnError

_USAGE = """usage: memoturnd [--help | --version]

Runs one Memoturn node until SIGTERM or Ctrl-C. With no settings at all it is the whole product in one
process on http://127.0.0.1:8080, keeping its data in ./data. Exits 0 after a clean stop, 2 when a setting
is wrong, 1 on any other failure.

"""


_SWITCH_S = 0.0005
"""How long a thread of the pool may hold the interpreter while the event loop wants it; Python's own is 5 ms."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(_USAGE + help_text())
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(f"memoturnd {__version__}\n")
        return 0
    if arguments:
        sys.stderr.write(
            f"memoturnd: unknown argument {arguments[0]!r}; settings are environment variables: --help\n"
        )
        return 2
    try:
        settings = Settings.from_env(os.environ)
        set_up_logging(settings)
        sys.setswitchinterval(_SWITCH_S)
        uvloop.run(serve(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"memoturnd: {error}\n")
        return 2
    except (MemoturnError, OSError) as error:
        sys.stderr.write(f"memoturnd: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
