"""compare-perplexity: the paired change between two measurements, with document-bootstrap standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cpt_ml import contract
from cpt_ml.corpus import read_table
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.validation import by_stratum

Floats = npt.NDArray[np.float64]

BLOCK_DRAWS = 1 << 22  # documents drawn at a time, 32 MiB of indices


@dataclass(frozen=True)
class ComparePerplexityRequest:
    """contracts/src/evaluate-perplexity.ts: two per-doc.parquet."""

    before: ArtifactRef
    after: ArtifactRef
    resamples: int
    seed: int
    across: Literal["tokenizers"] | None


@dataclass(frozen=True)
class Paired:
    """Documents measured twice: summed nats before and after, scored tokens (the same both times), UTF-8 bytes."""

    before: Floats
    after: Floats
    tokens: Floats
    size: Floats


def run(job: Job) -> None:
    """Raises BadRequest if the measurements are not of the same documents, tokens and settings."""
    request = contract.parse(ComparePerplexityRequest, job.request)
    rows = _pair(job, request)
    strata: list[Json] = []
    for i, ((set_, language, kind, topic), docs) in enumerate(by_stratum(rows)):
        job.beat("compare", i, 0, "strata")
        key = {"language": language, "kind": kind, "topic": topic, "set": set_}
        strata.append({**key, **change(_paired(docs), request.resamples, request.seed)})
    groups: list[Json] = []
    for group in sorted({g for r in rows for g in [group_of(r)]}, key=lambda g: (g != "retention", g)):
        docs = _paired([r for r in rows if group_of(r) == group and r["num_tokens"]])
        if len(docs.tokens):
            c = change(docs, request.resamples, request.seed)
            numbers = {k: c[k] for k in ("docs", "nllBefore", "nllAfter", "deltaNll", "seNll")}
            per_byte = float((docs.after - docs.before).sum() / max(docs.size.sum(), 1))
            groups.append({"group": group, **numbers, "deltaNllPerByte": per_byte})
    job.commit(job.attempt(), {"strata": strata, "groups": groups})


def group_of(row: Json) -> str:
    """`retention`, `synthetic`, or the language of a corpus document."""
    if row["set"] == "retention":
        return "retention"
    return "synthetic" if row["kind"] == "synthetic" else row["language"]


def change(docs: Paired, resamples: int, seed: int) -> Json:
    """Token-weighted loss and perplexity before and after, and the deviation of their differences over resamples.

    Documents are drawn with replacement, both measurements of one together. With a single document nothing is known of
    the deviation; the difference itself stands for it.
    """
    everything = np.arange(len(docs.tokens))[None]
    nll_before, nll_after, delta_nll, delta_ppl = (float(x[0]) for x in _ratios(docs, everything))
    se_nll, se_ppl = abs(delta_nll), abs(delta_ppl)
    if len(docs.tokens) > 1:
        se_nll, se_ppl = _bootstrap(docs, resamples, seed)
    return {
        "docs": len(docs.tokens),
        "nllBefore": nll_before, "nllAfter": nll_after, "deltaNll": delta_nll, "seNll": se_nll,
        "pplBefore": math.exp(nll_before), "pplAfter": math.exp(nll_after), "deltaPpl": delta_ppl, "sePpl": se_ppl,
    }  # fmt: skip


def _bootstrap(docs: Paired, resamples: int, seed: int) -> tuple[float, float]:
    rng = np.random.Generator(np.random.PCG64(seed))
    count = len(docs.tokens)
    rows = max(1, BLOCK_DRAWS // count)
    deltas: list[tuple[Floats, Floats]] = []
    for start in range(0, resamples, rows):
        _, _, nll, ppl = _ratios(docs, rng.integers(0, count, (min(rows, resamples - start), count)))
        deltas.append((nll, ppl))
    nll, ppl = (np.concatenate(x) for x in zip(*deltas, strict=True))
    return float(nll.std(ddof=1)), float(ppl.std(ddof=1))


def _ratios(docs: Paired, drawn: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats, Floats]:
    """Loss before and after, their difference, and the difference of perplexities, of each row of document indices."""
    tokens = docs.tokens[drawn].sum(axis=1)
    before, after = docs.before[drawn].sum(axis=1) / tokens, docs.after[drawn].sum(axis=1) / tokens
    return before, after, after - before, np.exp(after) - np.exp(before)


def _paired(docs: Sequence[Json]) -> Paired:
    names = ("before", "nll_sum", "num_tokens", "num_bytes")
    return Paired(*(np.array([d[n] for d in docs], dtype=np.float64) for n in names))


def _pair(job: Job, request: ComparePerplexityRequest) -> list[Json]:
    """The rows after, each with the `before` of the same document."""
    before, after = (
        {(r["set"], r["id"]): r for r in read_table(job.store.file(ref)).to_pylist()}
        for ref in (request.before, request.after)
    )
    if before.keys() != after.keys():
        only = sorted(i for _, i in before.keys() ^ after.keys())
        raise BadRequest(
            f"compare-perplexity: measured on different documents, {len(only)} on one side only: {only[:5]}"
        )
    for key, row in after.items():
        if request.across == "tokenizers":
            _tell_per_byte(row, before[key])
        elif row["num_tokens"] != before[key]["num_tokens"]:
            raise BadRequest(
                f"compare-perplexity: document {key[1]} has {before[key]['num_tokens']} scored tokens before and "
                f"{row['num_tokens']} after: another tokenizer or other validation settings"
            )
        row["before"] = before[key]["nll_sum"]
    return list(after.values())


def _tell_per_byte(row: Json, before: Json) -> None:
    """Puts the loss after of a document in terms of the tokens and bytes before: losses of different tokenizers compare
    per byte alone. A document with nothing scored on either side does not count."""
    share = before["num_bytes"] / row["num_bytes"] if row["num_bytes"] and row["num_tokens"] else 0.0
    row["nll_sum"] *= share
    row["num_tokens"], row["num_bytes"] = before["num_tokens"] if share else 0, before["num_bytes"]
