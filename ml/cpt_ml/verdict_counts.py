"""The counts of every stage that drops documents."""

from __future__ import annotations

from collections import Counter

from cpt_ml.store import Json


def verdict_counts(docs: int, by_reason: Counter[str], by_language: Counter[str]) -> Json:
    """Counts that every dropping stage returns: docs judged = kept + dropped by reason; byLanguage counts the kept."""
    return {
        "docs": docs,
        "kept": docs - by_reason.total(),
        "byReason": dict(sorted(by_reason.items())),
        "byLanguage": dict(sorted(by_language.items())),
    }
