"""Everything that decides how a phase goes on, and its way to files and back."""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpt_ml.adamw import AdamW
from cpt_ml.amendments import Amendments, trained_losses
from cpt_ml.checkpoint_chain import Checkpoint
from cpt_ml.divergence import LossWatch, UnfitStep
from cpt_ml.errors import BadRequest
from cpt_ml.in_threads import Tell, tell_nobody
from cpt_ml.llama import Llama
from cpt_ml.parallel import local, whole
from cpt_ml.part_names import part_name
from cpt_ml.store import Attempt, Json
from cpt_ml.tensor_files import (
    FILE_BYTES,
    TensorRows,
    rows_of,
    sizes_of,
    split_files,
    write_split,
    write_tensors,
)
from cpt_ml.world import ALONE, World

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
RNG = ("rng.cpu", "rng.cuda")


@dataclass
class Snapshot:
    """A state as it was after a step, out of reach of the next one: what a save writes while training goes on."""

    step: int
    tokens: int
    tensors: dict[str, dict[str, Tensor]]
    lines: dict[str, list[bytes]]
    record: Json


@dataclass
class TrainState:
    """A phase between two steps. `tokens` is the position in the plan; `curve` and `measured` hold lines that are in no
    checkpoint yet, `validations` all lines of the frozen sets so far."""

    model: Llama
    optimizer: AdamW
    world: World = ALONE
    step: int = 0
    tokens: int = 0
    curve: list[bytes] = field(default_factory=list[bytes])
    measured: list[bytes] = field(default_factory=list[bytes])
    validations: list[Json] = field(default_factory=list[Json])
    segments: list[Json] = field(default_factory=list[Json])
    restarts: list[Json] = field(default_factory=list[Json])
    numerics: list[Json] = field(default_factory=list[Json])
    train_seconds: float = 0.0
    watch: LossWatch = field(default_factory=LossWatch)
    amendments: Amendments = field(default_factory=Amendments)
    _staging: dict[str, dict[str, Tensor]] = field(default_factory=dict[str, dict[str, Tensor]])

    def is_finite(self) -> bool:
        """Whether every weight of any process is a number: an update can overflow after a loss that was fine."""
        finite = all(bool(local(p).isfinite().all()) for p in self.model.parameters())
        return self.world.sum([float(not finite)])[0] == 0

    def check_finite(self) -> None:
        """Raises UnfitStep, which all processes do, if a weight is no number."""
        if not self.is_finite():
            what = f"train: weights are not finite after step {self.step}, nothing is saved"
            raise UnfitStep(what, "weights-not-finite")

    def note_validation(self, line: Json) -> None:
        """Takes note of what the frozen sets showed after the step at hand."""
        self.validations.append(line)
        self.measured.append(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def saved_lines(self, kind: str) -> list[Json]:
        """The files of the last checkpoint that hold the lines of a kind (`curve`, `validation`), in order."""
        return [f for f in self.segments if f["name"].startswith(f"{kind}-")]

    def to_record(self, plan_sha256: str) -> Json:
        """The part of a checkpoint's state that is JSON."""
        last = self.validations[-1] if self.validations else None
        return {
            "format": "cpt-train-state/1",
            "planSha256": plan_sha256,
            "optimizerSteps": self.optimizer.steps,
            "restarts": self.restarts,
            "numerics": self.numerics,
            "trainSeconds": round(self.train_seconds, 3),
            "carry": list(self.segments),
            **({"amendments": self.amendments.to_json()} if self.watch.settings else {}),
            **({"nllPerToken": last["nllPerToken"]} if last and last["step"] == self.step else {}),
        }

    def snapshot(self, plan_sha256: str) -> Snapshot:
        """Copies what a checkpoint has of this process, into memory that the last save is done with."""
        parts: dict[str, dict[str, Tensor]] = {}
        if self.world.writes:
            parts[MODEL] = {n: local(p).detach() for n, p in self.model.named_parameters()}
            parts[OPTIMIZER] = self.optimizer.state()
        for name, tensors in parts.items():
            staged = self._staging.setdefault(name, {})
            for n, t in tensors.items():
                if n not in staged:
                    staged[n] = torch.empty(t.shape, dtype=t.dtype, pin_memory=t.device.type == "cuda")
                staged[n].copy_(t)
        lines = {"curve": self.curve, "validation": self.measured}
        self.curve, self.measured = [], []
        tensors = dict(self._staging)
        if self.world.writes:
            tensors[OPTIMIZER] = {**tensors[OPTIMIZER], **rng_states()}
        return Snapshot(self.step, self.tokens, tensors, lines, copy.deepcopy(self.to_record(plan_sha256)))

    def write(self, snapshot: Snapshot, attempt: Attempt, prefix: str) -> list[str]:
        """Writes this process's files of a checkpoint and returns their names: weights, optimizer with RNG, and in the
        first process the new lines of the curve and of the frozen sets."""
        names: list[str] = []
        for name, tensors in snapshot.tensors.items():
            names.append(prefix + part_name(name, self.world.shard, self.world.shards))
            write_tensors(attempt.path(names[-1]), tensors)
        for kind, lines in snapshot.lines.items():
            if lines and self.world.rank == 0:
                names.append(f"{prefix}{kind}-{snapshot.step:08d}.jsonl")
                attempt.path(names[-1]).write_bytes(b"".join(lines))
        return names

    def committed(self, checkpoint: Checkpoint) -> None:
        """Takes note of the lines that are in a checkpoint."""
        self.segments = [f for f in checkpoint.record["files"] if f["name"].startswith(("curve-", "validation-"))]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes up a verified checkpoint of this phase: weights, optimizer, RNG, position, curve and history."""
        saved = checkpoint.state
        restore_tensors(
            parts_of(checkpoint.paths, MODEL), parts_of(checkpoint.paths, OPTIMIZER), saved["optimizerSteps"], self
        )
        self.step, self.tokens = checkpoint.record["step"], checkpoint.tokens
        self.restarts, self.numerics = list(saved["restarts"]), list(saved["numerics"])
        self.train_seconds = saved["trainSeconds"]
        self.amendments = Amendments.from_json(saved.get("amendments", []))
        self.curve, self.measured = [], []
        self.committed(checkpoint)
        lines = {k: self._lines_in(checkpoint, k) for k in ("curve", "validation")}
        self.watch.follow(trained_losses(lines["curve"]))
        self.validations = [json.loads(line) for line in lines["validation"]]

    def _lines_in(self, checkpoint: Checkpoint, kind: str) -> list[bytes]:
        segments = (checkpoint.paths[s["name"]].read_bytes() for s in self.saved_lines(kind))
        return [line for segment in segments for line in segment.splitlines()]

    def roll_back(self, checkpoint: Checkpoint) -> None:
        """Takes up an earlier checkpoint of this phase; what the job has lived through and decided since is kept."""
        amendments, restarts, seconds, numerics = self.amendments, self.restarts, self.train_seconds, self.numerics[-1]
        self.restore(checkpoint)
        self.amendments, self.restarts, self.train_seconds = amendments, restarts, seconds
        if self.numerics[-1] != numerics:
            self.numerics.append({**numerics, "fromStep": self.step})


def parts_of(paths: Mapping[str, Path], name: str) -> list[Path]:
    """A checkpoint's files of weights, or of the optimizer, in the order of their rows."""
    stem = name.removesuffix(".safetensors")
    return [paths[n] for n in sorted(paths) if n == name or n.startswith(f"{stem}-")]


def write_model(path: Path, model: Llama) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters()}, path, {"format": "pt"})


