"""The checksum that a manifest and a register carry as their first field, over all the rest.

Immutable objects are proven by their names. These documents keep their keys, so they prove themselves:
`{"sum":"<XXH3-64, 16 hex digits>",` and then the document as it would be without. One without a checksum,
of an earlier version or edited by hand, is read as it is.
"""

import xxhash

from memoturnd.errors import CorruptionError

_SEAL = b'{"sum":"'
_HEX_END = len(_SEAL) + 16
_BODY_AT = _HEX_END + 2
_UNSEALED = b'{"format":'


def sealed(document: bytes) -> bytes:
    """Return a JSON object, which is not empty, with its checksum in front."""
    return b'{"sum":"%016x",%b' % (xxhash.xxh3_64_intdigest(document), document[1:])


def unsealed(data: bytes) -> bytes:
    """Return the JSON object without its checksum. Raises CorruptionError where that is not right."""
    if data.startswith(_UNSEALED):
        return data
    if not data.startswith(_SEAL) or data[_HEX_END:_BODY_AT] != b'",':
        raise CorruptionError("it does not begin like one")
    document = b"{" + data[_BODY_AT:]
    if data[len(_SEAL) : _HEX_END] != b"%016x" % xxhash.xxh3_64_intdigest(document):
        raise CorruptionError("its bytes do not match the checksum that it carries")
    return document
