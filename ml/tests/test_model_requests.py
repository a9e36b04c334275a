"""The golden requests of planning, training, evaluation and export, which contracts/ parses too."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import fixture_request

from cpt_ml.compare_benchmark import CompareBenchmarkRequest
from cpt_ml.compare_perplexity import ComparePerplexityRequest
from cpt_ml.contract import parse
from cpt_ml.errors import BadRequest
from cpt_ml.evaluate_benchmark import EvaluateBenchmarkRequest
from cpt_ml.evaluate_perplexity import EvaluatePerplexityRequest
from cpt_ml.export_model import ExportModelRequest
from cpt_ml.sample_mixture import SampleMixtureRequest
from cpt_ml.train import FromModel, TrainRequest

REQUESTS: dict[str, type[Any]] = {
    "sample-mixture": SampleMixtureRequest,
    "train": TrainRequest,
    "evaluate-perplexity": EvaluatePerplexityRequest,
    "compare-perplexity": ComparePerplexityRequest,
    "evaluate-benchmark": EvaluateBenchmarkRequest,
    "compare-benchmark": CompareBenchmarkRequest,
    "export-model": ExportModelRequest,
}


@pytest.mark.parametrize("stage", REQUESTS)
def test_the_golden_request_of_each_stage_on_models_parses(stage: str) -> None:
    assert isinstance(parse(REQUESTS[stage], fixture_request(stage)), REQUESTS[stage])


@pytest.mark.parametrize("stage", REQUESTS)
def test_a_request_with_an_unknown_key_is_refused_by_name(stage: str) -> None:
    with pytest.raises(BadRequest, match=r"request\.typo: unknown key"):
        parse(REQUESTS[stage], {**fixture_request(stage), "typo": 1})


def test_a_phase_may_start_from_a_model_too() -> None:
    request = fixture_request("train")
    model = {"kind": "model", "model": request["start"]["checkpoint"]}
    assert isinstance(parse(TrainRequest, {**request, "start": model}).start, FromModel)
    with pytest.raises(BadRequest, match=r"request\.start"):
        parse(TrainRequest, {**request, "start": {"kind": "nothing"}})
