"""score-ppl with the engine kenlm, against log-probabilities computed by hand; `npm run test:kenlm`."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, doc, ingest, json_lines, request, rows, source
from kenlm_model import Gram, estimate, log10_of, write_arpa, write_binary
from test_scoring import token_shards
from tokenizers import Tokenizer

from cpt_ml import kenlm_scorer
from cpt_ml.errors import BadRequest
from cpt_ml.kenlm_scorer import KenlmScorer
from cpt_ml.store import Json

SAMPLES = Path(__file__).parents[2] / "samples"
SAMPLE_TOKENIZER = SAMPLES / "base" / "tokenizer.json"

# log10, back-off as log10 · Ġa Ġb
BY_HAND = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>\t0
0\t<s>\t-0.3
-0.9\t</s>\t0
-0.5\tĠa\t-0.2
-0.7\tĠb\t-0.1

\\2-grams:
-0.4\t<s> Ġa
-0.6\tĠa Ġb
-0.25\tĠb Ġa

\\end\\
"""
PIECES = ["<s>", "</s>", "Ġa", "Ġb", "Ġc"]


def tokenizer_of(workbench: Workbench, pieces: list[str]) -> Json:
    """A tokenizer.json with this vocabulary."""
    model = {"type": "WordLevel", "vocab": {p: i for i, p in enumerate(pieces)}, "unk_token": pieces[0]}
    return workbench.put("words/tokenizer.json", json.dumps({"version": "1.0", "model": model}).encode())


def scorer_of(workbench: Workbench, model: bytes, max_tokens: int = 100) -> KenlmScorer:
    tokenizer = workbench.path(tokenizer_of(workbench, PIECES))
    return KenlmScorer(workbench.path(workbench.put("model", model)), tokenizer, max_tokens)


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, dtype="<u4")


def nats(scorer: KenlmScorer, *docs: np.ndarray) -> list[float]:
    return scorer.score(list(docs), lambda done, total: None).nats_D.tolist()


def test_a_document_has_the_log_probability_that_its_file_says(workbench: Workbench) -> None:
    a, b, c = 2, 3, 4
    scorer = scorer_of(workbench, BY_HAND.encode())
    found = nats(scorer, tokens(a, b, a), tokens(b), tokens(a, a), tokens(a, b, c), tokens(a, c, b))
    log10 = [
        -0.4 + -0.6 + -0.25,  # <s> Ġa, Ġa Ġb and Ġb Ġa stand there
        -0.3 + -0.7,  # <s> Ġb does not: back-off of <s>, then Ġb
        -0.4 + (-0.2 + -0.5),  # back-off of Ġa, then Ġa
        -0.4 + -0.6 + (-0.1 + -1.0),  # Ġc is unknown: back-off of Ġb, then <unk>
        -0.4 + (-0.2 + -1.0) + -0.7,  # after <unk> there is nothing to back off from
    ]
    assert found == pytest.approx([-x * math.log(10) for x in log10], rel=1e-6)


def test_a_document_is_cut_to_the_maximum_and_an_empty_one_is_certain(workbench: Workbench) -> None:
    scorer = scorer_of(workbench, BY_HAND.encode(), max_tokens=2)
    assert nats(scorer, tokens(2, 3, 2, 3), tokens()) == pytest.approx([math.log(10), 0], rel=1e-6)


def test_marks_of_the_model_inside_of_a_document_are_unknown_words(workbench: Workbench) -> None:
    scorer = scorer_of(workbench, BY_HAND.encode())
    # <s> Ġa, back-off of Ġa and <unk>, Ġb
    assert nats(scorer, tokens(2, 0, 3)) == pytest.approx([(0.4 + 0.2 + 1.0 + 0.7) * math.log(10)], rel=1e-6)


@pytest.mark.parametrize("kind", ["probing", "trie"])
def test_a_binary_file_gives_the_scores_of_its_arpa_file(workbench: Workbench, kind: str) -> None:
    arpa = workbench.path(workbench.put("m.arpa", BY_HAND.encode()))
    write_binary(arpa, arpa.with_name(kind), kind)
    docs = [tokens(2, 3, 2), tokens(3), tokens(2, 4, 3)]
    assert nats(scorer_of(workbench, arpa.with_name(kind).read_bytes()), *docs) == pytest.approx(
        nats(scorer_of(workbench, BY_HAND.encode()), *docs), rel=1e-6
    )


# --- a model of real text over the pieces of the sample's tokenizer ---


