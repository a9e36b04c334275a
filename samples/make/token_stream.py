"""Packed sequences from tokenized documents, EOS between them. R rows, T tokens of a sequence."""

import random
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor


def packed_rows(documents: list[list[int]], eos_id: int, T: int, seed: int) -> Iterator[Tensor]:
    """Yield rows of T + 1 token ids for ever: T inputs and, shifted by one, T targets.

    Each epoch reads all documents in a new seeded order; neighbouring rows share one token, so every token
    is a target once an epoch.
    """
    rng = random.Random(seed)
    pending: list[int] = [eos_id]
    while True:
        for index in rng.sample(range(len(documents)), len(documents)):
            pending += documents[index]
            pending.append(eos_id)
            while len(pending) > T:
                yield torch.tensor(pending[: T + 1])
                pending = pending[T:]


def mixed_batches(english: Iterator[Tensor], chinese: Iterator[Tensor], share: Fraction, R: int) -> Iterator[Tensor]:
    """Yield batches (R, T + 1) in which Chinese rows come at even distances and make up exactly `share`."""
    num_rows = 0
    while True:
        rows: list[Tensor] = []
        for _ in range(R):
            is_chinese = int((num_rows + 1) * share) > int(num_rows * share)
            rows.append(next(chinese if is_chinese else english))
            num_rows += 1
        yield torch.stack(rows)


def evaluation_rows(documents: list[list[int]], eos_id: int, T: int) -> Tensor:
    """Return documents as rows (R, T + 1), in order, once; the last row is padded with EOS by less than T."""
    stream = [eos_id]
    for document in documents:
        stream += [*document, eos_id]
    stream += [eos_id] * (-(len(stream) - 1) % T)
    return torch.tensor(stream).unfold(0, T + 1, T)
