"""The `memoturn-gateway` command: one gateway, configured by environment variables."""

import os
import sys

import uvloop

from gateway.serving import serve
from gateway.settings import GatewaySettings, help_text
from memoturnd import __version__
from memoturnd.errors import ConfigurationError, MemoturnError
from memoturnd.logs import set_up_logging

_USAGE = """usage: memoturn-gateway [--help | --version]

Runs one gateway until SIGTERM or Ctrl-C: it sends each request to the node that owns what it is about, and holds nothing. Any number
of them may run side by side. Exits 0 after a clean stop, 2 when a setting is wrong, 1 on any other failure.

"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(_USAGE + help_text())
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(f"memoturn-gateway {__version__}\n")
        return 0
    if arguments:
        sys.stderr.write(
            f"memoturn-gateway: unknown argument {arguments[0]!r}; settings are environment variables: --help\n"
        )
        return 2
    try:
        settings = GatewaySettings.from_env(os.environ)
        set_up_logging(settings)
        uvloop.run(serve(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"memoturn-gateway: {error}\n")
        return 2
    except (MemoturnError, OSError) as error:
        sys.stderr.write(f"memoturn-gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
