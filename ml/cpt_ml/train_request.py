"""What a training is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cpt_ml.adamw import OptimizerSettings
from cpt_ml.divergence import GuardSettings
from cpt_ml.schedule import Schedule
from cpt_ml.store import ArtifactRef
from cpt_ml.validation import ValidationSettings


@dataclass(frozen=True)
class FromModel:
    """A Hugging Face folder, with a fresh optimizer."""

    kind: Literal["model"]
    model: ArtifactRef


@dataclass(frozen=True)
class FromCheckpoint:
    """The `checkpoint/` folder of an earlier phase."""

    kind: Literal["checkpoint"]
    checkpoint: ArtifactRef
    optimizer: Literal["keep", "reset"]


@dataclass(frozen=True)
class TrainRequest:
    """contracts/src/train.ts."""

    engine: Literal["fsdp2"] | None
    start: FromModel | FromCheckpoint
    plan: ArtifactRef
    tokenizer: ArtifactRef
    token_budget: int
    sequence_tokens: int
    global_batch_tokens: int
    schedule: Schedule
    optimizer: OptimizerSettings
    dtype: Literal["float32", "bfloat16"]
    seed: int
    validation: ValidationSettings
    document_masking: bool | None
    guard: GuardSettings | None
    validate_every_steps: int | None

    @property
    def sequences(self) -> int:
        """Sequences of a global batch."""
        return self.global_batch_tokens // self.sequence_tokens

    @property
    def steps(self) -> int:
        return self.token_budget // self.global_batch_tokens
