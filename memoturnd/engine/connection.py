"""placeholder, replaced below."""

import apsw


class ProfileConnection(apsw.Connection):
    """A connection opened by Memoturn's policy."""
