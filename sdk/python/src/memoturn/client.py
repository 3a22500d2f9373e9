"""The clients: `Memoturn`, and `AsyncMemoturn` with the same methods."""

from memoturn._async.client import AsyncMemoturn
from memoturn._sync.client import DEFAULT_URL, Memoturn

__all__ = ["DEFAULT_URL", "AsyncMemoturn", "Memoturn"]
