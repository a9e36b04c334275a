"""N-gram models for tests: estimated from counts, written as ARPA, and as KenLM's own binary forms."""

from __future__ import annotations

import ctypes
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

Gram = tuple[str, ...]
ORDER = 3
DISCOUNT = 0.5
WRITE_MMAP_AT = 96  # of lm::ngram::Config's field write_mmap, kenlm 0.3.0, x86-64 and arm64 with libstdc++
KINDS = {"probing": 0, "trie": 2}


def estimate(sentences: Iterable[Sequence[str]], vocabulary: Sequence[str]) -> dict[Gram, tuple[float, float]]:
    """Probability and back-off weight of n-grams up to ORDER: absolute discounting with back-off (Ney, Essen, Kneser
    1994, eq. 14 ff.; as Katz). Unigrams are counts plus one over `vocabulary` with <unk>, so nothing is impossible."""
    counts: list[Counter[Gram]] = [Counter() for _ in range(ORDER + 1)]
    for sentence in sentences:
        words = ["<s>", *sentence]
        for n in range(1, ORDER + 1):
            counts[n].update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    alphabet = ["<unk>", "</s>", *vocabulary]
    total = sum(counts[1][(w,)] + 1 for w in alphabet)
    model: dict[Gram, tuple[float, float]] = {("<s>",): (0.0, 1.0)}
    model |= {(w,): ((counts[1][(w,)] + 1) / total, 1.0) for w in alphabet}
    for n in range(2, ORDER + 1):
        followers: defaultdict[Gram, list[Gram]] = defaultdict(list)
        for gram in counts[n]:
            followers[gram[:-1]].append(gram)
        for history, grams in followers.items():
            of_history = sum(counts[n][g] for g in grams)
            seen = {g: (counts[n][g] - DISCOUNT) / of_history for g in grams}
            lower = sum(_probability(model, g[1:]) for g in grams)
            left = (1 - sum(seen.values())) / (1 - lower)
            model |= {g: (p, 1.0) for g, p in seen.items()}
            model[history] = (model[history][0], left)
    return model


def _probability(model: dict[Gram, tuple[float, float]], gram: Gram) -> float:
    """p(w | h) = stored, else b(h) · p(w | h without its first word): of an ARPA file (Heafield 2011, eq. 1)."""
    if gram in model:
        return model[gram][0]
    if len(gram) == 1:
        return model[("<unk>",)][0]
    return model.get(gram[:-1], (0.0, 1.0))[1] * _probability(model, gram[1:])


def log10_of(model: dict[Gram, tuple[float, float]], sentence: Sequence[str]) -> float:
    """log10 of the probability of a sentence with a beginning and no end."""
    words = ["<s>", *[w if (w,) in model else "<unk>" for w in sentence]]
    return sum(
        math.log10(_probability(model, tuple(words[max(0, i + 1 - ORDER) : i + 1]))) for i in range(1, len(words))
    )


def write_arpa(path: Path, model: dict[Gram, tuple[float, float]]) -> None:
    """The model as an .arpa file."""
    by_order = [[g for g in model if len(g) == n] for n in range(1, ORDER + 1)]
    lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(by_order, 1))]
    for n, grams in enumerate(by_order, 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in grams:
            probability, weight = model[gram]
            log10 = 0.0 if gram == ("<s>",) else math.log10(probability)
            tail = "" if n == ORDER else f"\t{math.log10(weight):.7f}"
            lines.append(f"{log10:.7f}\t{' '.join(gram)}{tail}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


def write_binary(arpa: Path, path: Path, kind: str) -> None:
    """KenLM's own form of an .arpa file, as build_binary writes it, which its Python package lacks."""
    import kenlm  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    library = ctypes.CDLL(str(Path(str(kenlm.__file__)).with_name("libkenlm.so")))
    config = ctypes.create_string_buffer(1024)
    library._ZN2lm5ngram6ConfigC1Ev(config)
    name = ctypes.create_string_buffer(str(path).encode())
    ctypes.c_void_p.from_buffer(config, WRITE_MMAP_AT).value = ctypes.addressof(name)
    library._ZN2lm5ngram11LoadVirtualEPKcRKNS0_6ConfigENS0_9ModelTypeE(str(arpa).encode(), config, KINDS[kind])
    assert path.read_bytes().startswith(b"mmap lm http://kheafield.com/code format version"), "no binary was written"
