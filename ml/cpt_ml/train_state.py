"""Everything that decides how a phase goes on, and its way to files and back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cpt_ml.adamw import AdamW
from cpt_ml.checkpoint_chain import Checkpoint
from cpt_ml.llama import Llama, load_weights
from cpt_ml.store import Attempt, Json

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


@dataclass
class TrainState:
    """A phase between two steps. `tokens` is the position in the plan; `curve` holds lines not yet in a checkpoint."""

    model: Llama
    optimizer: AdamW
    step: int = 0
    tokens: int = 0
    curve: list[bytes] = field(default_factory=list[bytes])
    segments: list[Json] = field(default_factory=list[Json])
    restarts: list[Json] = field(default_factory=list[Json])
    numerics: list[Json] = field(default_factory=list[Json])
    train_seconds: float = 0.0

    def is_finite(self) -> bool:
        """Whether every weight is a number: an update can overflow after a loss that was fine."""
        return all(bool(p.isfinite().all()) for p in self.model.parameters())

    def to_record(self, plan_sha256: str) -> Json:
        """The part of a checkpoint's state that is JSON."""
        return {
            "format": "cpt-train-state/1",
            "planSha256": plan_sha256,
            "optimizerSteps": self.optimizer.steps,
            "restarts": self.restarts,
            "numerics": self.numerics,
            "trainSeconds": round(self.train_seconds, 3),
            "carry": list(self.segments),
        }

    def write(self, attempt: Attempt, prefix: str) -> list[str]:
        """Writes a checkpoint's files and returns their names: weights, optimizer with RNG, new lines of the curve."""
        names = [prefix + MODEL, prefix + OPTIMIZER]
        write_model(attempt.path(names[0]), self.model)
        write_optimizer(attempt.path(names[1]), self.optimizer)
        if self.curve:
            names.append(f"{prefix}curve-{self.step:08d}.jsonl")
            attempt.path(names[-1]).write_bytes(b"".join(self.curve))
        return names

    def committed(self, checkpoint: Checkpoint) -> None:
        """Takes note that the curve so far is in a checkpoint."""
        self.curve = []
        self.segments = [f for f in checkpoint.record["files"] if f["name"].startswith("curve-")]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes up a verified checkpoint of this phase: weights, optimizer, RNG, position, curve and history."""
        saved = checkpoint.state
        restore_tensors(checkpoint.paths[MODEL], checkpoint.paths[OPTIMIZER], saved["optimizerSteps"], self)
        self.step, self.tokens = checkpoint.record["step"], checkpoint.tokens
        self.restarts, self.numerics = list(saved["restarts"]), list(saved["numerics"])
        self.train_seconds = saved["trainSeconds"]
        self.committed(checkpoint)


def write_model(path: Path, model: Llama) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters()}, path, {"format": "pt"})


def write_optimizer(path: Path, optimizer: AdamW) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors = {n: t.cpu().contiguous() for n, t in optimizer.state().items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, path)


def restore_tensors(model: Path, optimizer: Path, steps: int, state: TrainState) -> None:
    """Loads weights, moments and random generators, from files whose digests the caller has verified."""
    from safetensors.torch import load_file  # noqa: PLC0415

    load_weights(state.model, load_file(model), model.name)
    tensors: dict[str, Any] = load_file(optimizer)
    torch.set_rng_state(tensors.pop("rng.cpu"))
    cuda = tensors.pop("rng.cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    state.optimizer.load(tensors, steps)


def read_folder_steps(folder: Path) -> int:
    """Optimizer steps behind a phase's `checkpoint/` folder."""
    return json.loads((folder / "state.json").read_bytes())["optimizerSteps"]


@dataclass
class SaveRhythm:
    """When a checkpoint is due: every `given_steps`; where that is None every twentieth of the phase, and sooner where
    steps are slow, by Young's interval √(2·C·MTBF) from the measured cost C of a save."""

    given_steps: int | None
    total_steps: int
    cost_seconds: float = 1.0
    saved_at: float = field(default_factory=time.monotonic)

    MTBF_SECONDS = 6 * 3600.0

    def due(self, step: int) -> bool:
        if self.given_steps is not None:
            return step % self.given_steps == 0
        young = (2 * self.cost_seconds * self.MTBF_SECONDS) ** 0.5
        return step % max(1, -(-self.total_steps // 20)) == 0 or time.monotonic() - self.saved_at > young

    def saved(self, cost_seconds: float) -> None:
        self.cost_seconds, self.saved_at = cost_seconds, time.monotonic()
