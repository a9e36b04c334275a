"""What a topic classifier sees of a document: the same in training and in use, or its accuracy means nothing."""

from __future__ import annotations

from cpt_ml.words import words

MAX_TOKENS = 400


def topic_text(text: str) -> str:
    """One line of space-separated lower-cased words and single Han characters, the first 1,000 of the document."""
    return " ".join(words(text)[:MAX_TOKENS])
