"""The sample's dirt is found by kind, and the clean text around it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Workbench
from dirt import CLEAN_DOCUMENTS, Found, judge

LEAST_RECALL = {
    "boilerplate": 1.0,
    "contaminated": 1.0,
    "exact_duplicate": 1.0,
    "garbled": 15 / 16,  # one page is English of ASCII alone, which no wrong encoding changes
    "malformed": 1.0,
    "near_duplicate": 1.0,
    "too_short": 1.0,
    "bad_field": 7 / 12,
}
# a document needs none of these fields: its id is its line then, its licence unknown, its topic none
HARMLESS = {"missing id", "id is a number", "missing license", "topic is missing", "topic is unknown"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return judge(Workbench(Path(tmp_path_factory.mktemp("dirt"))))


@pytest.mark.parametrize("dirt", LEAST_RECALL)
def test_each_kind_of_dirt_is_found(found: dict[str, Found], dirt: str) -> None:
    assert found[dirt].recall >= LEAST_RECALL[dirt], found[dirt].missed


def test_every_kind_of_dirt_of_the_answer_sheet_is_judged(found: dict[str, Found]) -> None:
    assert set(found) == {*LEAST_RECALL, CLEAN_DOCUMENTS}
    assert sum(found[dirt].lines for dirt in LEAST_RECALL) == 161


def test_a_bad_field_that_is_kept_is_one_that_no_document_needs(found: dict[str, Found]) -> None:
    assert {missed.split(": ")[1] for missed in found["bad_field"].missed} == HARMLESS


def test_of_the_clean_documents_seven_of_3897_are_lost(found: dict[str, Found]) -> None:
    assert found[CLEAN_DOCUMENTS].lines == 3897
    assert found[CLEAN_DOCUMENTS].found <= 7, found[CLEAN_DOCUMENTS].by
