"""Whether a name stands anywhere in the pages that a branch retains."""

import re

from memoturnd.core import layout, segment
from memoturnd.core.manifest import Manifest, ObjectRef
from memoturnd.replication.archive import Archive
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore


async def holds(
    store: ObjectStore, archive: Archive, executor: Executor, current: Manifest, traces: re.Pattern[bytes]
) -> bool:
    """Return whether a page of any retained object of a branch has `traces` in it, the newest object first.

    Raises CorruptionError, StoreUnavailableError.
    """

    def look(ref: ObjectRef, data: bytes) -> bool:
        found = segment.decode(data, name_hash=ref.hash)
        images = found.numbered_images(range(found.page_count))
        return any(traces.search(image) for _, image in images)

    for ref in reversed((await archive.whole(current)).objects):
        blob = await store.get(layout.object_key(current.db, ref))
        if await executor.run(lambda ref=ref, blob=blob: look(ref, blob.data)):  # type: ignore[misc]
            return True
    return False
