"""An encoder behind the contract of topics: it learns, the same bytes every time, and refuses what could harm."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workbench
from documents import bytes_of, corpus_of, doc, request, rows
from safetensors.torch import load_file, save_file
from tiny_encoder import make_encoder, pages

from cpt_ml.encoder import BATCH_TOKENS, Encoder, length_batches
from cpt_ml.encoder_folder import MODEL_TYPES
from cpt_ml.errors import BadData, BadRequest, Diverged
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.topic_classifier import EncoderSettings
from cpt_ml.train_encoder import Drawn, balanced, rate_share

TOPICS = ["Biology and Chemistry", "Computer Science and Engineering", "Law and Policy",
          "Security and International Relations"]  # fmt: skip
CHANCE = 1 / len(TOPICS)
# what so small a model needs to learn from so few pages
LEARNING: Json = {"maxTokens": 64, "epochs": 12, "patience": 0, "learningRate": 3e-3, "batchDocs": 16,
                  "docsPerTopic": 60}  # fmt: skip


def train_request(bench: Workbench, corpus: Json, encoder: str = "encoder", **settings: Any) -> Json:
    given = {"model": bench.ref(f"{encoder}/"), **LEARNING, **settings}
    return request("train-topic-classifier", corpus=corpus, drops=[], encoder=given)


class Trained:
    """A classifier that was fine-tuned without a disturbance."""

    def __init__(self, folder: Path) -> None:
        self.bench = Workbench(folder)
        self.docs = [d for d in pages("en") if d["topic"] in TOPICS]
        self.corpus = corpus_of(self.bench, self.docs)
        make_encoder(self.bench, initializer_range=0.15)
        self.asked = train_request(self.bench, self.corpus)
        self.result = self.bench.run("train-topic-classifier", self.asked)
        self.classifier: Json = self.result["classifier"]

    def folder(self) -> Path:
        return self.bench.job("read", {}).store.folder(self.classifier)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def test_it_learns_the_topics_of_pages_and_is_judged_on_those_that_it_never_saw(trained: Trained) -> None:
    result = trained.result
    assert result["macroF1"] > 1.6 * CHANCE
    assert result["accuracy"] > 1.6 * CHANCE
    assert result["numTrain"] == sum(min(60, n) for n in by_part(trained.docs, test=False).values())
    assert result["numTest"] == by_part(trained.docs, test=True).total() == sum(map(sum, result["confusion"]))
    assert {c["topic"]: c["support"] for c in result["perClass"] if c["support"]} == by_part(trained.docs, test=True)
    assert result["encoder"]["epochs"] == 12
    assert result["encoder"]["tokens"] <= 12 * result["numTrain"] * 64
    names = sorted(p.name for p in trained.folder().iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def by_part(docs: list[Json], *, test: bool) -> Counter[str]:
    """Pages to judge by, or to train on, by topic."""
    from cpt_ml.hash_share import share_of  # noqa: PLC0415

    return Counter(d["topic"] for d in docs if (share_of(42, f"web:{d['id']}") < 0.15) == test)


def test_documents_get_the_same_columns_as_by_fasttext_and_doubtful_ones_are_others(trained: Trained) -> None:
    bench = trained.bench
    asked = request("classify-topics", corpus=trained.corpus, drops=[], classifiers={"en": trained.classifier})
    result = bench.run("classify-topics", asked)
    found = rows(bench, result["topics"])
    assert {r["classifier"] for r in found} == {trained.classifier["sha256"]}
    assert all(r["topic"] == "Others" if r["probability"] < 0.3 else r["topic"] in TOPICS for r in found)
    right = sum(r["topic"] == d["topic"] for r, d in zip(found, trained.docs, strict=True))
    assert right / len(found) > 0.6  # most of them were trained on
    strict = bench.run("classify-topics", {**asked, "minProbability": 0.999})
    assert strict["counts"]["lowConfidence"] > result["counts"]["lowConfidence"]
    assert bytes_of(bench, bench.run("classify-topics", asked)["topics"]) == bytes_of(bench, result["topics"])


def test_transformers_opens_what_was_written_and_says_the_same(trained: Trained) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

    folder = trained.folder()
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    text = trained.docs[0]["text"]
    with torch.inference_mode():
        theirs = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits.softmax(-1)[0]
    ((topic, probability),) = Encoder.trained(folder, 1).predict([text], lambda: None)
    assert model.config.id2label[int(theirs.argmax())] == topic
    assert float(theirs.max()) == pytest.approx(probability, abs=1e-5)


def test_texts_of_any_length_are_told_alike_by_themselves_and_among_others(trained: Trained) -> None:
    encoder = Encoder.trained(trained.folder(), 1)
    texts = ["", "x", "the law", *(d["text"] for d in trained.docs[:20]), "word " * 100_000, "\ud800 half a character"]
    ticks: list[int] = []
    together = encoder.predict(texts, lambda: ticks.append(1))
    alone = [encoder.predict([text], lambda: None)[0] for text in texts]
    assert [t for t, _ in together] == [t for t, _ in alone]
    assert [p for _, p in together] == pytest.approx([p for _, p in alone], abs=1e-5)
    assert ticks


def test_batches_are_of_like_lengths_and_bounded_with_their_padding() -> None:
    lengths = np.random.default_rng(0).integers(0, 257, 3000).tolist()
    batches = list(length_batches(lengths))
    assert sorted(i for batch in batches for i in batch) == [i for i, n in enumerate(lengths) if n]
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert max(padded) <= BATCH_TOKENS
    assert sum(padded) < 1.05 * sum(lengths)
    assert all(min(lengths[i] for i in a) >= max(lengths[i] for i in b) for a, b in pairwise(batches))
    assert list(length_batches([0, BATCH_TOKENS * 2, 0])) == [[1]]


def test_rare_topics_come_as_often_as_frequent_ones_and_no_document_again_before_its_topic_is_through() -> None:
    topics = [0] * 90 + [1] * 10
    epoch = list(balanced(topics, np.random.default_rng(3)))
    assert Counter(topics[i] for i in epoch) == {0: 50, 1: 50}
    assert max(Counter(i for i in epoch if topics[i] == 0).values()) == 1
    assert set(Counter(i for i in epoch if topics[i] == 1).values()) == {5}
    for first in range(0, 100, 20):
        assert Counter(topics[i] for i in epoch[first : first + 20]) == {0: 10, 1: 10}
    assert epoch != list(balanced(topics, np.random.default_rng(4)))
    assert list(islice(balanced([7, 7], np.random.default_rng(0)), 9)) in ([0, 1], [1, 0])


def test_the_learning_rate_rises_for_a_tenth_and_then_falls_to_nothing() -> None:
    shares = [rate_share(step, 100) for step in range(100)]
    assert shares.index(max(shares)) == 9
    assert max(shares) == 1
    assert shares[0] == pytest.approx(0.1)
    assert 0 < shares[-1] < 0.02
    assert rate_share(0, 1) == 1


def test_of_each_topic_a_bounded_number_is_drawn_whatever_the_order(trained: Trained) -> None:
    nothing = ArtifactRef("files:encoder/", "", 0)
    settings = EncoderSettings(
        nothing, max_tokens=8, epochs=1, patience=0, learning_rate=0.1, batch_docs=8, docs_per_topic=5
    )
    docs = [(f"d{i}", TOPICS[i % 7 % 3], "x" * 1000) for i in range(500)]
    drawn = [Drawn(settings, TOPICS, 0.2, seed=1) for _ in range(2)]
    for one, order in zip(drawn, (docs, docs[::-1]), strict=True):
        for d in order:
            one.add(*d)
    train, test = drawn[0].parts()
    assert (train, test) == drawn[1].parts()
    assert Counter(d.topic for d in train) == {0: 5, 1: 5, 2: 5}
    assert len(test) == 20
    assert {len(d.text) for d in train} == {64}


def test_training_ends_early_where_it_no_longer_gets_better_and_keeps_the_best(trained: Trained) -> None:
    asked = train_request(trained.bench, trained.corpus, epochs=40, patience=1, learningRate=1e-2)
    result = trained.bench.run("train-topic-classifier", asked)
    assert 1 <= result["encoder"]["epochs"] < 40
    few = [d for d in trained.docs if d["topic"] == TOPICS[0]][:3]
    asked = {**train_request(trained.bench, corpus_of(trained.bench, few, "few"), patience=1), "testShare": 0.5}
    with pytest.raises(BadData, match="too few to set some aside"):
        trained.bench.run("train-topic-classifier", asked)


def test_a_fine_tuned_encoder_grades_documents_too(trained: Trained, tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    make_encoder(bench, initializer_range=0.15)
    graded = [{**d, "topic": "1" if d["topic"] in TOPICS[:2] else "4"} for d in trained.docs[:120]]
    corpus = corpus_of(bench, graded)
    asked = train_request(bench, corpus, epochs=8)
    scorer = bench.run("train-topic-classifier", {**asked, "topics": list("012345"), "taxonomy": "quality/1"})
    result = bench.run(
        "score-quality", request("score-quality", corpus=corpus, drops=[], scorers={"en": scorer["classifier"]})
    )
    assert result["counts"]["byReason"]["quality"] > 20
    found = rows(bench, result["quality"])
    assert sum(r["score"] == int(d["topic"]) for r, d in zip(found, graded, strict=True)) > 90
    assert {r["scorer"] for r in found} == {scorer["classifier"]["sha256"]}


def start(job: Job) -> subprocess.Popen[bytes]:
    """The job in a process of its own."""
    (job.folder / "request.json").write_text(json.dumps(job.spec))
    (job.folder / "lease").write_text("0")
    command = [sys.executable, "-m", "cpt_ml", job.stage, "--request", str(job.folder / "request.json"),
               "--result", str(job.folder / "result.json")]  # fmt: skip
    here = Path(__file__).parents[1]
    return subprocess.Popen(command, cwd=here, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def until_step(job: Job, process: subprocess.Popen[bytes], step: int) -> None:
    """Waits for a step of the fine-tuning."""
    while process.poll() is None:
        try:
            if json.loads((job.folder / "beat.json").read_bytes()).get("step", 0) >= step:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    pytest.fail(f"it ended before step {step}: {(job.folder / 'end.json').read_text()}")


def test_a_training_that_was_killed_and_stopped_ends_with_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    shutil.copytree(trained.bench.files, bench.files, dirs_exist_ok=True)
    asked = train_request(bench, corpus_of(bench, trained.docs), epochs=4)
    undisturbed = trained.bench.run("train-topic-classifier", {**asked, "corpus": trained.corpus})
    for number, (name, code) in enumerate([("SIGKILL", -signal.SIGKILL), ("SIGTERM", 75)], start=1):
        job = bench.job("train-topic-classifier", asked)
        job.spec["attempt"] = number
        process = start(job)
        until_step(job, process, 10 * number)
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == code
        beat = json.loads((job.folder / "beat.json").read_bytes())
        assert (beat["phase"], beat["unit"]) == ("train-topic-classifier: fine-tuning", "steps")
        assert beat["estimate"]["tokens"] > 0
        assert beat["total"] == 4 * -(-trained.result["numTrain"] // 16)
    (end,) = bench.folder.glob("jobs/*/end.json")
    assert json.loads(end.read_bytes())["endClass"] == "stopped"
    again = bench.run("train-topic-classifier", asked)
    assert again == {**undisturbed, "classifier": {**undisturbed["classifier"], "uri": again["classifier"]["uri"]}}


Spoil = Callable[[Path], None]


def edit_config(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_bytes())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return spoil


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def only_pickles(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def overwrite(name: str, text: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text)

    return spoil


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Spoil:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def lose_a_layer(weights: dict[str, torch.Tensor]) -> None:
    del weights["encoder.layer.1.attention.self.query.weight"]


def alien_marks(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    tokenizer["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [999_999]
    path.write_text(json.dumps(tokenizer))


def index_of_elsewhere(folder: Path) -> None:
    for number in (1, 2):
        shutil.copy(folder / "model.safetensors", folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))


HOSTILE: dict[str, tuple[Spoil, str]] = {
    "weights as a pickle": (only_pickles, "pytorch_model.bin is a format that can hold code and is not opened"),
    "no weights": (without("model.safetensors"), "there is no model.safetensors. Save it"),
    "no tokenizer": (without("tokenizer.json"), "there is no tokenizer.json. Save it with AutoTokenizer"),
    "no config": (without("config.json"), "there is no config.json"),
    "a tokenizer that is none": (
        overwrite("tokenizer.json", "{}"),
        "tokenizer.json cannot be",
    ),
    "a config that is none": (overwrite("config.json", "[]"), "config.json cannot be read"),
    "code of its own": (
        edit_config(auto_map={"AutoModelForSequenceClassification": "evil.Model"}),
        r"wants code of its own \(auto_map: {'AutoModelForSequenceClassification': 'evil.Model'}\), which is not run",
    ),
    "a model that is no encoder": (
        edit_config(model_type="llama"),
        "model_type is 'llama', expected one of albert, bert",
    ),
    "a model that nobody knows": (edit_config(model_type="evil"), "model_type is 'evil', expected one of"),
    "quantized weights": (edit_config(quantization_config={"quant_method": "gptq"}), "its weights are quantized"),
    "another width than its weights": (edit_config(hidden_size=64), "weights do not fit its config.json|not a pair"),
    "more words than its weights": (edit_config(vocab_size=2100), "1 weights do not fit|not a pair"),
    "fewer words than its tokenizer": (edit_config(vocab_size=100), "id 1999, and config.json a vocabulary of 100"),
    "a size that no memory holds": (edit_config(hidden_size=1 << 20, vocab_size=1 << 26), "not a pair"),
    "layers without end": (edit_config(num_hidden_layers=10**9), "1000000000 layers, expected 1 to 200"),
    "heads that do not divide": (edit_config(num_attention_heads=7), "transformers cannot open it"),
    "a width in words": (edit_config(hidden_size="many"), "transformers cannot open it"),
    "a width beyond all numbers": (edit_config(hidden_size=10**40), "transformers cannot open it|not a pair"),
    "a vocabulary in words": (edit_config(vocab_size="2000"), "vocab_size '2000', expected 1 to"),
    "no room for a text": (edit_config(max_position_embeddings=2), "max_position_embeddings '2', expected 16 to"),
    "padding that is no word": (edit_config(pad_token_id=99_999), "pads with id 99999, and has 2000 words"),
    "marks that are no words": (alien_marks, "tokenizer.json has id 999999"),
    "a layer without weights": (
        edit_weights(lose_a_layer),
        "1 weights do not fit its config.json: .*layer.1.attention.self.query.weight is missing",
    ),
    "weights that were cut": (cut("model.safetensors"), "encoder hostile: "),
    "a tokenizer that was cut": (cut("tokenizer.json"), "tokenizer.json cannot be read"),
    "an index that leads elsewhere": (index_of_elsewhere, "index.json names other files than"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_checkpoint_that_is_hostile_or_unfit_is_refused_by_its_name(
    trained: Trained, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(trained.bench.files / "encoder", folder)
    spoil, words = HOSTILE[what]
    spoil(folder)
    with pytest.raises(BadRequest, match=words) as refused:
        Encoder.untrained(folder, TOPICS, 64, 1, seed=0)
    assert str(refused.value).startswith("encoder hostile: ")


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_what_lies_beside_the_weights_is_neither_unpickled_nor_run(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "crowded"
    shutil.copytree(trained.bench.files / "encoder", folder)
    gone_off = tmp_path / "gone-off"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(gone_off)))
    (folder / "modeling_evil.py").write_text(f"open({str(gone_off)!r}, 'w')")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}))
    encoder = Encoder.untrained(folder, TOPICS, 64, 1, seed=0)
    assert encoder.topics == TOPICS
    assert not gone_off.exists()


def test_weights_that_are_no_numbers_end_the_training_before_anything_is_kept(trained: Trained, tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    folder = bench.files / "nan"
    shutil.copytree(trained.bench.files / "encoder", folder)
    edit_weights(lambda w: next(iter(w.values())).fill_(float("nan")))(folder)
    with pytest.raises(Diverged, match="the loss is nan at step 1 of "):
        bench.run("train-topic-classifier", train_request(bench, corpus_of(bench, trained.docs), "nan"))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_encoders_of_every_kind_are_opened_fitted_with_a_head_and_read_back(tmp_path: Path, model_type: str) -> None:
    bench = Workbench(tmp_path)
    folder = make_encoder(bench, model_type, embedding_size=48, n_layers=2, n_heads=4, dim=48, hidden_dim=96)
    first = Encoder.untrained(folder, TOPICS, 1000, 1, seed=5)
    assert 100 < first.max_tokens <= 130
    first.save(tmp_path / "saved")
    again = Encoder.trained(tmp_path / "saved", 1)
    first.model.eval()
    texts = ["a court of law", "the cell of a plant " * 60]
    assert again.predict(texts, lambda: None) == first.predict(texts, lambda: None)
    assert (again.max_tokens, again.topics) == (first.max_tokens, TOPICS)
    assert doc("x", texts[0])["text"] == texts[0]
