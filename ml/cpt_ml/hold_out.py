"""hold-out: validation sets are frozen before anything is planned, and leave the corpus with their near duplicates."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import (
    VERDICTS,
    Mask,
    keep_mask,
    num_rows,
    read_column,
    read_table,
    write_columns,
    write_manifest,
    write_rows,
)
from cpt_ml.corpus_shards import string_array
from cpt_ml.count_strata import StratumKey, stratum_order
from cpt_ml.errors import BadRequest
from cpt_ml.hash_share import share_of
from cpt_ml.job import Job
from cpt_ml.personal_spans import Redaction, check_placeholders
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.text_batches import text_batches
from cpt_ml.verdict_counts import verdict_counts

VALIDATION = pa.schema([(name, pa.string()) for name in ("id", "text", "set", "language", "kind", "topic")])
REASON = "held-out"
ALONE = -1
BYTES_PER_DOC = 80
CANDIDATES = 1 << 16  # of which Python looks at one at a time

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HoldOutRequest:
    """The stage's request; of `duplicates`, dedup's verdicts, `cluster` is read (absent: all are alone)."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    topics: ArtifactRef | None
    duplicates: ArtifactRef | None
    personal_data: ArtifactRef | None
    placeholders: dict[str, str] | None
    target_se_nats: float
    paired_sd_nats: float
    max_share: float
    min_docs: int
    max_doc_chars: int
    seed: int


@dataclass(frozen=True)
class Docs:
    """The documents that no earlier stage has dropped, in corpus order, as columns: 25 bytes each, whatever the text.

    `rows` are rows of shards, those of shard s at `begins[s]` to `begins[s + 1]`; `strata` index `keys`; `clusters`
    are ALONE where a document has no duplicate; `shares` are the hashes of seed and id that decide who is chosen.
    """

    begins: Ints
    rows: npt.NDArray[np.uint32]
    strata: npt.NDArray[np.int32]
    clusters: Ints
    shares: npt.NDArray[np.float64]
    validate: Mask
    keys: list[StratumKey]

    def __len__(self) -> int:
        return len(self.rows)


class Inputs:
    """The shards that the request names. Raises BadRequest unless they are as many."""

    def __init__(self, job: Job, request: HoldOutRequest) -> None:
        self.corpus = list(job.store.shards(request.corpus))
        self._drops = [list(job.store.shards(d)) for d in request.drops]
        self.topics, self.duplicates = (
            list(job.store.shards(ref)) if ref else [None] * len(self.corpus)
            for ref in (request.topics, request.duplicates)
        )
        if not len(self.corpus) == len(self.topics) == len(self.duplicates):
            counts = f"{len(self.corpus)} corpus, {len(self.topics)} topic and {len(self.duplicates)} dedup shards"
            raise BadRequest(f"hold-out: {counts}")
        spans = list(job.store.shards(request.personal_data)) if request.personal_data else [None] * len(self.corpus)
        if len(spans) != len(self.corpus):
            raise BadRequest(f"hold-out: {len(self.corpus)} corpus and {len(spans)} personal data shards")
        self._spans, self._placeholders = spans, request.placeholders

    def left(self, shard: int) -> Mask:
        """Which rows of a shard no earlier stage has dropped."""
        return keep_mask(self.corpus[shard], [d[shard] for d in self._drops])

    def judged(self, shard: int, rows: int) -> tuple[list[str | None], Ints]:
        """Topic and cluster of each row of a shard: null and ALONE, where nobody judged that."""
        topics, duplicates = self.topics[shard], self.duplicates[shard]
        topic: list[str | None] = [None] * rows if topics is None else read_column(topics, "topic")
        if duplicates is None:
            return topic, np.full(rows, ALONE, dtype=np.int64)
        return topic, read_table(duplicates, ["cluster"])["cluster"].to_numpy()

    def redaction(self, shard: int) -> Redaction:
        """The texts of a shard as models read them."""
        return Redaction.of(self.corpus[shard], self._spans[shard], self._placeholders)


