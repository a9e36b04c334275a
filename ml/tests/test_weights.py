"""Folders of weights: sharded files in and out, read by rows, and refused where they do not say the truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workbench
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import make_model, make_plan, train_request

from cpt_ml.adamw import AdamW, OptimizerSettings
from cpt_ml.durable_files import sha256_file
from cpt_ml.errors import BadRequest
from cpt_ml.llama import load_llama
from cpt_ml.tensor_files import split_files, write_split, write_tensors
from cpt_ml.train_state import MODEL, OPTIMIZER, TrainState, read_folder_steps, restore_tensors, write_folder
from cpt_ml.weights import (
    INDEX,
    count_parameters,
    read_header,
    read_weights,
    stored_weights,
    weight_files,
    weights_sha256,
)


def sharded(source: Path, target: Path, max_bytes: int = 4000) -> list[str]:
    """A folder with the tensors of `source` in several files."""
    target.mkdir(parents=True, exist_ok=True)
    tensors = read_weights(source)
    sizes = {n: t.numel() * t.element_size() for n, t in tensors.items()}
    digests = write_split(target, "model.safetensors", sizes, tensors.__getitem__, max_bytes=max_bytes)
    assert digests == {name: sha256_file(target / name) for name in digests}
    shutil.copy(source / "config.json", target)
    return [*digests, INDEX]


@pytest.fixture
def source(workbench: Workbench) -> Path:
    make_model(workbench, tie_word_embeddings=False)
    return workbench.files / "model-0"


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_in_many_files_is_the_model_in_one(workbench: Workbench, tmp_path: Path, tied: bool) -> None:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    make_model(workbench, 3, tie_word_embeddings=tied)
    source, target = workbench.files / "model-3", tmp_path / "sharded"
    names = sharded(source, target)
    assert names[-1] == INDEX
    assert len(names) > 4
    files = weight_files(target)
    assert [p.name for p in files] == names[:-1]
    stored = [read_header(p) for p in files]
    assert all(len(tensors) == 1 or sum(t.num_bytes for t in tensors) <= 4000 for tensors in stored)
    assert weights_sha256(target) == weights_sha256(source)
    assert count_parameters(target) == count_parameters(source) == sum(t.numel() for t in read_weights(source).values())
    ids = torch.arange(24)[None]
    with torch.no_grad():
        expected = load_llama(source)(ids)
        assert torch.equal(load_llama(target)(ids), expected)
        theirs: Any = LlamaForCausalLM.from_pretrained(target, dtype=torch.float32)
        torch.testing.assert_close(theirs(ids).logits, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_that_we_write_has_the_bytes_that_the_library_gives_it(
    source: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = {n: t.to(dtype) for n, t in read_weights(source).items()}
    tensors['ünïcode "name"'] = torch.zeros(3, dtype=dtype)
    write_tensors(tmp_path / "ours", dict(reversed(tensors.items())), {"format": "pt"})
    save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    mixed = {"b": torch.arange(5, dtype=torch.uint8), "a": torch.tensor(2.5), "none": torch.empty(0, 3)}
    write_tensors(tmp_path / "mixed", mixed)
    found = load_file(tmp_path / "mixed")
    assert found.keys() == mixed.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in mixed.items())


@pytest.mark.parametrize("tied", [True, False])
def test_what_a_phase_leaves_in_many_files_is_what_it_leaves_in_one(workbench: Workbench, tied: bool) -> None:
    """Model and moments are larger than a file may be; transformers opens the folder, and a phase goes on from it."""
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    budget, limit = 128 * 4, 3000
    plan = make_plan(workbench, budget)
    model = make_model(workbench, 4, tie_word_embeddings=tied)
    request = train_request(workbench, plan, budget, start={"kind": "model", "model": model})
    left = workbench.run("train", request)["checkpoint"]
    one, many = workbench.job("read", {}).store.folder(left), workbench.files / "split"
    many.mkdir()
    loaded = load_llama(one)
    state = TrainState(loaded, AdamW(loaded.named_parameters(), OptimizerSettings(0.9, 0.95, 1e-8, 0.1, 1.0)))
    restore_tensors([one / MODEL], [one / OPTIMIZER], read_folder_steps(one), state)
    for moments in (False, True):
        write_folder(many, state, optimizer=moments, max_bytes=limit)
    for name in ("config.json", "tokenizer.json", "state.json"):
        shutil.copy(one / name, many)
    assert len(split_files(many, MODEL)) > 4
    assert len(split_files(many, OPTIMIZER)) > 8
    assert weights_sha256(many) == weights_sha256(one)
    moments_of = [{n: t for p in split_files(f, OPTIMIZER) for n, t in load_file(p).items()} for f in (one, many)]
    assert moments_of[0].keys() == moments_of[1].keys()
    assert all(torch.equal(moments_of[0][n], moments_of[1][n]) for n in moments_of[0])
    ids = torch.arange(24)[None]
    with torch.no_grad():
        theirs: Any = LlamaForCausalLM.from_pretrained(many, dtype=torch.float32)
        torch.testing.assert_close(theirs(ids).logits, load_llama(one)(ids), atol=2e-5, rtol=1e-4)
    starts = [{"kind": "checkpoint", "checkpoint": c, "optimizer": "keep"} for c in (left, workbench.ref("split/"))]
    whole, split = (workbench.run("train", {**request, "start": start}) for start in starts)
    assert whole["weightsSha256"] == split["weightsSha256"]
    assert whole["curve"]["sha256"] == split["curve"]["sha256"]


def test_shards_that_hugging_face_writes_are_read(source: Path, tmp_path: Path) -> None:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    theirs: Any = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(weight_files(tmp_path / "theirs")) > 1
    assert weights_sha256(tmp_path / "theirs") == weights_sha256(source)


def test_an_exported_folder_of_shards_counts_its_parameters(workbench: Workbench, source: Path) -> None:
    names = sharded(source, workbench.files / "many")
    shutil.copy(source / "tokenizer.json", workbench.files / "many")
    model = workbench.ref("many/")
    card = {"title": "T", "language": ["en"], "license": "mit", "summary": "S"}
    result = workbench.run("export-model", {"model": model, "base": model, "card": card, "lineage": []})
    assert result["parameters"] == count_parameters(source) > 0
    assert {p.name for p in Path(result["path"]).iterdir()} >= set(names)


def test_rows_are_read_without_the_rest(source: Path) -> None:
    whole = load_file(source / "model.safetensors")
    for name, stored in stored_weights(source).items():
        assert stored.shape == tuple(whole[name].shape)
        count = stored.shape[0]
        for rows in (slice(None), slice(0, count // 2), slice(count // 2, count), slice(count, count)):
            assert torch.equal(stored[rows], whole[name][rows])


def relabel(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_bytes())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def copy_to_second(folder: Path) -> None:
    """Stores a tensor of the first shard in the second too."""
    first, second = weight_files(folder)[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard is missing": (lambda f: weight_files(f)[1].unlink(), "00002.*is missing"),
    "a shard too many": (
        lambda f: shutil.copy(weight_files(f)[0], f / "model-00099-of-00099.safetensors"), "00099.*is not in the index",
    ),
    "a tensor that no file has": (lambda f: relabel(f, lambda m: m.update(extra=weight_files(f)[0].name)), "extra in"),
    "a tensor the index forgot": (lambda f: relabel(f, lambda m: m.pop("model.norm.weight")), "no file, is in"),
    "the wrong shard": (
        lambda f: relabel(f, lambda m: m.update({"model.norm.weight": weight_files(f)[0].name})), "norm.weight in",
    ),
    "a name that leaves the folder": (
        lambda f: relabel(f, lambda m: m.update({"model.norm.weight": "../model.safetensors"})), "no name of a file",
    ),
    "an absolute name": (
        lambda f: relabel(f, lambda m: m.update({"model.norm.weight": "/etc/passwd"})), "no name of a file",
    ),
    "a tensor twice": (copy_to_second, "is in model-00001.* and model-00002"),
    "an index that is no JSON": (lambda f: (f / INDEX).write_bytes(b"{"), "no JSON"),
    "an index of nothing": (lambda f: (f / INDEX).write_text("[]"), "expected weight_map"),
    "an index that names a tensor twice": (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}'), "named twice",
    ),
    "no index and a shard missing": (
        lambda f: [weight_files(f)[0].unlink(), (f / INDEX).unlink()], "expected all of model-00001",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_an_index_that_does_not_fit_its_files_is_refused(source: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "broken"
    sharded(source, folder)
    damage, message = BROKEN[broken]
    damage(folder)
    with pytest.raises(BadRequest, match=message):
        load_llama(folder)


def header(entries: Any, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


FINE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"\x08\0\0", "truncated"),
        ((2**63).to_bytes(8, "little") + b"{}", "a header of 9223372036854775808 bytes"),
        (header({"a": FINE}, bytes(7)), "end at byte .* truncated"),
        (header({"a": FINE}, bytes(9)), "followed by other bytes"),
        (header(b'{"a": 1, "a": 2}'), "named twice"),
        (header(b"[" * 100_000), "no JSON"),
        (header([]), "no object"),
        (header({"a": {**FINE, "dtype": "X9"}}, bytes(8)), "expected a dtype"),
        (header({"a": {**FINE, "shape": [-2]}}, bytes(8)), "whole numbers"),
        (header({"a": {**FINE, "shape": [True, 2]}}, bytes(8)), "whole numbers"),
        (header({"a": {**FINE, "shape": [3]}}, bytes(8)), "does not fill"),
        (header({"a": {**FINE, "data_offsets": [0]}}, bytes(8)), "does not fill"),
        (header({"a": FINE, "b": FINE}, bytes(8)), "begins at byte"),
        (header({"a": {**FINE, "data_offsets": [4, 12]}}, bytes(12)), "begins at byte"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(BadRequest, match=message):
        stored_weights(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4), st.data())
@settings(max_examples=300, deadline=None)
def test_no_damage_to_a_file_gives_anything_but_a_clear_refusal(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    save_file({"a": torch.arange(40.0).view(8, 5), "b": torch.zeros(3)}, path)
    content = bytearray(path.read_bytes())
    for at, replacement in cuts:
        content[at % len(content) : at % len(content) + len(replacement)] = replacement
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        tensors = read_header(path)
    except BadRequest:
        return
    assert sum(t.num_bytes for t in tensors) <= path.stat().st_size


def test_rotary_positions_in_each_way_that_configs_write_them(workbench: Workbench) -> None:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    ids = torch.arange(40)[None]
    variants: list[dict[str, Any]] = [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0}},
    ]
    found: list[torch.Tensor] = []
    for variant in variants:
        make_model(workbench, 5, **variant)
        folder = workbench.files / "model-5"
        theirs: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            found.append(load_llama(folder)(ids))
            torch.testing.assert_close(found[-1], theirs(ids).logits, atol=2e-5, rtol=1e-4)
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in ((found[0], found[1]), (found[1], found[2])))
    with pytest.raises(BadRequest, match="rope_type 'yarn' is not supported"):
        make_model(workbench, 6, rope_scaling={"rope_type": "yarn", "factor": 2.0})
