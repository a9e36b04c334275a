"""Write `samples/SOURCES.md`: the rows of the source corpus's table for everything that is shipped or trained on.

    python samples/make/build_sources.py --shared DIR

Run it after `build_corpus.py`. Raises ValueError for a source without a row.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from documents import read_bytes, read_documents
from pretraining_mix import pretraining_mix

CORPUS_FILES = {"sample": ("en", "zh", "code"), "replay": ("replay",), "retention": ("retention",)}
INTRODUCTION = """\
# Sources

Written by `make/build_sources.py`. Every text is a cleaned extract: markup removed and split at paragraph
boundaries into documents; for chinese-poetry and the TCM texts the script was also converted to simplified
characters, and long MedQuAD answers were cut at a sentence end. Nothing else was changed, except in
`corpus/dirty.jsonl`, whose pages were damaged on purpose (duplicated, edited, garbled, cut, mixed with benchmark
questions).

- Documents under CC BY-SA 4.0 carry `"share_alike": true`, also among the dirty pages: whoever passes them on, or
  adaptations of them, keeps the attribution and the licence.
- “Public-Domain” means in the public domain in the United States: works of its government, and old books. From
  the pre-training text only such works are shipped (`replay`, `retention`), and of the books only those whose
  authors and translators died before 1956.
- Boilerplate among the dirty pages (`"source": "generated"`) was generated, CC0-1.0.
- Project Gutenberg and Standard Ebooks are named to say where a text comes from; their notices were removed with
  the rest of the markup and neither endorses this project.
- The column “weights” counts documents that `base/` was trained on. Those texts are not shipped, except the ones
  under “replay”.
"""


def table_rows(markdown: str, section: str) -> list[list[str]]:
    """Return the cells of each row of the table under `## section`, without its two head lines."""
    _, _, body = markdown.partition(f"\n## {section}\n")
    body = body.split("\n## ")[0]
    rows = [line.strip().strip("|").split(" | ") for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def dirty_sources(path: Path) -> Counter[str]:
    """Count the sources of the dirty lines that can be parsed; generated pages have none."""
    counts: Counter[str] = Counter()
    for raw in path.read_bytes().split(b"\n"):
        try:
            source = json.loads(raw)["source"]
        except (ValueError, KeyError):
            continue
        if source != "generated":
            counts[source] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder of the source corpus")
    parser.add_argument("--samples", type=Path, default=Path(__file__).parent.parent, help="the samples folder")
    args = parser.parse_args()
    corpus: Path = args.samples / "corpus"

    counts: dict[str, Counter[str]] = {
        column: Counter(d["source"] for name in names for d in read_documents(corpus / f"{name}.jsonl.zst"))
        for column, names in CORPUS_FILES.items()
    }
    counts["dirty"] = dirty_sources(corpus / "dirty.jsonl")
    mix = pretraining_mix(args.shared, args.samples)
    counts["weights"] = Counter(d["source"] for d in mix.english + mix.chinese)
    used = {source for column in counts.values() for source in column}

    markdown = (args.shared / "SOURCES.md").read_text(encoding="utf-8")
    lines = ["## Corpus", "", f"| repository | commit | licence | attribution | {' | '.join(counts)} | note |"]
    lines.append("|---" * (5 + len(counts)) + "|")
    described: set[str] = set()
    for cells in table_rows(markdown, "Corpus"):
        source, commit, licence, attribution, note = *cells[:4], cells[9] if len(cells) > 9 else ""
        if source in used:
            described.add(source)
            shares = " | ".join(str(column[source]) for column in counts.values())
            lines.append(f"| {source} | {commit} | {licence} | {attribution} | {shares} | {note} |")
    if used - described:
        raise ValueError(f"no row in the table of sources for {sorted(used - described)}")

    lines += ["", "## Benchmarks", "", "| file | repository | commit | licence | items |", "|---|---|---|---|---|"]
    for file, repository, commit, licence, items in table_rows(markdown, "Benchmarks"):
        path = args.samples / f"{file}.zst"
        if path.exists():
            num_questions = read_bytes(path).count(b"\n")
            lines.append(f"| {file}.zst | {repository} | {commit} | {licence} | {num_questions} of {items} |")
    (args.samples / "SOURCES.md").write_text(INTRODUCTION + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"SOURCES.md: {len(described)} sources")


if __name__ == "__main__":
    main()
