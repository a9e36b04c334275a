"""The sample corpus, enlarged: `enlarge.py --samples DIR --work DIR --docs N --seed S`.

Writes `<work>/corpus.jsonl`, N documents: the sample's documents in turn, each as it is the first time. In later copies
30 % of the words (of Chinese: characters) are others of the same language, so that no two copies are near duplicates:
.7^5 of their 5-grams are left, a Jaccard index of about .09. One copy in 20 is a near duplicate instead: 1 % of its
words are others (a Jaccard index of about .9), and `<work>/truth.jsonl` says so: {"id", "of"}, the id of the sample's
document. Ids are `<id>` for the first copy and `<id>~<number>` for the others.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from cpt_ml.words import HAN

FILES = ("en.jsonl.zst", "zh.jsonl.zst", "code.jsonl.zst")
NOISE = 0.3
NEAR_NOISE = 0.01
NEAR_SHARE = 0.05
# Han characters one by one, other words whole; what stands between them stays
PIECES = re.compile(f"([{HAN}]|[^\\W_{HAN}]+)")


def sample_documents(folder: Path) -> list[dict[str, str]]:
    """The documents of the sample corpus, English, Chinese and code in turn, so that every prefix has all of them."""
    files = [
        [json.loads(line) for line in pa.input_stream(str(folder / name), compression="zstd").read().splitlines()]
        for name in FILES
    ]
    # by their place within the file, as a share of it: a prefix has the languages in the sample's proportions
    placed = sorted((i / len(docs), f, i) for f, docs in enumerate(files) for i in range(len(docs)))
    return [files[f][i] for _, f, i in placed]


def enlarged(sample: list[dict[str, str]], docs: int, seed: int) -> Iterator[tuple[dict[str, str], str | None]]:
    """Documents, and for a near duplicate the id of its original."""
    words: dict[str, list[str]] = {"en": [], "zh": []}
    for doc in sample[: min(len(sample), 1000)]:
        words[doc["lang"]] += PIECES.findall(doc["text"])
    for n in range(docs):
        doc = sample[n % len(sample)]
        copy = n // len(sample)
        if copy == 0:
            yield doc, None
            continue
        rng = random.Random(f"{seed}/{n}")
        near = rng.random() < NEAR_SHARE
        text = with_noise(doc["text"], NEAR_NOISE if near else NOISE, words[doc["lang"]], rng)
        yield {**doc, "id": f"{doc['id']}~{copy}", "text": text}, doc["id"] if near else None


def with_noise(text: str, share: float, words: list[str], rng: random.Random) -> str:
    """The text with a share of its words replaced by words of the pool."""
    parts = PIECES.split(text)
    count = len(parts) // 2
    for i in rng.sample(range(count), round(count * share)):
        parts[2 * i + 1] = words[int(rng.random() * len(words))]
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sample = sample_documents(args.samples)
    with (args.work / "corpus.jsonl").open("w") as corpus, (args.work / "truth.jsonl").open("w") as truth:
        for doc, of in enlarged(sample, args.docs, args.seed):
            corpus.write(json.dumps(doc, ensure_ascii=False) + "\n")
            if of is not None:
                truth.write(json.dumps({"id": doc["id"], "of": of}) + "\n")


if __name__ == "__main__":
    main()
