"""Pre-train a tiny base model and write it as a Hugging Face folder: the proxy, or the target some 4 times its size.

    python samples/make/train_tokenizer.py --shared DIR
    python samples/make/pretrain_base.py --shared DIR
    python samples/make/pretrain_base.py --shared DIR --size target --tokens 10000000 --peak-lr 0.003

One thread by default, so that two runs add numbers in the same order. Tensor suffixes: B batch, T tokens,
D hidden, N = B * T.
"""

import argparse
import math
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from documents import Document, text_bytes
from pretraining_mix import pretraining_mix
from pretraining_record import write_record
from token_stream import evaluation_rows, mixed_batches, packed_rows
from train_tokenizer import MAX_POSITIONS

MICRO_BATCH = 8  # sequences; bounds memory
CHUNK = 512  # tokens whose logits exist at once: 512 * 4096 floats stay in the cache


@dataclass(frozen=True)
class Shape:
    """Layers and widths of a Llama with heads of 24; `folder` is where the samples have it."""

    folder: str
    hidden: int
    mlp: int
    layers: int


SHAPES = {
    "proxy": Shape("base", hidden=96, mlp=256, layers=3),  # 725,664 parameters
    "target": Shape("target", hidden=192, mlp=512, layers=5),  # 3,000,384, 4.1 times as many
}


@dataclass(frozen=True)
class Pretraining:
    """Hyperparameters. A step is an optimizer step of `batch` sequences of `sequence` tokens."""

    tokens: int = 20_000_000
    chinese_share: str = "1/20"
    peak_lr: float = 4e-3
    final_lr_ratio: float = 0.1
    warmup_share: float = 0.02
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    batch: int = 32
    sequence: int = MAX_POSITIONS
    evaluations: int = 10
    seed: int = 0
    threads: int = 1

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.sequence)

    def lr(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine down to `final_lr_ratio` of the peak."""
        warmup = self.warmup_share * self.steps
        if step < warmup:
            return self.peak_lr * (step + 1) / math.ceil(warmup)
        progress = (step - warmup) / (self.steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.peak_lr * (self.final_lr_ratio + (1 - self.final_lr_ratio) * cosine)


def tiny_llama(tokenizer: PreTrainedTokenizerBase, shape: Shape) -> LlamaForCausalLM:
    """Return a fresh Llama of the shape, embeddings tied."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 24,
        num_key_value_heads=shape.hidden // 24,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def backward(model: LlamaForCausalLM, tokens_BT: Tensor) -> float:
    """Accumulate the gradient of the batch's mean loss; return that loss in nats per token."""
    num_targets = tokens_BT[:, 1:].numel()
    total_nats = 0.0
    for micro_BT in tokens_BT.split(MICRO_BATCH):
        hidden_ND = model.model(micro_BT[:, :-1]).last_hidden_state.flatten(0, 1)
        targets_N = micro_BT[:, 1:].flatten()
        leaf_ND = hidden_ND.detach().requires_grad_()
        for hidden, targets in zip(leaf_ND.split(CHUNK), targets_N.split(CHUNK), strict=True):
            nats = F.cross_entropy(model.lm_head(hidden), targets, reduction="sum")
            (nats / num_targets).backward()
            total_nats += nats.item()
        hidden_ND.backward(leaf_ND.grad)
    return total_nats / num_targets


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, rows_BT: Tensor, num_bytes: int) -> dict[str, float]:
    """Return the loss on fixed rows in nats per token and per UTF-8 byte of their text."""
    nats = 0.0
    for micro_BT in rows_BT.split(MICRO_BATCH):
        hidden_ND = model.model(micro_BT[:, :-1]).last_hidden_state.flatten(0, 1)
        for hidden, targets in zip(hidden_ND.split(CHUNK), micro_BT[:, 1:].flatten().split(CHUNK), strict=True):
            nats += F.cross_entropy(model.lm_head(hidden), targets, reduction="sum").item()
    return {
        "nats_per_token": round(nats / rows_BT[:, 1:].numel(), 4),
        "nats_per_byte": round(nats / num_bytes, 4),
    }


