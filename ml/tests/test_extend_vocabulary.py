"""A model gets another tokenizer: what both have keeps its rows, what is new begins by a recorded method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workbench
from test_train import curve_of, folder_of
from tiny import WORDS, make_model, make_plan, make_tokenizer, make_validation, train_request, write_text

from cpt_ml.durable_files import sha256_file
from cpt_ml.errors import BadRequest
from cpt_ml.extend_vocabulary import EMBEDDING, HEAD, means
from cpt_ml.llama import load_llama
from cpt_ml.store import Json
from cpt_ml.weights import read_weights, weights_sha256

NEW_WORDS = ("ocean tide", "山高路远", "naïve café")


def new_tokenizer(bench: Workbench, **train: Any) -> Json:
    """Another byte-level BPE: other merges, other ids, other names of special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=390, special_tokens=["<pad>", "</s>", "<|begin_of_text|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **train,
    )  # fmt: skip
    texts = [write_text(language, 300, 2) for language in WORDS] + [w for w in NEW_WORDS for _ in range(30)]
    tokenizer.train_from_iterator(texts, trainer)
    path = bench.files / "new" / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return bench.ref("new/tokenizer.json")


def vocabulary(path: Path) -> dict[str, int]:
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer: Any = Tokenizer.from_file(str(path))
    return tokenizer.get_vocab(with_added_tokens=True)


def extend(bench: Workbench, seed: int = 0, method: str = "subword-mean", multiple: int = 64, **config: Any) -> Json:
    request = {"model": make_model(bench, seed, **config), "tokenizer": new_tokenizer(bench), "method": method,
               "padToMultipleOf": multiple}  # fmt: skip
    return bench.run("extend-vocabulary", request)


@pytest.mark.parametrize("tied", [True, False])
def test_shared_tokens_keep_their_logits_and_the_rest_of_the_model_its_weights(
    workbench: Workbench, tied: bool
) -> None:
    result = extend(workbench, 0, tie_word_embeddings=tied)
    source, target = workbench.files / "model-0", folder_of(workbench, result["model"])
    old, new = vocabulary(source / "tokenizer.json"), vocabulary(target / "tokenizer.json")
    shared = sorted(old.keys() & new.keys())
    assert 256 < len(shared) < len(old)
    assert any(old[t] != new[t] for t in shared)
    generator = np.random.Generator(np.random.PCG64(0))
    text = generator.choice(shared, (2, 24))
    with torch.no_grad():
        before = load_llama(source)(torch.tensor([[old[t] for t in row] for row in text]))
        after = load_llama(target)(torch.tensor([[new[t] for t in row] for row in text]))
    assert torch.equal(before[..., [old[t] for t in shared]], after[..., [new[t] for t in shared]])
    weights = read_weights(target)
    for name, tensor in read_weights(source).items():
        if name not in (EMBEDDING, HEAD):
            assert torch.equal(tensor, weights[name])
    assert (HEAD in weights) is not tied


def test_new_tokens_begin_as_the_mean_of_the_old_pieces_of_their_text(workbench: Workbench) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    result = extend(workbench, 0, tie_word_embeddings=False)
    source, target = workbench.files / "model-0", folder_of(workbench, result["model"])
    before, after = read_weights(source), read_weights(target)
    encoder: Any = Tokenizer.from_file(str(source / "tokenizer.json"))
    decoder: Any = Tokenizer.from_file(str(target / "tokenizer.json"))
    old, new = vocabulary(source / "tokenizer.json"), vocabulary(target / "tokenizer.json")
    words = [t for t in new if t not in old and "\ufffd" not in decoder.decode([new[t]])]
    assert len(words) > 40
    for token in words:
        text = decoder.decode([new[token]], skip_special_tokens=False)
        ids = encoder.encode(text, add_special_tokens=False).ids
        for name in (EMBEDDING, HEAD):
            torch.testing.assert_close(after[name][new[token]], before[name][ids].mean(0), atol=1e-6, rtol=1e-5)
    everything = before[EMBEDDING].mean(0)
    torch.testing.assert_close(after[EMBEDDING][-1], everything, atol=1e-6, rtol=1e-5)
    parts = [t for t in new if t not in old and "\ufffd" in decoder.decode([new[t]])]
    for token in parts:
        torch.testing.assert_close(after[EMBEDDING][new[token]], before[EMBEDDING][[old[c] for c in token]].mean(0))


