"""What the device computes against the CPU in float32: logits, gradients, and the chunked cross-entropy.

Tolerances. float32: 2e-5 of the largest logit, losses 1e-5 (sums in another order). bfloat16 has 8 bits of mantissa:
losses 2 %, a gradient's direction within a cosine of 0.99 of the float32 one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from phase import MemoryStream, make_folder, size_for

from cpt_ml.cross_entropy import linear_cross_entropy
from cpt_ml.llama import load_llama


def check_float32_logits_are_the_cpus(device: str, work: Path) -> str:
    size = size_for(device)
    folder = make_folder(work / "model", size)
    ids_BT = torch.from_numpy(MemoryStream(size, 1).sequences(0, 2, size.tokens)[:, :-1])
    with torch.no_grad():
        expected = load_llama(folder)(ids_BT)
        got = load_llama(folder, device=device)(ids_BT.to(device)).cpu()
    furthest = float((got - expected).abs().max() / expected.abs().max())
    assert furthest < 2e-5, f"logits differ by {furthest} of the largest"
    return f"furthest {furthest:.1e}"


def check_bfloat16_loss_and_gradients_are_near_the_float32_ones_of_the_cpu(device: str, work: Path) -> str:
    size = size_for(device)
    folder = make_folder(work / "model", size)
    batch = torch.from_numpy(MemoryStream(size, 1).sequences(0, 2, size.tokens))
    exact, half = load_llama(folder), load_llama(folder, device=device)
    loss = exact(batch[:, :-1], batch[:, 1:]) / batch[:, 1:].numel()
    loss.backward()
    sent = batch.to(device)
    with torch.autocast(device, torch.bfloat16):
        rough = half(sent[:, :-1], sent[:, 1:], torch.bfloat16) / batch[:, 1:].numel()
    rough.backward()
    assert abs(rough.item() / loss.item() - 1) < 0.02, f"loss {rough.item()}, in float32 {loss.item()}"
    worst = 1.0
    for (name, p), q in zip(exact.named_parameters(), half.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert q.grad.dtype == torch.float32, f"the gradient of {name} is {q.grad.dtype}"
        worst = min(worst, float(torch.cosine_similarity(p.grad.flatten(), q.grad.cpu().flatten(), dim=0)))
    assert worst > 0.99, f"a gradient's direction is off: cosine {worst}"
    return f"loss off by {abs(rough.item() / loss.item() - 1):.1e}, worst cosine {worst:.5f}"


def check_chunked_cross_entropy_and_its_gradients_are_the_plain_formulas(device: str, work: Path) -> str:
    # more rows than a chunk has: the sums over chunks are part of what is checked
    rows, width, vocabulary = (300, 16, 5000) if device == "cpu" else (3000, 512, 128_256)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator).to(device).requires_grad_()
    head = (torch.randn(vocabulary, width, generator=generator) / width**0.5).to(device).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows,), generator=generator).to(device)
    plain = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="sum")
    expected = torch.autograd.grad(plain, (hidden, head))
    facts: list[str] = []
    for compute, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2)):
        ours = linear_cross_entropy(hidden, head, targets, compute)
        off = abs(ours.item() / plain.item() - 1)
        assert off < tolerance, f"{compute}: loss {ours.item()}, expected {plain.item()}"
        for got, want in zip(torch.autograd.grad(ours, (hidden, head)), expected, strict=True):
            furthest = float((got - want).norm() / want.norm())
            assert furthest < tolerance, f"{compute}: a gradient is off by {furthest} of its length"
        facts.append(f"{str(compute).removeprefix('torch.')} {off:.1e}")
    return ", ".join(facts)
