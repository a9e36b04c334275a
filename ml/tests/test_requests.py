"""The golden request of every stage, which contracts/ parses too."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import fixture_request

from cpt_ml.classify_topics import ClassifyTopicsRequest
from cpt_ml.compare_benchmark import CompareBenchmarkRequest
from cpt_ml.compare_perplexity import ComparePerplexityRequest
from cpt_ml.contract import parse
from cpt_ml.count_funnel import CountFunnelRequest
from cpt_ml.count_strata import CountStrataRequest
from cpt_ml.decontaminate import DecontaminateRequest
from cpt_ml.dedup import DedupRequest
from cpt_ml.dedup_signatures import DedupSignaturesRequest
from cpt_ml.dry_train import DryTrainRequest
from cpt_ml.errors import BadRequest
from cpt_ml.evaluate_benchmark import EvaluateBenchmarkRequest
from cpt_ml.evaluate_perplexity import EvaluatePerplexityRequest
from cpt_ml.export_model import ExportModelRequest
from cpt_ml.extend_vocabulary import ExtendVocabularyRequest
from cpt_ml.filter import FilterRequest
from cpt_ml.find_personal_data import FindPersonalDataRequest
from cpt_ml.hold_out import HoldOutRequest
from cpt_ml.import_tokens import ImportTokensRequest
from cpt_ml.ingest import IngestRequest
from cpt_ml.label_topics import LabelTopicsRequest
from cpt_ml.sample_mixture import SampleMixtureRequest
from cpt_ml.score_ppl import ScorePplRequest
from cpt_ml.score_quality import ScoreQualityRequest
from cpt_ml.synthesize_qa import SynthesizeQaRequest
from cpt_ml.tokenize import TokenizeRequest
from cpt_ml.train_request import FromModel, TrainRequest
from cpt_ml.train_topic_classifier import TrainTopicClassifierRequest

REQUESTS: dict[str, type[Any]] = {
    "ingest": IngestRequest,
    "import-tokens": ImportTokensRequest,
    "filter": FilterRequest,
    "dedup-signatures": DedupSignaturesRequest,
    "dedup": DedupRequest,
    "decontaminate": DecontaminateRequest,
    "find-personal-data": FindPersonalDataRequest,
    "label-topics": LabelTopicsRequest,
    "train-topic-classifier": TrainTopicClassifierRequest,
    "classify-topics": ClassifyTopicsRequest,
    "score-quality": ScoreQualityRequest,
    "hold-out": HoldOutRequest,
    "tokenize": TokenizeRequest,
    "score-ppl": ScorePplRequest,
    "count-strata": CountStrataRequest,
    "count-funnel": CountFunnelRequest,
    "synthesize-qa": SynthesizeQaRequest,
    "sample-mixture": SampleMixtureRequest,
    "extend-vocabulary": ExtendVocabularyRequest,
    "train": TrainRequest,
    "dry-train": DryTrainRequest,
    "evaluate-perplexity": EvaluatePerplexityRequest,
    "compare-perplexity": ComparePerplexityRequest,
    "evaluate-benchmark": EvaluateBenchmarkRequest,
    "compare-benchmark": CompareBenchmarkRequest,
    "export-model": ExportModelRequest,
}


@pytest.mark.parametrize("stage", REQUESTS)
def test_the_golden_request_of_each_stage_parses(stage: str) -> None:
    assert isinstance(parse(REQUESTS[stage], fixture_request(stage)), REQUESTS[stage])


@pytest.mark.parametrize("stage", REQUESTS)
def test_a_key_that_a_stage_does_not_know_is_refused_by_name(stage: str) -> None:
    with pytest.raises(BadRequest, match=r"request\.typo: unknown key"):
        parse(REQUESTS[stage], {**fixture_request(stage), "typo": 1})


def test_a_phase_may_start_from_a_model_too() -> None:
    request = fixture_request("train")
    model = {"kind": "model", "model": request["start"]["checkpoint"]}
    assert isinstance(parse(TrainRequest, {**request, "start": model}).start, FromModel)
    with pytest.raises(BadRequest, match=r"request\.start"):
        parse(TrainRequest, {**request, "start": {"kind": "nothing"}})
