"""score-ppl: perplexity of every document by the model to be trained (arXiv:2407.18743, perplexity curriculum)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import read_rows, write_rows
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.nll import document_nll
from cpt_ml.store import ArtifactRef, Attempt, Json

SCORES = pa.schema([("nll", pa.float32()), ("num_tokens", pa.uint32())])
# those whose logits are a plain linear head on the decoder, with positions that start at 0
MODEL_TYPES = frozenset(["llama", "mistral", "qwen2", "qwen3"])
MAX_BUCKET = 20


@dataclass(frozen=True)
class ScorePplRequest:
    """The stage's request; `scorer` is a Hugging Face folder."""

    tokens: ArtifactRef
    index: ArtifactRef
    scorer: ArtifactRef
    window_tokens: int
    stride_tokens: int
    max_tokens_per_doc: int
    dtype: Literal["float32", "bfloat16"]
    min_tokens: int


def run(job: Job) -> None:
    """Writes `scores.parquet` of each shard: nll (nats per token, f32) and num_tokens (scored).

    Unscored (nll NaN, num_tokens 0) are documents under `minTokens` tokens and dropped rows. Counts: docs (not
    dropped), scored, scoredTokens, sumNllNats, pplHistogram: documents by lower bound of their bucket
    [2^k, 2^(k+1)).
    Raises BadRequest if the model cannot be used, BadData if index and tokens do not fit.
    """
    request = parse(ScorePplRequest, job.request)
    model = load_scorer(job.store.folder(request.scorer), request.dtype, job.threads)
    job.map_units(lambda unit, attempt: _score(job, request, model, unit, attempt))


def load_scorer(folder: Path, dtype: str, threads: int) -> Any:
    """The causal model of a Hugging Face folder, for inference. Raises BadRequest if it is of an unknown type."""
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    torch.set_num_threads(threads)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in MODEL_TYPES:
        raise BadRequest(f"scorer: model type {config.model_type!r}, expected one of {sorted(MODEL_TYPES)}")
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
    )
    return model.eval()


def _score(job: Job, request: ScorePplRequest, model: Any, unit: Unit, attempt: Attempt) -> Json:
    docs = list(read_rows(job.store.shard(unit.inputs["index"]), ["offset", "num_tokens"]))
    path = job.store.shard(unit.inputs["tokens"])
    # an empty file cannot be mapped
    tokens = np.memmap(path, dtype="<u4", mode="r") if path.stat().st_size else np.zeros(0, dtype="<u4")
    if (last := max((d["offset"] + d["num_tokens"] for d in docs), default=0)) > len(tokens):
        raise BadData(f"score-ppl: the index of shard {unit.index} ends at token {last}, its tokens at {len(tokens)}")
    scored = [i for i, d in enumerate(docs) if d["num_tokens"] >= request.min_tokens]
    nll = document_nll(
        model,
        [tokens[docs[i]["offset"] : docs[i]["offset"] + docs[i]["num_tokens"]] for i in scored],
        request.window_tokens,
        request.stride_tokens,
        request.max_tokens_per_doc,
        job.placement["batchTokens"],
        beat=lambda done, total: job.beat("score-ppl", done, total, "tokens", tokens=done),
    )
    rows: list[Json] = [{"nll": math.nan, "num_tokens": 0}] * len(docs)
    histogram: Counter[str] = Counter()
    for i, (nats, count) in zip(scored, nll, strict=True):
        rows[i] = {"nll": nats / count, "num_tokens": count}
        histogram[ppl_bucket(nats / count)] += 1
    num_rows = write_rows(attempt.path("scores.parquet"), SCORES, rows)
    return {
        "outputs": {"scores": [attempt.shard("scores.parquet", num_rows)]},
        "counts": {
            "docs": sum(d["num_tokens"] > 0 for d in docs),
            "scored": len(scored),
            "scoredTokens": sum(count for _, count in nll),
            "sumNllNats": math.fsum(nats for nats, _ in nll),
            "pplHistogram": dict(sorted(histogram.items(), key=lambda b: int(b[0]))),
        },
    }


def ppl_bucket(nll: float) -> str:
    """Lower bound of the bucket of a document's perplexity exp(nll): a power of two, as a string; the last is open."""
    return str(2 ** min(MAX_BUCKET, int(nll / math.log(2))))