def run(job: Job) -> None:
    """Writes `validation.parquet` and verdicts that drop what is in it, with its near duplicates (reason held-out).

    Set `corpus`: of each (language, kind, topic) the documents with the least hashes of seed and id, n = (sd/se)² of
    them; at most `maxShare` of the stratum but at least `minDocs`, and none of a stratum under 2·minDocs. Set
    `retention`: all `use: validate` documents, topic null. Of a cluster one document is measured. Texts have their
    placeholders for personal data, and are then cut to `maxDocChars`. Counts: filter's; strata with docs and
    expectedSeNats = sd/√docs. Works shard after shard; 25 bytes of each document stay, at its peak it
    holds BYTES_PER_DOC of each.
    """
    request = parse(HoldOutRequest, job.request)
    check_placeholders("hold-out", request.personal_data, request.placeholders)
    inputs = Inputs(job, request)
    docs = read_docs(job, request, inputs)
    retention = retained(docs)
    chosen = choose(request, docs, Ids(inputs, docs), docs.clusters[retention])
    out = docs.validate.copy()
    out[chosen] = True
    clusters = np.concatenate([docs.clusters[retention], docs.clusters[chosen]])
    out |= np.isin(docs.clusters, clusters[clusters != ALONE])
    set_of = dict.fromkeys(retention.tolist(), "retention") | dict.fromkeys(chosen.tolist(), "corpus")
    attempt = job.attempt()
    write_rows(attempt.path("validation.parquet"), VALIDATION, measured(job, request, inputs, docs, set_of))
    shards = [_write_verdicts(attempt, inputs, docs, out, shard) for shard in range(len(inputs.corpus))]
    by_stratum = np.bincount(docs.strata[~out], minlength=len(docs.keys)).tolist()
    left: Counter[str] = Counter()
    for key, n in zip(docs.keys, by_stratum, strict=True):
        left[key[0]] += n
    by_reason = Counter({REASON: int(out.sum())} if out.any() else {})
    job.commit(
        attempt,
        {
            "verdicts": write_manifest(attempt, "verdicts", shards),
            "validation": attempt.ref("validation.parquet"),
            "counts": verdict_counts(len(docs), by_reason, +left),
            "strata": held_out_strata(request, docs, retention, chosen),
        },
    )


def read_docs(job: Job, request: HoldOutRequest, inputs: Inputs) -> Docs:
    """All documents still there. Raises BadRequest if the manifests are not row-aligned."""
    numbers: dict[StratumKey, int] = {}
    rows, strata, clusters, shares, validate = [], [], [], [], []
    for shard, path in enumerate(inputs.corpus):
        job.beat("hold-out", shard, len(inputs.corpus), "shards")
        mask = inputs.left(shard)
        topic, cluster = inputs.judged(shard, len(mask))
        if not len(mask) == len(topic) == len(cluster):
            counts = f"{len(mask)} rows, {len(topic)} topics, {len(cluster)} clusters"
            raise BadRequest(f"hold-out: shard {shard} has {counts}")
        table = read_table(path, ["id", "use", "language", "kind"]).filter(pa.array(mask))
        at = np.flatnonzero(mask)
        use = np.array([u == "validate" for u in table["use"].to_pylist()], dtype=np.bool_)
        topics = [None if v else topic[row] for v, row in zip(use.tolist(), at.tolist(), strict=True)]
        stratum = zip(table["language"].to_pylist(), table["kind"].to_pylist(), topics, strict=True)
        rows.append(at.astype(np.uint32))
        strata.append(np.fromiter((numbers.setdefault(s, len(numbers)) for s in stratum), np.int32, len(at)))
        clusters.append(cluster[mask])
        shares.append(np.fromiter((share_of(request.seed, i) for i in table["id"].to_pylist()), np.float64, len(at)))
        validate.append(use)
    begins = np.concatenate([[0], np.cumsum([len(r) for r in rows], dtype=np.int64)])
    columns = [np.concatenate(c) for c in (rows, strata, clusters, shares, validate)]
    return Docs(begins, columns[0], columns[1], columns[2], columns[3], columns[4], list(numbers))


