"""all-MiniLM-L6-v2 on numpy: a BERT encoder of six layers, mean pooling, unit length.

The weights and the tokenizer are files of data, known by their digests; nothing of the package that they come in is
run. Needs the extra `local`, and is imported by the worker process alone.
"""

import json
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memoturnd.embedders.files import check_file

Floats = npt.NDArray[np.float32]

DIMENSIONS: Final = 384
TOKENS_LIMIT: Final = 256
"""Tokens that are read at once, a first and a last mark included; the model was trained with no more."""
PARTS_LIMIT: Final = 16
"""Parts of a long text that are read; what follows them does not count."""
CHARACTERS_LIMIT: Final = PARTS_LIMIT * TOKENS_LIMIT * 16
"""Characters of a text that are looked at: more than so many parts have in any usual text."""
_LAYERS: Final = 6
_HEADS: Final = 12
_EPSILON: Final = np.float32(1e-12)
_PASS_TOKENS: Final = 2048
"""Tokens of one pass, padding included: more would not fit a processor's cache."""
_BLOCK: Final = 1 << 15

# erf as a quotient of polynomials in x, good to a few units in the last place of a float32 (as Eigen has it).
_ERF_ABOVE: Final = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BELOW: Final = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_ERF_END: Final = 4.0


def tensors_of(content: bytes | mmap.mmap) -> dict[str, Floats]:
    """Return the float32 tensors of a safetensors file, as views of it."""
    (header_bytes,) = struct.unpack("<Q", content[:8])
    header: dict[str, dict[str, Any]] = json.loads(content[8 : 8 + header_bytes])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            start, end = entry["data_offsets"]
            flat = np.frombuffer(content, "<f4", (end - start) // 4, 8 + header_bytes + start)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        y = x @ self.weight.T
        y += self.bias
        return y


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
        x /= np.sqrt(variance + _EPSILON)
        x *= self.weight
        x += self.bias
        return x


@dataclass(frozen=True, slots=True)
class _Layer:
    attention: _Dense
    """Queries, keys and values in one."""
    output: _Dense
    output_norm: _Norm
    widen: _Dense
    narrow: _Dense
    norm: _Norm

    def __call__(self, x: Floats, mask: Floats | None) -> Floats:
        texts, tokens, size = x.shape
        parts = self.attention(x).reshape(texts, tokens, 3, _HEADS, size // _HEADS)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2)
        scores *= np.float32((size // _HEADS) ** -0.5)
        if mask is not None:
            scores += mask
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        seen = (scores @ value).transpose(0, 2, 1, 3).reshape(texts, tokens, size)
        seen = self.output(seen)
        seen += x
        x = self.output_norm(seen)
        y = self.narrow(gelu(self.widen(x)))
        y += x
        return self.norm(y)


def gelu(x: Floats) -> Floats:
    """Apply the exact GELU, x (1 + erf(x / sqrt 2)) / 2, in place and return it."""
    flat = x.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        scaled = part * np.float32(0.5**0.5)
        np.clip(scaled, -_ERF_END, _ERF_END, out=scaled)
        square = scaled * scaled
        above = _polynomial(square, _ERF_ABOVE)
        above *= scaled
        above /= _polynomial(square, _ERF_BELOW)
        above += np.float32(1)
        part *= np.float32(0.5)
        part *= above
    return x


def _polynomial(x: Floats, coefficients: Sequence[float]) -> Floats:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += np.float32(coefficient)
    return total


class MiniLM:
    """The model, from a folder with its files. Raises ValueError and OSError when they are not the ones that are known."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer  # of the extra `local`

        tensors = tensors_of(check_file(folder / "model.safetensors"))
        self._tokenizer = Tokenizer.from_str(bytes(check_file(folder / "tokenizer.json")).decode())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

        def dense(*names: str) -> _Dense:
            return _Dense(
                np.concatenate([tensors[f"{name}.weight"] for name in names]),
                np.concatenate([tensors[f"{name}.bias"] for name in names]),
            )

        def norm(name: str) -> _Norm:
            return _Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

        self._words = tensors["embeddings.word_embeddings.weight"]
        self._places = (
            tensors["embeddings.position_embeddings.weight"]
            + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = norm("embeddings.LayerNorm")
        self._layers = []
        for at in range(_LAYERS):
            layer = f"encoder.layer.{at}"
            own = f"{layer}.attention.self"
            self._layers.append(
                _Layer(
                    attention=dense(f"{own}.query", f"{own}.key", f"{own}.value"),
                    output=dense(f"{layer}.attention.output.dense"),
                    output_norm=norm(f"{layer}.attention.output.LayerNorm"),
                    widen=dense(f"{layer}.intermediate.dense"),
                    narrow=dense(f"{layer}.output.dense"),
                    norm=norm(f"{layer}.output.LayerNorm"),
                )
            )

    def embed(self, texts: Sequence[str]) -> Floats:
        """Return one row of unit length per text.

        A text of more than TOKENS_LIMIT tokens is read in parts; its row is the mean of theirs.
        """
        parts = [_parts(encoding.ids) for encoding in self._encoded(texts)]
        rows = self._rows([ids for of_text in parts for ids in of_text])
        if len(rows) == len(parts):
            return rows
        counts = np.array([len(of_text) for of_text in parts])
        means: Floats = np.add.reduceat(rows, np.cumsum(counts) - counts, axis=0)
        means /= np.sqrt(np.einsum("bd,bd->b", means, means))[:, None]
        return means

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        encoded: list[Any] = self._tokenizer.encode_batch([text[:CHARACTERS_LIMIT] for text in texts])
        return encoded

    def _rows(self, ids: list[list[int]]) -> Floats:
        """Return one row of unit length per list of tokens; those of like length share a pass."""
        rows = np.empty((len(ids), DIMENSIONS), dtype=np.float32)
        by_length = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        while by_length:
            chosen = _of_like_length(by_length, ids)
            del by_length[: len(chosen)]
            rows[chosen] = self._pass([ids[at] for at in chosen])
        return rows

    def _pass(self, ids: list[list[int]]) -> Floats:
        lengths = np.array([len(row) for row in ids])
        most = int(lengths.max())
        padded = np.zeros((len(ids), most), dtype=np.intp)
        for row, tokens in zip(padded, ids, strict=True):
            row[: len(tokens)] = tokens
        real = np.arange(most) < lengths[:, None]
        mask = None if real.all() else np.where(real, np.float32(0), np.float32(-1e9))[:, None, None, :]
        x = self._norm(self._words[padded] + self._places[:most])
        for layer in self._layers:
            x = layer(x, mask)
        pooled: Floats = np.einsum("btd,bt->bd", x, real.astype(np.float32))
        pooled /= np.sqrt(np.einsum("bd,bd->b", pooled, pooled))[:, None]
        return pooled


def _parts(ids: list[int]) -> list[list[int]]:
    """Return the tokens of a text in parts of like length that the model can read, each between the two that frame a text."""
    if len(ids) <= TOKENS_LIMIT:
        return [ids]
    first, inner, last = ids[0], ids[1:-1][: PARTS_LIMIT * (TOKENS_LIMIT - 2)], ids[-1]
    count = -(-len(inner) // (TOKENS_LIMIT - 2))
    size = -(-len(inner) // count)
    return [[first, *inner[at : at + size], last] for at in range(0, len(inner), size)]


def _of_like_length(by_length: list[int], ids: list[list[int]]) -> list[int]:
    """Return the first texts, of which none is padded by more than a quarter and that fit one pass together."""
    shortest = len(ids[by_length[0]])
    chosen = [by_length[0]]
    for at in by_length[1:]:
        length = len(ids[at])
        if length > 8 + shortest * 5 // 4 or length * (len(chosen) + 1) > _PASS_TOKENS:
            break
        chosen.append(at)
    return chosen
