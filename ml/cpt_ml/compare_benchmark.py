"""compare-benchmark: the difference of two evaluations of one task, paired by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpt_ml import contract
from cpt_ml.corpus import read_table
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef


@dataclass(frozen=True)
class CompareBenchmarkRequest:
    """contracts/src/evaluate-benchmark.ts: two per-item.parquet."""

    before: ArtifactRef
    after: ArtifactRef


def run(job: Job) -> None:
    """Mean scores, their difference and its standard error over items. Raises BadRequest if the items differ."""
    request = contract.parse(CompareBenchmarkRequest, job.request)
    before, after = (
        dict(zip(t["id"].to_pylist(), t["score"].to_pylist(), strict=True))
        for t in (read_table(job.store.file(ref)) for ref in (request.before, request.after))
    )
    if before.keys() != after.keys() or not before:
        only = sorted(before.keys() ^ after.keys())
        raise BadRequest(f"compare-benchmark: different items, {len(only)} on one side only: {only[:5]}")
    ids = sorted(before)
    scores_before, scores_after = (np.array([s[i] for i in ids], dtype=np.float64) for s in (before, after))
    job.commit(
        job.attempt(),
        {
            "items": len(ids),
            "before": float(scores_before.mean()),
            "after": float(scores_after.mean()),
            "difference": float((scores_after - scores_before).mean()),
            "standardError": standard_error(scores_after - scores_before),
        },
    )


def standard_error(values: np.typing.NDArray[np.float64]) -> float:
    """Standard error of the mean; 0 where a single value leaves nothing to estimate it from."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
