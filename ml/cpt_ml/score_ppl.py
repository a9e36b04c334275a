"""score-ppl: perplexity of every document by the model to be trained (arXiv:2407.18743, perplexity curriculum)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import read_table, write_columns
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.nll import LOGIT_ROWS, TokenIds, Window, batches, cut_windows, score_batches
from cpt_ml.store import ArtifactRef, Attempt, Json

SCORES = pa.schema([("nll", pa.float32()), ("num_tokens", pa.uint32())])
# those whose logits are a plain linear head on the decoder, with positions that start at 0
MODEL_TYPES = frozenset(["llama", "mistral", "qwen2", "qwen3"])
MAX_BUCKET = 20
NATS_BIN = 0.02
MAX_PADDING = 0.05
# a core is quickest while a batch and its logits lie in its cache; a GPU wants all that placement.batchTokens allows
CPU_BATCH_TOKENS, CPU_LOGIT_ROWS = 1024, 256
LOGIT_BYTES = 1 << 29  # of fp32 logits on a GPU
MAX_EXAMPLES = 20
MAX_EXTREMES = 10
COUNTED_SHARDS = 32
MAX_NON_FINITE_RATIO = 0.001  # contracts/src/score-ppl.ts
PROBE_BATCHES = 4

Beat = Callable[[int, int], None]


@dataclass(frozen=True)
class ScorePplRequest:
    """The stage's request; `scorer` is a Hugging Face folder, or for the engine kenlm an .arpa or binary file.

    `tokenizer` (tokenizer.json) is for kenlm alone, whose words are the tokenizer's pieces.
    """

    tokens: ArtifactRef
    index: ArtifactRef
    scorer: ArtifactRef
    window_tokens: int
    stride_tokens: int
    max_tokens_per_doc: int
    dtype: Literal["float32", "bfloat16"]
    min_tokens: int
    max_non_finite_ratio: float | None
    engine: Literal["kenlm"] | None
    tokenizer: ArtifactRef | None


@dataclass(frozen=True)
class Scored:
    """By document: summed nats (not finite where the scorer failed) and scored tokens; and how much was computed."""

    nats_D: npt.NDArray[np.float64]
    tokens_D: npt.NDArray[np.int64]
    input_tokens: int
    padded_tokens: int


class Scorer(Protocol):
    """What gives documents their negative log-likelihood."""

    parameters: int
    device: str

    def score(self, docs: Sequence[TokenIds], beat: Beat) -> Scored:
        """Scores documents in the order given; `beat` gets (tokens done, tokens in all)."""
        ...

    def tokens_per_second(self, docs: Sequence[TokenIds]) -> float:
        """Speed on a few batches of these documents; nothing of it is kept."""
        ...


@dataclass(frozen=True)
class Estimate:
    """What a job will cost, said before it begins: FLOP = 2 · parameters · tokens, the forward pass of a decoder."""

    documents: int
    tokens: int
    flop: float
    tokens_per_second: float
    gpus: int

    @property
    def seconds(self) -> float:
        return self.tokens / self.tokens_per_second if self.tokens_per_second > 0 else 0.0

    def as_json(self) -> Json:
        return {
            "tokens": self.tokens,
            "flop": self.flop,
            "seconds": round(self.seconds, 1),
            "gpuHours": round(self.seconds * self.gpus / 3600, 4),
        }


@dataclass
class NonFinite:
    """Documents of this job without a finite loss; over `ratio` of all its `documents` it ends."""

    documents: int
    ratio: float
    count: int = 0
    first: list[str] = field(default_factory=list[str])

    def add(self, result: Json) -> None:
        """Takes up what a unit found."""
        self.count += result["counts"]["nonFinite"]
        self.first += [f"shard {e['shard']} row {e['row']}" for e in result["extremes"]["nonFinite"]]

    def check(self) -> None:
        """Raises BadData over the limit, with the first ten."""
        if self.count > self.ratio * max(1, self.documents):
            raise BadData(
                f"score-ppl: {self.count} of {self.documents} documents have no finite loss, allowed are"
                f" {100 * self.ratio:g} % (maxNonFiniteRatio). The first: {' · '.join(self.first[:10])}."
                " Does the scorer hold NaN, or is its dtype too narrow?"
            )


def run(job: Job) -> None:
    """Writes `scores.parquet` of each shard: nll (nats per token, f32) and num_tokens (scored).

    Unscored (nll NaN, num_tokens 0) are documents under `minTokens` tokens, dropped rows, and documents whose loss is
    not finite. Counts: docs (not dropped), scored, nonFinite, scoredTokens, inputTokens, paddedTokens (inputTokens with
    the padding), sumNllNats, flop, pplHistogram (documents by lower bound of their bucket [2^k, 2^(k+1))) and
    nllHistogram (by floor(nats per token / 0.02)). Beside them the highest, lowest and non-finite documents by row.
    Raises BadRequest if the model cannot be used, BadData if index and tokens do not fit, or if more than
    `maxNonFiniteRatio` of the documents have no finite loss.
    """
    request = parse(ScorePplRequest, job.request)
    job.beat("load")
    scorer = open_scorer(job, request)
    estimate = estimate_cost(job, request, scorer)
    job.log("estimate", device=scorer.device, parameters=scorer.parameters, **estimate.as_json())
    job.beat("score-ppl", estimate=estimate.as_json(), tokensPerSecond=estimate.tokens_per_second)
    ratio = MAX_NON_FINITE_RATIO if request.max_non_finite_ratio is None else request.max_non_finite_ratio
    lost = NonFinite(estimate.documents, ratio)

    def work(unit: Unit, attempt: Attempt) -> Json:
        # before the next unit: the one over the limit is committed, and raising the limit does not score it again
        lost.check()
        result = _score(job, request, scorer, unit, attempt)
        lost.add(result)
        return result

    job.map_units(work, keeps_memory=True)
    lost.check()


def open_scorer(job: Job, request: ScorePplRequest) -> Scorer:
    """The scorer that the request names. Raises BadRequest if it cannot be used."""
    if request.engine is None:
        return ModelScorer(job.store.folder(request.scorer), request, job.threads, job.placement["batchTokens"])
    if request.tokenizer is None:
        raise BadRequest("score-ppl: engine kenlm needs `tokenizer`, whose pieces are the words of the model")
    from cpt_ml.kenlm_scorer import KenlmScorer  # noqa: PLC0415 - an optional extra

    return KenlmScorer(job.store.file(request.scorer), job.store.file(request.tokenizer), request.max_tokens_per_doc)


class ModelScorer:
    """A causal transformer of a Hugging Face folder: on the GPU if there is one, else on the CPU."""

    def __init__(self, folder: Path, request: ScorePplRequest, threads: int, batch_tokens: int) -> None:
        from cpt_ml import numerics  # noqa: PLC0415 - imports torch

        self.device = numerics.prepare(threads, seed=0)
        self._model = load_scorer(folder, request.dtype, threads).to(self.device)
        self.parameters = sum(p.numel() for p in self._model.parameters())
        self._request = request
        on_cpu = self.device == "cpu"
        self._batch_tokens = min(batch_tokens, CPU_BATCH_TOKENS) if on_cpu else batch_tokens
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        self._logit_rows = CPU_LOGIT_ROWS if on_cpu else max(64, min(8 * LOGIT_ROWS, LOGIT_BYTES // (4 * vocabulary)))

    def score(self, docs: Sequence[TokenIds], beat: Beat) -> Scored:
        """As Scorer says; BadRequest if a token is outside the model's vocabulary."""
        made = self._batches(docs)
        nll = score_batches(self._model, docs, made, self.device, beat, self._logit_rows)
        return Scored(
            np.array([nats for nats, _ in nll], dtype=np.float64),
            np.array([count for _, count in nll], dtype=np.int64),
            sum(w.length for batch in made for w in batch),
            sum(len(batch) * batch[0].length for batch in made),
        )

    def tokens_per_second(self, docs: Sequence[TokenIds]) -> float:
        """As Scorer says; the first pass over the batches is for what is loaded on first use."""
        made = self._batches(docs)
        some = made[:: max(1, math.ceil(len(made) / PROBE_BATCHES))]
        if not some:
            return 0.0
        score_batches(self._model, docs, some[:1], self.device, None, self._logit_rows)
        began = time.perf_counter()
        score_batches(self._model, docs, some, self.device, None, self._logit_rows)
        return sum(w.length for batch in some for w in batch) / (time.perf_counter() - began)

    def _batches(self, docs: Sequence[TokenIds]) -> list[list[Window]]:
        r = self._request
        lengths = [min(len(doc), r.max_tokens_per_doc) for doc in docs]
        windows = [w for i, n in enumerate(lengths) for w in cut_windows(i, n, r.window_tokens, r.stride_tokens)]
        return list(batches(windows, self._batch_tokens, MAX_PADDING))


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


