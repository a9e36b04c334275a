"""Set up in forked jobs by zygote.py: a phase leaves files of few bytes, and each process tells which it writes."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cpt_ml import phase_end, tensor_files


def setup(max_bytes: str, job_folder: Path) -> None:
    """Called in each forked job before it begins. `written-<rank>` in its folder has the names of written files."""
    for name in ("write_folder", "write_saved_model"):
        setattr(phase_end, name, functools.partial(getattr(phase_end, name), max_bytes=int(max_bytes)))
    write = tensor_files.write_tensors

    def told(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        with (job_folder / f"written-{os.environ.get('RANK', '0')}").open("a") as log:
            log.write(f"{path.parent.name}/{path.name}\n")
        write(path, tensors, metadata)

    tensor_files.write_tensors = told
