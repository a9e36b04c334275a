"""Tensors in safetensors files: whole ones, or cut by rows over the processes of a training.

Part s of S holds of each tensor the rows that `rows_of` names (torch.chunk's cut, which FSDP2 uses), so what S
processes wrote is read back by any number of them, each taking its own rows. No pickle, and nothing to import but
safetensors: torch.distributed.checkpoint costs 3 s of a job's start and keeps its plan of the files as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpt_ml.durable_files import sha256_file
from cpt_ml.errors import BadRequest
from cpt_ml.world import ALONE, World

FILE_BYTES = 5_000_000_000
FOR_TORCH = {"format": "pt"}
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
          torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip


def rows_of(length: int, part: int, parts: int) -> range:
    """Rows of a tensor of `length` rows that belong to one of so many parts; the last ones may be empty."""
    size = -(-length // parts)
    return range(min(length, part * size), min(length, (part + 1) * size))


class TensorRows:
    """Reads rows of tensors out of files: whole tensors in any of them, or the parts of a checkpoint in order."""

    def __init__(self, files: Sequence[Path]) -> None:
        from safetensors import safe_open  # noqa: PLC0415

        self.source = files[0].parent.name
        self._slices: dict[str, list[Any]] = {}
        for path in files:
            opened: Any = safe_open(path, framework="pt")
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                self._slices.setdefault(name, []).append(opened.get_slice(name))

    def names(self) -> set[str]:
        return set(self._slices)

    def shape(self, name: str) -> tuple[int, ...]:
        slices = self._slices[name]
        first = tuple(slices[0].get_shape())
        return (sum(s.get_shape()[0] for s in slices), *first[1:]) if len(slices) > 1 else first

    def first(self, name: str) -> Tensor:
        """The tensor as the first file has it."""
        return self._slices[name][0][:]

    def check(self, shapes: Mapping[str, tuple[int, ...]], may_be_there: Sequence[str] = ()) -> None:
        """Raises BadRequest, naming what does not fit, unless the files hold exactly tensors of these shapes."""
        found = {n: self.shape(n) for n in self.names() if n in shapes or n not in may_be_there}
        wrong = [
            f"{n}: {found.get(n, 'absent')}, expected {shapes.get(n, 'nothing')}"
            for n in sorted(shapes.keys() | found.keys())
            if shapes.get(n) != found.get(n)
        ]
        if wrong:
            raise BadRequest(f"{self.source}: weights do not fit config.json: {'; '.join(wrong[:5])}")

    def read(self, name: str, rows: range) -> Tensor:
        """These rows of a tensor; only they are read."""
        pieces: list[Tensor] = []
        begin = 0
        for piece in self._slices[name]:
            length = piece.get_shape()[0]
            start, stop = max(rows.start, begin), min(rows.stop, begin + length)
            if start < stop:
                pieces.append(piece[start - begin : stop - begin])
            begin += length
        if not pieces:
            return torch.empty((0, *self.shape(name)[1:]))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors in host memory as a safetensors file, from a thread that lets others run meanwhile and without a
    copy of them. Tensors of one type lie in the order of their names, as those of the library's own files do."""
    ordered = sorted(tensors.items(), key=lambda named: (-named[1].element_size(), named[0]))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, t in ordered:
        size = t.numel() * t.element_size()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, t in ordered:
            if t.numel():
                f.write(t.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_split(  # noqa: PLR0917
    folder: Path,
    name: str,
    sizes: Mapping[str, int],
    tensor: Callable[[str], Tensor],
    world: World = ALONE,
    metadata: dict[str, str] | None = FOR_TORCH,
    max_bytes: int = FILE_BYTES,
) -> dict[str, str]:
    """Writes whole tensors to `name`, or above `max_bytes` to several files with a Hugging Face index beside them;
    returns, in each process, the digests of the files with tensors by name.

    `tensor` is asked for each in turn, by every process if several hold its rows. The processes of the first machine
    take turns at the files, and each writes and reads its last one while the next is asked for: it holds at most two
    files' tensors. `sizes` are in bytes; a file of one tensor may be larger than `max_bytes`. Where one process cannot
    write, all raise.
    """
    groups = _groups(sizes, max_bytes)
    stem = name.removesuffix(".safetensors")
    files = [name]
    if len(groups) > 1:
        files = [f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    written: dict[str, Future[str]] = {}

    def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
        try:
            write_tensors(path, tensors, metadata)
        except OSError as e:
            e.filename = e.filename or str(path)
            raise
        return sha256_file(path)

    with ThreadPoolExecutor(1) as pool:
        for i, (file, group) in enumerate(zip(files, groups, strict=True)):
            mine = world.rank == i % world.local_size
            tensors: dict[str, Tensor] = {}
            for key in group:
                whole = tensor(key)
                if mine:
                    tensors[key] = whole.detach().cpu()
            if mine:
                wait(written.values())
                written[file] = pool.submit(write, folder / file, tensors)
        parts = world.each(lambda: {file: digest.result() for file, digest in written.items()})
    if len(groups) > 1 and world.rank == 0:
        index = {key: file for file, group in zip(files, groups, strict=True) for key in group}
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (folder / f"{name}.index.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return {file: digest for part in parts for file, digest in part.items()}


def _groups(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def split_files(folder: Path, name: str) -> list[Path]:
    """The files that write_split made of a name."""
    single = folder / name
    return [single] if single.is_file() else sorted(folder.glob(name.replace(".safetensors", "-*.safetensors")))


def sizes_of(shapes: Iterable[tuple[str, Sequence[int]]], item_bytes: int = 4) -> dict[str, int]:
    return {n: int(torch.Size(s).numel()) * item_bytes for n, s in shapes}