def sample_texts() -> list[str]:
    """Some documents of the sample in two languages."""
    found: list[str] = []
    for name in ("en", "zh"):
        lines = pa.input_stream(str(SAMPLES / "corpus" / f"{name}.jsonl.zst"), compression="zstd").read().splitlines()
        found += [json.loads(line)["text"] for line in lines[:120]]
    return found


@pytest.fixture(scope="module")
def model_of_samples() -> tuple[dict[Gram, tuple[float, float]], list[list[int]], list[str]]:
    """A trigram model of two documents in three, the token ids of the others, and the pieces by id."""
    tokenizer: Any = Tokenizer.from_file(str(SAMPLE_TOKENIZER))
    tokenizer.no_truncation()
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    ids = [e.ids[:400] for e in tokenizer.encode_batch(sample_texts(), add_special_tokens=False)]
    trained_on = [[pieces[t] for t in doc] for i, doc in enumerate(ids) if i % 3]
    words = [p for p in pieces if p not in ("<s>", "</s>", "<unk>") and not any(c.isspace() for c in p)]
    return estimate(trained_on, words), ids[::3], pieces


def test_the_model_of_the_samples_is_a_probability_over_all_words(model_of_samples: Any) -> None:
    model, docs, pieces = model_of_samples
    words = [g[0] for g in model if len(g) == 1 and g != ("<s>",)]
    for before in ([], [pieces[t] for t in docs[0][:1]], [pieces[t] for t in docs[1][:2]]):
        base = log10_of(model, before)
        assert sum(10 ** (log10_of(model, [*before, w]) - base) for w in words) == pytest.approx(1, abs=1e-9)


def test_the_stage_scores_documents_to_its_commit_as_the_formula_does(
    workbench: Workbench, model_of_samples: Any
) -> None:
    model, docs, pieces = model_of_samples
    path = workbench.files / "samples.arpa"
    write_arpa(path, model)
    asked = request(
        "score-ppl",
        **token_shards(workbench, [[np.array(d, dtype="<u4") for d in part] for part in (docs[:40], docs[40:])]),
        engine="kenlm",
        scorer=workbench.ref("samples.arpa"),
        tokenizer=workbench.put("tokenizer.json", SAMPLE_TOKENIZER.read_bytes()),
        maxTokensPerDoc=300,
    )
    result = workbench.run("score-ppl", asked)
    scores = [row for shard in workbench.shards(result["scores"]) for row in pq.read_table(shard).to_pylist()]
    assert len(scores) == len(docs)
    for score, doc_ in zip(scores, docs, strict=True):
        cut = doc_[:300]
        if len(cut) < asked["minTokens"]:
            assert score["num_tokens"] == 0
            continue
        expected = -log10_of(model, [pieces[t] for t in cut]) * math.log(10) / len(cut)
        assert score["num_tokens"] == len(cut)
        assert score["nll"] == pytest.approx(expected, rel=1e-4)
    counts = result["counts"]
    assert counts["scored"] == sum(s["num_tokens"] > 0 for s in scores)
    assert counts["sumNllNats"] == pytest.approx(sum(s["nll"] * s["num_tokens"] for s in scores if s["num_tokens"]))
    # it has learnt: text is far more likely than one piece as good as another
    assert counts["sumNllNats"] / counts["scoredTokens"] < math.log(len(pieces)) - 1


