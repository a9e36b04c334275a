"""An encoder with a classification head (BERT, arXiv:1810.04805, and its kin): opening, predicting, saving.

Shapes: B texts of a batch, T tokens of its longest, C topics.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpt_ml import numerics
from cpt_ml.encoder_folder import (
    HEAD_SHARE,
    MAX_LAYERS,
    checked_config,
    checked_weights,
    positions_of,
    read_tokenizer,
    refusal,
)
from cpt_ml.errors import BadRequest
from cpt_ml.store import Json
from cpt_ml.topic_classifier import Tick

TokenIds = npt.NDArray[np.int32]
CHARS_PER_TOKEN = 8  # of a text as many are looked at for each token; most tokens have fewer
BATCH_TOKENS = 8192  # padding included: one number everywhere, since probabilities are results


class Encoder:
    """A model, its tokenizer (which cuts texts at `max_tokens`) and its topics, on the GPU if there is one."""

    def __init__(self, model: Any, tokenizer: Any, topics: list[str], device: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.topics = topics
        self.device = device
        self.max_tokens: int = tokenizer.truncation["max_length"]
        self._padding: int = model.config.pad_token_id or 0

    @staticmethod
    def untrained(folder: Path, topics: list[str], max_tokens: int, threads: int, seed: int) -> Encoder:
        """A checkpoint with a new head for these topics, random by `seed`. Raises BadRequest if it is unfit."""
        device = numerics.prepare(threads, seed)
        config = checked_config(folder)
        tokenizer = read_tokenizer(folder, config.get("vocab_size", 0))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=min(max_tokens, positions_of(config)))
        labels = {"id2label": dict(enumerate(topics)), "label2id": {t: i for i, t in enumerate(topics)}}
        model = _load(folder, {**config, **labels}, new_head=True)
        return Encoder(model.to(device), tokenizer, topics, device)

    @staticmethod
    def trained(folder: Path, threads: int) -> Encoder:
        """A folder that save() wrote. Raises BadRequest if it is none."""
        device = numerics.prepare(threads, seed=0)
        config = checked_config(folder)
        named: Json = json.loads((folder / "config.json").read_bytes()).get("id2label", {})
        tokenizer = read_tokenizer(folder, config.get("vocab_size", 0))
        if not named or not tokenizer.truncation:
            raise refusal(
                folder, "it was not trained by train-topic-classifier: it has no topics, or no length of texts"
            )
        model = _load(folder, {**config, "id2label": named}, new_head=False)
        return Encoder(model.to(device).eval(), tokenizer, [named[str(i)] for i in range(len(named))], device)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, at most max_tokens of them; a character that is no character is left out."""
        cut = [text[: CHARS_PER_TOKEN * self.max_tokens] for text in texts]
        clean = [text.encode("utf-8", "ignore").decode() for text in cut]
        return [np.array(found.ids, dtype=np.int32) for found in self.tokenizer.encode_batch(clean)]

    def logits(self, rows: Sequence[TokenIds]) -> Tensor:
        """Scores in float32 of shape (B, C); padding is not seen."""
        ids_BT = torch.full((len(rows), max(map(len, rows))), self._padding, dtype=torch.int64)
        there_BT = torch.zeros_like(ids_BT)
        for i, row in enumerate(rows):
            ids_BT[i, : len(row)] = torch.from_numpy(row)
            there_BT[i, : len(row)] = 1
        on_gpu = self.device == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext():
            found = self.model(input_ids=ids_BT.to(self.device), attention_mask=there_BT.to(self.device))
        return found.logits.float()

    def predict(self, texts: Sequence[str], tick: Tick) -> list[tuple[str, float]]:
        """The likeliest topic of each text and its probability; ("", 0.0) for a text without a token."""
        rows = self.encode(texts)
        found = [("", 0.0)] * len(rows)
        for batch in length_batches([len(row) for row in rows]):
            with torch.inference_mode():
                best, topics = self.logits([rows[i] for i in batch]).softmax(-1).max(-1)
            for i, p, topic in zip(batch, best.tolist(), topics.tolist(), strict=True):
                # of a model that holds NaN nothing is known
                found[i] = (self.topics[topic], min(1.0, p)) if math.isfinite(p) else ("", 0.0)
            tick()
        return found

    def save(self, folder: Path) -> None:
        """A Hugging Face folder: config.json (with the topics), model.safetensors, and the tokenizer with its limit."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.config.name_or_path = ""  # where it was read from is no part of the bytes
        self.model.save_pretrained(folder)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_tokens}
        padding = self.tokenizer.id_to_token(self._padding)
        told = {**named, **({"pad_token": padding} if padding else {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def length_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of the texts that have a token, longest first, BATCH_TOKENS at a time with what pads them."""
    order = sorted((i for i in range(len(lengths)) if lengths[i]), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, BATCH_TOKENS // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def _load(folder: Path, config: Json, *, new_head: bool) -> Any:
    """The model on the CPU in float32. Only what was checked lies in the folder that transformers opens."""
    import transformers  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForSequenceClassification  # noqa: PLC0415

    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    files, numbers = checked_weights(folder)
    clean = Path(tempfile.mkdtemp(prefix="cpt-encoder-"))
    try:
        (clean / "config.json").write_text(json.dumps(config))
        for path in files:
            (clean / path.name).symlink_to(path.resolve())
        try:
            options: Any = {"local_files_only": True, "trust_remote_code": False}
            parsed: Any = AutoConfig.from_pretrained(clean, **options)
            _check_size(folder, parsed, numbers)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                clean, config=parsed, dtype=torch.float32, attn_implementation="eager", use_safetensors=True,
                ignore_mismatched_sizes=True, output_loading_info=True, **options,
            )  # fmt: skip
        except (BadRequest, MemoryError):
            raise
        except Exception as e:  # a config of any kind fails anywhere in a model's code
            raise refusal(folder, f"transformers cannot open it: {str(e)[:500]}") from None
    finally:
        shutil.rmtree(clean)
    _check_fit(folder, model, info, new_head=new_head)
    return model


