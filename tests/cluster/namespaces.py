"""Hosts of their own for processes, made of network namespaces on one bridge, so that partitions are real: packets are
dropped, connections hang, and nothing is told. Takes root, and a kernel with bridges and veth pairs.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator


class UnavailableNamespacesError(Exception):
    """They cannot be had here; the message says why."""


class Namespaces:
    """One bridge, with this process at `address`, and a namespace for each name that is added."""

    def __init__(self) -> None:
        if os.getuid() != 0 or not shutil.which("ip"):
            raise UnavailableNamespacesError("network namespaces take root and iproute2")
        self._id = secrets.token_hex(3)
        self._net = f"10.{77 + secrets.randbelow(100)}.{secrets.randbelow(256)}"
        self._numbers: dict[str, int] = {}
        self.address = f"{self._net}.1"
        self._bridge = f"mt{self._id}"
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
        except subprocess.CalledProcessError as error:
            self.close()
            raise UnavailableNamespacesError(f"no bridge can be made: {error.stderr}") from error

    def add(self, name: str) -> str:
        """Make a namespace and return its address."""
        number = self._numbers[name] = 10 + len(self._numbers)
        space, outer, inner = self._space(name), f"mt{self._id}{number}", f"mi{self._id}{number}"
        _ip("netns", "add", space)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", space)
        _ip("link", "set", outer, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.of(name)}/24", "dev", inner)
        _ip("-n", space, "link", "set", inner, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        return self.of(name)

    def of(self, name: str) -> str:
        """Return the address of a namespace."""
        return f"{self._net}.{self._numbers[name]}"

    def inside(self, name: str) -> list[str]:
        """Return what goes before a command that runs in a namespace; it has the process id of the command."""
        return ["ip", "netns", "exec", self._space(name)]

    def isolate(self, name: str) -> None:
        """Cut a namespace off from everything."""
        _ip("link", "set", f"mt{self._id}{self._numbers[name]}", "down")

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Drop what one sends to another, and back. A `target` without a namespace is this process's side: all services."""
        address = self.of(target) if target in self._numbers else self.address
        _ip("-n", self._space(source), "route", "replace", "blackhole", f"{address}/32")
        if both and target in self._numbers:
            self.cut(target, source, both=False)

    def mend(self) -> None:
        """Undo every cut."""
        for name, number in self._numbers.items():
            _ip("link", "set", f"mt{self._id}{number}", "up")
            for other in (*map(self.of, self._numbers), self.address):
                with contextlib.suppress(subprocess.CalledProcessError):
                    _ip("-n", self._space(name), "route", "del", "blackhole", f"{other}/32")

    def close(self) -> None:
        """Remove everything, whatever is there."""
        for name in self._numbers:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", self._space(name))
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)

    def _space(self, name: str) -> str:
        return f"mt-{self._id}-{name}"


@contextlib.contextmanager
def namespaces() -> Iterator[Namespaces]:
    """Have namespaces. Raises UnavailableNamespacesError."""
    made = Namespaces()
    try:
        yield made
    finally:
        made.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)
