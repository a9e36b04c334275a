"""What each of Unicode's code points is to the filter's rules: tables built once a process, in some 50 ms."""

from __future__ import annotations

import functools
import re

import numpy as np
import numpy.typing as npt

from cpt_ml.words import HAN as HAN_RANGES

LETTER, DIGIT, ALNUM, WORD, SPACE, HAN, PUNCTUATION, DAMAGED, JOINER, LEADER, RUN, SENTENCE_END = (
    1 << i for i in range(12)
)

# as datatrove has it (utils/text.py), so that the counts of words agree
_PUNCTUATION = (
    "!/—”:％１〈&(、━\\\\【#%「」，】；+^\\]~“《„';’{|∶´\\[=\\-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    "\x00-\x08\x0b\x0c\x0d-\x1f\x7f-\x9f"
)
_PATTERNS = {
    LETTER: r"[^\W\d_]+",
    DIGIT: r"\d+",
    ALNUM: r"[^\W_]+",
    WORD: r"\w+",
    SPACE: r"\s+",
    HAN: f"[{HAN_RANGES}]+",
    PUNCTUATION: f"[{_PUNCTUATION}]+",
    DAMAGED: "[\ufffd\ue000-\uf8ff■]+",
    JOINER: r"['’._\\(){}\[\]&@#|~$%!?;*^+]+",
    LEADER: r"[\\@^|~]+",
    RUN: r"[.\-]+",
    SENTENCE_END: "[.!?。！？．｡]+",
}
NUM_CODE_POINTS = 0x110000
_LAST_LETTER = 0x323AF  # beyond it Unicode has no letters, digits or white space
_PRIVATE_PLANES = 0xF0000


@functools.cache
def _everything() -> str:
    return np.arange(_LAST_LETTER + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")


@functools.cache
def classes() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """(class number of each code point, bits of each class): few classes, so that they can be counted in one pass."""
    bits = np.zeros(NUM_CODE_POINTS, dtype=np.uint16)
    for bit, pattern in _PATTERNS.items():
        for found in re.finditer(pattern, _everything()):
            bits[found.start() : found.end()] |= bit
    bits[_PRIVATE_PLANES:] |= DAMAGED
    of_class = np.flatnonzero(np.bincount(bits)).astype(np.uint16)
    number = np.zeros(1 << len(_PATTERNS), dtype=np.uint8)
    number[of_class] = np.arange(len(of_class), dtype=np.uint8)
    return number[bits], of_class


@functools.cache
def lower_case() -> npt.NDArray[np.uint32]:
    """The lower-case form of each code point, where that is one code point."""
    lowered = _everything().replace("\u0130", "i").lower()
    table = np.arange(NUM_CODE_POINTS, dtype=np.uint32)
    table[: len(lowered)] = np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return table
