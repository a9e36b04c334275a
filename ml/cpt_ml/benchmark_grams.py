"""The n-grams of benchmark questions, and how much of a text they cover."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cpt_ml.errors import BadData
from cpt_ml.lines import read_lines
from cpt_ml.store import Json
from cpt_ml.word_columns import Column, Texts, distinct, gram_column, word_column
from cpt_ml.words import Hashes, words

SHORTEST_PART = 10  # fewer words may be there by chance
TABLE_BITS = 20  # a megabyte, which stays in the cache of the processor
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
    """Looks up which items texts overlap with, many texts at a time."""

    def __init__(self, parts: list[Part], ngram: int, ignore_grams_over: int) -> None:
        self.ngram = ngram
        self._parts = parts
        long = [i for i, part in enumerate(parts) if len(part.tokens) >= ngram]
        short = [i for i, part in enumerate(parts) if len(part.tokens) < ngram]
        of_part: defaultdict[int, list[int]] = defaultdict(list)
        of_part.update(zip(long, _grams_of([parts[i].tokens for i in long], ngram), strict=True))
        anchors = _grams_of([parts[i].tokens[:SHORTEST_PART] for i in short], SHORTEST_PART)
        self._short: defaultdict[int, list[int]] = defaultdict(list)
        for i, (anchor,) in zip(short, anchors, strict=True):
            self._short[anchor].append(i)
        seen = Counter(g for grams in of_part.values() for g in grams)
        self._of_gram: defaultdict[int, list[int]] = defaultdict(list)
        self._num_grams: list[int] = []
        for i in range(len(parts)):
            told = [g for g in of_part[i] if seen[g] <= ignore_grams_over]
            self._num_grams.append(len(told))
            for g in told:
                self._of_gram[g].append(i)
        self._grams = _Known(self._of_gram)
        self._anchors = _Known(self._short)

    def overlaps(self, texts: Sequence[str]) -> list[Overlap | None]:
        """What each text shares with the items, or None; a part under `ngram` words counts only if all of it is there.

        A text's n-grams count as often as they occur.
        """
        column = word_column(Texts.of(texts))
        grams = gram_column(column, self.ngram)
        enough = np.diff(column.offsets) >= self.ngram
        hits = self._grams.hits(grams)
        anchors = self._anchors.hits(gram_column(column, SHORTEST_PART))
        found: list[Overlap | None] = [None] * len(texts)
        for d in sorted(hits.keys() | anchors.keys()):
            total = int(grams.offsets[d + 1] - grams.offsets[d])
            found[d] = self._overlap(texts[d], hits.get(d, []) if enough[d] else [], total, anchors.get(d, []))
        return found

    def _overlap(self, text: str, hits: list[int], total: int, anchors: list[int]) -> Overlap | None:
        covered = Counter(i for g in set(hits) for i in self._of_gram[g])
        ratios = {i: n / self._num_grams[i] for i, n in covered.items()}
        if anchors:
            whole = _joined(words(text))
            there = [i for a in set(anchors) for i in self._short[a] if _joined(self._parts[i].tokens) in whole]
            ratios |= dict.fromkeys(there, 1.0)
        if not ratios:
            return None
        best = min(ratios, key=lambda i: (-ratios[i], i))
        return Overlap(self._parts[best].item, len(hits) / max(1, total), ratios[best])


class _Known:
    """A set of hashes that many others are looked up in."""

    def __init__(self, hashes: Iterable[int]) -> None:
        self._sorted: Hashes = np.array(sorted(hashes), dtype=np.uint64)
        # most hashes fall where none is known: one look into a small table tells that without a search
        self._shift = np.uint64(64 - TABLE_BITS)
        self._any = np.zeros(1 << TABLE_BITS, dtype=np.bool_)
        self._any[self._sorted >> self._shift] = True

    def hits(self, column: Column) -> dict[int, list[int]]:
        """By document, its hashes that are known, each as often as it occurs."""
        if not len(self._sorted):
            return {}
        maybe = np.flatnonzero(np.take(self._any, (column.hashes >> self._shift).astype(np.intp)))
        hashes = column.hashes[maybe]
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        sure = self._sorted[at] == hashes
        docs = np.searchsorted(column.offsets, maybe[sure], side="right") - 1
        found: defaultdict[int, list[int]] = defaultdict(list)
        for doc, gram in zip(docs.tolist(), hashes[sure].tolist(), strict=True):
            found[doc].append(gram)
        return dict(found)


def _grams_of(many: list[list[str]], n: int) -> list[list[int]]:
    """Distinct n-grams of lists of words, as hashes."""
    column = distinct(gram_column(word_column(Texts.of([" ".join(tokens) for tokens in many])), n))
    return [column.hashes[a:b].tolist() for a, b in itertools.pairwise(column.offsets.tolist())]


def _joined(tokens: list[str]) -> str:
    return f" {' '.join(tokens)} "
