"""synthesize-qa: problems with computed answers, written as ordinary documents (arXiv:2407.18743, synthetic data)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cpt_ml import qa_arithmetic, qa_programs, qa_units
from cpt_ml.contract import parse
from cpt_ml.corpus import CORPUS, RowWriter, write_manifest
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.qa_template import LANGUAGES, Draw, Problem, render

FAMILIES = {
    "arithmetic": qa_arithmetic.TEMPLATES,
    "units": qa_units.TEMPLATES,
    "programs": qa_programs.TEMPLATES,
}
SOURCE = "synthetic"
DOCS_PER_BEAT = 1000


@dataclass(frozen=True)
class SynthesizeQaRequest:
    """The stage's request; `wrongAnswerShare` of the documents say a wrong answer in their last line."""

    backend: Literal["template"]
    num_docs: int
    languages: list[str]
    families: list[Literal["arithmetic", "units", "programs"]]
    wrong_answer_share: float
    seed: int


def run(job: Job) -> None:
    """Writes `corpus.parquet` (kind synthetic) and `corpus.json`. Counts: docs, wrong, byFamily, byLanguage.

    Document i is a function of seed and i, so more documents keep the first ones; languages and families take turns.
    `origin` is `template/<family>/<name>`, with `/wrong` where the answer is. Raises BadRequest for a language other
    than en and zh.
    """
    request = parse(SynthesizeQaRequest, job.request)
    if unknown := sorted(set(request.languages) - set(LANGUAGES)):
        raise BadRequest(f"synthesize-qa: languages {unknown}; the template backend writes {list(LANGUAGES)}")
    attempt = job.attempt()
    by_family: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    wrong = 0
    with RowWriter(attempt.path("corpus.parquet"), CORPUS) as corpus:
        for i in range(request.num_docs):
            language, family, problem = synthesize(request, i)
            corpus.append(
                {
                    "id": f"{SOURCE}:{request.seed}-{i}",
                    "text": problem.text,
                    "language": language,
                    "kind": "synthetic",
                    "label": None,
                    "source": SOURCE,
                    "origin": f"template/{family}/{problem.template}" + ("/wrong" if problem.wrong else ""),
                    "license": "CC0-1.0",
                    "use": "train",
                    "line": i + 1,
                }
            )
            by_family[family] += 1
            by_language[language] += 1
            wrong += problem.wrong
            if i % DOCS_PER_BEAT == 0:
                job.beat("synthesize-qa", i, request.num_docs, "documents")
    shards = [attempt.shard("corpus.parquet", corpus.rows)]
    job.commit(
        attempt,
        {
            "corpus": write_manifest(attempt, "corpus", shards),
            "counts": {
                "docs": corpus.rows,
                "wrong": wrong,
                "byFamily": dict(sorted(by_family.items())),
                "byLanguage": dict(sorted(by_language.items())),
            },
        },
    )


def synthesize(request: SynthesizeQaRequest, i: int) -> tuple[str, str, Problem]:
    """Language, family and text of document `i`."""
    turn, which = divmod(i, len(request.languages))
    language = request.languages[which]
    family = request.families[turn % len(request.families)]
    draw = Draw(request.seed, i)
    return language, family, render(draw.pick(FAMILIES[family]), language, draw, request.wrong_answer_share)
