"""Messages over a pipe: the length in four bytes, little-endian, then MessagePack."""

from typing import Final

import msgspec

LENGTH_BYTES: Final = 4
FRAME_LIMIT_BYTES: Final = 64 * 1024 * 1024


class Texts(msgspec.Struct, array_like=True):
    """What the node sends: texts to embed."""

    number: int
    texts: list[str]


class Vectors(msgspec.Struct, array_like=True):
    """What the worker answers: little-endian float32, row after row, or why there are none.

    The first message of a worker has number 0, and no rows: it is ready, or never will be.
    """

    number: int
    rows: bytes
    error: str = ""


_encoder = msgspec.msgpack.Encoder()
decode_texts: Final = msgspec.msgpack.Decoder(Texts).decode
decode_vectors: Final = msgspec.msgpack.Decoder(Vectors).decode


def frame(message: Texts | Vectors) -> bytes:
    """Return a message as it goes over the pipe."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body
