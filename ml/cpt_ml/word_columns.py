"""words-v1 in columns: hashes of the words and n-grams of many documents at once, with no Python object a word.

The words are those of words.py; the hashes are its own: polynomials over lower-cased characters and over words, modulo
2^64 and then mixed, so that a sum of prefixes gives those of all words of a text in a few steps of numpy.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from cpt_ml.words import HAN, Hashes, mix

WINDOW = 1 << 17  # characters a step, so that its temporaries stay in the cache of the processor
BASE = 0x9E3779B97F4A7C13  # ≡ 3 modulo 8: powers of it differ in all but the lowest bits
_MODULUS = 1 << 64
_SEPARATOR = "\n"
_SEVERAL = "\u0130"  # İ, the one character whose lower case is two
_BY_CONTEXT = "\u03a3"  # Σ, whose lower case depends on its place in the word
_LETTER, _ALONE = 1, 2
_TABLE = 0x323B0  # the last Han character's successor; no letter or digit stands behind it


@dataclass(frozen=True)
class Column:
    """Hashes of many documents back to back: those of document d are `hashes[offsets[d]:offsets[d + 1]]`, in order."""

    hashes: Hashes
    offsets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Alphabet:
    """By code point of a character: what it is (0: no part of a word), and a number for its lower case."""

    kind: npt.NDArray[np.uint8]
    value: Hashes


@dataclass(frozen=True)
class Texts:
    """Many texts, and their characters in one array: those of text d from `begins[d]` on, a line end after each."""

    texts: Sequence[str]
    points: npt.NDArray[np.intp]
    begins: npt.NDArray[np.int64]

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        joined = "".join([text + _SEPARATOR for text in texts])
        begins = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) + len(_SEPARATOR) for text in texts], out=begins[1:])
        points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.intp)
        return Texts(texts, points, begins)


def word_column(texts: Texts) -> Column:
    """Hashes of the words of each text: equal for equal words, whatever the process and the texts beside it."""
    if any(_SEVERAL in text or _BY_CONTEXT in text for text in texts.texts):
        texts = Texts.of([text.lower() for text in texts.texts])
    hashes, starts = _words(texts.points)
    return Column(hashes, np.searchsorted(starts, texts.begins))


def gram_column(words: Column, n: int) -> Column:
    """Hashes of the n-grams of words, in order; one of all words where there are fewer than n, none of no words."""
    begins, lengths = words.offsets[:-1], np.diff(words.offsets)
    counts = np.where(lengths >= n, lengths - n + 1, np.minimum(lengths, 1))
    hashes = _polynomials(words.hashes, n)
    short = np.flatnonzero((lengths > 0) & (lengths < n))
    if len(short):
        hashes[begins[short]] = _all_words(words.hashes, begins[short], lengths[short])
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return Column(mix(hashes[_first_of_each(begins, counts, len(hashes))]), offsets)


def distinct(column: Column) -> Column:
    """Each document's hashes sorted, each once."""
    hashes = column.hashes.copy()
    for begin, end in itertools.pairwise(column.offsets.tolist()):
        hashes[begin:end].sort()
    keep = np.ones(len(hashes), dtype=np.bool_)
    keep[1:] = hashes[1:] != hashes[:-1]
    begins = column.offsets[:-1]
    keep[begins[begins < column.offsets[1:]]] = True
    before = np.zeros(len(hashes) + 1, dtype=np.int64)
    np.cumsum(keep, out=before[1:])
    return Column(hashes[keep], before[column.offsets])


