"""evaluate-perplexity: the loss of a model on the frozen validation sets, by document and by stratum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from cpt_ml import contract, numerics
from cpt_ml.job import Job
from cpt_ml.llama import load_llama
from cpt_ml.store import ArtifactRef
from cpt_ml.validation import ValidationSettings, measure


@dataclass(frozen=True)
class EvaluatePerplexityRequest:
    """contracts/src/evaluate-perplexity.ts; `model` is a Hugging Face folder, tokenizer included."""

    model: ArtifactRef
    validation: ValidationSettings
    dtype: Literal["float32", "bfloat16"]


def run(job: Job) -> None:
    """Writes per-doc.parquet. Raises BadRequest if the folder is no Llama, BadData if nothing can be scored."""
    request = contract.parse(EvaluatePerplexityRequest, job.request)
    job.beat("load")
    folder = job.store.folder(request.model)
    device = numerics.prepare(job.threads, seed=0)
    model = load_llama(folder, getattr(torch, request.dtype), device)
    attempt = job.attempt()
    measurement = measure(
        model,
        device,
        job.store.file(request.validation.sets),
        folder / "tokenizer.json",
        request.validation,
        job.placement["batchTokens"],
        attempt,
        lambda done, total: job.beat("validate", done, total, "tokens"),
    )
    job.commit(attempt, {"measurement": measurement})
