"""The scorer's path on a GPU: pinned copies, the next batch sent while one is computed, blocks of logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from phase import make_folder, size_for

from cpt_ml.llama import load_llama
from cpt_ml.nll import TokenIds, document_nll


def documents(vocabulary: int, count: int, longest: int) -> list[TokenIds]:
    """Documents of all lengths, none, one and two tokens among them."""
    rng = np.random.default_rng(5)
    lengths = [0, 1, 2, longest, *rng.integers(3, longest, count).tolist()]
    return [rng.integers(0, vocabulary, n, dtype=np.uint32) for n in lengths]


def check_document_scores_are_the_cpus(device: str, work: Path) -> str:
    size = size_for(device)
    folder = make_folder(work / "model", size)
    docs = documents(size.vocabulary, 60, 3 * size.tokens)
    window, batch = size.tokens, 4 * size.tokens

    def scored(where: str) -> list[tuple[float, int]]:
        return document_nll(load_llama(folder, device=where), docs, window, window // 2, 2 * window, batch, where)

    here, there = scored(device), scored("cpu")
    assert [n for _, n in here] == [n for _, n in there]
    off = max(abs(a - b) / max(1, n) for (a, n), (b, _) in zip(here, there, strict=True))
    assert off < 1e-4, f"a score is off by {off} nats a token"
    assert here == scored(device), "the same documents were scored otherwise the second time"
    return f"{len(docs)} documents, furthest {off:.1e} nats a token"


def check_transformers_own_model_is_scored_alike(device: str, work: Path) -> str:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    size = size_for(device)
    folder = make_folder(work / "model", size)
    docs = documents(size.vocabulary, 20, size.tokens)
    theirs: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs.to(device)
    batch, window = 4 * size.tokens, size.tokens
    a, b = (document_nll(m, docs, window, window, window, batch, device)
            for m in (theirs, load_llama(folder, device=device)))  # fmt: skip
    off = max(abs(x - y) / max(1, n) for (x, n), (y, _) in zip(a, b, strict=True))
    assert off < 1e-4, f"a score is off by {off} nats a token"
    return f"furthest {off:.1e} nats a token"
