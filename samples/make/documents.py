"""Reading and writing the sample files: one JSON object a line, plain, gzip or zstd.

A document is `{id, text, lang, topic, kind, source, license, share_alike?}`.
"""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

Document = dict[str, Any]

ZSTD_LEVEL = 19  # made once, read often; one-shot frames: the bytes depend on the input alone


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed by its suffix (.gz, .zst)."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        with pa.input_stream(pa.py_buffer(data), compression="zstd") as stream:
            return stream.read()
    return data


def read_documents(path: Path) -> list[Document]:
    """Return the documents of a JSON-lines file. Raises ValueError on a malformed line."""
    # only \n ends a line: U+2028 and friends occur inside texts
    return [json.loads(line) for line in read_bytes(path).split(b"\n") if line]


def json_line(document: Any) -> bytes:
    """Return one JSON line, UTF-8, with the keys in the order given."""
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def write_zst(path: Path, data: bytes) -> None:
    """Write bytes as one zstd frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compressed = pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(data, asbytes=True)
    path.write_bytes(compressed)
    print(f"{path.name}: {len(data):,} bytes raw, {len(compressed):,} written")


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write documents as zstd-compressed JSON lines."""
    write_zst(path, b"".join(json_line(document) for document in documents))


def text_bytes(documents: Iterable[Document]) -> int:
    """Return the number of UTF-8 bytes of the texts."""
    return sum(len(document["text"].encode()) for document in documents)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seeded_order(documents: Iterable[Document], seed: int) -> list[Document]:
    """Return the documents in an order that depends on the seed and their ids, not on their order."""
    ordered = sorted(documents, key=lambda document: document["id"])
    random.Random(seed).shuffle(ordered)
    return ordered


def grams(text: str, size: int) -> set[str]:
    """Return the `size`-grams of a text: words of Latin script and digits, single CJK characters."""
    units = re.findall(r"[一-鿿]|[^\W一-鿿]+", text.lower())
    return {" ".join(units[i : i + size]) for i in range(len(units) - size + 1)}
