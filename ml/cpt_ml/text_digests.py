"""Digests of texts whose exact copies may differ in case, width of characters and white space."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from cpt_ml.word_columns import Texts
from cpt_ml.words import Hashes

# what a table folds; characters beside these are rare, and folded by Python
_FOLDED = (range(1, 0x3400), range(0xA000, 0xAC00), range(0xF900, 0x10000), range(0x1F000, 0x1FB00))
_AS_THEY_ARE = (range(0x3400, 0x4DC0), range(0x4E00, 0xA000), range(0xAC00, 0xD7A4))  # Han, Hangul syllables
_TABLE = 0x1FB00
_BY_PYTHON = 0xFFFFFFFF
_SPACE = ord(" ")
_HANGUL_VOWELS_AND_FINALS = range(0x1160, 0x1200)


def text_digests(texts: Texts) -> Hashes:
    """128-bit digests of `folded` texts, of shape (2, documents)."""
    folded = np.take(_folds(), texts.points, mode="clip")
    not_simple = np.flatnonzero(folded == _BY_PYTHON)
    folded[not_simple] = _SPACE
    by_python = set((np.searchsorted(texts.begins, not_simple, side="right") - 1).tolist())
    # of a run of white space its first character stays; before each text stands the separator of the one before
    space = folded == _SPACE
    keep = ~space
    keep[1:] |= ~space[:-1]
    sizes = np.add.reduceat(keep, texts.begins[:-1], dtype=np.int64) if len(texts.texts) else np.zeros(0, np.int64)
    joined = folded[keep].astype("<u4").tobytes().decode("utf-32-le")
    digests: list[bytes] = []
    begin = 0
    for i, size in enumerate(sizes.tolist()):
        end = begin + size
        text = fold(texts.texts[i]) if i in by_python else joined[begin:end].rstrip(" ")
        digests.append(hashlib.sha256(text.encode()).digest()[:16])
        begin = end
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2).T


def fold(text: str) -> str:
    """NFKC, case folding, and each run of white space one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@cache
def _folds() -> npt.NDArray[np.uint32]:
    """By code point: what `fold` makes of it wherever it stands, or _BY_PYTHON where that depends on its neighbours."""
    table = np.full(_TABLE + 1, _BY_PYTHON, dtype=np.uint32)
    for block in _AS_THEY_ARE:
        table[block.start : block.stop] = block
    points = list(itertools.chain(*_FOLDED))
    normal = unicodedata.normalize("NFKC", "\0".join(map(chr, points))).split("\0")
    pairs = (unicodedata.decomposition(chr(p)).split() for p in points)
    joins_before = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    joins_before |= set(map(chr, _HANGUL_VOWELS_AND_FINALS))
    for point, one in zip(points, normal, strict=True):
        folded = one.casefold()
        if len(one) == len(folded) == 1 and not unicodedata.combining(one) and one not in joins_before:
            table[point] = _SPACE if folded.isspace() else ord(folded)
    table[0] = 0
    return table
