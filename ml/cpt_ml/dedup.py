"""dedup: exact and near duplicates across all shards, by MinHash signatures that are verified on the n-grams."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, dropped, keep_mask, kept, read_rows, write_manifest, write_rows
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.verdict_counts import verdict_counts
from cpt_ml.words import Hashes, WordHashes, gram_hashes, words

VERDICTS_WITH_CLUSTER = VERDICTS.append(pa.field("cluster", pa.int64()))
ALONE = -1
MIN_CANDIDATE_RECALL = 0.99  # of the pairs exactly at the threshold
MAX_LEADERS = 16  # a bucket of a million copies of one template must not cost their square
DOCS_PER_BEAT = 500


@dataclass(frozen=True)
class DedupRequest:
    """The stage's request: similarity is the Jaccard index of the sets of word n-grams (Han: of characters)."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    ngram: int
    num_permutations: int
    jaccard: float
    seed: int


@dataclass
class Docs:
    """The documents that are judged, in their order of precedence: `use: validate` first, then as stored."""

    at: list[tuple[int, int]]  # shard and row
    ids: list[str]
    digests: list[bytes]
    grams: list[Hashes]  # sorted, each once


def run(job: Job) -> None:
    """Writes verdicts with `cluster` (number of the cluster, −1: alone); the first of a cluster is kept.

    Exact duplicates agree after NFKC, case folding and joining of white space. Near duplicates have a Jaccard index of
    at least `jaccard` over their n-grams; candidates come from MinHash bands (Broder 1997; the settings of
    arXiv:2412.17743) and each pair is verified; clusters are what pairs connect. Counts: as filter's, and clusters.
    """
    request = parse(DedupRequest, job.request)
    corpus = list(job.store.shards(request.corpus))
    drops = [list(job.store.shards(d)) for d in request.drops]
    masks = [keep_mask(path, [d[i] for d in drops]) for i, path in enumerate(corpus)]
    docs = read_docs(job, request, corpus, masks)
    sets = DisjointSets(len(docs.ids))
    first_of: dict[bytes, int] = {}
    for i, digest in enumerate(docs.digests):
        sets.union(first_of.setdefault(digest, i), i)
    distinct = sorted(first_of.values())
    for a, b in near_pairs(job, request, [docs.grams[i] for i in distinct]):
        sets.union(distinct[a], distinct[b])
    _write(job, corpus, docs, sets)


def read_docs(job: Job, request: DedupRequest, corpus: Sequence[Path], masks: Sequence[npt.NDArray[np.bool_]]) -> Docs:
    """Digest and n-grams of every document that no earlier stage has dropped."""
    cache = WordHashes()
    docs = Docs([], [], [], [])
    total = 2 * sum(len(m) for m in masks)
    seen = 0
    for use in ("validate", "train"):
        for shard, path in enumerate(corpus):
            for row, doc in enumerate(read_rows(path, ["id", "text", "use"])):
                seen += 1
                if seen % DOCS_PER_BEAT == 0:
                    job.beat("dedup: reading", seen, total, "documents")
                if doc["use"] != use or not masks[shard][row]:
                    continue
                docs.at.append((shard, row))
                docs.ids.append(doc["id"])
                docs.digests.append(text_digest(doc["text"]))
                docs.grams.append(np.unique(gram_hashes(words(doc["text"]), request.ngram, cache)))
    return docs


def text_digest(text: str) -> bytes:
    """Digest of a text whose exact copies may differ in case, width of characters and white space."""
    return hashlib.sha256(" ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()).digest()


def near_pairs(job: Job, request: DedupRequest, grams: Sequence[Hashes]) -> Iterator[tuple[int, int]]:
    """Verified pairs of near duplicates, enough of them to connect every cluster."""
    rows = band_rows(request.num_permutations, request.jaccard)
    multiply, add = permutations(request.num_permutations, request.seed)
    signatures = np.zeros((len(grams), request.num_permutations), dtype=np.uint64)
    for i, g in enumerate(grams):
        if len(g):
            signatures[i] = signature(g, multiply, add)
        if i % DOCS_PER_BEAT == 0:
            job.beat("dedup: signatures", i, len(grams), "documents")
    for start in range(0, request.num_permutations - rows + 1, rows):
        job.beat("dedup: comparing", start, request.num_permutations, "permutations")
        leaders: defaultdict[bytes, list[int]] = defaultdict(list)
        for i, g in enumerate(grams):
            if not len(g):
                continue
            bucket = leaders[signatures[i, start : start + rows].tobytes()]
            for leader in bucket:
                if jaccard(grams[leader], g) >= request.jaccard:
                    yield leader, i
                    break
            else:
                if len(bucket) < MAX_LEADERS:
                    bucket.append(i)


def permutations(count: int, seed: int) -> tuple[Hashes, Hashes]:
    """Odd multipliers and offsets of `count` maps h → a·h + b of 64-bit hashes (a bijection each)."""
    values = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 64, size=(2, count), dtype=np.uint64)
    return values[0] | np.uint64(1), values[1]


def signature(grams: Hashes, multiply: Hashes, add: Hashes) -> Hashes:
    """The least value of each map over the n-grams: two sets agree in a place with the probability of their Jaccard."""
    return np.array([(grams * a + b).min() for a, b in zip(multiply, add, strict=True)], dtype=np.uint64)


def band_rows(num_permutations: int, jaccard: float) -> int:
    """Most rows a band for which a pair at the threshold meets in some band with probability ≥ .99 (128, .7: 4)."""
    rows = 1
    while 1 - (1 - jaccard ** (rows + 1)) ** (num_permutations // (rows + 1)) >= MIN_CANDIDATE_RECALL:
        rows += 1
        if rows == num_permutations:
            break
    return rows


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard index of two sorted sets that are not empty."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


class DisjointSets:
    """Sets of documents; a set's root is its first document."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def union(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        self._parent[max(a, b)] = min(a, b)


def _write(job: Job, corpus: Sequence[Path], docs: Docs, sets: DisjointSets) -> None:
    roots = [sets.root(i) for i in range(len(docs.ids))]
    sizes = Counter(roots)
    numbers = {root: n for n, root in enumerate(sorted(r for r, size in sizes.items() if size > 1))}
    verdicts: dict[tuple[int, int], Json] = {}
    for i, root in enumerate(roots):
        same = docs.digests[i] == docs.digests[root]
        reason = "exact-duplicate" if same else "near-duplicate"
        verdict = kept() if i == root else dropped(reason, docs.ids[root])
        verdicts[docs.at[i]] = {**verdict, "cluster": numbers.get(root, ALONE)}
    not_judged = {**kept(), "cluster": ALONE}
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    attempt = job.attempt()
    shards: list[Json] = []
    for shard, path in enumerate(corpus):
        rows: list[Json] = []
        for row, doc in enumerate(read_rows(path, ["language"])):
            verdict = verdicts.get((shard, row))
            rows.append(verdict or not_judged)
            if verdict and verdict["keep"]:
                by_language[doc["language"]] += 1
            elif verdict:
                by_reason[verdict["reason"]] += 1
        name = f"verdicts-{shard:05d}.parquet"
        shards.append(attempt.shard(name, write_rows(attempt.path(name), VERDICTS_WITH_CLUSTER, rows)))
    counts = {**verdict_counts(len(docs.ids), by_reason, by_language), "clusters": len(numbers)}
    job.commit(attempt, {"verdicts": write_manifest(attempt, "verdicts", shards), "counts": counts})
