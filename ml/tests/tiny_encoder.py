"""Encoders small enough for tests: random weights in a Hugging Face folder, and a tokenizer trained on the samples."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from conftest import Workbench

from cpt_ml.store import Json

SAMPLES = Path(__file__).parents[2] / "samples"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = 2000
SIZES: Json = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 130,
}  # fmt: skip


@functools.cache
def pieces() -> str:
    """tokenizer.json of VOCABULARY pieces: byte-level BPE, whose trainer gives the same ones every time."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers  # noqa: PLC0415

    tokenizer: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([d["text"] for d in pages("en")[:200]], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


@functools.cache
def pages(language: str) -> list[Json]:
    """Labelled web pages of the samples."""
    path = str(SAMPLES / "corpus" / f"{language}.jsonl.zst")
    lines = pa.input_stream(path, compression="zstd").read().splitlines()
    return [d for d in map(json.loads, lines) if d["kind"] == "web"]


def make_encoder(bench: Workbench, model_type: str = "bert", name: str = "encoder", **config: Any) -> Path:
    """A folder under the root `files` with a tiny encoder."""
    return write_encoder(bench.files / name, model_type, **config)


def write_encoder(folder: Path, model_type: str = "bert", **config: Any) -> Path:
    """A folder as save_pretrained writes it: a model without a head, random by a fixed seed."""
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModel  # noqa: PLC0415

    torch.manual_seed(0)
    made: Any = AutoConfig.for_model(model_type, **{**SIZES, "pad_token_id": 0, **config})
    model: Any = AutoModel.from_config(made)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(pieces())
    return folder
