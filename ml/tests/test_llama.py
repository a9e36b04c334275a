"""What a placement may change of the model without changing what it computes, and models made without memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cpt_ml.llama import Llama, LlamaConfig, build_on_meta, load_weights, materialise

CONFIG = LlamaConfig(
    vocabulary=97, width=32, mlp_width=48, layers=4, heads=4, kv_heads=2, head_width=8, norm_epsilon=1e-5,
    rope={"rope_type": "default", "rope_theta": 10000.0}, tied=True, attention_bias=False, mlp_bias=False,
    max_positions=64,
)  # fmt: skip


def random_llama(config: LlamaConfig = CONFIG, seed: int = 0) -> Llama:
    model = Llama(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.2, generator=generator)
    return model


def random_ids(shape: tuple[int, int], seed: int = 1) -> Tensor:
    return torch.randint(0, CONFIG.vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def loss_and_gradients(model: Llama, tokens_BT: Tensor) -> tuple[float, dict[str, Tensor]]:
    for p in model.parameters():
        p.grad = None
    total = model(tokens_BT[:, :-1], tokens_BT[:, 1:])
    total.backward()
    return total.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def saved_bytes(model: Llama, tokens_BT: Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        total = model(tokens_BT[:, :-1], tokens_BT[:, 1:])
    del total
    return sum(kept.values())


def test_recomputed_activations_give_the_same_bits_and_keep_less() -> None:
    model, tokens = random_llama(), random_ids((2, 33))
    results: dict[Any, tuple[float, dict[str, Tensor]]] = {}
    kept: dict[Any, int] = {}
    for setting in ("none", 2, "full"):
        model.recompute(setting)
        results[setting] = loss_and_gradients(model, tokens)
        kept[setting] = saved_bytes(model, tokens)
    for setting in (2, "full"):
        assert results[setting][0] == results["none"][0]
        assert all(torch.equal(g, results["none"][1][n]) for n, g in results[setting][1].items())
    assert kept["full"] < kept[2] < kept["none"]


@pytest.fixture
def compiler() -> Iterator[Callable[[], int]]:
    """Number of graphs that were compiled since the test began."""
    import torch._dynamo  # noqa: PLC0415
    from torch._dynamo.utils import counters  # noqa: PLC0415

    torch._dynamo.reset()
    counters.clear()
    yield lambda: int(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", ["none", "full"])
def test_compiled_layers_give_the_same_loss_each_time(compiler: Callable[[], int], setting: Any) -> None:
    config = replace(CONFIG, layers=10)
    model, tokens = random_llama(config), random_ids((2, 33))
    expected, gradients = loss_and_gradients(model, tokens)
    model.recompute(setting)
    model.compile_layers()
    found, of_compiled = loss_and_gradients(model, tokens)
    assert compiler() == 1
    assert found == pytest.approx(expected, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(of_compiled[name], gradient, atol=2e-4, rtol=1e-4)
    again, once_more = loss_and_gradients(model, tokens)
    assert again == found
    assert all(torch.equal(g, of_compiled[n]) for n, g in once_more.items())
    with torch.inference_mode():
        for length in range(2, 14):
            model(tokens[:, :length])
    assert compiler() == 1


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_made_without_memory_gives_the_same_logits_once_filled(tied: bool) -> None:
    expected = random_llama(replace(CONFIG, tied=tied))
    model = build_on_meta(expected.config)
    assert all(p.is_meta for p in model.parameters())
    materialise(model, "cpu")
    load_weights(model, {n: p.detach() for n, p in expected.named_parameters()}, "test")
    ids = random_ids((2, 20))
    assert torch.equal(model(ids), expected(ids))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied


def test_a_model_that_was_used_can_be_moved_and_changed_in_type() -> None:
    model, ids = random_llama(), random_ids((1, 16))
    before = model(ids)
    half = model.to(torch.bfloat16)(ids)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), before, atol=0.5, rtol=0.1)
    model.to("meta")
    assert model(ids.to("meta")).shape == (1, 16, CONFIG.vocabulary)


SHARDED = """
import sys, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from dataclasses import replace
from test_llama import CONFIG, loss_and_gradients, random_ids, random_llama
from cpt_ml.llama import build_on_meta, load_weights, materialise

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", 2), rank=rank, world_size=2)
torch.set_num_threads(1)
for tied in (True, False):
    expected = random_llama(replace(CONFIG, tied=tied))
    tokens = random_ids((2, 33))
    loss, gradients = loss_and_gradients(expected, tokens)
    model = build_on_meta(expected.config)
    model.recompute(2)
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    materialise(model, "cpu")
    load_weights(model, {n: p.detach() for n, p in expected.named_parameters()}, "test")
    found, of_sharded = loss_and_gradients(model, tokens)
    assert abs(found - loss) < 1e-9 * loss, (found, loss)
    assert of_sharded.keys() == gradients.keys(), of_sharded.keys() ^ gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(of_sharded[name].full_tensor(), gradient, atol=1e-6, rtol=1e-5)
dist.destroy_process_group()
"""


def test_a_model_made_without_memory_is_sharded_and_filled_by_two_processes(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(tmp_path), str(rank)], cwd=tests, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outcomes = [(p.communicate(timeout=120)[1], p.returncode) for p in ranks]
    assert [code for _, code in outcomes] == [0, 0], outcomes
