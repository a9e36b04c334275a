"""dedup: exact and near duplicates across all shards, by MinHash signatures that are verified on the n-grams.

Nothing is held of a document but BYTES_PER_DOC, whatever its length: one band of the signatures is in memory at a time,
and the n-grams of the documents that meet another in a band lie in a scratch file of the job, 8 bytes each.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, Mask, count_values, keep_mask, read_table, write_columns, write_manifest
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.near_pairs import Documents, near_pairs
from cpt_ml.process_memory import map_large_buffers
from cpt_ml.signature_files import DIGESTS, SignatureSettings, check_signatures, write_signatures
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.verdict_counts import verdict_counts

VERDICTS_WITH_CLUSTER = VERDICTS.append(pa.field("cluster", pa.int64()))
ALONE = -1
BYTES_PER_DOC = 130  # at the peak, where every document has a near duplicate: 1.3 GB for 10 million; a test measures it

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DedupRequest:
    """The stage's request: similarity is the Jaccard index of the sets of word n-grams (Han: of characters).

    Without `signatures` (of dedup-signatures, over the same corpus and drops) the stage makes them for itself.
    """

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    signatures: ArtifactRef | None
    ngram: int
    num_permutations: int
    jaccard: float
    seed: int

    @property
    def settings(self) -> SignatureSettings:
        """What the signatures have to be made with."""
        return SignatureSettings(self.ngram, self.num_permutations, self.seed)


@dataclass(frozen=True)
class Clusters:
    """Of each judged document, in order of precedence: its row in the whole corpus, first copy and root (by place)."""

    rows: Rows
    first_of: Rows
    roots: Rows


def run(job: Job) -> None:
    """Writes verdicts with `cluster` (number of the cluster, −1: alone); the first of a cluster is kept.

    First is what serves validation (`use: validate`), then what is stored first. Exact duplicates agree after NFKC,
    case folding and joining of white space. Near duplicates have a Jaccard index of at least `jaccard` over their
    n-grams; candidates come from MinHash bands (Broder 1997; the settings of arXiv:2412.17743) and each pair is
    verified; clusters are what pairs connect. Counts: as filter's, and clusters. Raises BadRequest if the signatures
    are not of this corpus, these drops and these settings.
    """
    request = parse(DedupRequest, job.request)
    map_large_buffers()
    corpus = list(job.store.shards(request.corpus))
    drops = [list(job.store.shards(d)) for d in request.drops]
    judged = [keep_mask(path, [d[i] for d in drops]) for i, path in enumerate(corpus)]
    with tempfile.TemporaryDirectory(dir=job.folder, prefix="signatures-") as folder:
        signatures = _signatures(job, request, corpus, judged, Path(folder))
        rows = by_precedence(job, corpus, judged)
        first_of, distinct = exact_duplicates(job, signatures, rows)
        sets = DisjointSets(first_of)
        docs = Documents(corpus, signatures, [len(m) for m in judged], rows[distinct], request.settings)
        for a, b in near_pairs(job.beat, docs, request.jaccard, job.folder):
            sets.union(int(distinct[a]), int(distinct[b]))
    _write(job, corpus, judged, Clusters(rows, first_of, sets.roots()))


def _signatures(
    job: Job, request: DedupRequest, corpus: Sequence[Path], judged: Sequence[Mask], folder: Path
) -> list[Path]:
    if request.signatures is not None:
        paths = list(job.store.shards(request.signatures))
        if len(paths) != len(corpus):
            raise BadRequest(f"dedup: {len(corpus)} corpus shards, but signatures of {len(paths)}")
        for path, mask in zip(paths, judged, strict=True):
            check_signatures(path, len(mask), request.settings)
        return paths
    paths = [folder / f"{shard:05d}.parquet" for shard in range(len(corpus))]
    for shard, (path, mask) in enumerate(zip(corpus, judged, strict=True)):

        def beat(_row: int, shard: int = shard) -> None:
            job.beat("dedup: signatures", shard, len(corpus), "shards")

        write_signatures(path, mask, paths[shard], request.settings, beat)
    return paths


def by_precedence(job: Job, corpus: Sequence[Path], judged: Sequence[Mask]) -> Rows:
    """The judged documents in the order in which they are kept, by their row in the whole corpus."""
    validate: list[Rows] = []
    train: list[Rows] = []
    begin = 0
    for shard, (path, mask) in enumerate(zip(corpus, judged, strict=True)):
        job.beat("dedup: reading", shard, len(corpus), "shards")
        first = pc.call_function("equal", [read_table(path, ["use"])["use"], pa.scalar("validate")]).to_numpy()
        validate.append(begin + np.flatnonzero(mask & first))
        train.append(begin + np.flatnonzero(mask & ~first))
        begin += len(mask)
    return np.concatenate([np.zeros(0, dtype=np.int64), *validate, *train])


def exact_duplicates(job: Job, signatures: Sequence[Path], rows: Rows) -> tuple[Rows, Rows]:
    """Of each document (by place in `rows`) the first with its digest, and which are first and have an n-gram.

    Raises BadRequest if a document has no digest: then the signatures are of other drops.
    """
    digests: list[npt.NDArray[np.uint64]] = []
    for name in DIGESTS:
        job.beat("dedup: digests", len(digests), len(DIGESTS))
        column: list[npt.NDArray[np.uint64]] = []
        begin = 0
        for path in signatures:
            values = read_table(path, [name])[name].combine_chunks()
            missing = values.is_null().to_numpy(zero_copy_only=False)
            column.append(values.fill_null(0).to_numpy())
            if missing.any() and np.isin(begin + np.flatnonzero(missing), rows).any():
                raise BadRequest(f"{path.name}: a document that dedup has to judge has no signature: other drops?")
            begin += len(missing)
        digests.append(np.concatenate([np.zeros(0, dtype=np.uint64), *column])[rows])
    job.beat("dedup: exact duplicates")
    order = np.lexsort(digests[::-1])  # stable: of equal ones the first in `rows` is the first
    new = np.ones(len(order), dtype=np.bool_)
    differ = np.zeros(max(0, len(order) - 1), dtype=np.bool_)
    for digest in digests:
        ordered = digest[order]
        differ |= ordered[1:] != ordered[:-1]
    new[1:] = differ
    begins = np.flatnonzero(new)
    first_of = np.empty(len(order), dtype=np.int64)
    first_of[order] = np.repeat(order[begins], np.diff(begins, append=len(order)))
    has_grams = np.concatenate(
        [np.zeros(0, dtype=np.bool_), *(read_table(p, ["num_grams"])["num_grams"].to_numpy() > 0 for p in signatures)]
    )
    return first_of, np.flatnonzero((first_of == np.arange(len(order))) & has_grams[rows])


class DisjointSets:
    """Sets of documents; a set's root is its first document."""

    def __init__(self, parents: Rows) -> None:
        """`parents` names of each document one of its set that is not behind it."""
        self._parent = parents.copy()

    def root(self, i: int) -> int:
        parent = self._parent
        while (up := int(parent[i])) != i:
            parent[i] = parent[up]
            i = up
        return i

    def union(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        self._parent[max(a, b)] = min(a, b)

    def roots(self) -> Rows:
        """Of each document the root of its set."""
        roots = self._parent
        while not np.array_equal(up := roots[roots], roots):
            roots = up
        return roots


def _write(job: Job, corpus: Sequence[Path], judged: Sequence[Mask], clusters: Clusters) -> None:
    rows, roots = clusters.rows, clusters.roots
    total = sum(map(len, judged))
    sizes = np.bincount(roots, minlength=len(rows))
    leads = np.flatnonzero(sizes > 1)
    number_of = np.full(len(rows), ALONE, dtype=np.int64)
    number_of[leads] = np.arange(len(leads))
    cluster = np.full(total, ALONE, dtype=np.int64)
    cluster[rows] = number_of[roots]
    reason = np.zeros(total, dtype=np.int8)  # an index into REASONS
    reason[rows] = np.where(roots == np.arange(len(rows)), KEPT, np.where(clusters.first_of == roots, EXACT, NEAR))
    ids = _ids(job, corpus, judged, rows[leads])
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    attempt = job.attempt()
    shards: list[Json] = []
    for shard, begin, path in _begins(corpus, judged):
        job.beat("dedup: verdicts", shard, len(corpus), "shards")
        end = begin + len(judged[shard])
        why = pa.DictionaryArray.from_arrays(pa.array(reason[begin:end]), REASONS).cast(pa.string())
        keep = reason[begin:end] == KEPT
        kept_instead = ids.take(pa.array(cluster[begin:end], mask=keep))
        name = f"verdicts-{shard:05d}.parquet"
        columns = [pa.array(keep), why, kept_instead, pa.array(cluster[begin:end])]
        write_columns(attempt.path(name), VERDICTS_WITH_CLUSTER, columns)
        shards.append(attempt.shard(name, end - begin))
        languages = read_table(path, ["language"])["language"].filter(pa.array(keep & judged[shard]))
        by_language += count_values(languages)
        by_reason += count_values(why.drop_null())
    counts = {**verdict_counts(len(rows), by_reason, by_language), "clusters": len(leads)}
    job.commit(attempt, {"verdicts": write_manifest(attempt, "verdicts", shards), "counts": counts})


KEPT, EXACT, NEAR = range(3)
REASONS = pa.array([None, "exact-duplicate", "near-duplicate"])


def _begins(corpus: Sequence[Path], judged: Sequence[Mask]) -> Iterator[tuple[int, int, Path]]:
    """Each shard with its first row's number in the whole corpus."""
    begin = 0
    for shard, path in enumerate(corpus):
        yield shard, begin, path
        begin += len(judged[shard])


def _ids(job: Job, corpus: Sequence[Path], judged: Sequence[Mask], rows: Rows) -> pa.StringArray:
    """Ids of some rows of the whole corpus, in the order asked for."""
    order = np.argsort(rows)
    ordered = rows[order]
    found: list[pa.Array] = [pa.array([], pa.string())]
    for shard, begin, path in _begins(corpus, judged):
        job.beat("dedup: ids", shard, len(corpus), "shards")
        here = ordered[np.searchsorted(ordered, begin) : np.searchsorted(ordered, begin + len(judged[shard]))] - begin
        if len(here):
            found.append(read_table(path, ["id"])["id"].take(pa.array(here)).combine_chunks())
    places = np.empty(len(rows), dtype=np.int64)
    places[order] = np.arange(len(rows))
    return pa.concat_arrays(found).take(pa.array(places))
