"""What a job gives back to the system between its units, so that its peak is that of one unit however many there are.

Jobs run with glibc keeping all that was ever allocated (`jobEnv` of activities/src/config.ts), since a training asks
for the same sizes again and again. A data stage does not: its heap came to have holes that no later buffer fitted into.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

OWN_MAPPING_BYTES = 1 << 20
_M_MMAP_THRESHOLD = -3  # malloc.h


@cache
def _glibc() -> Any:
    """The C library of this process, or None where it is another one (macOS, musl)."""
    found = ctypes.CDLL(None) if sys.platform == "linux" else None
    return found if hasattr(found, "gnu_get_libc_version") else None


def map_large_buffers() -> None:
    """From here on every buffer of OWN_MAPPING_BYTES and more is a mapping of its own, gone as soon as it is freed."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)


def return_free_memory() -> None:
    """Gives the pages back that hold nothing."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(ctypes.c_size_t(0))