def test_a_job_as_the_runner_starts_it_commits_scores_of_an_ingested_text(
    workbench: Workbench, model_of_samples: Any
) -> None:
    write_arpa(workbench.files / "samples.arpa", model_of_samples[0])
    corpus = ingest(workbench, source(workbench, "s", json_lines([doc("a", PROSE), doc("b", PROSE_ZH, lang="zh")])))
    tokenizer = workbench.put("tokenizer.json", SAMPLE_TOKENIZER.read_bytes())
    tokenized = workbench.run("tokenize", request("tokenize", corpus=corpus["corpus"], drops=[], tokenizer=tokenizer))
    asked = request(
        "score-ppl",
        tokens=tokenized["tokens"],
        index=tokenized["index"],
        engine="kenlm",
        scorer=workbench.ref("samples.arpa"),
        tokenizer=tokenizer,
    )
    units = workbench.units("score-ppl", asked)
    assert units is not None
    job = workbench.job("score-ppl", asked, units=units)
    (job.folder / "request.json").write_text(json.dumps(job.spec))
    (job.folder / "lease").write_text("1")
    command = [sys.executable, "-m", "cpt_ml", "score-ppl", "--request", str(job.folder / "request.json")]
    ended = subprocess.run([*command, "--result", str(job.folder / "result.json")], check=False, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    assert json.loads((job.folder / "end.json").read_bytes())["endClass"] == "done"
    record = job.store.record(units[0]["fingerprint"])["result"]
    assert record["counts"]["scored"] == 2
    assert all(math.isfinite(r["nll"]) for r in rows(workbench, workbench.merge(job, [record])["scores"]))


def test_a_model_of_another_tokenizer_is_refused(workbench: Workbench) -> None:
    scorer = scorer_of(workbench, BY_HAND.replace("Ġa", "xa").replace("Ġb", "xb").encode())
    with pytest.raises(BadRequest, match="knows 0 of 4 tokens; expected one trained on text as the pieces"):
        nats(scorer, tokens(2, 3, 2, 3))


def test_a_token_outside_of_the_vocabulary_is_refused(workbench: Workbench) -> None:
    with pytest.raises(BadRequest, match="a document has token 5, the tokenizer 5"):
        nats(scorer_of(workbench, BY_HAND.encode()), tokens(2, 5))


# --- hostile files ---


@pytest.mark.parametrize(
    "model",
    [
        b"",
        b"\\data\\",
        b"PK\x03\x04" * 100,
        b"\xff\xfe" + BY_HAND.encode("utf-16-le"),
        BY_HAND.encode()[: len(BY_HAND) // 2],
        BY_HAND.replace("ngram 1=5", "ngram 1=50").encode(),
        BY_HAND.replace("ngram 1=5", "ngram 1=99999999999999").encode(),
        BY_HAND.replace("ngram 1=5", "ngram 1=-5").encode(),
        BY_HAND.replace("-0.6", "minus").encode(),
        BY_HAND.replace("-0.6", "0.6").encode(),
        BY_HAND.replace("ngram 2=3", "ngram 2=3\nngram 3=1\nngram 4=1\nngram 5=1\nngram 6=1\nngram 7=1").encode(),
        BY_HAND.encode().replace(b"ngram 2", b"ngr\xe9\xff 2"),
        b"mmap lm http://kheafield.com/code format version 5\n\x00" + b"\xff" * 4000,
    ],
    ids=[
        "empty", "no counts", "a zip file", "UTF-16", "cut", "fewer n-grams than said", "more than memory",
        "less than none", "no number", "a probability over one", "order 7", "no UTF-8", "binary of noise",
    ],
)  # fmt: skip
def test_a_file_that_is_no_model_is_refused_by_name(workbench: Workbench, model: bytes) -> None:
    with pytest.raises(BadRequest, match=r"scorer: (model is no KenLM model|KenLM ended by)"):
        scorer_of(workbench, model)


@pytest.mark.parametrize("kind", ["probing", "trie"])
def test_a_damaged_binary_file_is_refused_or_scores_but_never_ends_or_holds_the_job(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(kenlm_scorer, "COMPUTING_SECONDS", 2)
    arpa = workbench.path(workbench.put("m.arpa", BY_HAND.encode()))
    write_binary(arpa, arpa.with_name(kind), kind)
    sound = arpa.with_name(kind).read_bytes()
    # the n-grams themselves, which KenLM does not check; and any byte of all
    holes = [sound[:at] + b"\xff" * len(sound[at : at + 64]) + sound[at + 64 :] for at in range(100, len(sound), 32)]
    rng = random.Random(3)
    flipped = [bytearray(sound) for _ in range(20)]
    for of in flipped:
        for _ in range(5):
            of[rng.randrange(len(of))] ^= 1 << rng.randrange(8)
    ends = Counter(end_of(workbench, bytes(damaged)) for damaged in [*holes, *flipped])
    assert set(ends) <= {"scored", "no KenLM model", "ended by SIGSEGV", "ended by SIGBUS", "ended by SIGXCPU"}
    assert ends["no KenLM model"] > 0
    if kind == "trie":  # without a process of its own each of these would have been the end of the job
        assert ends["ended by SIGSEGV"] + ends["ended by SIGXCPU"] > 0


def end_of(workbench: Workbench, model: bytes) -> str:
    """What comes of some documents scored by this file."""
    try:
        nats(scorer_of(workbench, model), tokens(2, 3, 2), tokens(3, 2), tokens(4, 4))
    except BadRequest as e:
        if "the KenLM model knows" in str(e):
            return "scored"
        found = re.search(r"no KenLM model|ended by SIG\w+", str(e))
        return str(e) if found is None else found[0]
    return "scored"
