"""MinHash signatures of sets of n-grams, and the bands in which similar ones meet (Broder 1997)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cpt_ml.word_columns import Column
from cpt_ml.words import Hashes, mix

MIN_CANDIDATE_RECALL = 0.99  # of the pairs exactly at the threshold
NOTHING = np.uint32(0xFFFFFFFF)  # the signature of no n-grams

Signatures = npt.NDArray[np.uint32]


def permutations(count: int, seed: int) -> tuple[Signatures, Signatures]:
    """Odd multipliers and offsets of `count` maps h → a·h + b of 32-bit hashes (a bijection each)."""
    values = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 32, size=(2, count), dtype=np.uint32)
    return values[0] | np.uint32(1), values[1]


def signatures(grams: Column, multiply: Signatures, add: Signatures) -> Signatures:
    """Of shape (permutations, documents): the least value of each map over a document's n-grams.

    Two sets agree in a place with the probability of their Jaccard index. Maps are of 32 bits, eight a step of the
    processor: signatures find candidates, which are then compared in full.
    """
    filled = np.flatnonzero(np.diff(grams.offsets))
    least = np.full((len(multiply), len(grams.offsets) - 1), NOTHING)
    if len(filled):
        hashes = (grams.hashes >> np.uint64(32)).astype(np.uint32)
        mapped = np.empty_like(hashes)
        begins = grams.offsets[filled]
        for k in range(len(multiply)):
            np.multiply(hashes, multiply[k], out=mapped)
            np.add(mapped, add[k], out=mapped)
            least[k, filled] = np.minimum.reduceat(mapped, begins)
    return least


def band_rows(num_permutations: int, jaccard: float) -> int:
    """Most rows a band for which a pair at the threshold meets in some band with probability ≥ .99 (128, .7: 4)."""
    rows = 1
    while 1 - (1 - jaccard ** (rows + 1)) ** (num_permutations // (rows + 1)) >= MIN_CANDIDATE_RECALL:
        rows += 1
        if rows == num_permutations:
            break
    return rows


def band_keys(band: Signatures) -> Hashes:
    """One hash of each document's part of a band of shape (rows, documents)."""
    keys = np.zeros(band.shape[1], dtype=np.uint64)
    for row in band:
        keys = mix(keys) + row
    return mix(keys)
