"""The catalog: everything it knows, over one database."""

from control_plane.catalogs.branches import Branches
from control_plane.catalogs.chores import Chores
from control_plane.catalogs.databases import Directory
from control_plane.catalogs.exports import Exports
from control_plane.catalogs.nodes import Nodes
from control_plane.catalogs.quotas import QuotaBook
from control_plane.catalogs.rebuilding import Rebuilding
from control_plane.catalogs.requests import Requests
from control_plane.catalogs.tokens import Tokens
from control_plane.catalogs.usage import Usage


class SqlCatalog(Directory, Branches, Chores, Requests, Exports, Nodes, QuotaBook, Usage, Tokens, Rebuilding):
    """A catalog (memoturnd.seams.catalog) whose statements are run by a backend.

    Every method raises RetryableError when the database cannot serve it now, DiskFullError when it is full.
    """

    async def ping(self) -> None:
        """Raise RetryableError when the catalog does not answer."""
        await self._backend.ping()

    async def close(self) -> None:
        """Release the connections; later calls raise RetryableError."""
        await self._backend.close()
