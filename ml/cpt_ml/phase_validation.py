"""The frozen sets measured while a phase trains: after each so many steps, and always at its end.

A measurement changes nothing that training depends on: no gradient, no random number, no weight. Its line is part of
the checkpoint that is saved right after it, so a phase killed anywhere has each step's line once, and a rollback takes
the lines of its steps along. The best step is that of the lowest loss per token over all sets, the earliest of equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from cpt_ml.errors import BadData
from cpt_ml.failpoint import failpoint
from cpt_ml.job import Job
from cpt_ml.llama import Llama, build_on_meta, load_weights, materialise
from cpt_ml.parallel import reshard
from cpt_ml.special_tokens import tokenizer_file
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.train_state import TrainState
from cpt_ml.validation import FrozenSets, ValidationSettings, nll_per_token, strata_losses


class PhaseValidation:
    """Measures the state of one phase. `every` None: at the end alone."""

    def __init__(  # noqa: PLR0917
        self,
        job: Job,
        state: TrainState,
        settings: ValidationSettings,
        tokenizer: ArtifactRef,
        every: int | None,
        steps: int,
        dtype: str,
        device: str,
    ) -> None:
        self.job, self.state, self.settings, self.tokenizer = job, state, settings, tokenizer
        self.every, self.steps, self.dtype, self.device = every, steps, dtype, device

    @cached_property
    def _sets(self) -> FrozenSets:
        store = self.job.store
        return FrozenSets(store.file(self.settings.sets), tokenizer_file(store, self.tokenizer), self.settings)

    def is_due(self, step: int) -> bool:
        """Whether the sets are measured after this step; the phase's last step is measured by its end."""
        return self.every is not None and 0 < step < self.steps and step % self.every == 0

    def catch_up(self) -> bool:
        """Measures if the step at hand is due and has no line yet; returns whether it did.

        Raises UnfitStep if a weight is not finite, and Stopped or Orphaned between two batches when told to leave; the
        next attempt then measures the step.
        """
        state = self.state
        if not self.is_due(state.step) or (state.validations and state.validations[-1]["step"] == state.step):
            return False
        state.check_finite()
        line = state.world.share(self.line(self.score()))
        state.note_validation(line)
        failpoint("validated")
        if state.world.rank == 0:
            self.job.log("validated", step=state.step, tokens=state.tokens, nllPerToken=line["nllPerToken"])
        return True

    def score(self) -> list[Json]:
        """The rows of all documents, as FrozenSets has them."""
        world = self.state.world

        def beat(done: int, total: int) -> None:
            self.job.beat("validate", done, total, "tokens", lastCommitTokens=self.job.progress_tokens)
            if world.size > 1:
                world.check_stop(self.job)

        model = model_to_measure(self.state, self.dtype, self.device)
        try:
            return self._sets.score(model, self.device, self.job.placement["batchTokens"], beat, world)
        finally:  # a job that is told to leave in here saves the state yet
            reshard(self.state.model, world)

    def line(self, rows: Sequence[Json]) -> Json:
        """The line of validation.jsonl for the step at hand."""
        nll = nll_per_token(rows)
        return {"step": self.state.step, "tokens": self.state.tokens, "nllPerToken": nll, "strata": strata_losses(rows)}

    def check(self, lines: Sequence[Json]) -> None:
        """Raises BadData unless there is one line for each step that was due, and for the last."""
        found = [line["step"] for line in lines]
        if found != [s for s in range(1, self.steps + 1) if self.is_due(s) or s == self.steps]:
            raise BadData(
                f"train: validated steps are {found}, expected each {self.every} of {self.steps} and the last"
            )


def model_to_measure(state: TrainState, dtype: str, device: str) -> Llama:
    """The model with its weights in `dtype`, as evaluate-perplexity loads them: perplexity is the same measurement for
    the base and for what is trained, on one process or several. Frees the gradients, which the copy takes the place of.
    """
    state.optimizer.zero_grad()
    if dtype == "float32" or state.world.size > 1:  # sharded parameters are gathered in `dtype`
        return state.model
    model = build_on_meta(state.model.config).to(getattr(torch, dtype))
    materialise(model, device)
    load_weights(model, dict(state.model.named_parameters()), "the trained model")
    return model


def best_of(lines: Sequence[Json]) -> Json:
    """The line of the lowest loss per token, the earliest of equals."""
    return min(lines, key=lambda line: (line["nllPerToken"], line["step"]))
