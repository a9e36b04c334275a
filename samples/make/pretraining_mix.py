"""What the tiny base model reads: English, some Chinese, and a little of both held out to watch the loss."""

from dataclasses import dataclass
from pathlib import Path

from documents import Document, read_documents, seeded_order
from retention import pretraining_documents

WATCHED_CHINESE = 60  # documents outside the sample, held out of pre-training as well
MIX_SEED = 0


@dataclass(frozen=True)
class PretrainingMix:
    """Documents to train on by language, and documents to watch."""

    english: list[Document]
    chinese: list[Document]
    watched_english: list[Document]
    watched_chinese: list[Document]


def pretraining_mix(shared: Path, samples: Path) -> PretrainingMix:
    """Read the source corpus less everything that the sample ships for CPT or for measuring.

    English is `base.jsonl.gz` without the retention slice, which is the English watched; Chinese is the part
    of `train.jsonl` outside the sample.
    """
    retention = read_documents(samples / "corpus" / "retention.jsonl.zst")
    base = read_documents(shared / "base.jsonl.gz")
    sample_ids = {d["id"] for d in read_documents(shared / "sample.jsonl.gz")}
    train = read_documents(shared / "train.jsonl")
    chinese = seeded_order([d for d in train if d["lang"] == "zh" and d["id"] not in sample_ids], MIX_SEED)
    return PretrainingMix(
        english=pretraining_documents(base, retention),
        chinese=chinese[WATCHED_CHINESE:],
        watched_english=retention,
        watched_chinese=chinese[:WATCHED_CHINESE],
    )
