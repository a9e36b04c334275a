"""The peer: Hugging Face's own Trainer over the sequences of our plan, on a CPU and offline, set up as the phase is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpt_ml.store import Json
from cpt_ml.token_stream import Ids


@dataclass(frozen=True)
class PeerLine:
    """A step as Trainer logs it: mean nats per token of the global batch, gradient norm before clipping."""

    loss: float
    grad_norm: float


class Sequences(torch.utils.data.Dataset[Any]):
    """Sequences (N, T + 1) as Trainer takes them: T inputs, and as targets the tokens after them."""

    def __init__(self, sequences_NT: Ids) -> None:
        self.sequences_NT = torch.from_numpy(sequences_NT)

    def __len__(self) -> int:
        return len(self.sequences_NT)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        inputs_T, targets_T = self.sequences_NT[i, :-1], self.sequences_NT[i, 1:]
        # the loss is taken of shift_labels; labels are what makes Trainer compute one
        return {"input_ids": inputs_T, "labels": targets_T, "shift_labels": targets_T}


def make_trainer(  # noqa: PLR0917
    model_folder: Path,
    output: Path,
    sequences_NT: Ids,
    request: Json,
    rate_of_step: Callable[[int], float],
    micro_batch: int,
    callbacks: list[Any] | None = None,
    **arguments: Any,
) -> Any:
    """A Trainer ready to `train()` a request's phase: same model, order, AdamW, clipping, and learning rate by step.

    Its own decay rule leaves norms and biases out, which are our vectors. `micro_batch` sequences must divide the
    global batch.
    """
    from transformers import Trainer, TrainingArguments  # noqa: PLC0415
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    sequences = request["globalBatchTokens"] // request["sequenceTokens"]
    assert sequences % micro_batch == 0
    o, peak = request["optimizer"], request["schedule"]["peakLr"]
    settings: dict[str, Any] = {
        "output_dir": str(output), "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no",
        "max_steps": request["tokenBudget"] // request["globalBatchTokens"], "seed": request["seed"],
        "per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": sequences // micro_batch,
        "learning_rate": peak, "weight_decay": o["weightDecay"], "max_grad_norm": o["clipNorm"],
        "adam_beta1": o["beta1"], "adam_beta2": o["beta2"], "adam_epsilon": o["epsilon"],
        "train_sampling_strategy": "sequential", "logging_steps": 1, "remove_unused_columns": False, **arguments,
    }  # fmt: skip

    class WithRate(Trainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            optimizer = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate_of_step(i) / peak)
            return self.lr_scheduler

    model: Any = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    return WithRate(
        model=model, args=TrainingArguments(**settings), train_dataset=Sequences(sequences_NT), callbacks=callbacks
    )


def lines_of(trainer: Any) -> list[PeerLine]:
    """What Trainer logged, a line a step."""
    return [PeerLine(e["loss"], float(e["grad_norm"])) for e in trainer.state.log_history if "loss" in e]
