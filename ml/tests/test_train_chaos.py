"""The quick form of `npm run chaos:train`: random kills that leave no trace."""

from __future__ import annotations

from pathlib import Path

from chaos_train import Chaos


def test_ten_random_kills_leave_no_trace(tmp_path: Path) -> None:
    chaos = Chaos(seed=1, processes=1)
    chaos.go(10, tmp_path)
    assert chaos.problems == []
    assert chaos.kills >= 10
