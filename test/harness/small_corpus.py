"""Takes a few documents of every stratum of the sample corpus, so that a whole lifecycle takes about a minute.

python small_corpus.py SAMPLES OUT writes {zh,en,replay,retention}.jsonl and dirty.jsonl, and pages.jsonl: as many
English pages as a classifier needs; no randomness.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa

PER_STRATUM = {"web": 6, "book": 12, "encyclopedia": 8, "math": 6, "qa": 6}
MAX_CHARS = {"zh": 900, "en": 2400}
DIRTY_LINES = 30
BROKEN_LINES = 6
PAGES_A_TOPIC = 30
PAGE_CHARS = 1200


def main(samples: Path, out: Path) -> None:
    for name, per_stratum in [("zh", PER_STRATUM), ("en", PER_STRATUM), ("replay", {"book": 16}), ("retention", {"book": 12})]:
        taken: Counter = Counter()
        lines = []
        for line in read(samples / "corpus" / f"{name}.jsonl.zst").splitlines():
            doc = json.loads(line)
            stratum = (doc["kind"], doc["topic"] if doc["kind"] == "web" else "")
            if taken[stratum] < per_stratum.get(doc["kind"], 0):
                taken[stratum] += 1
                lines.append(json.dumps({**doc, "text": doc["text"][: MAX_CHARS[doc["lang"]]]}, ensure_ascii=False).encode())
        (out / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    pages: dict[str, list[bytes]] = {}
    for line in read(samples / "corpus" / "en.jsonl.zst").splitlines():
        doc = json.loads(line)
        if doc["kind"] == "web":
            page = json.dumps({**doc, "text": doc["text"][:PAGE_CHARS]}, ensure_ascii=False).encode()
            pages.setdefault(doc["topic"], []).append(page)
    (out / "pages.jsonl").write_bytes(b"".join(p + b"\n" for topic in sorted(pages) for p in pages[topic][:PAGES_A_TOPIC]))
    dirty = (samples / "corpus" / "dirty.jsonl").read_bytes().split(b"\n")
    broken = [line for line in dirty if line.strip() and not is_json(line)][:BROKEN_LINES]
    (out / "dirty.jsonl").write_bytes(b"\n".join([*[line for line in dirty if is_json(line)][:DIRTY_LINES], *broken]) + b"\n")


def read(path: Path) -> bytes:
    return pa.input_stream(str(path), compression="zstd").read()


def is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


main(Path(sys.argv[1]), Path(sys.argv[2]))
