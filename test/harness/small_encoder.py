"""Writes a tiny encoder with random weights and a tokenizer of the samples: python small_encoder.py OUT makes OUT/encoder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "ml" / "tests"))

from tiny_encoder import write_encoder  # noqa: E402

write_encoder(Path(sys.argv[1]) / "encoder", initializer_range=0.15)