@cache
def _alphabet() -> _Alphabet:
    # its last entry stands for all characters behind
    everything = np.arange(_TABLE + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    lower = everything.replace(_SEVERAL, "i").lower()
    kind = np.zeros(len(lower), dtype=np.uint8)
    for of, pattern in ((_LETTER, f"[^\\W_{HAN}]+"), (_ALONE, f"[{HAN}]+")):
        for run in re.finditer(pattern, lower):
            kind[run.start() : run.end()] = of
    points = np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return _Alphabet(kind, mix(points.astype(np.uint64) + np.uint64(BASE)))


def _words(points: npt.NDArray[np.intp]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hash and first character of each word of a text."""
    alphabet = _alphabet()
    kinds = np.take(alphabet.kind, points, mode="clip")
    hashes: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
    starts: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    powers, inverse = _powers(WINDOW)
    at = 0
    while at < len(points):
        end = _between_words(kinds, at)
        if end - at > WINDOW:
            hashes.append(mix(np.array([_long_word(points[at:end])], dtype=np.uint64)))
            starts.append(np.array([at]))
            at = end
            continue
        kind = kinds[at:end]
        letter = kind == _LETTER
        inside = letter[1:] & letter[:-1]
        first = kind != 0
        last = first.copy()
        first[1:] ^= inside
        last[:-1] ^= inside
        begin = np.flatnonzero(first)
        values = np.take(alphabet.value, points[at:end], mode="clip")
        values *= powers[: end - at]
        sums = np.zeros(end - at + 1, dtype=np.uint64)
        np.cumsum(values, out=sums[1:])
        hashes.append(mix((sums[np.flatnonzero(last) + 1] - sums[begin]) * inverse[begin]))
        starts.append(begin + at)
        at = end
    return np.concatenate(hashes), np.concatenate(starts)


def _between_words(kinds: npt.NDArray[np.uint8], at: int) -> int:
    """Where a window from `at` ends: not inside a word, unless it begins one that is longer: then where that ends."""
    if at + WINDOW >= len(kinds):
        return len(kinds)
    letter = kinds[at : at + WINDOW + 1] == _LETTER
    breaks = np.flatnonzero(~(letter[1:] & letter[:-1]))
    if len(breaks):
        return at + int(breaks[-1]) + 1
    for begin in range(at + WINDOW, len(kinds), WINDOW):
        others = np.flatnonzero(kinds[begin : begin + WINDOW] != _LETTER)
        if len(others):
            return begin + int(others[0])
    return len(kinds)


def _long_word(points: npt.NDArray[np.intp]) -> int:
    """The sum over a word that is longer than a window, a window at a time."""
    powers, _ = _powers(WINDOW)
    total = 0
    for begin in range(0, len(points), WINDOW):
        values = np.take(_alphabet().value, points[begin : begin + WINDOW], mode="clip")
        total += int((values * powers[: len(values)]).sum()) * pow(BASE, begin, _MODULUS)
    return total % _MODULUS


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """BASE^i and BASE^-i modulo 2^64."""

    def powers(of: int) -> Hashes:
        factors = np.full(count, of, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return powers(BASE), powers(pow(BASE, -1, _MODULUS))


def _polynomials(words: Hashes, n: int) -> Hashes:
    """Of the n words from each place, Σ word·BASE^(n-1-k); made from those of half as many. The last n - 1 are void."""
    of_n, have = words.copy(), 1
    for bit in f"{n:b}"[1:]:
        doubled = of_n * np.uint64(pow(BASE, have, _MODULUS))
        doubled[:-have] += of_n[have:]
        of_n, have = doubled, 2 * have
        if bit == "1":
            of_n *= np.uint64(BASE)
            of_n[:-have] += words[have:]
            have += 1
    return of_n


def _all_words(words: Hashes, begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Hashes:
    """The same sum over all words of each of some short documents."""
    sums = np.zeros(len(begins), dtype=np.uint64)
    for k in range(int(lengths.max())):
        there = lengths > k
        sums[there] = sums[there] * np.uint64(BASE) + words[begins[there] + k]
    return sums


def _first_of_each(begins: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.bool_]:
    """Mask of the first `counts` places from each of `begins`."""
    steps = np.zeros(total + 1, dtype=np.int8)
    some = counts > 0
    steps[begins[some]] += 1
    steps[begins[some] + counts[some]] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)
