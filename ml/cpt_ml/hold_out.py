"""hold-out: validation sets are frozen before anything is planned, and leave the corpus with their near duplicates."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, dropped, keep_mask, kept, read_column, read_rows, write_manifest, write_rows
from cpt_ml.count_strata import StratumKey, stratum_order
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.train_topic_classifier import share_of
from cpt_ml.verdict_counts import verdict_counts

VALIDATION = pa.schema([(name, pa.string()) for name in ("id", "text", "set", "language", "kind", "topic")])
REASON = "held-out"


@dataclass(frozen=True)
class HoldOutRequest:
    """The stage's request; `duplicates` are dedup's verdicts, of which `cluster` is read."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    topics: ArtifactRef
    duplicates: ArtifactRef
    target_se_nats: float
    paired_sd_nats: float
    max_share: float
    min_docs: int
    max_doc_chars: int
    seed: int


@dataclass(frozen=True)
class Doc:
    """A document that no earlier stage has dropped; `cluster` is −1 where it is alone."""

    shard: int
    row: int
    id: str
    use: str
    stratum: StratumKey
    cluster: int


def run(job: Job) -> None:
    """Writes `validation.parquet` and verdicts that drop what is in it, with its near duplicates (reason held-out).

    Set `corpus`: of each (language, kind, topic) the documents with the least hashes of seed and id, n = (sd/se)² of
    them; at most `maxShare` of the stratum but at least `minDocs`, and none of a stratum under 2·minDocs. Set
    `retention`: all `use: validate` documents, topic null. Of a cluster one document is measured. Texts are cut to
    `maxDocChars`. Counts: filter's; strata with docs and expectedSeNats = sd/√docs.
    """
    request = parse(HoldOutRequest, job.request)
    corpus = list(job.store.shards(request.corpus))
    docs = read_docs(job, request, corpus)
    retention = retained(docs)
    chosen = choose(request, [d for d in docs if d.use != "validate"], {d.cluster for d in retention})
    measured = {(d.shard, d.row): s for s, ds in (("retention", retention), ("corpus", chosen)) for d in ds}
    clusters = {d.cluster for d in (*retention, *chosen)} - {-1}
    out = {
        (d.shard, d.row) for d in docs if (d.shard, d.row) in measured or d.cluster in clusters or d.use == "validate"
    }
    attempt = job.attempt()
    write_validation(attempt, request, corpus, {(d.shard, d.row): d for d in docs}, measured)
    shards: list[Json] = []
    for shard, path in enumerate(corpus):
        verdict = {True: dropped(REASON, ""), False: kept()}
        rows = [verdict[(shard, row) in out] for row in range(len(read_column(path, "id")))]
        name = f"verdicts-{shard:05d}.parquet"
        shards.append(attempt.shard(name, write_rows(attempt.path(name), VERDICTS, rows)))
    left = Counter(d.stratum[0] for d in docs if (d.shard, d.row) not in out)
    by_reason = Counter({REASON: len(out)} if out else {})
    job.commit(
        attempt,
        {
            "verdicts": write_manifest(attempt, "verdicts", shards),
            "validation": attempt.ref("validation.parquet"),
            "counts": verdict_counts(len(docs), by_reason, left),
            "strata": held_out_strata(request, retention, chosen),
        },
    )


def read_docs(job: Job, request: HoldOutRequest, corpus: Sequence[Path]) -> list[Doc]:
    """All documents still there, in corpus order. Raises BadRequest if the manifests are not row-aligned."""
    drops = [list(job.store.shards(d)) for d in request.drops]
    topics, duplicates = list(job.store.shards(request.topics)), list(job.store.shards(request.duplicates))
    if not len(corpus) == len(topics) == len(duplicates):
        raise BadRequest(f"hold-out: {len(corpus)} corpus, {len(topics)} topic and {len(duplicates)} dedup shards")
    docs: list[Doc] = []
    for shard, path in enumerate(corpus):
        job.beat("hold-out", shard, len(corpus), "shards")
        mask = keep_mask(path, [d[shard] for d in drops])
        topic, cluster = read_column(topics[shard], "topic"), read_column(duplicates[shard], "cluster")
        if not len(mask) == len(topic) == len(cluster):
            raise BadRequest(
                f"hold-out: shard {shard} has {len(mask)} rows, {len(topic)} topics, {len(cluster)} clusters"
            )
        for row, doc in enumerate(read_rows(path, ["id", "use", "language", "kind"])):
            if mask[row]:
                stratum = (doc["language"], doc["kind"], None if doc["use"] == "validate" else topic[row])
                docs.append(Doc(shard, row, doc["id"], doc["use"], stratum, cluster[row]))
    return docs