def _check_size(folder: Path, parsed: Any, numbers: int) -> None:
    """Raises BadRequest where config.json describes much more than the weights hold, before memory is taken for it."""
    from transformers import AutoModelForSequenceClassification  # noqa: PLC0415

    if not 1 <= parsed.num_hidden_layers <= MAX_LAYERS:
        raise refusal(folder, f"config.json says {parsed.num_hidden_layers} layers, expected 1 to {MAX_LAYERS}")
    with torch.device("meta"):
        sketch: Any = AutoModelForSequenceClassification.from_config(parsed, attn_implementation="eager")
    wanted = sum(p.numel() for p in sketch.parameters())
    new = sum(p.numel() for name, p in sketch.named_parameters() if _is_new(sketch, name))
    if wanted - new > (1 + HEAD_SHARE) * numbers:
        raise refusal(folder, f"config.json describes {wanted} numbers, and the weights are {numbers}: not a pair")


def _check_fit(folder: Path, model: Any, info: Json, *, new_head: bool) -> None:
    """Raises BadRequest where weights of the encoder lack or have other shapes; a head may be new."""
    odd = [f"{key[0]} is {tuple(key[1])}, expected {tuple(key[2])}" for key in info["mismatched_keys"]
           if not (new_head and _is_new(model, key[0]))]  # fmt: skip
    lacking = [f"{name} is missing" for name in info["missing_keys"] if not (new_head and _is_new(model, name))]
    if odd or lacking:
        some = "; ".join(sorted([*odd, *lacking])[:5])
        raise refusal(folder, f"{len(odd) + len(lacking)} weights do not fit its config.json: {some}")


def _is_new(model: Any, name: str) -> bool:
    """Whether a parameter belongs to the head, or to the pooler that checkpoints of language models have not."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name