def estimate_cost(job: Job, request: ScorePplRequest, scorer: Scorer) -> Estimate:
    """Documents and tokens from the lengths in up to COUNTED_SHARDS shards, speed from a few batches of one of them."""
    units = job.units
    counted = units[:: max(1, math.ceil(len(units) / COUNTED_SHARDS))]
    documents, tokens, rows = 0, 0, 0
    for unit in counted:
        lengths = _column(job, unit, "num_tokens")
        lengths = lengths[lengths >= request.min_tokens]
        documents += len(lengths)
        tokens += int(np.minimum(lengths, request.max_tokens_per_doc).sum())
        rows += int(unit.inputs["index"]["rows"])
    scale = sum(int(u.inputs["index"]["rows"]) for u in units) / max(1, rows)
    tokens = round(tokens * scale)
    speed = 0.0
    if tokens > 0:
        job.beat("probe")
        _, _, docs = _documents(job, request, counted[0])
        speed = scorer.tokens_per_second(docs)
    gpus = int(scorer.device == "cuda")  # one process, one GPU
    return Estimate(round(documents * scale), tokens, 2.0 * scorer.parameters * tokens, speed, gpus)


def _column(job: Job, unit: Unit, name: str) -> npt.NDArray[np.int64]:
    return read_table(job.store.shard(unit.inputs["index"]), [name])[name].to_numpy().astype(np.int64)