def retained(docs: Docs) -> Ints:
    """The `use: validate` documents, the first of each cluster."""
    at = np.flatnonzero(docs.validate)
    return at[_first_of_each_cluster(docs.clusters[at])]


def choose(request: HoldOutRequest, docs: Docs, ids: Ids, taken: Ints) -> Ints:
    """Documents of the corpus set, in corpus order; `taken` clusters are held out already."""
    pool = np.flatnonzero(~docs.validate)
    wanted_docs = math.ceil((request.paired_sd_nats / request.target_se_nats) ** 2 - 1e-9)
    sizes = np.bincount(docs.strata[pool], minlength=len(docs.keys))
    most = np.maximum(request.min_docs, (request.max_share * sizes).astype(np.int64))
    wanted = np.where(sizes >= 2 * request.min_docs, np.minimum(wanted_docs, most), 0)
    gone = np.zeros_like(wanted)
    groups = Groups(docs, pool, ids)
    held = set(taken.tolist()) - {ALONE}
    chosen: list[int] = []
    for begin in range(0, len(groups.firsts), CANDIDATES):
        candidates = groups.firsts[begin : begin + CANDIDATES]
        for first in candidates[wanted[docs.strata[candidates]] > 0].tolist():
            leaves = np.bincount(docs.strata[groups.members(first)], minlength=len(wanted))
            # a cluster that would take more out of a stratum than its share stays whole in the corpus
            fits = (gone + leaves <= most)[leaves > 0].all()
            if wanted[docs.strata[first]] > 0 and fits and int(docs.clusters[first]) not in held:
                wanted[docs.strata[first]] -= 1
                gone += leaves
                chosen.append(first)
        if not wanted.any():
            break
    return np.array(sorted(chosen), dtype=np.int64)


class Groups:
    """What is held out together: a cluster, or documents of one id without duplicates.

    `firsts` has the document of each group that comes first by share and id, in that order.
    """

    def __init__(self, docs: Docs, pool: Ints, ids: Ids) -> None:
        self._clusters = docs.clusters
        self._of_one_id: dict[int, Ints] = {}
        order = pool[np.argsort(docs.shares[pool], kind="stable")]
        order = order[self._settle_ties(order, docs, ids)]
        self.firsts = order[_first_of_each_cluster(docs.clusters[order])]
        clustered = pool[docs.clusters[pool] != ALONE]
        self._clustered = clustered[np.argsort(docs.clusters[clustered], kind="stable")]
        self._sorted_clusters = docs.clusters[self._clustered]

    def members(self, first: int) -> Ints:
        """All documents of the group that one is the first of."""
        cluster = self._clusters[first]
        if cluster == ALONE:
            return self._of_one_id.get(first, np.array([first]))
        begin, end = (int(np.searchsorted(self._sorted_clusters, cluster, side)) for side in ("left", "right"))
        return self._clustered[begin:end]

    def _settle_ties(self, order: Ints, docs: Docs, ids: Ids) -> Mask:
        """Puts documents of equal shares in the order of their ids; which of them are no second of one id and alone."""
        keep = np.ones(len(order), dtype=np.bool_)
        shares = docs.shares[order]
        tied = np.append(shares[1:] == shares[:-1], [False])
        in_ties = np.flatnonzero(tied | np.append([False], tied[:-1]))
        if not len(in_ties):
            return keep
        name_of = ids(order[in_ties])
        for _, run in itertools.groupby(in_ties.tolist(), key=lambda place: shares[place]):
            places = list(run)
            members = sorted(order[places].tolist(), key=lambda doc: (name_of[doc], doc))
            order[places] = members
            alone: dict[str, list[int]] = {}
            for place, doc in zip(places, members, strict=True):
                if docs.clusters[doc] == ALONE:
                    same = alone.setdefault(name_of[doc], [])
                    keep[place] = not same
                    same.append(doc)
            self._of_one_id |= {same[0]: np.array(same) for same in alone.values() if len(same) > 1}
        return keep


