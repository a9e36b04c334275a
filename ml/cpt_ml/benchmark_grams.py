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
from cpt_ml.words import Hashes, num_han, words

SHORTEST_PART = 10  # words that single out a part, and of an answer the fewest: fewer are there by chance
MIN_ITEM_CHARS = 20  # letters and digits of a question, a Han character counting twice: "2+2?" is everywhere
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


@dataclass(frozen=True)
class Benchmark:
    """The parts of a benchmark's items; `too_short` are the items that have none that could be told from chance."""

    name: str
    items: int
    too_short: int
    parts: list[Part]


def read_benchmark(benchmark: str, path: Path, ngram: int) -> Benchmark:
    """Parts of the items of a file of JSON Lines {id, question, options, answer, kind}. Raises BadData if malformed.

    Options belong to a question that is too short for n-grams; the letter that answers a multiple choice is no part. A
    question of any number of words is a part, unless it has under MIN_ITEM_CHARS.
    """
    parts: list[Part] = []
    items = too_short = 0
    for line in read_lines(path):
        try:
            value = cast("Json", json.loads(line.data))
            item = Item(benchmark, str(value["id"]))
            question, options = words(value["question"]), words("\n".join(value.get("options") or []))
            asked = [question, options] if len(question) >= ngram else [question + options]
            texts = [t for t in asked if len(t) >= SHORTEST_PART or (t is asked[0] and _weight(t) >= MIN_ITEM_CHARS)]
            if value.get("kind") != "mcq" and value.get("answer"):
                worked = words(_CALCULATIONS.sub("", str(value["answer"])))
                texts += [worked] if len(worked) >= SHORTEST_PART else []
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            at = f"{benchmark}: line {line.number} of {path.name}"
            raise BadData(f"{at} is not a question ({e.__class__.__name__})") from e
        parts += [Part(item, t) for t in texts]
        items += 1
        too_short += not texts
    return Benchmark(benchmark, items, too_short, parts)


def _weight(tokens: list[str]) -> int:
    """Letters and digits, a Han character counting twice."""
    return sum(map(len, tokens)) + sum(map(num_han, tokens))


class BenchmarkGrams:
    """Looks up which items texts overlap with, many texts at a time."""

    def __init__(self, parts: list[Part], ngram: int, ignore_grams_over: int) -> None:
        self.ngram = ngram
        self._parts = parts
        long = [i for i, part in enumerate(parts) if len(part.tokens) >= ngram]
        short = [i for i, part in enumerate(parts) if len(part.tokens) < ngram]
        of_part: defaultdict[int, list[int]] = defaultdict(list)
        of_part.update(zip(long, _grams_of([parts[i].tokens for i in long], ngram), strict=True))
        wholes = Counter(tuple(parts[i].tokens) for i in short)
        told_short = [i for i in short if wholes[tuple(parts[i].tokens)] <= ignore_grams_over]
        self._anchors = _anchors(parts, told_short)
        seen = Counter(g for grams in of_part.values() for g in grams)
        self._of_gram: defaultdict[int, list[int]] = defaultdict(list)
        self._num_grams: list[int] = []
        for i in range(len(parts)):
            told = [g for g in of_part[i] if seen[g] <= ignore_grams_over]
            self._num_grams.append(len(told))
            for g in told:
                self._of_gram[g].append(i)
        self._grams = _Known(self._of_gram)
        self._told = {*told_short, *(i for i, n in enumerate(self._num_grams) if n)}

    def idioms(self, benchmark: str) -> int:
        """Items of a benchmark all of whose parts are idioms: nothing of them is looked for."""
        items = {part.item for part in self._parts if part.item.benchmark == benchmark}
        return len(items - {self._parts[i].item for i in self._told})

    def overlaps(self, texts: Sequence[str]) -> list[Overlap | None]:
        """What each text shares with the items, or None; a part under `ngram` words counts only if all of it is there.

        A text's n-grams count as often as they occur.
        """
        column = word_column(Texts.of(texts))
        grams = gram_column(column, self.ngram)
        enough = np.diff(column.offsets) >= self.ngram
        hits = self._grams.hits(grams)
        anchors: defaultdict[int, set[int]] = defaultdict(set)
        for length, (known, of_anchor) in self._anchors.items():
            for d, anchored in known.hits(gram_column(column, length)).items():
                anchors[d].update(i for a in set(anchored) for i in of_anchor[a])
        found: list[Overlap | None] = [None] * len(texts)
        for d in sorted(hits.keys() | anchors.keys()):
            total = int(grams.offsets[d + 1] - grams.offsets[d])
            found[d] = self._overlap(texts[d], hits.get(d, []) if enough[d] else [], total, anchors[d])
        return found

    def _overlap(self, text: str, hits: list[int], total: int, short: set[int]) -> Overlap | None:
        covered = Counter(i for g in set(hits) for i in self._of_gram[g])
        ratios = {i: n / self._num_grams[i] for i, n in covered.items()}
        if short:
            whole = _joined(words(text))
            ratios |= {i: 1.0 for i in sorted(short) if _joined(self._parts[i].tokens) in whole}
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


def _anchors(parts: list[Part], short: list[int]) -> dict[int, tuple[_Known, dict[int, list[int]]]]:
    """By number of words: hashes of the first words of short parts, and which parts begin so."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for i in short:
        by_length[min(len(parts[i].tokens), SHORTEST_PART)].append(i)
    found: dict[int, tuple[_Known, dict[int, list[int]]]] = {}
    for length, members in sorted(by_length.items()):
        of_anchor: defaultdict[int, list[int]] = defaultdict(list)
        for i, (anchor,) in zip(members, _grams_of([parts[i].tokens[:length] for i in members], length), strict=True):
            of_anchor[anchor].append(i)
        found[length] = (_Known(of_anchor), dict(of_anchor))
    return found


def _grams_of(many: list[list[str]], n: int) -> list[list[int]]:
    """Distinct n-grams of lists of words, as hashes."""
    column = distinct(gram_column(word_column(Texts.of([" ".join(tokens) for tokens in many])), n))
    return [column.hashes[a:b].tolist() for a, b in itertools.pairwise(column.offsets.tolist())]


def _joined(tokens: list[str]) -> str:
    return f" {' '.join(tokens)} "
