"""sample-mixture: draws one round's immutable token plan (docs/architecture.md, Mixture and tokens).

Per stratum, documents come from the quantile band that the round covers of its stage, ordered by perplexity over the
whole round (token_plan.py); the strata alternate so closely that every prefix holds the mixture. Documents without a
score (shorter than the scorer's minimum) count as the hardest of their stratum. All documents of a stage are in memory
as arrays, about 80 bytes each plus their ids while ranks are made: fit for 10^7 documents on one machine, not for 10^8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cpt_ml import contract
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.plan_files import StratumDraw, pieces_table, used_table, write_table
from cpt_ml.plan_pools import Pool, PoolDocs, document_numbers, read_pools, read_used
from cpt_ml.special_tokens import BOS_NAMES, EOS_NAMES, special_token_id, tokenizer_file
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.token_plan import Ints, StratumDocs, apportion, cut_pieces, draw, interleave, max_off_share


@dataclass(frozen=True)
class StratumRatio:
    language: str
    kind: str
    topic: str | None
    ratio: float

    @property
    def name(self) -> str:
        return "/".join(x for x in (self.language, self.kind, self.topic) if x)


@dataclass(frozen=True)
class Band:
    """Tokens [from, to) of the stage's total that this round covers."""

    from_tokens: int
    to_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class SampleMixtureRequest:
    """contracts/src/sample-mixture.ts."""

    pools: list[Pool]
    tokenizer: ArtifactRef
    strata: list[StratumRatio]
    token_budget: int
    sequence_tokens: int
    order: Literal["perplexity", "random"]
    curriculum_languages: list[str] | None
    band: Band
    previous: ArtifactRef | None
    exhaustion: Literal["repeat", "fail"]
    max_epochs: int
    bos: bool
    eos: bool
    seed: int


def run(job: Job) -> None:
    """Writes plan/plan.json, plan/pieces.parquet and plan/used.parquet.

    Raises BadRequest where ratios do not sum to 1, a stratum cannot fill its share, a curriculum has no scores, or the
    previous round does not fit.
    """
    request = contract.parse(SampleMixtureRequest, job.request)
    _check(request)
    job.beat("read", 0, len(request.pools), "pools")
    tokenizer = tokenizer_file(job.store, request.tokenizer)
    special = {
        "bosId": special_token_id(tokenizer, BOS_NAMES, "bos") if request.bos else None,
        "eosId": special_token_id(tokenizer, EOS_NAMES, "eos") if request.eos else None,
    }
    docs = read_pools(job.store, request.pools, [(s.language, s.kind, s.topic) for s in request.strata])
    _check_scored(request, docs)
    previous = None if request.previous is None else job.store.folder(request.previous)
    epoch, used = read_used(docs, job.request["pools"], previous, request.bos, request.eos)

    targets = apportion(request.token_budget + 1, [s.ratio for s in request.strata])
    draws: list[StratumDraw] = []
    for i, need in enumerate(targets):
        job.beat("draw", i, len(targets), "strata")
        draws.append(_draw_stratum(request, i, need, docs, epoch, used))

    stratum = interleave([d.end - d.start for d in draws])
    pieces = pieces_table(docs, draws, stratum, request.bos, request.eos)
    lengths = pieces["length"].to_numpy().astype(np.int64)
    off_share = max_off_share(stratum, lengths, len(draws))
    assert int(lengths.sum()) == request.token_budget + 1
    assert off_share <= 2 * request.sequence_tokens, off_share

    attempt = job.attempt()
    write_table(attempt, "plan/pieces.parquet", pieces)
    write_table(attempt, "plan/used.parquet", used_table(docs, draws, epoch, used))
    strata = [_planned(s, d, docs, epoch, used) for s, d in zip(request.strata, draws, strict=True)]
    plan = {
        "format": "cpt-plan/1",
        "tokenizer": job.request["tokenizer"],
        "pools": job.request["pools"],
        "settings": {"bos": request.bos, "eos": request.eos, **special, "sequenceTokens": request.sequence_tokens,
                     "order": request.order, "band": job.request["band"], "seed": request.seed},
        "strata": strata,
        "numTokens": request.token_budget + 1,
    }  # fmt: skip
    attempt.path("plan/plan.json").write_text(json.dumps(plan, ensure_ascii=False, indent=1), encoding="utf-8")
    num_docs = sum(len(np.unique(d.drawn.doc)) for d in draws)
    job.commit(
        attempt,
        {
            "plan": attempt.folder_ref("plan/"),
            "numTokens": request.token_budget + 1,
            "numPieces": len(stratum),
            "numDocs": num_docs,
            "maxOffShareTokens": off_share,
            "strata": strata,
        },
    )


