"""document_nll: equal to a sum made by hand, whatever the windows and the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from cpt_ml.errors import BadRequest
from cpt_ml.nll import TokenIds, batches, cut_windows, document_nll

VOCABULARY = 64


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def documents(*lengths: int) -> list[TokenIds]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCABULARY, size=n).astype(np.uint32) for n in lengths]


def by_hand(model: Any, doc: TokenIds, window: int, stride: int) -> float:
    """Each token by a forward pass over just what its window shows of the tokens before it."""
    total, start = 0.0, 0
    for target in range(1, len(doc)):
        while target > start + window:
            start += stride
        with torch.inference_mode():
            logits = model(torch.tensor(doc[start:target].astype(np.int64))[None]).logits[0, -1]
        total -= float(logits.log_softmax(-1)[int(doc[target])])
    return total


@pytest.mark.parametrize(("window", "stride"), [(64, 64), (8, 8), (8, 3)])
def test_each_token_but_the_first_is_scored_once_in_its_window(model: Any, window: int, stride: int) -> None:
    docs = documents(0, 1, 2, 9, 30)
    found = document_nll(model, docs, window, stride, 1000, 32)
    assert [n for _, n in found] == [0, 0, 1, 8, 29]
    for (nats, _), doc in zip(found, docs, strict=True):
        # float32 over up to 29 terms
        assert nats == pytest.approx(by_hand(model, doc, window, stride), abs=1e-4)


def test_a_documents_score_does_not_depend_on_its_company(model: Any) -> None:
    docs = documents(40, 3, 17, 40, 25)
    together = document_nll(model, docs, 16, 16, 1000, 10_000)
    alone = [document_nll(model, [d], 16, 16, 1000, 10_000)[0] for d in docs]
    assert [n for _, n in together] == [n for _, n in alone]
    np.testing.assert_allclose([x for x, _ in together], [x for x, _ in alone], rtol=1e-6)
    assert together == document_nll(model, docs, 16, 16, 1000, 10_000)


def test_the_number_of_threads_changes_nothing(model: Any) -> None:
    docs = documents(*range(2, 40))
    threads = torch.get_num_threads()
    found: list[list[tuple[float, int]]] = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        found.append(document_nll(model, docs, 16, 16, 1000, 64))
        assert torch.get_num_threads() == n
    torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_a_beat_that_says_stop_is_heard_after_the_batch(model: Any) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    torch_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        document_nll(model, documents(*range(2, 40)), 16, 16, 1000, 64, beat=stop)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(torch_threads)


def test_a_document_is_cut_to_its_maximum(model: Any) -> None:
    docs = documents(40)
    cut = document_nll(model, docs, 64, 64, 10, 100)
    assert cut == document_nll(model, [docs[0][:10]], 64, 64, 1000, 100)


def test_a_model_in_training_is_left_in_training(model: Any) -> None:
    model.train()
    document_nll(model, documents(5), 8, 8, 8, 8)
    assert model.training
    model.eval()


def test_tokens_outside_the_vocabulary_and_strides_over_the_window_are_refused(model: Any) -> None:
    with pytest.raises(BadRequest, match="document 0 has token 64, but the model's vocabulary is 64"):
        document_nll(model, [np.array([1, VOCABULARY], dtype=np.uint32)], 8, 8, 8, 8)
    with pytest.raises(BadRequest, match="strideTokens is 9"):
        document_nll(model, documents(5), 8, 9, 8, 8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=8), st.integers(1, 20), st.integers(1, 20), st.integers(1, 60))
def test_windows_cover_every_target_once_and_batches_every_window(
    lengths: list[int], window: int, stride: int, batch_tokens: int
) -> None:
    stride = min(stride, window)
    windows = [w for i, n in enumerate(lengths) for w in cut_windows(i, n, window, stride)]
    targets = [(w.doc, t) for w in windows for t in range(w.first_target, w.end + 1)]
    assert sorted(targets) == [(i, t) for i, n in enumerate(lengths) for t in range(1, n)]
    assert all(w.length <= window and w.first_target > w.start for w in windows)
    made = list(batches(windows, batch_tokens))
    assert sorted((w.doc, w.start) for b in made for w in b) == sorted((w.doc, w.start) for w in windows)
    assert all(len(b) == 1 or len(b) * b[0].length <= batch_tokens for b in made)