def write_folder(
    folder: Path, state: TrainState, optimizer: bool, tell: Tell = tell_nobody, max_bytes: int = FILE_BYTES
) -> dict[str, str]:
    """Writes the whole model, or the whole optimizer with RNG, as Hugging Face names it, in files of at most
    `max_bytes`, and returns their digests by name. All processes take part, one parameter at a time."""
    named: dict[str, Any] = dict(state.model.named_parameters())
    asked = itertools.count(1)
    if not optimizer:
        sizes = sizes_of((n, p.shape) for n, p in named.items())

        def weight(name: str) -> Tensor:
            tell(next(asked), len(sizes))
            return whole(local(named[name]).detach(), named[name])

        return write_split(folder, MODEL, sizes, weight, state.world, max_bytes=max_bytes)
    moments, rng = state.optimizer.state(), rng_states()
    shapes = [(n, named[n.split(".", 1)[1]].shape) for n in moments]
    sizes = sizes_of(shapes) | {n: t.numel() for n, t in rng.items()}

    def moment(name: str) -> Tensor:
        tell(next(asked), len(sizes))
        return rng[name] if name in rng else whole(moments[name], named[name.split(".", 1)[1]])

    return write_split(folder, OPTIMIZER, sizes, moment, state.world, metadata=None, max_bytes=max_bytes)