class Ids:
    """Reads the ids of documents again, for the few whose shares are equal."""

    def __init__(self, inputs: Inputs, docs: Docs) -> None:
        self._inputs, self._docs = inputs, docs

    def __call__(self, wanted: Ints) -> dict[int, str]:
        names: dict[int, str] = {}
        wanted = np.sort(wanted)
        for shard, path in enumerate(self._inputs.corpus):
            begin, end = np.searchsorted(wanted, self._docs.begins[shard : shard + 2]).tolist()
            if begin < end:
                column = read_table(path, ["id"])["id"]
                found = column.take(pa.array(self._docs.rows[wanted[begin:end]])).to_pylist()
                # sys.intern: many documents may have one id
                names |= zip(wanted[begin:end].tolist(), map(sys.intern, found), strict=True)
        return names


def _first_of_each_cluster(clusters: Ints) -> Mask:
    """Which documents are alone or the first of their cluster."""
    first = clusters == ALONE
    first[np.unique(clusters, return_index=True)[1]] = True
    return first


def measured(job: Job, request: HoldOutRequest, inputs: Inputs, docs: Docs, set_of: dict[int, str]) -> Iterator[Json]:
    """The rows of validation.parquet, in corpus order; `set_of` names the set of each document measured."""
    places = np.array(sorted(set_of), dtype=np.int64)
    for shard, path in enumerate(inputs.corpus):
        begin, end = np.searchsorted(places, docs.begins[shard : shard + 2]).tolist()
        if begin == end:
            continue
        of_row = dict(zip(docs.rows[places[begin:end]].tolist(), places[begin:end].tolist(), strict=True))
        ids = read_table(path, ["id"])["id"]
        wanted = np.zeros(len(ids), dtype=np.bool_)
        wanted[list(of_row)] = True
        redaction = inputs.redaction(shard)
        for rows, texts in text_batches(path, wanted):
            job.beat("hold-out: texts", shard, len(inputs.corpus), "shards")
            for row, text in zip(rows.tolist(), texts, strict=True):
                language, kind, topic = docs.keys[docs.strata[of_row[row]]]
                read = redaction.text(row, text)[: request.max_doc_chars]
                where = {"set": set_of[of_row[row]], "language": language, "kind": kind, "topic": topic}
                yield {"id": ids[row].as_py(), "text": read, **where}


def held_out_strata(request: HoldOutRequest, docs: Docs, retention: Ints, chosen: Ints) -> list[Json]:
    """What each stratum of each set holds."""
    strata: list[Json] = []
    for name, places in (("corpus", chosen), ("retention", retention)):
        sizes = Counter(docs.keys[s] for s in docs.strata[places].tolist())
        for key in sorted(sizes, key=stratum_order):
            stratum = {"language": key[0], "kind": key[1], "topic": key[2], "set": name, "docs": sizes[key]}
            strata.append({**stratum, "expectedSeNats": request.paired_sd_nats / math.sqrt(sizes[key])})
    return strata


def _write_verdicts(attempt: Attempt, inputs: Inputs, docs: Docs, out: Mask, shard: int) -> Json:
    begin, end = docs.begins[shard : shard + 2].tolist()
    held = np.zeros(num_rows(inputs.corpus[shard]), dtype=np.bool_)
    held[docs.rows[begin:end][out[begin:end]]] = True
    said = held.tolist()
    reason, evidence = (string_array([value if h else None for h in said]) for value in (REASON, ""))
    name = f"verdicts-{shard:05d}.parquet"
    write_columns(attempt.path(name), VERDICTS, [pa.array(~held), reason, evidence])
    return attempt.shard(name, len(held))
