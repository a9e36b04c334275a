"""Weights as safetensors files: reading and writing folders of them, whole or by rows, and the one digest that says
whether two models are equal. What a folder says of itself is checked before any of it is read."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt_ml.errors import BadRequest

# what makes a folder of weights a Hugging Face model; everything else of a source folder stays behind
COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    "vocabulary-extension.json",
)  # fmt: skip


INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # that of the safetensors library; a header is held in memory
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
SHARD_NAME = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
TYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4,
              "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: `offset` of its first byte in the file. Indexing reads rows of it, no others."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int

    def __getitem__(self, rows: slice) -> Any:
        import torch  # noqa: PLC0415
        from safetensors import safe_open  # noqa: PLC0415

        start, stop, _ = rows.indices(self.shape[0] if self.shape else 1)
        with safe_open(self.path, "pt") as file:
            if not self.shape or (start, stop) == (0, self.shape[0]):
                return file.get_tensor(self.name)
            part = file.get_slice(self.name)
            return part[start:stop] if start < stop else torch.empty((0, *self.shape[1:]))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name; headers are not looked at.

    Raises BadRequest if there is none, or if index and files do not fit: a name that is no plain file name, a file that
    is missing, one that the index does not know, or without an index a shard of the count in the names that is missing.
    """
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return [single]
    found = sorted(p.name for p in folder.glob("model-*.safetensors"))
    if index.is_file():
        listed = sorted(set(_weight_map(folder).values()))
        wrong = [f"{name[:80]!r} is no name of a file" for name in listed if FILE_NAME.fullmatch(name) is None]
        wrong = wrong or [f"{name} is missing" for name in listed if not (folder / name).is_file()]
        wrong += [f"{name} is not in the index" for name in found if name not in listed]
        if wrong:
            raise BadRequest(f"{folder.name}/{INDEX}: {'; '.join(wrong[:5])}")
        return [folder / name for name in listed]
    if not found:
        raise BadRequest(f"{folder.name}: no model.safetensors; weights in other formats are not read")
    numbers = [SHARD_NAME.fullmatch(name) for name in found]
    if not all(m is not None and m[2] == f"{len(found):05d}" for m in numbers):
        raise BadRequest(
            f"{folder.name}: without {INDEX} expected all of model-00001-of-n.safetensors, got {found[:5]}"
        )
    return [folder / name for name in found]


def stored_weights(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a model folder by name, none of them read.

    Raises BadRequest if a header is damaged, a tensor is stored twice, or the index says another file of one.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        for tensor in read_header(path):
            if tensor.name in found:
                raise BadRequest(f"{folder.name}: {tensor.name} is in {found[tensor.name].path.name} and {path.name}")
            found[tensor.name] = tensor
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        listed = _weight_map(folder)
        stored = {name: t.path.name for name, t in found.items()}
        wrong = [
            f"{name} in {listed.get(name, 'no file')}, is in {stored.get(name, 'none')}"
            for name in sorted(listed.keys() | stored.keys())
            if listed.get(name) != stored.get(name)
        ]
        if wrong:
            raise BadRequest(f"{folder.name}/{INDEX}: expected {'; '.join(wrong[:5])}")
    return found


def _weight_map(folder: Path) -> dict[str, str]:
    path = folder / INDEX
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise BadRequest(f"{folder.name}/{INDEX}: {path.stat().st_size} bytes, expected at most {MAX_HEADER_BYTES}")
    content = _json(path.read_bytes(), f"{folder.name}/{INDEX}")
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(v, str) for v in files.values()):
        raise BadRequest(f"{folder.name}/{INDEX}: expected weight_map, an object of file names by tensor")
    return files


def read_header(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file, in the order of their bytes. Raises BadRequest if its header is damaged, or
    says other than that tensors fill the rest of the file one after the other."""
    size = path.stat().st_size
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise BadRequest(
                f"{path.name}: a header of {length} bytes in a file of {size}: truncated, or no safetensors"
            )
        header = _json(f.read(length), path.name)
    if not isinstance(header, dict):
        raise BadRequest(f"{path.name}: the header is no object")
    tensors = [_stored(path, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    tensors.sort(key=lambda t: (t.offset, t.num_bytes))
    end = 8 + length
    for t in tensors:
        if t.offset != end:
            raise BadRequest(f"{path.name}: {t.name} begins at byte {t.offset}, expected {end}")
        end += t.num_bytes
    if end != size:
        raise BadRequest(f"{path.name}: tensors end at byte {end} of {size}: truncated, or followed by other bytes")
    return tensors


def _stored(path: Path, name: str, entry: Any, base: int) -> StoredTensor:
    where = f"{path.name}: {name[:120]}"
    if not isinstance(entry, dict) or entry.get("dtype") not in TYPE_BYTES:
        raise BadRequest(f"{where}: expected a dtype of {sorted(TYPE_BYTES)}, got {str(entry)[:120]}")
    shape, offsets = _whole_numbers(entry, "shape", where), _whole_numbers(entry, "data_offsets", where)
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * TYPE_BYTES[entry["dtype"]]:
        raise BadRequest(f"{where}: {entry['dtype']} {shape} does not fill the bytes {offsets}")
    return StoredTensor(path, name, entry["dtype"], tuple(shape), base + offsets[0], offsets[1] - offsets[0])


def _whole_numbers(entry: dict[str, Any], key: str, where: str) -> list[int]:
    value = entry.get(key)
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        raise BadRequest(f"{where}: expected {key} of whole numbers, got {str(value)[:120]}")
    return value


def _json(data: bytes, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [n for n, _ in pairs]
            raise BadRequest(f"{where}: named twice: {sorted({n for n in names if names.count(n) > 1})[:5]}")
        return found

    try:
        return json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"{where}: no JSON: {str(e)[:200]}") from e


def count_parameters(folder: Path) -> int:
    """Numbers in all tensors of a model folder, from the headers alone."""
    return sum(math.prod(t.shape) for t in stored_weights(folder).values())


def read_weights(folder: Path) -> dict[str, Any]:
    """All tensors of a model folder by name, on the CPU."""
    return {name: tensor[:] for name, tensor in stored_weights(folder).items()}


def weights_sha256(folder: Path) -> str:
    """Digest over the tensors of a model folder, sorted by name: name, dtype, shape, and raw little-endian bytes.

    It does not depend on how tensors are spread over files or ordered in them, nor on metadata.
    """
    digest = hashlib.sha256()
    for name, t in sorted(stored_weights(folder).items()):
        digest.update(json.dumps([name, t.dtype, list(t.shape)], separators=(",", ":")).encode() + b"\n")
        with t.path.open("rb") as f:
            f.seek(t.offset)
            left = t.num_bytes
            while left:
                block = f.read(min(1 << 20, left))
                if not block:
                    raise BadRequest(f"{t.path.name}: {name} ends before its bytes do")
                digest.update(block)
                left -= len(block)
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
