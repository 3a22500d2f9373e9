"""A branch made of synthetic pages: its objects in a store, its manifest, and what each txid must restore to."""

import dataclasses
import random

from memoturnd.core import layout, manifest, segment
from memoturnd.core.manifest import Manifest
from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.segment import Kind, Round, RoundEntry
from memoturnd.replication.snapshot import object_ref

PAGE_SIZE = 512


class Chain:
    """Commit rounds, ship them as segments, and put snapshots in parts; `states` has the file at each txid."""

    def __init__(self, store, *, page_size=PAGE_SIZE, seed=1):
        self.store = store
        self.page_size = page_size
        self.random = random.Random(seed)
        self.standing = manifest.own(
            Manifest(db="d1", branch_id="b1", branch="main", created_at=1, page_size=page_size),
            epoch=1,
            owner="o",
            start_txid=0,
        )
        self.file = b""
        self.states = {}
        self.hashes = PageHashes()
        self.pending = []
        self.txid = 0

    def page(self):
        """Return a page that does not compress."""
        return self.random.randbytes(self.page_size)

    def commit(self, pages, size):
        """Commit a round that writes `pages` ({number: bytes}, or numbers for random ones) and leaves `size` pages."""
        images = pages if isinstance(pages, dict) else {n: self.page() for n in pages}
        self.txid += 1
        sums = {n: page_hash(n, image) for n, image in images.items()}
        checksum = self.hashes.apply(sums, size)
        file = bytearray(self.file.ljust(size * self.page_size, b"\0")[: size * self.page_size])
        for n, image in images.items():
            file[(n - 1) * self.page_size : n * self.page_size] = image
        self.file = self.states[self.txid] = bytes(file)
        self.pending.append(Round(self.txid, 1000 + self.txid, checksum, size, images, sums))

    async def ship(self, *, keep=None):
        """Put what was committed as one segment; with `keep` only those txids keep a round of their own."""
        rounds, self.pending = self.pending, []
        prev = self.standing.head_txid
        if keep is not None:
            rounds = thinned(rounds, keep)
        data, name = segment.encode(
            Kind.SEGMENT, rounds, page_size=self.page_size, prev_txid=prev, epoch=1, checksum_before=0
        )
        ref = object_ref("segment", rounds, prev, 1, "b1", len(data), name)
        if keep is not None:
            ref = manifest.replace(ref, rounds=len(rounds))
        await self.store.put(layout.object_key("d1", ref), data)
        self.standing = manifest.append_segments(self.standing, (ref,), epoch=1)
        return ref

    async def snapshot(self, part_pages):
        """Put a snapshot of the head in parts of so many pages."""
        pages = len(self.file) // self.page_size
        refs = []
        for first in range(1, pages + 1, part_pages):
            numbers = range(first, min(first + part_pages, pages + 1))
            images = {n: self.file[(n - 1) * self.page_size : n * self.page_size] for n in numbers}
            whole = RoundEntry(self.txid, 1000 + self.txid, self.hashes.checksum, pages, len(images))
            part = Round(*whole[:4], images, {n: page_hash(n, image) for n, image in images.items()})
            data, name = segment.encode(
                Kind.SNAPSHOT, [part], page_size=self.page_size, prev_txid=0, epoch=1, checksum_before=0
            )
            ref = object_ref("snapshot", [part], 0, 1, "b1", len(data), name)
            ref = manifest.replace(ref, first_page=numbers[0], last_page=numbers[-1])
            await self.store.put(layout.object_key("d1", ref), data)
            refs.append(ref)
        self.standing = manifest.add_snapshot(self.standing, tuple(refs), epoch=1)
        return refs


def thinned(rounds, keep):
    """Return the rounds whose txids are in `keep`, each joined with those before it."""
    kept, group = [], []
    for round_ in rounds:
        group.append(round_)
        if round_.txid in keep:
            kept.append(joined(group))
            group = []
    return kept


def joined(rounds):
    """Return one round that stands for all of them: the newest image of each page that is left."""
    images, shortest = {}, rounds[0].db_size_pages
    for round_ in rounds:
        shortest = min(shortest, round_.db_size_pages)
        images = {n: i for n, i in (images | round_.images).items() if n <= round_.db_size_pages}
    zeros = bytes(len(next(iter(rounds[-1].images.values()))))
    regrown = dict.fromkeys(range(shortest + 1, rounds[-1].db_size_pages + 1), zeros)
    images = regrown | images  # what was cut off on the way reads as zeros until it is written again
    return dataclasses.replace(
        rounds[-1], images=images, hashes={n: page_hash(n, image) for n, image in images.items()}
    )


class RangeStore:
    """A store that records every read: (key, start, length), length None for a whole object, and how many ran at once."""

    def __init__(self, inner, *, pause=None):
        self.inner = inner
        self.reads = []
        self.running = self.most = 0
        self.pause = pause

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def get(self, key):
        self.reads.append((key, 0, None))
        return await self._watched(lambda: self.inner.get(key))

    async def get_range(self, key, start, length):
        self.reads.append((key, start, length))
        return await self._watched(lambda: self.inner.get_range(key, start, length))

    async def _watched(self, call):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.pause is not None:
                await self.pause()
            return await call()
        finally:
            self.running -= 1
