"""The timelines in a SQLite file from outside: taken in only where rows, index and counts are as Memoturn writes them."""

from collections.abc import Collection
from typing import Final

import apsw

from memoturnd.core import canonical, names
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.engine.families import TIMELINES
from memoturnd.errors import InvalidRequestError

_LAST_MS: Final = 253_402_300_799_999
_WRONG: Final = {
    "a timeline that is none": f"""__memoturn_timelines WHERE next_seq NOT BETWEEN 1 AND {INTEGER_MAX}
 OR created_at < 0 OR gone_at NOT BETWEEN 0 AND {INTEGER_MAX} OR retention_s <= 0 OR retention_rows <= 0
 OR retention_s > 8000000000000""",
    "a key of no timeline": """__memoturn_timeline_keys
 WHERE key = '' OR length(key) > 512 OR timeline_id NOT IN (SELECT id FROM __memoturn_timelines)""",
    "a row of no timeline or key": f"""__memoturn_timeline_rows AS r
 LEFT JOIN __memoturn_timelines AS t ON t.id = r.timeline_id
 LEFT JOIN __memoturn_timeline_keys AS k ON k.id = r.key_id AND k.timeline_id = r.timeline_id
 WHERE t.id IS NULL OR k.id IS NULL OR r.seq < 1 OR r.seq >= t.next_seq OR r.at NOT BETWEEN 0 AND {_LAST_MS}""",
    "a row that is not in its index": """__memoturn_timeline_rows AS r WHERE
 EXISTS (SELECT 1 FROM __memoturn_timeline_young AS i WHERE i.key_id = r.key_id AND i.at = r.at AND i.seq = r.seq)
 + EXISTS (SELECT 1 FROM __memoturn_timeline_index AS i WHERE i.key_id = r.key_id AND i.at = r.at AND i.seq = r.seq)
 <> 1""",
    "an entry of their index without a row": """(SELECT 1) WHERE (SELECT count(*) FROM __memoturn_timeline_rows) <>
 (SELECT count(*) FROM __memoturn_timeline_young) + (SELECT count(*) FROM __memoturn_timeline_index)""",
    "a wrong count of rows": """__memoturn_timelines AS t LEFT JOIN
 (SELECT timeline_id, count(*) AS rows FROM __memoturn_timeline_rows GROUP BY timeline_id) AS r ON r.timeline_id = t.id
 WHERE t.rows <> coalesce(r.rows, 0)""",
    "a wrong count of keys": """__memoturn_timelines AS t LEFT JOIN
 (SELECT timeline_id, count(*) AS keys FROM __memoturn_timeline_keys GROUP BY timeline_id) AS k ON k.timeline_id = t.id
 WHERE t.keys <> coalesce(k.keys, 0)""",
    "a wrong count of a key's rows": """__memoturn_timeline_keys AS k LEFT JOIN
 (SELECT key_id, count(*) AS rows FROM __memoturn_timeline_rows GROUP BY key_id) AS r ON r.key_id = k.id
 WHERE k.rows IS NOT r.rows""",
    "a wrong count of a key's newest rows": """__memoturn_timeline_keys AS k WHERE k.young <>
 (SELECT count(*) FROM __memoturn_timeline_young AS i WHERE i.key_id = k.id)""",
    "a wrong floor of a key": """__memoturn_timeline_keys AS k WHERE
 (k.hidden > 0) <> (k.floor_at IS NOT NULL) OR (k.hidden > 0) <> (k.floor_seq IS NOT NULL) OR k.hidden <>
 (SELECT count(*) FROM __memoturn_timeline_young AS i WHERE i.key_id = k.id AND (i.at, i.seq) < (k.floor_at, k.floor_seq))
 + (SELECT count(*) FROM __memoturn_timeline_index AS i WHERE i.key_id = k.id AND (i.at, i.seq) < (k.floor_at, k.floor_seq))""",
}


def check(conn: apsw.Connection, found: Collection[str]) -> None:
    """Check the timelines of a file that has the objects `found`; their schema was checked. Raises InvalidRequestError."""
    ours = {family.prefix for family in TIMELINES}
    if not ours & set(found):
        return
    if not ours <= set(found):
        raise InvalidRequestError(f"{min(ours - set(found))} is missing: send an export as it was written")
    for what, rule in _WRONG.items():
        if conn.execute(f"SELECT 1 FROM {rule} LIMIT 1").fetchone() is not None:
            raise _error(what)
    for (name,) in conn.execute("SELECT name FROM __memoturn_timelines WHERE name IS NOT NULL"):
        names.timeline(str(name))
    for (data,) in conn.execute("SELECT data FROM __memoturn_timeline_rows"):
        try:
            canonical.check(canonical.decode_json(str(data).encode(), where="it"), "it")
        except InvalidRequestError as error:
            raise _error("data that is not JSON as Memoturn takes it") from error


def _error(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"the timelines hold {what}: send an export as it was written")
