"""Changes to JSON documents that stay JSON, for the targets that read such."""

import json
from random import Random

from memoturnd.core.sealed import sealed, unsealed
from memoturnd.errors import CorruptionError

_VALUES = (
    None, True, 0, -1, 1, 14, 15, 1 << 53, (1 << 53) - 1, 1 << 63, 1 << 64, 10**400, 1.5, 14.0, 1e300,
    "", "..", "a/b", "\x00", "\u00e9", "\ud800", "segment", "snapshot", "0" * 16, "f" * 32, [], {}, "x" * 2000,
)  # fmt: skip
_TEXTS = (b"NaN", b"-0", b"1e400", b"1E5", b"0.0", b"9" * 5000, b"[" * 3000, b'"\\ud800"', b'"\xff"', b"{")


def changed(data: bytes, rng: Random) -> bytes:
    """Return the document with one value replaced, dropped or doubled; what is no JSON is left as it is."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(document, dict):
        return data
    marker = "a-value-to-be-replaced"
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = _somewhere(document, rng)
        what = rng.randrange(6)
        if what == 0 and isinstance(holder, dict):
            del holder[key]
        elif what == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif what == 2 and isinstance(holder, dict):
            holder[rng.choice(("main", "..", "x", "", "unknown"))] = holder[key]
        elif what == 3:
            holder[key] = marker
        elif what == 4 and type(holder[key]) is int:
            holder[key] += rng.choice((-1, 1))
        else:
            holder[key] = rng.choice(_VALUES)
    text = json.dumps(document, separators=(",", ":")).encode()
    return text.replace(f'"{marker}"'.encode(), rng.choice(_TEXTS))


def changed_and_sealed(data: bytes, rng: Random) -> bytes:
    """Do the same to a document that carries a checksum, and make that right."""
    try:
        return sealed(changed(unsealed(data), rng))
    except CorruptionError:
        return changed(data, rng)


def _somewhere(document, rng: Random):
    """Return a container inside of the document, and one of its keys."""
    places = []
    level = [document]
    while level:
        below = []
        for holder in level:
            for key in holder if isinstance(holder, dict) else range(len(holder)):
                places.append((holder, key))
                if isinstance(holder[key], dict | list):
                    below.append(holder[key])
        level = below
    return rng.choice(places) if places else (document.setdefault("x", [0]), 0)
