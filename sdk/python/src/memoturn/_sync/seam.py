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


def exchange(client: httpx.Client, request: httpx.Request, *, is_whole: bool) -> httpx.Response:
    """Send a request, and return its answer: with its body if that `is_whole`, else to be read and closed."""
    response = client.send(request, stream=not is_whole)
    if not is_whole and not response.is_success:
        try:
            response.read()
        finally:
            response.close()
    return response
