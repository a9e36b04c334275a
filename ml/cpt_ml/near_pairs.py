"""Pairs of near duplicates: who meets in a band of the signatures, verified on the sets of n-grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from cpt_ml.corpus import read_table
from cpt_ml.minhash import band_keys, band_rows
from cpt_ml.process_memory import return_free_memory
from cpt_ml.signature_files import SignatureSettings, least
from cpt_ml.text_batches import text_batches
from cpt_ml.word_columns import Texts, distinct, gram_column, word_column
from cpt_ml.words import Hashes

MAX_LEADERS = 16  # a bucket of a million copies of one template must not cost their square
BUCKETS_PER_BEAT = 1000
DOCS_A_COMPARISON = 256
FEW = 4  # documents that are compared faster one by one
NOBODY = -1
_NONE = np.zeros(0, dtype=np.uint64)

Numbers = npt.NDArray[np.int64]


class Beat(Protocol):
    """Says where the job is."""

    def __call__(self, phase: str, done: float = 0, total: float = 0, unit: str = "") -> None: ...


@dataclass(frozen=True)
class Documents:
    """The documents that are compared: their rows in the whole corpus, in order of precedence."""

    corpus: Sequence[Path]
    signatures: Sequence[Path]
    shard_rows: Sequence[int]
    rows: Numbers
    settings: SignatureSettings


def near_pairs(beat: Beat, docs: Documents, threshold: float, scratch: Path) -> Iterator[tuple[int, int]]:
    """Pairs (by place) with a Jaccard index of at least `threshold`, enough of them to connect every cluster.

    In a bucket (who agrees in a whole band) every document is compared with the leaders, those before it that were
    similar to none. In memory is one band of all documents; buckets, and the n-grams of who meets somebody, are in
    nameless files in the folder `scratch`, which a killed job does not leave behind.
    """
    permutations = docs.settings.num_permutations
    rows_a_band = band_rows(permutations, threshold)
    bands = range(0, permutations - rows_a_band + 1, rows_a_band)
    meets = np.zeros(len(docs.rows), dtype=np.bool_)
    with TemporaryFile(dir=scratch) as buckets, TemporaryFile(dir=scratch) as gram_file:
        for start in bands:
            beat("dedup: bands", start, permutations, "permutations")
            members, sizes = bucket_members(band_of(docs, start, rows_a_band))
            meets[members] = True
            for array in (np.array([len(members), len(sizes)]), members, sizes):
                array.tofile(buckets)
        buckets.seek(0)
        grams = GramSets(beat, docs, np.flatnonzero(meets), gram_file)
        leaders = _Leaders(grams, len(docs.rows), threshold)
        for start in bands:
            for bucket, group in enumerate(leaders.unsettled(*_read_buckets(buckets))):
                if bucket % BUCKETS_PER_BEAT == 0:
                    beat("dedup: comparing", start, permutations, "permutations")
                yield from leaders.settle(group)


def band_of(docs: Documents, start: int, rows_a_band: int) -> Hashes:
    """Key of each document in the band of signatures from place `start`."""
    names = [least(k) for k in range(start, start + rows_a_band)]
    keys = [band_keys(np.stack([c.to_numpy() for c in read_table(p, names).columns])) for p in docs.signatures]
    return np.concatenate(keys)[docs.rows] if keys else np.zeros(0, dtype=np.uint64)


def bucket_members(keys: Hashes) -> tuple[Numbers, Numbers]:
    """Documents that share their key with another, bucket by bucket and ascending in each; and the buckets' sizes."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(len(keys), dtype=np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    sizes = np.diff(np.flatnonzero(new), append=len(keys))
    shared = sizes > 1
    return order[np.repeat(shared, sizes)], sizes[shared]


def _read_buckets(file: IO[bytes]) -> tuple[Numbers, Numbers]:
    members, sizes = np.fromfile(file, dtype=np.int64, count=2).tolist()
    return np.fromfile(file, dtype=np.int64, count=members), np.fromfile(file, dtype=np.int64, count=sizes)


