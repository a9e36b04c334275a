"""The golden requests of the data stages, which contracts/ parses too."""

from __future__ import annotations

import pytest
from conftest import fixture_request

from cpt_ml.classify_topics import ClassifyTopicsRequest
from cpt_ml.contract import parse
from cpt_ml.count_strata import CountStrataRequest
from cpt_ml.decontaminate import DecontaminateRequest
from cpt_ml.dedup import DedupRequest
from cpt_ml.errors import BadRequest
from cpt_ml.filter import FilterRequest
from cpt_ml.hold_out import HoldOutRequest
from cpt_ml.ingest import IngestRequest
from cpt_ml.score_ppl import ScorePplRequest
from cpt_ml.synthesize_qa import SynthesizeQaRequest
from cpt_ml.tokenize import TokenizeRequest
from cpt_ml.train_topic_classifier import TrainTopicClassifierRequest

REQUESTS = {
    "ingest": IngestRequest,
    "filter": FilterRequest,
    "dedup": DedupRequest,
    "decontaminate": DecontaminateRequest,
    "train-topic-classifier": TrainTopicClassifierRequest,
    "classify-topics": ClassifyTopicsRequest,
    "hold-out": HoldOutRequest,
    "tokenize": TokenizeRequest,
    "score-ppl": ScorePplRequest,
    "count-strata": CountStrataRequest,
    "synthesize-qa": SynthesizeQaRequest,
}


@pytest.mark.parametrize("stage", REQUESTS)
def test_the_golden_request_of_each_data_stage_parses(stage: str) -> None:
    assert isinstance(parse(REQUESTS[stage], fixture_request(stage)), REQUESTS[stage])


@pytest.mark.parametrize("stage", REQUESTS)
def test_a_key_that_a_stage_does_not_know_is_refused_by_name(stage: str) -> None:
    with pytest.raises(BadRequest, match=r"request\.typo: unknown key"):
        parse(REQUESTS[stage], {**fixture_request(stage), "typo": 1})
