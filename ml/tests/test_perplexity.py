"""evaluate-perplexity and compare-perplexity against sums by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Workbench
from tiny import make_model, make_validation

from cpt_ml.errors import BadRequest
from cpt_ml.llama import load_llama
from cpt_ml.store import Json
from cpt_ml.validation import per_doc_schema, scored_bytes


def request_of(bench: Workbench) -> Json:
    validation = {"sets": make_validation(bench), "windowTokens": 128, "maxTokensPerDoc": 40}
    return {"model": make_model(bench), "validation": validation, "dtype": "float32"}


def test_losses_are_those_of_one_forward_pass_a_document(workbench: Workbench) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    request = request_of(workbench)
    measurement = workbench.run("evaluate-perplexity", request)["measurement"]
    folder = workbench.files / "model-0"
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = load_llama(folder)
    texts = pq.read_table(workbench.files / "validation.parquet").to_pylist()
    rows = pq.read_table(workbench.path(measurement["perDoc"])).to_pylist()
    for row, doc in zip(rows, texts, strict=True):
        ids = torch.tensor([tokenizer.encode(doc["text"], add_special_tokens=False).ids[:40]])
        with torch.inference_mode():
            nll = torch.nn.functional.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="sum")
        assert row["nll_sum"] == pytest.approx(nll.item(), rel=1e-4)
        assert row["num_tokens"] == ids.shape[1] - 1
        assert 0 < row["num_bytes"] < len(doc["text"].encode())
    assert [(s["set"], s["language"], s["docs"]) for s in measurement["strata"]] == [
        ("corpus", "en", 4), ("corpus", "zh", 4), ("retention", "en", 4),
    ]  # fmt: skip
    first = [r for r in rows if (r["set"], r["language"]) == ("corpus", "en")]
    expected = sum(r["nll_sum"] for r in first) / sum(r["num_tokens"] for r in first)
    assert measurement["strata"][0]["nllPerToken"] == pytest.approx(expected)


def test_bytes_count_from_the_second_token_to_the_last_one_scored() -> None:
    assert scored_bytes("水 flows", [(0, 1), (1, 3), (3, 7)], 1) == 2
    assert scored_bytes("a水b", [(0, 1), (1, 2), (2, 3)], 2) == 4
    assert scored_bytes("a", [(0, 1)], 0) == 0


def per_doc(bench: Workbench, name: str, rows: list[tuple[str, str, str, float, int]]) -> Json:
    """Reference to a per-doc.parquet of (id, set, language, nll_sum, num_tokens); 4 bytes a token."""
    schema = per_doc_schema()
    table: Json = {n: [] for n in schema.names}
    for doc, set_, language, nll, tokens in rows:
        values = (doc, set_, language, "web", None, nll, tokens, 4 * tokens)
        for n, v in zip(schema.names, values, strict=True):
            table[n].append(v)
    pq.write_table(pa.table(table, schema=schema), bench.files / name)
    return bench.ref(name)


def compare(bench: Workbench, before: Json, after: Json, seed: int = 42) -> Json:
    return bench.run("compare-perplexity", {"before": before, "after": after, "resamples": 2000, "seed": seed})


def test_changes_are_paired_by_document_whatever_the_order(workbench: Workbench) -> None:
    before = per_doc(workbench, "b", [("1", "corpus", "zh", 40.0, 10), ("2", "corpus", "zh", 90.0, 30)])
    after = per_doc(workbench, "a", [("2", "corpus", "zh", 60.0, 30), ("1", "corpus", "zh", 30.0, 10)])
    result = compare(workbench, before, after)
    (s,) = result["strata"]
    assert (s["nllBefore"], s["nllAfter"], s["deltaNll"]) == pytest.approx((130 / 40, 90 / 40, -1.0))
    assert s["deltaPpl"] == pytest.approx(np.exp(90 / 40) - np.exp(130 / 40))
    assert s["seNll"] == pytest.approx(0.0, abs=1e-12)  # both documents fell by one nat a token
    (g,) = result["groups"]
    assert (g["group"], g["deltaNllPerByte"]) == ("zh", pytest.approx(-0.25))


def test_the_bootstrap_error_is_that_of_the_mean_difference(workbench: Workbench) -> None:
    rng = np.random.default_rng(0)
    nll, change = rng.uniform(30, 60, 400), rng.normal(1.0, 2.0, 400)
    before = per_doc(workbench, "b", [(str(i), "corpus", "en", float(nll[i]), 10) for i in range(400)])
    after = per_doc(workbench, "a", [(str(i), "corpus", "en", float(nll[i] + change[i]), 10) for i in range(400)])
    (s,) = compare(workbench, before, after)["strata"]
    assert s["seNll"] == pytest.approx(change.std() / 10 / np.sqrt(400), rel=0.06)
    unpaired = nll.std() * np.sqrt(2) / 10 / np.sqrt(400)
    assert s["seNll"] < unpaired / 4
    assert compare(workbench, before, after, seed=7)["strata"][0]["seNll"] != s["seNll"]


def test_groups_pool_languages_and_retention_comes_first(workbench: Workbench) -> None:
    rows = [("1", "corpus", "zh", 40.0, 10), ("2", "corpus", "en", 30.0, 10), ("3", "retention", "en", 20.0, 10)]
    result = compare(workbench, per_doc(workbench, "b", rows), per_doc(workbench, "a", rows))
    assert [g["group"] for g in result["groups"]] == ["retention", "en", "zh"]
    assert [g["nllBefore"] for g in result["groups"]] == pytest.approx([2.0, 3.0, 4.0])


def test_a_single_document_says_nothing_of_its_deviation(workbench: Workbench) -> None:
    before = per_doc(workbench, "b", [("1", "corpus", "zh", 40.0, 10)])
    after = per_doc(workbench, "a", [("1", "corpus", "zh", 30.0, 10)])
    assert compare(workbench, before, after)["strata"][0]["seNll"] == pytest.approx(1.0)


def test_measurements_of_other_documents_or_settings_are_refused(workbench: Workbench) -> None:
    before = per_doc(workbench, "b", [("1", "corpus", "zh", 40.0, 10)])
    with pytest.raises(BadRequest, match=r"different documents, 2 on one side only: \['1', '2'\]"):
        compare(workbench, before, per_doc(workbench, "a", [("2", "corpus", "zh", 40.0, 10)]))
    with pytest.raises(BadRequest, match="document 1 has 10 scored tokens before and 11 after"):
        compare(workbench, before, per_doc(workbench, "c", [("1", "corpus", "zh", 40.0, 11)]))
