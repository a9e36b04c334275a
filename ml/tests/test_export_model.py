"""The exported folder opens elsewhere, and its card shows the user's text without obeying it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Workbench
from tiny import make_model

from cpt_ml.errors import BadRequest
from cpt_ml.export_model import plain
from cpt_ml.store import Json
from cpt_ml.weights import weights_sha256


def request_of(bench: Workbench, **card: Any) -> Json:
    model = make_model(bench)
    return {
        "model": model, "base": model,
        "card": {"title": "T", "language": ["en", "zh"], "license": "apache-2.0", "summary": "S", **card},
        "lineage": [{"what": "plan", "sha256": "0" * 64, "uri": "store:x/plan/"}],
    }  # fmt: skip


def test_the_folder_holds_weights_tokenizer_card_and_lineage(workbench: Workbench) -> None:
    result = workbench.run("export-model", request_of(workbench))
    folder = Path(result["path"])
    assert folder.is_absolute()
    names = {p.name for p in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md",
                     "lineage.json"}  # fmt: skip
    assert result["files"] == len(names)
    source = workbench.files / "model-0"
    assert result["weightsSha256"] == weights_sha256(folder) == weights_sha256(source)
    assert result["parameters"] == 300 * 16 + 16 + 2 * (16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 32 + 32)
    assert json.loads((folder / "lineage.json").read_bytes())["parents"][0]["what"] == "plan"


def test_a_hostile_card_stays_text(workbench: Workbench) -> None:
    evil = 'x"\n---\nlicense: mit\n# <script>alert(1)</script> [a](http://b) | `c`'
    result = workbench.run("export-model", request_of(workbench, title=evil, summary=evil, license=evil))
    card = (Path(result["path"]) / "README.md").read_text()
    front, body = card.split("\n---\n", 1)
    assert front.count("\n") == 5
    license_line = next(line for line in front.splitlines() if line.startswith("license: "))
    assert json.loads(license_line.removeprefix("license: ")) == evil
    assert "<script" not in body
    assert "](" not in body
    assert body.count("\n# ") == 1


def test_control_characters_and_line_breaks_do_not_reach_the_card() -> None:
    assert plain("a\x1b[31m\nb\u202e") == "a &#91;31m b"


def test_a_digest_of_weights_does_not_depend_on_order_or_files(workbench: Workbench, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    make_model(workbench)
    source = workbench.files / "model-0"
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors, reverse=True)
    save_file({n: tensors[n] for n in names[:3]}, tmp_path / "model-00001-of-00002.safetensors", {"x": "y"})
    save_file({n: tensors[n] for n in names[3:]}, tmp_path / "model-00002-of-00002.safetensors")
    assert weights_sha256(tmp_path) == weights_sha256(source)
    tensors[names[0]].view(-1)[0] += 1e-6
    save_file({n: tensors[n] for n in names[:3]}, tmp_path / "model-00001-of-00002.safetensors")
    assert weights_sha256(tmp_path) != weights_sha256(source)


def test_a_folder_that_is_no_model_is_refused(workbench: Workbench) -> None:
    request = request_of(workbench)
    workbench.put("empty/config.json", b"{}")
    with pytest.raises(BadRequest, match=r"no model\.safetensors"):
        workbench.run("export-model", {**request, "model": workbench.ref("empty/")})
