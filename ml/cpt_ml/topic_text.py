"""What a topic classifier sees of a document: the same in training and in use, or its accuracy means nothing."""

from __future__ import annotations

import functools
import re

from cpt_ml.words import HAN, words

MAX_TOKENS = 400
PREFIX_CHARS = 4_000  # has as many words in most texts, and costs less than a whole book
HAN_PREFIX_CHARS = 800
_NOT_ASCII = re.compile("[\x80-\U0010ffff]+")
_HAN = re.compile(f"([{HAN}])")
_RUN = re.compile(f"([{HAN}]+)|([^\\W_{HAN}]+)")
_NOT_WORD = re.compile(r"[\W_]")
_MIXED_BYTES_PER_CHAR = 1.2  # Latin letters have few accents
_MARKS = tuple(mark.encode() for mark in "’‘“”—–…•\u00a0")
# of bytes in UTF-8: what is ASCII, but neither letter nor digit, parts words
_PARTING = bytes(b if chr(b).isalnum() or b > 0x7F else 0x20 for b in range(256))


def topic_text(text: str) -> str:
    """One line of space-separated lower-cased words and single Han characters, the first 400 of the document."""
    prefix = text[:PREFIX_CHARS]
    encoded = prefix.lower().encode()
    if len(encoded) > _MIXED_BYTES_PER_CHAR * len(prefix):
        prefix = text[:HAN_PREFIX_CHARS]
        found = _words_of_han(prefix.lower())
        line, complete = " ".join(found[:MAX_TOKENS]), len(found) > MAX_TOKENS
    else:
        parts = _spaced_bytes(encoded).translate(_PARTING).split(None, MAX_TOKENS)
        line, complete = b" ".join(parts[:MAX_TOKENS]).decode(), len(parts) > MAX_TOKENS
    # the last word of a prefix may be cut
    return line if complete or len(prefix) == len(text) else " ".join(words(text)[:MAX_TOKENS])


def _spaced_bytes(encoded: bytes) -> bytes:
    """UTF-8 with spaces for characters beyond ASCII that are in no word, and around Han characters."""
    for mark in _MARKS if not encoded.isascii() else ():
        encoded = encoded.replace(mark, b" ")
    return encoded if encoded.isascii() else _spaced(encoded.decode()).encode()


def _spaced(text: str) -> str:
    """The text with spaces around Han characters and for other characters beyond ASCII that are in no word."""
    return _NOT_ASCII.sub(lambda run: _spaced_run(run.group()), text)


@functools.lru_cache(maxsize=1 << 12)  # quotation marks, dashes, accents: few runs make up most texts
def _spaced_run(run: str) -> str:
    return _HAN.sub(r" \1 ", _NOT_WORD.sub(" ", run))


def _words_of_han(text: str) -> list[str]:
    """The words of a text in lower case; fast where most are Han characters, which come in runs."""
    found: list[str] = []
    for han, word in _RUN.findall(text):
        if han:
            found.extend(han)
        else:
            found.append(word)
    return found
