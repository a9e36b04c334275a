"""words-v1: the lower-cased words and single Han characters of a text, and hashes of their n-grams."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import numpy.typing as npt

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(f"[{HAN}]|[^\\W_{HAN}]+")
_HAN = re.compile(f"[{HAN}]")

Hashes = npt.NDArray[np.uint64]


def words(text: str) -> list[str]:
    """Lower-cased words (runs of letters and digits) and single Han characters, in order; punctuation is left out."""
    return _WORD.findall(text.lower())


def num_han(text: str) -> int:
    """Number of Han characters."""
    return len(_HAN.findall(text))


class WordHashes(dict[str, int]):
    """64-bit hash of each word, the same in every process; remembers the words it has seen."""

    def __missing__(self, word: str) -> int:
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = value
        return value


def gram_hashes(tokens: list[str], n: int, cache: WordHashes) -> Hashes:
    """uint64 hash of each n-gram, in order; one hash of all tokens where there are fewer than n, none of no tokens."""
    hashes = np.array([cache[t] for t in tokens], dtype=np.uint64)
    n = min(n, len(hashes))
    if n == 0:
        return hashes
    grams = np.zeros(len(hashes) - n + 1, dtype=np.uint64)
    for k in range(n):
        grams = mix(grams) + hashes[k : len(hashes) - n + 1 + k]
    return mix(grams)


def mix(x: Hashes) -> Hashes:
    """The finaliser of splitmix64: a bijection of 64 bits whose output bits depend on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