def save_weights(model: LlamaForCausalLM, out: Path) -> None:
    """Write config and bfloat16 weights; a reader sees the old files or the new ones, never half of one."""
    half = LlamaForCausalLM(model.config).bfloat16()
    half.load_state_dict(model.state_dict())
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        half.save_pretrained(folder)
        for path in Path(folder).iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone
            os.replace(path, out / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder of the source corpus")
    parser.add_argument("--samples", type=Path, default=Path(__file__).parent.parent, help="the samples folder")
    parser.add_argument("--out", type=Path, help="default: the folder of that size in the samples")
    parser.add_argument("--size", choices=sorted(SHAPES), default="proxy")
    parser.add_argument("--tokens", type=int, default=Pretraining.tokens)
    parser.add_argument("--peak-lr", type=float, default=Pretraining.peak_lr)
    parser.add_argument("--evaluations", type=int, default=Pretraining.evaluations)
    parser.add_argument("--seed", type=int, default=Pretraining.seed)
    args = parser.parse_args()
    plan = Pretraining(tokens=args.tokens, peak_lr=args.peak_lr, evaluations=args.evaluations, seed=args.seed)
    shape = SHAPES[args.size]
    out: Path = args.out or args.samples / shape.folder
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)

    tokenizer = AutoTokenizer.from_pretrained(args.samples / "base")
    eos_id = tokenizer.eos_token_id
    T = plan.sequence
    mix = pretraining_mix(args.shared, args.samples)

    def tokenized(documents: list[Document]) -> list[list[int]]:
        return tokenizer([d["text"] for d in documents], verbose=False)["input_ids"]

    batches = mixed_batches(
        packed_rows(tokenized(mix.english), eos_id, T, plan.seed),
        packed_rows(tokenized(mix.chinese), eos_id, T, plan.seed + 1),
        Fraction(plan.chinese_share),
        plan.batch,
    )
    watched = {
        "english": (evaluation_rows(tokenized(mix.watched_english), eos_id, T), text_bytes(mix.watched_english)),
        "chinese": (evaluation_rows(tokenized(mix.watched_chinese), eos_id, T), text_bytes(mix.watched_chinese)),
    }

    model = tiny_llama(tokenizer, shape)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.peak_lr, betas=(plan.beta1, plan.beta2), weight_decay=plan.weight_decay
    )
    eval_steps = {round(plan.steps * (k + 1) / plan.evaluations) for k in range(plan.evaluations)}
    curve: list[dict[str, object]] = []
    started = time.monotonic()
    train_loss = math.nan
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr(step)
        loss = backward(model, next(batches))
        if not math.isfinite(loss):
            raise ValueError(f"loss is {loss} at step {step}, peak_lr {plan.peak_lr}")
        train_loss = loss if step == 0 else 0.98 * train_loss + 0.02 * loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if step + 1 in eval_steps:
            point = {name: evaluate(model, rows, size) for name, (rows, size) in watched.items()}
            tokens = (step + 1) * plan.batch * T
            wall_seconds = round(time.monotonic() - started)
            curve.append({"step": step + 1, "tokens": tokens, "train_nats_per_token": round(train_loss, 4), **point})
            print(f"{wall_seconds} s, {tokens / wall_seconds:,.0f} tokens/s: {curve[-1]}", flush=True)
            save_weights(model, out)
    tokenizer_path = args.samples / "base" / "tokenizer.json"
    if args.size != "proxy":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(args.samples / "base" / name, out / name)
    wall_seconds = round(time.monotonic() - started)
    write_record(out, tokenizer_path, args.size, asdict(plan), mix, curve=curve, wall_seconds=wall_seconds)


if __name__ == "__main__":
    main()