def retained(docs: Sequence[Doc]) -> list[Doc]:
    """The `use: validate` documents, the first of each cluster."""
    seen: set[int] = set()
    found: list[Doc] = []
    for d in docs:
        if d.use == "validate" and (d.cluster == -1 or d.cluster not in seen):
            seen.add(d.cluster)
            found.append(d)
    return found


def choose(request: HoldOutRequest, docs: Sequence[Doc], taken: set[int]) -> list[Doc]:
    """Documents of the corpus set, in corpus order; `taken` clusters are held out already."""
    wanted_docs = math.ceil((request.paired_sd_nats / request.target_se_nats) ** 2 - 1e-9)
    groups: defaultdict[int | str, list[Doc]] = defaultdict(list)

    def order(d: Doc) -> tuple[float, str]:
        return share_of(request.seed, d.id), d.id

    for d in docs:
        groups[d.id if d.cluster == -1 else d.cluster].append(d)
    sizes = Counter(d.stratum for d in docs)
    most = {s: max(request.min_docs, int(request.max_share * n)) for s, n in sizes.items()}
    wanted = {s: min(wanted_docs, most[s]) if n >= 2 * request.min_docs else 0 for s, n in sizes.items()}
    gone: Counter[StratumKey] = Counter()
    chosen: list[Doc] = []
    firsts = [min(group, key=order) for group in groups.values()]
    for first in sorted(firsts, key=order):
        group = groups[first.id if first.cluster == -1 else first.cluster]
        leaves = Counter(d.stratum for d in group)
        # a cluster that would take more out of a stratum than its share stays whole in the corpus
        fits = all(gone[s] + n <= most[s] for s, n in leaves.items())
        if wanted[first.stratum] > 0 and fits and (first.cluster == -1 or first.cluster not in taken):
            wanted[first.stratum] -= 1
            gone += leaves
            chosen.append(first)
    return sorted(chosen, key=lambda d: (d.shard, d.row))


def write_validation(
    attempt: Attempt,
    request: HoldOutRequest,
    corpus: Sequence[Path],
    docs: dict[tuple[int, int], Doc],
    measured: dict[tuple[int, int], str],
) -> None:
    """Writes the measured documents in corpus order."""
    rows: list[Json] = []
    for shard, path in enumerate(corpus):
        for row, doc in enumerate(read_rows(path, ["id", "text"])):
            if (shard, row) in measured:
                language, kind, topic = docs[shard, row].stratum
                text = doc["text"][: request.max_doc_chars]
                where = {"set": measured[shard, row], "language": language, "kind": kind, "topic": topic}
                rows.append({"id": doc["id"], "text": text, **where})
    write_rows(attempt.path("validation.parquet"), VALIDATION, rows)


def held_out_strata(request: HoldOutRequest, retention: Sequence[Doc], chosen: Sequence[Doc]) -> list[Json]:
    """What each stratum of each set holds."""
    strata: list[Json] = []
    for name, docs in (("corpus", chosen), ("retention", retention)):
        sizes = Counter(d.stratum for d in docs)
        for key in sorted(sizes, key=stratum_order):
            stratum = {"language": key[0], "kind": key[1], "topic": key[2], "set": name, "docs": sizes[key]}
            strata.append({**stratum, "expectedSeNats": request.paired_sd_nats / math.sqrt(sizes[key])})
    return strata
