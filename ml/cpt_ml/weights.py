"""Weights as safetensors files: reading a folder of them, and the one digest that says whether two models are equal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cpt_ml.errors import BadRequest

# what makes a folder of weights a Hugging Face model; everything else of a source folder stays behind
COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name. Raises BadRequest if there is none."""
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("model-*.safetensors"))
    if not files:
        raise BadRequest(f"{folder.name}: no model.safetensors; weights in other formats are not read")
    return files


def read_weights(folder: Path) -> dict[str, Any]:
    """All tensors of a model folder by name, on the CPU."""
    from safetensors.torch import load_file  # noqa: PLC0415

    return {name: tensor for path in weight_files(folder) for name, tensor in load_file(path).items()}


def weights_sha256(folder: Path) -> str:
    """Digest over the tensors of a model folder, sorted by name: name, dtype, shape, and raw little-endian bytes.

    It does not depend on how tensors are spread over files or ordered in them, nor on metadata.
    """
    found: dict[str, tuple[Path, int, dict[str, Any]]] = {}
    for path in weight_files(folder):
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            for name, entry in json.loads(f.read(length)).items():
                if name != "__metadata__":
                    found[name] = (path, 8 + length, entry)
    digest = hashlib.sha256()
    for name, (path, base, entry) in sorted(found.items()):
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]], separators=(",", ":")).encode() + b"\n")
        start, end = entry["data_offsets"]
        with path.open("rb") as f:
            f.seek(base + start)
            while start < end:
                block = f.read(min(1 << 20, end - start))
                digest.update(block)
                start += len(block)
    return digest.hexdigest()


def copy_companions(source: Path, target: Path, dtype: str | None = None) -> None:
    """Copies config and tokenizer files to a folder of weights; `dtype` says what the weights there are."""
    for name in COMPANIONS:
        path = source / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        if name == "config.json" and dtype is not None:
            config = json.loads(content)
            config.pop("torch_dtype", None)
            content = (json.dumps({**config, "dtype": dtype}, indent=2, sort_keys=True) + "\n").encode()
        (target / name).write_bytes(content)
