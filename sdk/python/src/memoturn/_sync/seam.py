"""What is not the same for both clients but for the words: this file stands in each of them, written by hand."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import httpx

T = TypeVar("T")

sleep: Final = time.sleep


def blocking(function: Callable[..., T], *arguments: object) -> T:
    """Call a function that may block."""
    return function(*arguments)


def opening(function: Callable[..., T], close: Callable[[T], object], *arguments: object) -> T:
    """Call a function that opens something; nobody can cancel it."""
    del close
    return function(*arguments)


def kept_whole(response: httpx.Response) -> httpx.Response:
    """Return the response: nobody can cancel its closing."""
    return response
