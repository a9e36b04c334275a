"""A seeded choice among documents that stays the same when others come."""

from __future__ import annotations

import hashlib


def share_of(seed: int, id: str) -> float:
    """A number in [0, 1) by hash of seed and id, whatever the order of documents."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{id}".encode()).digest()[:6], "big") / (1 << 48)
