"""count-strata: what there is to mix, by language, kind and topic."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cpt_ml.contract import parse
from cpt_ml.corpus import read_rows
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef

StratumKey = tuple[str, str, str | None]


@dataclass(frozen=True)
class CountStrataRequest:
    """The stage's request; without `topics` no document has one."""

    corpus: ArtifactRef
    topics: ArtifactRef | None
    index: ArtifactRef


def run(job: Job) -> None:
    """Documents, tokens and UTF-8 bytes of each stratum, sorted; dropped rows (no tokens) do not count.

    Raises BadRequest if the manifests are not row-aligned.
    """
    request = parse(CountStrataRequest, job.request)
    corpus = list(job.store.shards(request.corpus))
    index = list(job.store.shards(request.index))
    topics = list(job.store.shards(request.topics)) if request.topics else [None] * len(corpus)
    if not len(corpus) == len(index) == len(topics):
        raise BadRequest(f"count-strata: {len(corpus)} corpus, {len(index)} index and {len(topics)} topic shards")
    totals: defaultdict[StratumKey, list[int]] = defaultdict(lambda: [0, 0, 0])
    for i, paths in enumerate(zip(corpus, index, topics, strict=True)):
        job.beat("count-strata", i, len(corpus), "shards")
        docs = list(read_rows(paths[0], ["language", "kind"]))
        sizes = list(read_rows(paths[1], ["num_tokens", "num_bytes"]))
        labels = [r["topic"] for r in read_rows(paths[2], ["topic"])] if paths[2] else [None] * len(docs)
        if not len(docs) == len(sizes) == len(labels):
            raise BadRequest(f"count-strata: shard {i} has {len(docs)}, {len(sizes)} and {len(labels)} rows")
        for doc, size, topic in zip(docs, sizes, labels, strict=True):
            if size["num_tokens"]:
                total = totals[doc["language"], doc["kind"], topic]
                total[0] += 1
                total[1] += size["num_tokens"]
                total[2] += size["num_bytes"]
    strata = [
        {"language": key[0], "kind": key[1], "topic": key[2], "docs": n, "tokens": tokens, "bytes": num_bytes}
        for key, (n, tokens, num_bytes) in sorted(totals.items(), key=lambda s: stratum_order(s[0]))
    ]
    job.commit(job.attempt(), {"strata": strata})


def stratum_order(key: StratumKey) -> tuple[str, str, str]:
    """Sorts strata by language, kind and topic, those without a topic first."""
    return key[0], key[1], key[2] or ""
