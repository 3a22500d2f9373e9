"""A process that uses an embedded catalog beside others: python catalog_process.py FILE NUMBER.

It tries to create the same databases as all others, and claims what is due; it says `made NAME` and `claimed UUID`.
"""

import asyncio
import sys
from pathlib import Path

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.errors import AlreadyExistsError
from memoturnd.seams.catalog import COLLECT, Chore, Database

NAMES = 100


async def main(path: str, number: int) -> None:
    catalog = SqliteCatalog(Path(path))
    for name in range(NAMES):
        database = Database(f"d{name}", f"{number:016x}{name:016x}", f"{name:016x}", 1)
        try:
            await catalog.create_database(database)
        except AlreadyExistsError:
            continue
        sys.stdout.write(f"made d{name}\n")
        await catalog.schedule(Chore(COLLECT, database.uuid), 0)
        for claimed in await catalog.claim_due(10, until_ms=10**12, limit=3):
            sys.stdout.write(f"claimed {claimed.chore.db_uuid}\n")
    for claimed in await catalog.claim_due(10, until_ms=10**12, limit=NAMES):
        sys.stdout.write(f"claimed {claimed.chore.db_uuid}\n")
    await catalog.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
