"""dedup-signatures: of every document a digest and a MinHash signature, by which dedup finds its copies."""

from __future__ import annotations

from dataclasses import dataclass

from cpt_ml.contract import parse
from cpt_ml.corpus import keep_mask
from cpt_ml.job import Job, Unit
from cpt_ml.signature_files import SignatureSettings, write_signatures
from cpt_ml.store import ArtifactRef, Attempt, Json


@dataclass(frozen=True)
class DedupSignaturesRequest:
    """The stage's request; `ngram`, `numPermutations` and `seed` have to be those that dedup is asked for."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    ngram: int
    num_permutations: int
    seed: int


def run(job: Job) -> None:
    """Writes `signatures.parquet` of each shard, row-aligned, nulls where an earlier stage has dropped the row.

    Counts: docs (not dropped before) and withoutWords, which have a digest, but no n-gram to be similar by.
    """
    request = parse(DedupSignaturesRequest, job.request)
    settings = SignatureSettings(request.ngram, request.num_permutations, request.seed)
    job.map_units(lambda unit, attempt: _signatures(job, settings, unit, attempt))


def _signatures(job: Job, settings: SignatureSettings, unit: Unit, attempt: Attempt) -> Json:
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    without_words = write_signatures(
        path,
        judged,
        attempt.path("signatures.parquet"),
        settings,
        lambda row: job.beat("dedup-signatures", row, entry["rows"], "documents"),
    )
    return {
        "outputs": {"signatures": [attempt.shard("signatures.parquet", len(judged))]},
        "counts": {"docs": int(judged.sum()), "withoutWords": without_words},
    }
