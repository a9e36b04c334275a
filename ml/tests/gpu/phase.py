"""A phase without a store: a random model as a folder, batches in memory, and steps of the trainer over them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpt_ml import contract, train
from cpt_ml.adamw import AdamW
from cpt_ml.llama import Llama, LlamaConfig, load_llama
from cpt_ml.store import Json
from cpt_ml.token_stream import Ids
from cpt_ml.train_request import TrainRequest
from cpt_ml.train_state import TrainState, write_model


@dataclass(frozen=True)
class Size:
    """A model and its batches: sequences of `tokens` targets, `sequences` of them a global batch."""

    width: int
    layers: int
    heads: int
    vocabulary: int
    tokens: int
    sequences: int
    steps: int


TINY = Size(width=32, layers=2, heads=4, vocabulary=320, tokens=24, sequences=6, steps=6)
MIDDLE = Size(width=1024, layers=4, heads=16, vocabulary=32_000, tokens=1024, sequences=8, steps=6)


def size_for(device: str) -> Size:
    """The size that a check takes on a device."""
    return TINY if device == "cpu" else MIDDLE


def make_folder(folder: Path, size: Size, seed: int = 0) -> Path:
    """Writes a Hugging Face folder of a random Llama with grouped heads and Llama 3's positions; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": size.tokens // 2}  # fmt: skip
    config: Json = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": size.vocabulary,
        "hidden_size": size.width, "intermediate_size": 3 * size.width, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "num_key_value_heads": size.heads // 2, "head_dim": size.width // size.heads,
        "max_position_embeddings": size.tokens, "rms_norm_eps": 1e-5, "rope_parameters": rope, "rope_theta": 10_000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    model = Llama(LlamaConfig.read(folder))
    fill(model, seed)
    write_model(folder / "model.safetensors", model)
    return folder


def fill(model: Llama, seed: int) -> None:
    """Random weights as a fresh Llama has them: matrices of deviation 0.02, norms of ones."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            _ = p.fill_(1.0) if p.ndim == 1 else p.normal_(0, 0.02, generator=generator)


class MemoryStream:
    """Stands where the trainer has its TokenStream: seeded tokens, read in the same way."""

    def __init__(self, size: Size, steps: int, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.num_tokens = size.tokens * size.sequences * steps + 1
        # few of the ids, so that a step teaches the next one something
        self._tokens = rng.integers(0, max(8, size.vocabulary // 16), self.num_tokens, dtype=np.int64)

    def sequences(self, first: int, count: int, length: int) -> Ids:
        tokens = self._tokens[first * length : (first + count) * length + 1]
        return np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])


def make_request(size: Size, dtype: str, steps: int) -> TrainRequest:
    """A phase of so many steps with warm-up and decay; what it refers to is never opened."""
    batch = size.tokens * size.sequences
    nothing = {"uri": "files:none", "sha256": "0" * 64, "bytes": 0}
    asked: Json = {
        "start": {"kind": "model", "model": {**nothing, "uri": "files:none/"}}, "plan": nothing, "tokenizer": nothing,
        "tokenBudget": batch * steps, "sequenceTokens": size.tokens, "globalBatchTokens": batch, "seed": 0,
        "schedule": {"shape": "warmup-stable-decay", "peakLr": 1e-3, "minLr": 1e-4, "warmupTokens": batch * 2,
                     "decayTokens": batch * 2, "totalTokens": batch * steps, "startTokens": 0},
        "optimizer": {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": 1.0},
        "validation": {"sets": nothing, "windowTokens": size.tokens, "maxTokensPerDoc": size.tokens}, "dtype": dtype,
    }  # fmt: skip
    return contract.parse(TrainRequest, asked)


def new_state(folder: Path, device: str, request: TrainRequest) -> TrainState:
    """A phase before its first step."""
    model = load_llama(folder, device=device)
    return TrainState(model, AdamW(model.named_parameters(), request.optimizer))


def take_steps(state: TrainState, request: TrainRequest, size: Size, device: str, until: int) -> list[Json]:
    """Steps of the trainer up to step `until`, micro-batches of 4 sequences; returns the lines of the curve."""
    stream: Any = MemoryStream(size, request.steps)
    return [train.train_step(request, stream, state, 4, device)[0] for _ in range(until - state.step)]


def same_bits(a: Llama, b: Llama) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
