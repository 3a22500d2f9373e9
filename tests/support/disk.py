"""Faults of the disk and of memory, made on purpose and undone."""

import resource
from contextlib import contextmanager
from pathlib import Path

import apsw


@contextmanager
def files_cannot_grow_beyond(size_bytes):
    """Make every write of this process beyond `size_bytes` of a file fail with EFBIG: an I/O error to SQLite."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def little_memory(spare_bytes):
    """Let SQLite allocate only `spare_bytes` more than it has."""
    apsw.hard_heap_limit(apsw.memory_used() + spare_bytes)
    try:
        yield
    finally:
        apsw.hard_heap_limit(0)


def log_size_bytes(conn):
    """Return how long the connection's write-ahead log is."""
    return Path(f"{conn.filename}-wal").stat().st_size