def write_saved_model(
    folder: Path, checkpoint: Checkpoint, state: TrainState, max_bytes: int = FILE_BYTES
) -> dict[str, str]:
    """Writes the whole model that a verified checkpoint of the phase holds, with the bytes that write_folder would have
    written at its step, and returns the digests of its files. One process does."""
    rows = TensorRows(parts_of(checkpoint.paths, MODEL))
    shapes = {n: rows.shape(n) for n, _ in state.model.named_parameters()}
    sizes = sizes_of(shapes.items())
    return write_split(folder, MODEL, sizes, lambda n: rows.read(n, range(shapes[n][0])), max_bytes=max_bytes)


def rng_states() -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


@torch.no_grad()
def restore_tensors(model: Sequence[Path], optimizer: Sequence[Path], steps: int, state: TrainState) -> None:
    """Loads this process's rows of weights and moments, and random generators, from files whose digests the caller has
    verified: one of each kind, or the parts that another number of processes wrote."""
    world = state.world
    named: dict[str, Any] = dict(state.model.named_parameters())
    weights, moments = TensorRows(model), TensorRows(optimizer)
    weights.check({n: tuple(p.shape) for n, p in named.items()}, ["lm_head.weight"] if state.model.config.tied else [])
    expected = state.optimizer.state()
    shapes = {n: tuple(named[n.split(".", 1)[1]].shape) for n in expected}
    found = {n: moments.shape(n) for n in moments.names() - set(RNG)}
    wrong = [n for n in sorted(shapes.keys() | found.keys()) if shapes.get(n) != found.get(n)]
    if wrong:
        said = (f"{n} is {found.get(n, 'absent')}, expected {shapes.get(n, 'nothing')}" for n in wrong[:3])
        raise BadRequest(f"train: the optimizer state of {moments.source} does not fit the model: {'; '.join(said)}")
    for name, parameter in named.items():
        local(parameter).copy_(weights.read(name, rows_of(parameter.shape[0], world.shard, world.shards)))
    rows = {n: moments.read(n, rows_of(shapes[n][0], world.shard, world.shards)) for n in expected}
    torch.set_rng_state(moments.first("rng.cpu"))
    if "rng.cuda" in moments.names() and torch.cuda.is_available():
        torch.cuda.set_rng_state(moments.first("rng.cuda"))
    state.optimizer.load(rows, steps)


def check_folder(folder: Path, tokenizer_sha256: str, optimizer: bool) -> None:
    """Raises BadRequest if a folder is not a phase's `checkpoint/` (`optimizer`: with its moments), or is one of
    another tokenizer: its weights know other ids."""
    needed = ("state.json", OPTIMIZER) if optimizer else ("state.json",)
    missing = [n for n in needed if not ((folder / n).is_file() or split_files(folder, n))]
    if missing:
        raise BadRequest(
            f"train: start.checkpoint has no {' and no '.join(missing)}: expected the checkpoint/ folder of a phase; "
            'a model begins with start {"kind": "model"}'
        )
    saved = _folder_state(folder).get("tokenizerSha256", tokenizer_sha256)
    if saved != tokenizer_sha256:
        raise BadRequest(
            f"train: start.checkpoint was trained with the tokenizer of sha256 {saved}, the request's tokenizer has "
            f"{tokenizer_sha256}: take the one it was trained with, or extend the vocabulary of its model"
        )


def read_folder_steps(folder: Path) -> int:
    """Optimizer steps behind a phase's `checkpoint/` folder."""
    return _folder_state(folder)["optimizerSteps"]


def read_folder_amendments(folder: Path) -> list[Json]:
    """What was skipped on the way to a phase's `checkpoint/` folder, each with the plan that it was skipped of."""
    return _folder_state(folder).get("amendments", [])


def _folder_state(folder: Path) -> Json:
    return json.loads((folder / "state.json").read_bytes())


@dataclass
class SaveRhythm:
    """When a checkpoint is due: every `given_steps`; where that is None every twentieth of the phase, and sooner where
    steps are slow, by Young's interval √(2·C·MTBF) (10.1145/361147.361115) from the measured cost C of a save, the time
    that training stood still for it; never before the last one was written."""

    given_steps: int | None
    total_steps: int
    mtbf_seconds: float = 6 * 3600.0
    cost_seconds: float = 1.0
    write_seconds: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)

    def due(self, step: int) -> bool:
        if self.given_steps is not None:
            return step % self.given_steps == 0
        young = (2 * self.cost_seconds * self.mtbf_seconds) ** 0.5
        return step % max(1, -(-self.total_steps // 20)) == 0 or time.monotonic() - self.saved_at > max(
            young, self.write_seconds
        )

    def saved(self, cost_seconds: float, write_seconds: float) -> None:
        self.cost_seconds, self.write_seconds, self.saved_at = cost_seconds, write_seconds, time.monotonic()