class GramSets:
    """The sets of n-grams of some documents, sorted, in a file: 8 bytes an n-gram."""

    def __init__(self, beat: Beat, docs: Documents, wanted: Numbers, file: IO[bytes]) -> None:
        self._place = np.full(len(docs.rows), NOBODY, dtype=np.int64)
        self._place[wanted] = np.arange(len(wanted))
        self._begins = np.zeros(len(wanted), dtype=np.int64)
        self._sizes = np.zeros(len(wanted), dtype=np.int64)
        by_row = wanted[np.argsort(docs.rows[wanted])]
        done = written = begin = 0
        for path, rows in zip(docs.corpus, docs.shard_rows, strict=True):
            mask = np.zeros(rows, dtype=np.bool_)
            end = done + int(np.searchsorted(docs.rows[by_row[done:]], begin + rows))
            mask[docs.rows[by_row[done:end]] - begin] = True
            begin += rows
            for _, texts in text_batches(path, mask) if end > done else ():
                beat("dedup: candidates", done, len(wanted), "documents")
                grams = distinct(gram_column(word_column(Texts.of(texts)), docs.settings.ngram))
                at = self._place[by_row[done : done + len(texts)]]
                self._begins[at] = written + grams.offsets[:-1]
                self._sizes[at] = np.diff(grams.offsets)
                grams.hashes.tofile(file)
                written += len(grams.hashes)
                done += len(texts)
            return_free_memory()
        file.flush()
        self._hashes: Hashes = np.asarray(np.memmap(file, np.uint64, "r", shape=(written,))) if written else _NONE

    def sizes(self, docs: Numbers) -> Numbers:
        """How many n-grams each of some documents has."""
        return self._sizes[self._place[docs]]

    def shared(self, doc: int, others: Numbers) -> Numbers:
        """How many n-grams a document shares with each of some others."""
        own = self._of(doc)
        if len(others) <= FEW:
            return np.array([_shared(own, self._of(other)) for other in others.tolist()], dtype=np.int64)
        sets = [self._of(other) for other in others.tolist()]
        theirs = np.concatenate(sets)
        at = np.minimum(np.searchsorted(own, theirs), len(own) - 1)
        begins = np.cumsum([0, *map(len, sets[:-1])])
        return np.add.reduceat(own[at] == theirs, begins, dtype=np.int64)

    def _of(self, doc: int) -> Hashes:
        begin = self._begins[self._place[doc]]
        return self._hashes[begin : begin + self._sizes[self._place[doc]]]


def _shared(a: Hashes, b: Hashes) -> int:
    both = np.concatenate((a, b))
    both.sort()
    return int(np.count_nonzero(both[1:] == both[:-1]))


class _Leaders:
    """Compares the documents of buckets, and remembers with whom each one was compared last."""

    def __init__(self, grams: GramSets, docs: int, threshold: float) -> None:
        self._grams = grams
        self._threshold = threshold
        self._similar = np.full(docs, NOBODY, dtype=np.int64)
        self._different = np.full(docs, NOBODY, dtype=np.int64)

    def unsettled(self, members: Numbers, sizes: Numbers) -> Iterator[Numbers]:
        """Buckets with a document that is not known to be similar to the first, those that are left out."""
        begins = np.cumsum(sizes) - sizes
        heads = np.repeat(members[begins], sizes)
        left = self._similar[members] != heads
        left[begins] = False
        if not left.any():
            return
        bucket_of = np.repeat(np.arange(len(sizes)), sizes)[left]
        cuts = np.flatnonzero(bucket_of[1:] != bucket_of[:-1]) + 1
        for group in np.split(np.flatnonzero(left), cuts):
            yield np.concatenate((heads[group[:1]], members[group]))

    def settle(self, group: Numbers) -> Iterator[tuple[int, int]]:
        """Verified pairs of a bucket that connect whoever is similar to a leader.

        The first that is similar to no leader before it is the next leader, and all behind it are compared with it.
        """
        for _ in range(MAX_LEADERS):
            leader, group = int(group[0]), group[1:]
            alike = self._alike(leader, group)
            for doc in group[alike].tolist():
                yield leader, doc
            group = group[~alike]
            if not len(group):
                return

    def _alike(self, leader: int, docs: Numbers) -> npt.NDArray[np.bool_]:
        """Which of the documents are similar to a leader: as far as known already, else by comparison."""
        alike = self._similar[docs] == leader
        sizes, size = self._grams.sizes(docs), self._grams.sizes(np.array([leader]))
        possible = np.minimum(sizes, size) >= self._threshold * np.maximum(sizes, size)
        compare = np.flatnonzero(~alike & (self._different[docs] != leader) & possible)
        for at in np.split(compare, range(DOCS_A_COMPARISON, len(compare), DOCS_A_COMPARISON)):
            shared = self._grams.shared(leader, docs[at])
            similar = shared >= self._threshold * (sizes[at] + size - shared)
            self._similar[docs[at[similar]]] = leader
            self._different[docs[at[~similar]]] = leader
            alike[at] = similar
        return alike
