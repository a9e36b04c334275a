"""The Llama architecture over Hugging Face folders: same weights by name, same logits, nothing but torch to import.

Importing transformers costs a job 5 to 10 seconds more than torch alone and its classes move between versions; a test
holds this file to LlamaForCausalLM. Nothing that is computed lives outside of the parameters but a cache of rotary
angles, by device, so a model can be made on `meta`, sharded, moved and filled. Shape suffixes: B batch, T tokens,
D width, N heads, H head width, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cpt_ml.cross_entropy import linear_cross_entropy
from cpt_ml.document_attention import attend, document_mask, document_positions
from cpt_ml.errors import BadRequest
from cpt_ml.store import Json
from cpt_ml.weights import stored_weights

# every layer, none, or every k-th
ActivationCheckpointing = Literal["none", "full"] | int


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of a Hugging Face config.json that decide what a Llama computes."""

    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    norm_epsilon: float
    rope: Json
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    max_positions: int

    @staticmethod
    def read(folder: Path) -> LlamaConfig:
        """Reads config.json as transformers 4 or 5 writes it. Raises BadRequest if it is not a Llama we can compute."""
        c: Json = json.loads((folder / "config.json").read_bytes())
        if c.get("model_type") != "llama" or c.get("hidden_act", "silu") != "silu":
            raise BadRequest(
                f"{folder.name}/config.json: expected model_type llama with silu, got {c.get('model_type')!r}"
            )
        rope = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
        rope.setdefault("rope_theta", c.get("rope_theta", 10000.0))
        rope.setdefault("rope_type", rope.get("type", "default"))
        if rope["rope_type"] not in ("default", "linear", "llama3"):
            raise BadRequest(f"{folder.name}/config.json: rope_type {rope['rope_type']!r} is not supported")
        return LlamaConfig(
            vocabulary=c["vocab_size"],
            width=c["hidden_size"],
            mlp_width=c["intermediate_size"],
            layers=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            kv_heads=c.get("num_key_value_heads") or c["num_attention_heads"],
            head_width=c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"],
            norm_epsilon=c.get("rms_norm_eps", 1e-6),
            rope=rope,
            tied=c.get("tie_word_embeddings", False),
            attention_bias=c.get("attention_bias", False),
            mlp_bias=c.get("mlp_bias", False),
            max_positions=c.get("max_position_embeddings", 2048),
        )


def rope_frequencies(config: LlamaConfig) -> Tensor:
    """Angle per position of each pair of a head's channels, float32 on the CPU (H/2,); `llama3` stretches slow ones."""
    rope = config.rope
    exponents_H = torch.arange(0, config.head_width, 2, dtype=torch.int64, device="cpu").float() / config.head_width
    frequencies_H = 1.0 / (rope["rope_theta"] ** exponents_H)
    if rope["rope_type"] == "linear":
        return frequencies_H / rope["factor"]
    if rope["rope_type"] == "default":
        return frequencies_H
    context = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns_H = context * frequencies_H / (2 * math.pi)
    smooth_H = ((turns_H - low) / (high - low)).clamp(0, 1)
    return (1 - smooth_H) * frequencies_H / rope["factor"] + smooth_H * frequencies_H


