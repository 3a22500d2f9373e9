"""What the commit queue and the shipper share of an open branch."""

import asyncio
from typing import Protocol

from memoturnd.engine.connection import ProfileConnection


class OpenBranch(Protocol):
    """An open branch, as those see it who commit to it and who ship it."""

    @property
    def conn(self) -> ProfileConnection:
        """The open main connection."""
        ...

    @property
    def is_large(self) -> bool:
        """Whether whatever is in proportion to the file is too much for the event loop."""
        ...

    gate: asyncio.Lock
    """Held for whatever must not meet a commit: a round in the pool, capture, a checkpoint."""
    txid: int
    at_ms: int
    """Wall time of the round `txid`."""
    ceiling: int
    """Highest txid that the manifest lets the owner commit."""
    log_syncs: bool
    """Whether the next commit starts the log anew."""
    log_frames: int
    """Frames in the log, as SQLite last said."""
