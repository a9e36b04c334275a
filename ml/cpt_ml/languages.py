"""Which language a text is in, by py3langid's model, which lies in its package (naive Bayes over byte n-grams)."""

from __future__ import annotations

import functools
from typing import Any

# told apart by the model, but one language of a corpus: its text is in the same script and mostly the same words
_FAMILIES = {"wuu": "zh", "yue": "zh", "lzh": "zh", "gan": "zh", "hak": "zh", "nan": "zh", "pcm": "en", "sco": "en"}


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """Language code and probability to two places; ("und", 0) of a text without a letter."""
    if not any(map(str.isalpha, text)):
        return "und", 0.0
    language, probability = _identifier().classify(text)
    return family_of(language), round(probability, 2)


def family_of(language: str) -> str:
    """The language that a code is counted under."""
    return _FAMILIES.get(language, language)
