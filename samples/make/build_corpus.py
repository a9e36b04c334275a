"""Build `samples/corpus` and `samples/bench` from the source corpus.

    python samples/make/build_corpus.py --shared DIR

DIR holds `sample.jsonl.gz`, `base.jsonl.gz`, `dirty.jsonl`, `dirty.malformed.json` and `bench/`. The same
input, seed and pyarrow give the same bytes.
"""

import argparse
import json
from pathlib import Path

from dirt import check_overlap, choose_dirt
from documents import Document, read_documents, seeded_order, text_bytes, write_documents
from retention import choose_retention, pretraining_documents, proportional_draw, shippable

BENCH_QUESTIONS = {
    "gsm8k-test": 80,
    "humaneval": 40,
    "agieval-gaokao-mathqa": 40,
    "agieval-gaokao-physics": 40,
    "agieval-gaokao-chemistry": 40,
    "agieval-gaokao-biology": 40,
    "gaokao-bench-math-i": 40,
    "gaokao-bench-history": 40,
}


def build_bench(shared: Path, out: Path, must_have_ids: set[str], seed: int) -> dict[str, Document]:
    """Write a seeded subset of each benchmark that has the named questions; return its questions by id."""
    shipped: dict[str, Document] = {}
    for name, count in BENCH_QUESTIONS.items():
        questions = read_documents(shared / "bench" / f"{name}.jsonl")
        wanted = seeded_order(questions, seed)
        wanted.sort(key=lambda question: question["id"] not in must_have_ids)  # stable: the rest stays shuffled
        chosen_ids = {question["id"] for question in wanted[:count]}
        chosen = [question for question in questions if question["id"] in chosen_ids]
        write_documents(out / f"{name}.jsonl.zst", chosen)
        shipped.update({question["id"]: question for question in chosen})
    return shipped


def build_sample(shared: Path, out: Path) -> set[str]:
    """Write the sample documents by language; return their ids."""
    sample = read_documents(shared / "sample.jsonl.gz")
    for name in ("en", "zh", "code"):
        documents = [d for d in sample if d["lang"] == name]
        # the published mixture counts code as a kind of English
        write_documents(out / f"{name}.jsonl.zst", [{**d, "lang": "en"} if name == "code" else d for d in documents])
    return {d["id"] for d in sample}


def build_base_slices(shared: Path, out: Path, replay_bytes: int, retention_bytes: int, seed: int) -> None:
    """Write the slice held out of pre-training and the pre-trained text that CPT replays."""
    base = read_documents(shared / "base.jsonl.gz")
    retention = choose_retention(base, retention_bytes, seed)
    pretrained = pretraining_documents(base, retention)
    replay = proportional_draw([d for d in pretrained if shippable(d)], replay_bytes, seed)
    for name, documents in (("retention", retention), ("replay", replay)):
        write_documents(out / f"{name}.jsonl.zst", documents)
        sources = len({d["source"] for d in documents})
        print(f"{name}: {len(documents)} documents, {text_bytes(documents):,} bytes of text, {sources} sources")
    print(f"pre-training may read {len(pretrained)} of {len(base)} base documents")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder of the source corpus")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent, help="the samples folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay-bytes", type=int, default=1_350_000, help="of text, uncompressed")
    parser.add_argument("--retention-bytes", type=int, default=400_000, help="of text, uncompressed")
    args = parser.parse_args()

    corpus: Path = args.out / "corpus"
    sample_ids = build_sample(args.shared, corpus)
    build_base_slices(args.shared, corpus, args.replay_bytes, args.retention_bytes, args.seed)

    lines = choose_dirt(
        args.shared / "dirty.jsonl",
        args.shared / "dirty.malformed.json",
        sample_ids,
        tuple(BENCH_QUESTIONS),
        args.seed,
    )
    asked_ids = {label["bench_id"] for _, label in lines if "bench_id" in label}
    questions = build_bench(args.shared, args.out / "bench", asked_ids, args.seed)
    check_overlap(lines, questions)
    (corpus / "dirty.jsonl").write_bytes(b"".join(line for line, _ in lines))
    expected = [{"line": n, "id": page_id(raw), **label} for n, (raw, label) in enumerate(lines, start=1)]
    text = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in expected)
    (corpus / "dirty.expected.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    print(f"dirty.jsonl: {len(lines)} lines")


def page_id(raw: bytes) -> str | int | None:
    """Return the id that a reader finds in a line, null where it finds none."""
    try:
        return json.loads(raw).get("id")
    except ValueError:
        return None


if __name__ == "__main__":
    main()
