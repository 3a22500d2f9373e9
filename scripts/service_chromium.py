"""Chromium, for the tests of web pages. Debian's package, unless one is on the PATH."""

import shutil

from service_base import Service, UnavailableError, install_debian

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Chromium(Service):
    """There is nothing to start: each test starts its own."""

    name = "chromium"

    def get(self, *, quick: bool = False) -> None:
        """Install it unless it is there."""
        if found() is None:
            install_debian("chromium", ["chromium"], quick=quick)
        if found() is None:
            raise UnavailableError("it was installed, and is not on the PATH")

    def launch(self) -> None:
        """Start nothing."""

    def running(self) -> bool:
        """Return that nothing runs."""
        return False


def found() -> str | None:
    """Return the path of the program."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)
