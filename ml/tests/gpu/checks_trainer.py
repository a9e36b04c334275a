"""Steps of the trainer on the device: the same bits each time and after a resume, and the losses of the CPU."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from phase import make_folder, make_request, new_state, same_bits, size_for, take_steps

from cpt_ml.errors import JobFailure
from cpt_ml.store import Attempt, Store
from cpt_ml.train_state import MODEL, OPTIMIZER, restore_tensors


def check_a_phase_run_twice_has_the_same_bits(device: str, work: Path) -> str:
    size = size_for(device)
    folder = make_folder(work / "model", size)
    for dtype in ("float32", "bfloat16"):
        request = make_request(size, dtype, size.steps)
        states = [new_state(folder, device, request) for _ in range(2)]
        curves = [take_steps(s, request, size, device, size.steps) for s in states]
        assert curves[0] == curves[1], f"{dtype}: the curves differ"
        assert same_bits(states[0].model, states[1].model), f"{dtype}: the weights differ"
        assert curves[0][-1]["loss"] < curves[0][0]["loss"], f"{dtype}: nothing was learned: {curves[0]}"
    return f"{size.steps} steps, float32 and bfloat16"


def check_a_resumed_phase_has_the_bits_of_an_undisturbed_one(device: str, work: Path) -> str:
    size, half = size_for(device), size_for(device).steps // 2
    folder = make_folder(work / "model", size)
    for dtype in ("float32", "bfloat16"):
        request = make_request(size, dtype, size.steps)
        undisturbed, killed, resumed = (new_state(folder, device, request) for _ in range(3))
        expected = take_steps(undisturbed, request, size, device, size.steps)
        take_steps(killed, request, size, device, half)
        attempt = Attempt(Store({"store": str(work / dtype)}), "0" * 64, "attempt")
        names = killed.write(killed.snapshot("0" * 64), attempt, "checkpoint/")
        weights, moments = ([attempt.path(n) for n in names if n.endswith(kind)] for kind in (MODEL, OPTIMIZER))
        restore_tensors(weights, moments, killed.optimizer.steps, resumed)
        resumed.step, resumed.tokens = killed.step, killed.tokens
        assert take_steps(resumed, request, size, device, size.steps) == expected[half:], f"{dtype}: the curves differ"
        assert same_bits(resumed.model, undisturbed.model), f"{dtype}: the weights differ"
    return f"left after {half} of {size.steps} steps"


def check_losses_in_float32_are_those_of_the_cpu(device: str, work: Path) -> str:
    size = size_for(device)
    folder = make_folder(work / "model", size)
    request = make_request(size, "float32", size.steps)
    here, there = (take_steps(new_state(folder, where, request), request, size, where, 3) for where in (device, "cpu"))
    off = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(here, there, strict=True))
    assert off < 1e-4, f"losses are off by {off}"
    return f"three steps, furthest {off:.1e}"


def check_a_step_that_is_not_finite_is_refused_with_the_weights_as_they_were(device: str, work: Path) -> str:
    size = size_for(device)
    request = make_request(size, "bfloat16", size.steps)
    state = new_state(make_folder(work / "model", size), device, request)
    take_steps(state, request, size, device, 1)
    with torch.no_grad():
        state.model.model.norm.weight[0] = math.inf
    before = [p.detach().clone() for p in state.model.parameters()]
    said = ""
    try:
        take_steps(state, request, size, device, 2)
    except JobFailure as e:
        said = str(e)
    assert "at step 2" in said, f"a step that is not finite was taken, or refused for another reason: {said!r}"
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    return "told by step, nothing changed"
