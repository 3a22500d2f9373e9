"""Secrets that senders show as they are: the platform key and the cluster key."""

import asyncio
import hmac
import re
from pathlib import Path
from typing import Final

from memoturnd.auth.sources import read_secret_file
from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import Secret

_SEPARATORS: Final = re.compile(r"[,\s]+")
_VALUES_LIMIT: Final = 16
_LEAST_OF_SEVERAL: Final = 8
"""Characters of each of several keys: a shorter one is rather a part of one that holds a comma, and easily guessed."""


class Secrets:
    """One secret with the values that count at present: several while it is being changed. The first is the one to send."""

    def __init__(self, name: str, fixed: Secret | None, path: Path | None) -> None:
        self.name = name
        self._fixed = fixed
        self._path = path
        self._values: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Secrets({self.name}, ***)"

    async def refresh(self) -> None:
        """Let the values count that are there now. Raises ConfigurationError where there is none."""
        self.set(*await self.read())

    async def read(self) -> list[str]:
        """Return the values, from their file again. Raises ConfigurationError where there is none."""
        if self._path is not None:
            text = await asyncio.to_thread(read_secret_file, self._path, f"{self.name}_FILE={self._path}")
        else:
            text = "" if self._fixed is None else self._fixed.reveal()
        values = [value for value in _SEPARATORS.split(text) if value]
        if not values or len(values) > _VALUES_LIMIT:
            raise ConfigurationError(f"{self.name} holds {len(values)} keys; it takes 1 to {_VALUES_LIMIT}")
        if len(values) > 1 and (shortest := min(map(len, values))) < _LEAST_OF_SEVERAL:
            raise ConfigurationError(
                f"{self.name} holds a key of {shortest} characters: commas and spaces end a key, so choose one without"
            )
        return values

    def set(self, *values: str) -> None:
        """Let these values count."""
        self._values = tuple(value.encode() for value in values)

    def matches(self, given: bytes) -> bool:
        """Return whether `given` is one of the values, in a time that does not tell how much of it is right."""
        found = False
        for value in self._values:
            found |= hmac.compare_digest(value, given)
        return found

    @property
    def first(self) -> str:
        """The value to send."""
        return self._values[0].decode()
