"""The n-grams of benchmark questions, and how much of a text they cover."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cpt_ml.errors import BadData
from cpt_ml.lines import read_lines
from cpt_ml.store import Json
from cpt_ml.words import Hashes, WordHashes, gram_hashes, words

SHORTEST_PART = 10  # fewer words may be there by chance
_CALCULATIONS = re.compile("<<[^>]*>>")


@dataclass(frozen=True)
class Item:
    """One question of a benchmark."""

    benchmark: str
    id: str


@dataclass(frozen=True)
class Overlap:
    """The item that a text shares most with: n-grams hit as a share of the text's, and of one part's."""

    item: Item
    text_ratio: float
    item_ratio: float


@dataclass(frozen=True)
class Part:
    """A piece of an item that may turn up without the others: its question, its options, its worked answer."""

    item: Item
    tokens: list[str]


def read_parts(benchmark: str, path: Path, ngram: int) -> list[Part]:
    """Parts of the items of a file of JSON Lines {id, question, options, answer, kind}. Raises BadData if malformed.

    Options belong to a question that is too short for n-grams; the letter that answers a multiple choice is no part.
    """
    parts: list[Part] = []
    for line in read_lines(path):
        try:
            value = cast("Json", json.loads(line.data))
            item = Item(benchmark, str(value["id"]))
            question, options = words(value["question"]), words("\n".join(value.get("options") or []))
            texts = [question, options] if len(question) >= ngram else [question + options]
            if value.get("kind") != "mcq" and value.get("answer"):
                texts.append(words(_CALCULATIONS.sub("", str(value["answer"]))))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            at = f"{benchmark}: line {line.number} of {path.name}"
            raise BadData(f"{at} is not a question ({e.__class__.__name__})") from e
        parts += [Part(item, t) for t in texts if len(t) >= SHORTEST_PART]
    return parts


class BenchmarkGrams:
    """Looks up which items a text overlaps with."""

    def __init__(self, parts: list[Part], ngram: int, ignore_grams_over: int) -> None:
        self.ngram = ngram
        self._parts = parts
        self._cache = WordHashes()
        self._short: defaultdict[int, list[int]] = defaultdict(list)
        of_part: list[list[int]] = []
        for i, part in enumerate(parts):
            if len(part.tokens) >= ngram:
                of_part.append(np.unique(gram_hashes(part.tokens, ngram, self._cache)).tolist())
            else:
                of_part.append([])
                anchor = gram_hashes(part.tokens[:SHORTEST_PART], SHORTEST_PART, self._cache)
                self._short[int(anchor[0])].append(i)
        seen = Counter(g for grams in of_part for g in grams)
        self._of_gram: defaultdict[int, list[int]] = defaultdict(list)
        self._num_grams: list[int] = []
        for i, grams in enumerate(of_part):
            told = [g for g in grams if seen[g] <= ignore_grams_over]
            self._num_grams.append(len(told))
            for g in told:
                self._of_gram[g].append(i)
        self._grams = np.array(sorted(self._of_gram), dtype=np.uint64)
        self._anchors = np.array(sorted(self._short), dtype=np.uint64)

    def overlap(self, text: str) -> Overlap | None:
        """What a text shares with the items, or None; a part under `ngram` words counts only if it is there in full."""
        tokens = words(text)
        hits, total = self._hits(tokens, self.ngram, self._grams)
        covered = Counter(i for g in set(hits) for i in self._of_gram[g])
        ratios = {i: n / self._num_grams[i] for i, n in covered.items()}
        for anchor in self._hits(tokens, SHORTEST_PART, self._anchors)[0]:
            found = [i for i in self._short[anchor] if _joined(self._parts[i].tokens) in _joined(tokens)]
            ratios |= dict.fromkeys(found, 1.0)
        if not ratios:
            return None
        best = min(ratios, key=lambda i: (-ratios[i], i))
        return Overlap(self._parts[best].item, len(hits) / max(1, total), ratios[best])

    def _hits(self, tokens: list[str], n: int, known: Hashes) -> tuple[list[int], int]:
        """The text's n-grams that are known (each as often as it occurs), and how many it has."""
        if len(tokens) < n or not len(known):
            return [], 0
        grams = gram_hashes(tokens, n, self._cache)
        at = np.minimum(np.searchsorted(known, grams), len(known) - 1)
        return grams[known[at] == grams].tolist(), len(grams)


def _joined(tokens: list[str]) -> str:
    return f" {' '.join(tokens)} "