def _check(request: SampleMixtureRequest) -> None:
    total = sum(s.ratio for s in request.strata)
    if abs(total - 1) > 1e-6:
        raise BadRequest(f"sample-mixture: the ratios of strata sum to {total}, expected 1")
    names = [s.name for s in request.strata]
    if len(set(names)) < len(names):
        raise BadRequest(f"sample-mixture: strata named twice: {sorted({n for n in names if names.count(n) > 1})}")
    band = request.band
    if not 0 <= band.from_tokens < band.to_tokens <= band.total_tokens:
        tokens = f"[{band.from_tokens}, {band.to_tokens})"
        raise BadRequest(f"sample-mixture: band {tokens} does not lie in the stage's {band.total_tokens} tokens")


def _in_curriculum(request: SampleMixtureRequest, stratum: StratumRatio) -> bool:
    languages = request.curriculum_languages
    return request.order == "perplexity" and (languages is None or stratum.language in languages)


def _check_scored(request: SampleMixtureRequest, docs: PoolDocs) -> None:
    """A pool that was never scored would silently train in no order at all."""
    for p, pool in enumerate(request.pools):
        needed = {request.strata[i].name for i in np.unique(docs.stratum[docs.pool == p]).tolist() if i >= 0
                  and request.strata[i].ratio > 0 and _in_curriculum(request, request.strata[i])}  # fmt: skip
        if pool.scores is None and needed:
            raise BadRequest(
                f"sample-mixture: order is perplexity, but pools[{p}] has no scores for {sorted(needed)}; "
                f"score it, or leave its languages out of curriculumLanguages"
            )


def _draw_stratum(  # noqa: PLR0917
    request: SampleMixtureRequest, number: int, need: int, docs: PoolDocs, epoch: Ints, used: Ints
) -> StratumDraw:
    stratum = request.strata[number]
    index = np.flatnonzero(docs.stratum == number)
    mine = StratumDocs(
        name=stratum.name,
        number=document_numbers(docs)[index],
        rank=docs.rank[index],
        tokens=docs.tokens[index] + int(request.bos) + int(request.eos),
        epoch=epoch[index],
        used=used[index],
    )
    b = request.band
    band = (b.from_tokens / b.total_tokens, b.to_tokens / b.total_tokens) if _in_curriculum(request, stratum) else None
    epochs = request.max_epochs if request.exhaustion == "repeat" else 1
    drawn = draw(mine, need, band, epochs, request.seed)
    reading, start, end = cut_pieces(drawn.start, drawn.end, request.sequence_tokens)
    return StratumDraw(index, mine, drawn, reading, start, end)


def _planned(stratum: StratumRatio, d: StratumDraw, docs: PoolDocs, epoch: Ints, used: Ints) -> Json:
    tokens = d.drawn.end - d.drawn.start
    unread = d.docs.tokens - np.where(
        epoch[d.index] < 0, 0, np.where(epoch[d.index] == 0, used[d.index], d.docs.tokens)
    )
    nll = docs.nll[d.index[d.drawn.doc]]
    scored = np.isfinite(nll)
    weight = float(tokens[scored].sum())
    return {
        "language": stratum.language,
        "kind": stratum.kind,
        "topic": stratum.topic,
        "ratio": stratum.ratio,
        "tokens": int(tokens.sum()),
        "docs": len(np.unique(d.drawn.doc)),
        "availableTokens": int(unread.sum()),
        "borrowedTokens": int(tokens[d.drawn.borrowed].sum()),
        "repeatedTokens": int(tokens[d.drawn.epoch > 0].sum()),
        "meanNll": float((nll[scored] * tokens[scored]).sum() / weight) if weight else None,
    }
