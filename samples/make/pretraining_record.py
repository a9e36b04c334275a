"""The record of a pre-training run, `pretraining.json`: written last, so its presence says the weights are final."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

from documents import Document, json_line, sha256, text_bytes
from pretraining_mix import PretrainingMix


def describe(documents: list[Document]) -> dict[str, object]:
    """Return count, size and digest of documents; the digest depends on ids and texts, not on their order."""
    lines = sorted(json_line([d["id"], d["text"]]) for d in documents)
    return {"documents": len(documents), "bytes": text_bytes(documents), "sha256": sha256(b"".join(lines))}


def options(size: str, plan: dict[str, object]) -> str:
    """Return the arguments by which the command differs from the proxy's."""
    return f" --size {size} --tokens {plan['tokens']} --peak-lr {plan['peak_lr']}"


def write_record(
    out: Path,
    tokenizer_path: Path,
    size: str,
    plan: dict[str, object],
    mix: PretrainingMix,
    *,
    curve: list[dict[str, object]],
    wall_seconds: int,
) -> None:
    """Write what was trained, on what, how it went, and the digests of the files that came of it."""
    record = {
        "command": [
            "python samples/make/train_tokenizer.py --shared DIR",
            f"python samples/make/pretrain_base.py --shared DIR{'' if size == 'proxy' else options(size, plan)}",
        ],
        "plan": plan,
        "data": {
            "english": describe(mix.english),
            "chinese": describe(mix.chinese),
            "watched_english": describe(mix.watched_english),
            "watched_chinese": describe(mix.watched_chinese),
        },
        "units": "losses are nats per token (EOS scored) and nats per UTF-8 byte of text, in float32",
        "curve": curve,
        "wall_seconds": wall_seconds,
        "versions": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "pyarrow")},
        },
        "files": {path.name: sha256(path.read_bytes()) for path in (out / "model.safetensors", tokenizer_path)},
    }
    (out / "pretraining.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
