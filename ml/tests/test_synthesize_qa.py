"""synthesize-qa: answers are right unless asked otherwise, and documents depend on seed and number alone."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from conftest import Workbench
from documents import request, rows

from cpt_ml.errors import BadRequest
from cpt_ml.store import Json
from cpt_ml.synthesize_qa import FAMILIES


def run(workbench: Workbench, **fields: object) -> tuple[list[Json], Json]:
    result = workbench.run("synthesize-qa", request("synthesize-qa", **fields))
    return rows(workbench, result["corpus"]), result["counts"]


def answer(text: str) -> str:
    return re.split("Answer: |答案：", text)[1]


def test_each_family_has_at_least_eight_templates_in_each_language(workbench: Workbench) -> None:
    docs, counts = run(workbench, numDocs=1500)
    found = {(d["language"], d["origin"]) for d in docs}
    assert all(len(templates) >= 8 for templates in FAMILIES.values())
    assert len(found) == 2 * sum(map(len, FAMILIES.values()))
    assert counts == {
        "docs": 1500,
        "wrong": 0,
        "byFamily": {"arithmetic": 500, "programs": 500, "units": 500},
        "byLanguage": {"en": 750, "zh": 750},
    }
    assert all(d["text"].startswith("[Problem]\n") and "\n\n[Solution]\n" in d["text"] for d in docs)


def test_programs_print_what_the_answer_says(workbench: Workbench) -> None:
    docs, _ = run(workbench, numDocs=200, families=["programs"])
    for d in docs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # our own templates with our own numbers: the one place where they are run
            exec(d["text"].split("```python\n")[1].split("```")[0], {})
        assert printed.getvalue().strip() == answer(d["text"])


def test_every_sum_written_in_a_solution_is_true(workbench: Workbench) -> None:
    docs, _ = run(workbench, numDocs=600, families=["arithmetic", "units"])
    checked = 0
    for d in docs:
        for left, right in re.findall(r"((?:\d+ [+−×÷] )+\d+) = (\d+)", d["text"]):
            terms = left.replace("−", "-").replace("×", "*").replace("÷", "/")
            assert eval(terms) == int(right), d["id"]
            checked += 1
    assert checked > 1000


def test_wrong_answers_are_on_record_and_about_as_many_as_asked(workbench: Workbench) -> None:
    right, _ = run(workbench, numDocs=1000)
    some, counts = run(workbench, numDocs=1000, wrongAnswerShare=0.3)
    assert counts["wrong"] == sum(d["origin"].endswith("/wrong") for d in some)
    # four standard errors
    assert abs(counts["wrong"] - 300) < 58
    for a, b in zip(right, some, strict=True):
        assert (answer(a["text"]) != answer(b["text"])) == b["origin"].endswith("/wrong")


def test_more_documents_keep_the_first_ones(workbench: Workbench) -> None:
    few, _ = run(workbench, numDocs=10)
    many, _ = run(workbench, numDocs=50)
    other, _ = run(workbench, numDocs=10, seed=43)
    assert many[:10] == few
    assert {d["text"] for d in few}.isdisjoint({d["text"] for d in other})


def test_the_same_seed_gives_the_same_bytes(workbench: Workbench) -> None:
    digests = [
        workbench.run("synthesize-qa", {**request("synthesize-qa", numDocs=100)})["corpus"]["sha256"] for _ in range(2)
    ]
    assert digests[0] == digests[1]


def test_a_language_without_templates_is_refused(workbench: Workbench) -> None:
    with pytest.raises(BadRequest, match=r"languages \['de'\]"):
        run(workbench, languages=["en", "de"])
