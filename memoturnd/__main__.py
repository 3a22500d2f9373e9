"""The `memoturnd` command: one node, or several on one port, configured by environment variables."""

import asyncio
import os
import sys
from collections.abc import Callable

from memoturnd import __version__
from memoturnd.config import Settings, help_text
from memoturnd.errors import ConfigurationError, MemoturnError
from memoturnd.logs import set_up_logging
from memoturnd.workers.child import wait_to_go
from memoturnd.workers.settings import MOST_WORKERS, WorkerSettings, worker_settings

_USAGE = """usage: memoturnd [--workers N | --help | --version]

Runs one Memoturn node until SIGTERM or Ctrl-C. With no settings at all it is the whole product in one
process on http://127.0.0.1:8080, keeping its data in ./data. Exits 0 after a clean stop, 2 when a setting
is wrong, 1 on any other failure.

  --workers N   run N nodes on this machine behind one port, each in a process with a core to itself

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
    try:
        run = _parse(arguments)
    except ValueError as error:
        sys.stderr.write(f"memoturnd: {error}; settings are environment variables: --help\n")
        return 2
    try:
        return run(Settings.from_env(os.environ))
    except ConfigurationError as error:
        sys.stderr.write(f"memoturnd: {error}\n")
        return 2
    except (MemoturnError, OSError) as error:
        sys.stderr.write(f"memoturnd: {error}\n")
        return 1


def _parse(arguments: list[str]) -> Callable[[Settings], int]:
    """Return what the arguments ask for. Raises ValueError."""
    match [word for argument in arguments for word in argument.split("=", 1)]:
        case []:
            return _run_node
        case ["--workers", text]:
            workers = _number(text)
            return lambda settings: _run_supervisor(settings, workers)
        case ["--worker", text, "--sockets", descriptors, "--metrics", port] if text.startswith("gateway/"):
            workers = _number(text.partition("/")[2])
            return lambda settings: _run_gateway(settings, workers, descriptors, int(port))
        case ["--worker", text] if "/" in text:  # what the supervisor starts
            which, _, of = text.partition("/")
            workers = _number(of)
            if which == "prepare":
                return lambda settings: _run_preparation(settings, workers)
            worker = _number(which, least=0, most=workers - 1)
            return lambda settings: _run_node(worker_settings(settings, worker, workers, os.environ))
    raise ValueError(f"unknown argument {arguments[0]!r}")


def _number(text: str, *, least: int = 1, most: int = MOST_WORKERS) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise ValueError(f"{text!r} is not a number of workers from {least} to {most}")
    return int(text)


def _run_node(settings: Settings) -> int:
    import uvloop

    from memoturnd.app import serve

    if isinstance(settings, WorkerSettings) and not wait_to_go():
        return 0
    set_up_logging(settings)
    sys.setswitchinterval(_SWITCH_S)
    uvloop.run(serve(settings))
    return 0


def _run_supervisor(settings: Settings, workers: int) -> int:
    from memoturnd.workers.supervising import supervise  # it takes no more memory than it needs

    set_up_logging(settings)
    return asyncio.run(supervise(settings, workers, os.environ))


def _run_preparation(settings: Settings, workers: int) -> int:
    import uvloop

    from memoturnd.workers.preparing import prepare

    if not wait_to_go():
        return 0
    set_up_logging(settings)
    uvloop.run(prepare(settings, workers))
    return 0


def _run_gateway(settings: Settings, workers: int, descriptors: str, metrics_port: int) -> int:
    import uvloop

    from memoturnd.workers.routing import route  # the HTTP client is for gateways and nodes of a cluster

    if not wait_to_go():
        return 0
    set_up_logging(settings)
    uvloop.run(route(settings, workers, [int(one) for one in descriptors.split(",")], metrics_port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
