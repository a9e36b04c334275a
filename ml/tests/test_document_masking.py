"""With document masking a window computes what each of its documents computes alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workbench
from test_llama import loss_and_gradients, random_ids, random_llama
from test_train import curve_of, folder_of
from tiny import make_docs, make_plan, make_pool, plan_folder, plan_request, read_pieces, stratum, train_request
from torch import Tensor

from cpt_ml.cross_entropy import linear_cross_entropy
from cpt_ml.document_attention import attend, block_mask, document_mask, document_positions
from cpt_ml.llama import Llama, load_llama
from cpt_ml.store import Json
from cpt_ml.token_stream import TokenStream, targets_within


def numbers(*lengths: int) -> Tensor:
    """Documents of these lengths in one window, as the model takes them (1, T)."""
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]


def alone(model: Llama, ids_1T: Tensor, documents_1T: Tensor) -> Tensor:
    """Logits of each document of a window computed by itself (1, T, V)."""
    _, lengths = documents_1T[0].unique_consecutive(return_counts=True)
    return torch.cat([model(part) for part in ids_1T.split(lengths.tolist(), dim=1)], dim=1)


@pytest.mark.parametrize("lengths", [(5, 20, 7), (32,), (1,) * 32, (1, 30, 1), (16, 16)])
def test_the_logits_are_those_of_each_document_alone(lengths: tuple[int, ...]) -> None:
    model, ids, documents = random_llama(), random_ids((1, 32)), numbers(*lengths)
    with torch.no_grad():
        torch.testing.assert_close(
            model(ids, documents_BT=documents), alone(model, ids, documents), atol=2e-5, rtol=1e-4
        )
        if len(lengths) > 1:
            assert float((model(ids) - alone(model, ids, documents)).abs().max()) > 0.1


def test_windows_of_a_batch_have_documents_of_their_own() -> None:
    model, ids = random_llama(), random_ids((3, 24))
    documents = torch.cat([numbers(24), numbers(3, 21), numbers(12, 6, 6)])
    with torch.no_grad():
        expected = torch.cat([alone(model, ids[i : i + 1], documents[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(model(ids, documents_BT=documents), expected, atol=2e-5, rtol=1e-4)


def test_one_document_a_window_gives_the_loss_of_no_masking() -> None:
    model, tokens = random_llama(), random_ids((2, 33))
    expected, gradients = loss_and_gradients(model, tokens)
    for p in model.parameters():
        p.grad = None
    total = model(tokens[:, :-1], tokens[:, 1:], documents_BT=torch.zeros(2, 32, dtype=torch.int64))
    total.backward()
    assert total.item() == pytest.approx(expected, rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-4, rtol=1e-4)


def test_targets_of_minus_one_count_for_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 8, generator=generator, requires_grad=True)
    head = torch.randn(50, 8, generator=generator, requires_grad=True)
    targets = torch.randint(-1, 50, (200,), generator=generator)
    targets[::3] = -1
    plain = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="sum", ignore_index=-1)
    expected = torch.autograd.grad(plain, (hidden, head))
    ours = linear_cross_entropy(hidden, head, targets, torch.float32, masked=True)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    found = torch.autograd.grad(ours, (hidden, head))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    assert not found[0][targets < 0].any()


@pytest.mark.filterwarnings("ignore")
def test_the_blocks_for_a_gpu_attend_to_what_the_mask_of_a_cpu_attends_to() -> None:
    generator = torch.Generator().manual_seed(0)
    documents = torch.cat([numbers(40, 88), numbers(*(8,) * 16)])
    q, k, v = torch.randn(3, 2, 2, 128, 16, generator=generator)
    mask: Any = document_mask(documents)
    assert mask.shape == (2, 1, 128, 128)
    torch.testing.assert_close(attend(q, k, v, block_mask(documents)), attend(q, k, v, mask), atol=1e-5, rtol=1e-4)


def test_positions_begin_again_with_each_document() -> None:
    found = document_positions(torch.tensor([[0, 0, 0, 1, 2, 2], [5, 5, 5, 5, 5, 5]]))
    assert found.tolist() == [[0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5]]


def stream_of(bench: Workbench, plan: Json) -> TokenStream:
    return TokenStream(bench.job("read", plan).store, plan_folder(bench, plan))


def test_documents_of_a_window_are_what_ends_of_documents_cut_the_stream_into(workbench: Workbench) -> None:
    # one stratum in order: no other piece stands between two of a document, and every document ends with </s>
    budget = 128 * 10
    pool = make_pool(workbench, make_docs("en", "web", 40, "Others", words=(1, 60)))
    request = plan_request(workbench, [pool], [stratum("en", "web", 1.0, "Others")], budget)
    stream = stream_of(workbench, workbench.run("sample-mixture", request)["plan"])
    length, count = 16, budget // 16
    tokens, documents = stream.sequences(0, count, length), stream.documents(0, count, length)
    ends = tokens[:, :-1] == 1
    assert ends.any()
    assert (~ends.any(axis=1)).any(), "no window lies within one document"
    assert np.array_equal(np.diff(documents, axis=1) == 1, ends)
    assert (documents[:, 0] == 0).all()
    targets = targets_within(tokens, documents)
    assert np.array_equal(targets < 0, ends)
    assert np.array_equal(targets[~ends], tokens[:, 1:][~ends])
    assert np.array_equal(stream.documents(3, 2, length), documents[3:5])


def test_a_piece_that_goes_on_after_another_document_is_for_itself(workbench: Workbench) -> None:
    plan = make_plan(workbench, 128 * 12)
    stream = stream_of(workbench, plan)
    pieces = _pieces(workbench, plan)
    places = np.concatenate([np.full(p["length"], i) for i, p in enumerate(pieces)])
    documents = stream.documents(0, 1, stream.num_tokens - 1)[0]
    begins = [0, *(np.flatnonzero(np.diff(documents)) + 1).tolist()]
    firsts = [pieces[places[b]] for b in begins]
    assert any(p["start"] > 0 for p in firsts), "no document of the plan was interrupted"
    for before, after in itertools.pairwise(pieces):
        same = all(before[n] == after[n] for n in ("pool", "shard", "row", "epoch"))
        goes_on = same and after["start"] == before["start"] + before["length"] - before["bos"] - before["eos"]
        assert (documents[after["offset"]] == documents[after["offset"] - 1]) == goes_on


def _pieces(bench: Workbench, plan: Json) -> list[Json]:
    return [{k: int(v) for k, v in p.items()} for p in read_pieces(bench, plan).to_pylist()]


def reference_losses(bench: Workbench, request: Json) -> list[float]:
    """The first step's loss from each document alone, by plain logits: sum over targets ÷ number of targets."""
    model = load_llama(folder_of(bench, request["start"]["model"]))
    stream = stream_of(bench, request["plan"])
    tokens, documents = stream.sequences(0, 8, 16), stream.documents(0, 8, 16)
    total, count = 0.0, 0
    for row, numbers_ in zip(tokens, documents, strict=True):
        for n in np.unique(numbers_):
            ids = torch.from_numpy(row[numbers_ == n])[None]
            if ids.shape[1] > 1:
                with torch.no_grad():
                    logits = model(ids[:, :-1])[0]
                total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
                count += ids.shape[1] - 1
    return [total / count]


@pytest.mark.parametrize("batch_tokens", [16_384, 48])
def test_the_loss_is_the_sum_over_documents_alone_by_the_number_of_targets(tmp_path: Path, batch_tokens: int) -> None:
    bench = Workbench(tmp_path / "masked")
    request = train_request(bench, make_plan(bench, 128 * 3), 128 * 3, documentMasking=True)
    curve = curve_of(bench, bench.run("train", request, batchTokens=batch_tokens))
    assert curve[0]["loss"] == pytest.approx(reference_losses(bench, request)[0], rel=1e-5)
    assert curve[-1]["tokens"] == 128 * 3
    off = Workbench(tmp_path / "off")
    unmasked = [off.run("train", train_request(off, make_plan(off, 128 * 3), 128 * 3, **more))["weightsSha256"]
                for more in ({}, {"documentMasking": False})]  # fmt: skip
    assert unmasked[0] == unmasked[1]
    assert bench.run("train", request)["weightsSha256"] != unmasked[0]
