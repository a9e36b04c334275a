"""Unicode and line ends of a document's text, made one of their many forms."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# C0 but tab and line feed, DEL, noncharacters, and the byte order mark inside a text: nothing is lost with them
_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufeff\ufdd0-\ufdef\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# half a character, or what is left of a wrong decoding: kept visible, so that the filter can measure it
_DAMAGE = re.compile("[\x80-\x9f\ud800-\udfff]")
_LONG_COMBINING = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u06d6-\u06dc\u0730-\u074a\u08d3-\u08ff"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u302a-\u302f\u3099\u309a\ua8e0-\ua8f1\ufe20-\ufe2f]{30})"
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u06d6-\u06dc\u0730-\u074a\u08d3-\u08ff"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u302a-\u302f\u3099\u309a\ua8e0-\ua8f1\ufe20-\ufe2f]+"
)
# blanks stay but at the end of a line or text; all others stay wherever they stand and whatever stands beside them
BLANKS = ((0x09, 0x09), (0x20, 0x20), (0xA0, 0xA0), (0x3000, 0x3000))
PLAIN = (
    (0x21, 0x7E), (0xA1, 0x2FF), (0x370, 0x373), (0x375, 0x37D), (0x388, 0x482), (0x48A, 0x52F), (0x1E00, 0x1EFF),
    (0x200B, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x2125), (0x212C, 0x2328), (0x232B, 0x2ADB),
    (0x3001, 0x3029), (0x3030, 0x3098), (0x309B, 0xA66E), (0xAC00, 0xD7A3), (0xFF01, 0xFFEE), (0x1F300, 0x1FAFF),
)  # fmt: skip


def _class(*ranges: tuple[int, int]) -> str:
    """The inside of a character class of RE2."""
    return "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges)


_NOT_NORMAL = (
    f"[^\\n{_class(*BLANKS, *PLAIN)}]|[{_class(*BLANKS)}]\\n|\\A[\\n{_class(*BLANKS)}]|[\\n{_class(*BLANKS)}]\\z|\\A\\z"
)


def not_normal(texts: pa.Array) -> list[int]:
    """Indices of the texts of a column of strings that normalise() may change, and of empty ones, ascending.

    A quick check: all that it does not name is normal, of those that it names some are, too.
    """
    found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(_NOT_NORMAL))
    indices: pa.UInt64Array = pc.call_function("indices_nonzero", [found])
    return np.frombuffer(indices.buffers()[1], dtype=np.uint64)[: len(indices)].tolist()


def normalise(text: str) -> str:
    """NFC text whose lines end with a line feed and that any UTF-8 file can hold.

    Control characters go, halves of surrogate pairs and C1 controls become U+FFFD. Of more than 30 combining marks in a
    row the first 30 stay (stream-safe text, UAX #15): sorting them is quadratic. Lines lose trailing blanks, the text
    its blank ends.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    text = _LINE_ENDS.sub("\n", text)
    text = _REMOVED.sub("", text)
    if not text.isascii():
        text = _DAMAGE.sub("\ufffd", text)
        text = unicodedata.normalize("NFC", _LONG_COMBINING.sub(r"\1", text))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()
