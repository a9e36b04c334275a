"""Names of the files that several processes write of one thing, each its part."""

from __future__ import annotations

import re

PART_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")


def part_name(name: str, part: int, parts: int) -> str:
    """`model.safetensors`, or of several parts `model-00000-of-00002.safetensors`."""
    return name if parts == 1 else name.replace(".safetensors", f"-{part:05d}-of-{parts:05d}.safetensors")


def part_of(file_name: str) -> tuple[int, int] | None:
    """Which part of how many a file is by its name (part_name), or None."""
    found = PART_NAME.search(file_name)
    return None if found is None else (int(found[1]), int(found[2]))