class Linear(nn.Module):
    """y = x Wᵀ (+ b); weights are always loaded, so they start uninitialised."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class RmsNorm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        scale = torch.rsqrt(x_float.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (x_float * scale).to(x.dtype)


class Embedding(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, width))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return F.embedding(ids_BT, self.weight)


class Attention(nn.Module):
    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = c.heads, c.kv_heads, c.head_width
        self.q_proj = Linear(c.width, c.heads * c.head_width, c.attention_bias)
        self.k_proj = Linear(c.width, c.kv_heads * c.head_width, c.attention_bias)
        self.v_proj = Linear(c.width, c.kv_heads * c.head_width, c.attention_bias)
        self.o_proj = Linear(c.heads * c.head_width, c.width, c.attention_bias)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, mask: Any = None) -> Tensor:
        b, t, _ = x_BTD.shape
        q_BNTH = self.q_proj(x_BTD).view(b, t, self.heads, self.head_width).transpose(1, 2)
        k_BNTH = self.k_proj(x_BTD).view(b, t, self.kv_heads, self.head_width).transpose(1, 2)
        v_BNTH = self.v_proj(x_BTD).view(b, t, self.kv_heads, self.head_width).transpose(1, 2)
        q_BNTH, k_BNTH = rotate(q_BNTH, cos_TH, sin_TH), rotate(k_BNTH, cos_TH, sin_TH)
        if self.kv_heads != self.heads:
            k_BNTH = k_BNTH.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v_BNTH = v_BNTH.repeat_interleave(self.heads // self.kv_heads, dim=1)
        y_BNTH = attend(q_BNTH, k_BNTH, v_BNTH, mask)
        return self.o_proj(y_BNTH.transpose(1, 2).reshape(b, t, -1))


def rotate(x_BNTH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """Rotary position embedding on halves, the Hugging Face layout of Llama weights; angles (T, H) or (B, 1, T, H)."""
    first, second = x_BNTH.chunk(2, dim=-1)
    return x_BNTH * cos_TH + torch.cat((-second, first), dim=-1) * sin_TH


class Mlp(nn.Module):
    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(c.width, c.mlp_width, c.mlp_bias)
        self.up_proj = Linear(c.width, c.mlp_width, c.mlp_bias)
        self.down_proj = Linear(c.mlp_width, c.width, c.mlp_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Layer(nn.Module):
    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(c), Mlp(c)
        self.input_layernorm = RmsNorm(c.width, c.norm_epsilon)
        self.post_attention_layernorm = RmsNorm(c.width, c.norm_epsilon)
        self.recompute = False
        self.compiled: Callable[..., Tensor] | None = None

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, mask: Any = None) -> Tensor:
        if not torch.is_grad_enabled():
            return self.block(x_BTD, cos_TH, sin_TH, mask)
        run = self.compiled or self.block
        if self.recompute:
            # no dropout, so no random state to keep
            return checkpoint(run, x_BTD, cos_TH, sin_TH, mask, use_reentrant=False, preserve_rng_state=False)
        return run(x_BTD, cos_TH, sin_TH, mask)

    def block(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, mask: Any) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TH, sin_TH, mask)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class DecoderOutput(NamedTuple):
    last_hidden_state: Tensor


class Decoder(nn.Module):
    """Everything but the head, called as Hugging Face decoders are."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(c.vocabulary, c.width)
        self.layers = nn.ModuleList([Layer(c) for _ in range(c.layers)])
        self.norm = RmsNorm(c.width, c.norm_epsilon)
        self._config = c
        self._angles: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def forward(self, input_ids: Tensor, use_cache: bool = False, documents_BT: Tensor | None = None) -> DecoderOutput:
        assert not use_cache
        x_BTD = self.embed_tokens(input_ids)
        cos_TH, sin_TH = self._cos_sin(input_ids.shape[1], x_BTD)
        mask = None
        if documents_BT is not None:
            positions_BT, mask = document_positions(documents_BT), document_mask(documents_BT)
            cos_TH, sin_TH = cos_TH[positions_BT][:, None], sin_TH[positions_BT][:, None]
        for layer in self.layers:
            x_BTD = layer(x_BTD, cos_TH, sin_TH, mask)
        return DecoderOutput(self.norm(x_BTD))

    def _cos_sin(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Computed on the CPU in float32, whatever the model is on and in: the same angles everywhere."""
        key = (like.device, like.dtype)
        cached = self._angles.get(key)
        if cached is None or len(cached[0]) < length:
            with torch.inference_mode(False):  # training may come to use what a validation has computed
                frequencies_H = rope_frequencies(self._config)
                steps_T = torch.arange(length, dtype=torch.float32, device="cpu")
                angles_TH = torch.outer(steps_T, frequencies_H).repeat(1, 2)
                cached = angles_TH.cos().to(like.device, like.dtype), angles_TH.sin().to(like.device, like.dtype)
            self._angles[key] = cached
        return cached[0][:length], cached[1][:length]


class Llama(nn.Module):
    """A causal language model with the parameter names of LlamaForCausalLM."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.width, config.vocabulary, bias=False)
        self.tie()

    def tie(self) -> None:
        """Makes the head the embedding where the configuration says so; to be called again after `to_empty`."""
        if self.config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def recompute(self, setting: ActivationCheckpointing) -> None:
        """Which layers keep their input alone for the backward pass and compute the rest again (same bits)."""
        every = 0 if setting == "none" else 1 if setting == "full" else int(setting)
        for i, layer in enumerate(self._layers()):
            layer.recompute = every > 0 and i % every == 0

    def compile_layers(self) -> None:
        """Compiles the layers in place for training; the first step of each shape of a micro-batch waits for it.

        One graph serves all layers. Shapes are static, so what is not training (validation, of many shapes) runs as it
        is. Results differ from uncompiled ones by rounding, and are the same each time.
        """
        for layer in self._layers():
            layer.compiled = torch.compile(layer.block, fullgraph=True, dynamic=False)

    def _layers(self) -> Iterator[Layer]:
        for layer in self.model.layers:
            assert isinstance(layer, Layer)
            yield layer

    def get_decoder(self) -> Decoder:
        return self.model

    def get_output_embeddings(self) -> Linear:
        return self.lm_head

    def forward(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor | None = None,
        compute: torch.dtype = torch.float32,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V); with targets the sum of their negative log-likelihood instead (cross_entropy.py).

        With the numbers of the tokens' documents nothing is seen of any other document, positions count within each
        (document_attention.py), and targets of -1 do not count. The loss is computed in here, and not beside, because
        sharded parameters are whole only inside of forward.
        """
        hidden_BTD = self.model(ids_BT, documents_BT=documents_BT).last_hidden_state
        if targets_BT is None:
            return self.lm_head(hidden_BTD)
        return linear_cross_entropy(
            hidden_BTD.flatten(0, 1), self.lm_head.weight, targets_BT.reshape(-1), compute, documents_BT is not None
        )


def build_on_meta(config: LlamaConfig) -> Llama:
    """A model without memory, to be sharded and then materialised."""
    with torch.device("meta"):
        return Llama(config)


def materialise(model: Llama, device: str | torch.device) -> None:
    """Gives a model from `build_on_meta`, sharded or not, memory on a device; its weights are still to be loaded."""
    model.to_empty(device=device)
    model.tie()


def load_llama(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Llama:
    """The model of a Hugging Face folder, its weights converted to `dtype`. Raises BadRequest if they do not fit."""
    model = Llama(LlamaConfig.read(folder))
    load_weights(model, stored_weights(folder), folder.name)
    return model.to(device=device, dtype=dtype)


def load_weights(model: Llama, weights: Mapping[str, Any], source: str) -> None:
    """Copies tensors into the model by name, of a sharded one the rows that this process holds; a tied head may lack.

    Tensors are in memory, or lie in files (weights.stored_weights), of which then those rows alone are read. Raises
    BadRequest naming what does not fit.
    """
    own = dict(model.named_parameters())  # a tied head is listed once, as the embedding
    given = {k: v for k, v in weights.items() if k in own or not (model.config.tied and k == "lm_head.weight")}
    shapes = {k: tuple(own[k].shape) for k in own}
    found = {k: tuple(given[k].shape) for k in given}
    wrong = [
        f"{k}: {found.get(k, 'absent')}, expected {shapes.get(k, 'nothing')}"
        for k in sorted(shapes.keys() | found.keys())
        if shapes.get(k) != found.get(k)
    ]
    if wrong:
        raise BadRequest(f"{source}: weights do not fit config.json: {'; '.join(wrong[:5])}")
    with torch.no_grad():
        for name, parameter in own.items():
            local, rows = own_rows(parameter)
            local.copy_(given[name][rows])


def own_rows(parameter: Any) -> tuple[Tensor, slice]:
    """The part of a parameter that this process holds, and which rows of the whole it is: all, unless it is sharded.

    A sharded one is split by rows into chunks of equal length, of which the last may be shorter or empty (FSDP2),
    over one dimension of the mesh; others replicate it.
    """
    if not hasattr(parameter, "device_mesh"):
        return parameter, slice(None)
    local, total, ranks, rank = parameter.to_local(), parameter.shape[0], 1, 0
    for dimension, placement in enumerate(parameter.placements):
        if placement.is_shard(0):
            ranks, rank = parameter.device_mesh.size(dimension), parameter.device_mesh.get_local_rank(dimension)
    chunk = -(-total // ranks)
    rows = slice(min(rank * chunk, total), min((rank + 1) * chunk, total))
    assert len(local) == rows.stop - rows.start, (local.shape, rows)
    return local, rows