def _documents(
    job: Job, request: ScorePplRequest, unit: Unit
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[TokenIds]]:
    """Lengths of all rows, the rows to score, and their tokens, cut to the maximum. BadData if they do not fit."""
    offsets, lengths = _column(job, unit, "offset"), _column(job, unit, "num_tokens")
    path = job.store.shard(unit.inputs["tokens"])
    # an empty file cannot be mapped
    tokens = np.memmap(path, dtype="<u4", mode="r") if path.stat().st_size else np.zeros(0, dtype="<u4")
    if (last := int((offsets + lengths).max(initial=0))) > len(tokens):
        raise BadData(f"score-ppl: the index of shard {unit.index} ends at token {last}, its tokens at {len(tokens)}")
    rows = np.flatnonzero(lengths >= request.min_tokens)
    ends = offsets + np.minimum(lengths, request.max_tokens_per_doc)
    return lengths, rows, [tokens[offsets[i] : ends[i]] for i in rows]


def _score(job: Job, request: ScorePplRequest, scorer: Scorer, unit: Unit, attempt: Attempt) -> Json:
    lengths, rows, docs = _documents(job, request, unit)
    began = time.perf_counter()

    def beat(done: int, total: int) -> None:
        pace = done / max(1e-9, time.perf_counter() - began)
        job.beat("score-ppl", done, total, "tokens", tokens=done, tokensPerSecond=pace)

    scored = scorer.score(docs, beat)
    finite = np.isfinite(scored.nats_D) & (scored.tokens_D > 0)
    nll = np.full(len(lengths), np.nan, dtype=np.float32)
    counts = np.zeros(len(lengths), dtype=np.uint32)
    nll[rows[finite]] = scored.nats_D[finite] / scored.tokens_D[finite]
    counts[rows[finite]] = scored.tokens_D[finite]
    write_columns(attempt.path("scores.parquet"), SCORES, [pa.array(nll), pa.array(counts)])
    nats = scored.nats_D[finite] / scored.tokens_D[finite]
    lost = rows[~finite]
    return {
        "outputs": {"scores": [attempt.shard("scores.parquet", len(lengths))]},
        "counts": {
            "docs": int((lengths > 0).sum()),
            "scored": int(finite.sum()),
            "nonFinite": len(lost),
            "scoredTokens": int(scored.tokens_D[finite].sum()),
            "inputTokens": scored.input_tokens,
            "paddedTokens": scored.padded_tokens,
            "sumNllNats": math.fsum(scored.nats_D[finite]),
            "flop": 2.0 * scorer.parameters * scored.input_tokens,
            "pplHistogram": _histogram(ppl_buckets(nats)),
            "nllHistogram": _histogram(np.floor(np.maximum(nats, 0) / NATS_BIN).astype(np.int64)),
        },
        "extremes": {
            **_extremes(unit.index, nll, counts),
            "nonFinite": [{"shard": unit.index, "row": int(row)} for row in lost[:MAX_EXAMPLES]],
        },
    }


def ppl_buckets(nats_D: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Lower bounds of the buckets of perplexities exp(nats per token): powers of two; the last bucket is open."""
    return 2 ** np.clip(nats_D / math.log(2), 0, MAX_BUCKET).astype(np.int64)


def _histogram(bins: npt.NDArray[np.int64]) -> dict[str, int]:
    values, counts = np.unique(bins, return_counts=True)
    return {str(v): int(n) for v, n in zip(values, counts, strict=True)}


def _extremes(shard: int, nll: npt.NDArray[np.float32], counts: npt.NDArray[np.uint32]) -> Json:
    """The documents of highest and of lowest loss, ties by row."""
    rows = np.flatnonzero(counts)
    rising = rows[np.argsort(nll[rows], kind="stable")]
    falling = rows[np.argsort(-nll[rows], kind="stable")]

    def named(some: npt.NDArray[np.int64]) -> list[Json]:
        return [{"shard": shard, "row": int(i), "nll": float(nll[i]), "tokens": int(counts[i])} for i in some]

    return {"highest": named(falling[:MAX_EXTREMES]), "lowest": named(rising[:MAX_EXTREMES])}