def test_the_method_and_what_it_did_are_on_record_and_the_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    benches = [Workbench(tmp_path / name) for name in ("a", "b", "mean")]
    results = [extend(b, 0, "mean" if b is benches[2] else "subword-mean") for b in benches]
    assert results[0]["model"]["sha256"] == results[1]["model"]["sha256"] != results[2]["model"]["sha256"]
    bench, result = benches[0], results[0]
    folder = folder_of(bench, result["model"])
    record = json.loads((folder / "vocabulary-extension.json").read_bytes())
    old, new = (vocabulary(p / "tokenizer.json") for p in (bench.files / "model-0", folder))
    assert record["method"] == "subword-mean"
    assert record["tokenizerBefore"] == sha256_file(bench.path(make_tokenizer(bench)))
    assert record["tokenizerAfter"] == sha256_file(folder / "tokenizer.json")
    assert record["weightsSha256"] == result["weightsSha256"] == weights_sha256(folder)
    assert result["rowsAfter"] == record["rowsAfter"] == -(-len(new) // 64) * 64
    assert result["copied"] == len(old.keys() & new.keys())
    assert result["copied"] + result["averaged"] + result["meanOfAll"] == len(new)
    assert result["padding"] == result["rowsAfter"] - len(new)
    assert (results[2]["averaged"], results[2]["meanOfAll"]) == (0, len(new) - result["copied"])
    config = json.loads((folder / "config.json").read_bytes())
    assert config["vocab_size"] == result["rowsAfter"]
    assert (config["eos_token_id"], config["bos_token_id"]) == (new["</s>"], new["<|begin_of_text|>"])


def test_training_runs_on_it_and_transformers_opens_what_comes_out(workbench: Workbench) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    extended = extend(workbench, 0)
    budget = 128 * 4
    # plans of these tests are of the old tokenizer: its ids are all below the new size
    request = train_request(workbench, make_plan(workbench, budget), budget)
    result = workbench.run("train", {**request, "start": {"kind": "model", "model": extended["model"]}})
    assert len(curve_of(workbench, result)) == 4
    folder = folder_of(workbench, result["model"])
    assert (folder / "vocabulary-extension.json").is_file()
    theirs: Any = LlamaForCausalLM.from_pretrained(folder)
    assert theirs.get_input_embeddings().weight.shape[0] == extended["rowsAfter"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the ocean tide", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "the ocean tide"


def test_losses_of_two_tokenizers_are_compared_per_byte_or_refused(workbench: Workbench) -> None:
    extended = extend(workbench, 0)
    validation = {"sets": make_validation(workbench), "windowTokens": 64, "maxTokensPerDoc": 4096}
    base = {"model": make_model(workbench), "validation": validation, "dtype": "float32"}
    before, after = (
        workbench.run("evaluate-perplexity", {**base, "model": model})["measurement"]
        for model in (base["model"], extended["model"])
    )
    request = {"before": before["perDoc"], "after": after["perDoc"], "resamples": 200, "seed": 1}
    with pytest.raises(BadRequest, match="another tokenizer"):
        workbench.run("compare-perplexity", request)
    groups = workbench.run("compare-perplexity", {**request, "across": "tokenizers"})["groups"]
    found = {g["group"]: g for g in groups}
    for group, language, set_ in (("retention", "en", "retention"), ("zh", "zh", "corpus")):
        old, new = (
            next(s for s in m["strata"] if (s["language"], s["set"]) == (language, set_)) for m in (before, after)
        )
        assert old["tokens"] != new["tokens"]
        per_token = old["bytes"] / old["tokens"]
        assert found[group]["nllBefore"] == pytest.approx(old["nllPerToken"])
        # documents weigh by their bytes before on both sides, so this is near and not exact
        assert found[group]["nllAfter"] == pytest.approx(new["nllPerByte"] * per_token, rel=0.02)
        change = found[group]["nllAfter"] - found[group]["nllBefore"]
        assert found[group]["deltaNllPerByte"] == pytest.approx(change / per_token, rel=1e-6)
    same = {"before": before["perDoc"], "after": before["perDoc"], "resamples": 200, "seed": 1}
    plain = workbench.run("compare-perplexity", same)
    assert workbench.run("compare-perplexity", {**same, "across": "tokenizers"}) == plain


def test_means_are_taken_in_the_type_of_the_weights_without_losing_the_sum() -> None:
    weight = torch.tensor([[256.0, 1.0], [1.0, 3.0], [1.0, 5.0]], dtype=torch.bfloat16)
    found = means(weight, [[2], [0, 1, 2], [0, 1]])
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[1.0, 5.0], [86.0, 3.0], [128.0, 2.0]]


def test_a_tokenizer_that_is_none_or_beyond_the_model_is_refused(workbench: Workbench) -> None:
    request = {"model": make_model(workbench), "tokenizer": workbench.put("bad/tokenizer.json", b"{}"),
               "method": "mean", "padToMultipleOf": 1}  # fmt: skip
    with pytest.raises(BadRequest, match=r"is not a tokenizer\.json"):
        workbench.run("extend-vocabulary", request)
    small = make_model(workbench, 7, vocab_size=200)
    with pytest.raises(BadRequest, match="the model has 200 rows"):
        workbench.run("extend-vocabulary", {**request, "model": small, "tokenizer": new_tokenizer(workbench)})
