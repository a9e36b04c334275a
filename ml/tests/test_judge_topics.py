"""The judge of topic classifiers, on the sample corpus: trained on a part of it, judged on the rest."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
from tiny_encoder import write_encoder

from cpt_ml.hash_share import share_of
from cpt_ml.store import Json

HOME = Path(__file__).parents[2]
sys.path.append(str(HOME / "test" / "judge"))

from judge_topics import judge, told  # noqa: E402 # pyright: ignore


def sample(language: str) -> list[Json]:
    """The documents of the sample corpus."""
    path = str(HOME / "samples" / "corpus" / f"{language}.jsonl.zst")
    lines = pa.input_stream(path, compression="zstd").read().splitlines()
    return [json.loads(line) for line in lines]


def test_classifiers_are_judged_on_documents_that_they_never_saw(tmp_path: Path) -> None:
    heldout = tmp_path / "heldout"
    heldout.mkdir()
    files: list[Path] = []
    docs: dict[str, list[Json]] = {language: sample(language) for language in ("en", "zh")}
    with (tmp_path / "train.jsonl").open("w") as train:
        for language, of in docs.items():
            apart = [d for d in of if share_of(1, d["id"]) < 0.3]
            train.writelines(json.dumps(d) + "\n" for d in of if share_of(1, d["id"]) >= 0.3)
            files.append(heldout / f"{language}.jsonl")
            files[-1].write_text("".join(json.dumps(d) + "\n" for d in apart))
            docs[language] = apart
    small = {"maxTokens": 64, "epochs": 6, "learningRate": 3e-3, "batchDocs": 16, "docsPerTopic": 60}
    encoder = write_encoder(tmp_path / "encoder", initializer_range=0.15)
    asked = {"encoder": encoder, "settings": small}
    english = tmp_path / "english.jsonl"
    english.write_text("".join(json.dumps(d) + "\n" for d in sample("en") if share_of(1, d["id"]) >= 0.3))
    by_encoder = judge(tmp_path / "encoders", english, files[:1], **asked)["languages"]["en"]
    assert by_encoder["accuracy"] > 0.3
    assert "held-out documents by an encoder of 1" in told("en", by_encoder)
    found = judge(tmp_path / "work", tmp_path / "train.jsonl", files)["languages"]
    for language, apart in docs.items():
        of = found[language]
        support = Counter(d["topic"] for d in apart if d["lang"] == language)
        assert {c["topic"]: c["support"] for c in of["perClass"]} == dict(support)
        assert sum(map(sum, of["confusion"])) == of["numJudged"] == support.total()
        right = sum(of["confusion"][i][i] for i in range(len(of["topics"])))
        assert of["accuracy"] == right / support.total()
        # chance is about a tenth
        assert of["accuracy"] > 0.5
        assert of["accuracy"] > of["fasttextDefaultsAccuracy"]
        assert f"{language}: accuracy {of['accuracy']:.3f} on {support.total()} held-out" in told(language, of)
