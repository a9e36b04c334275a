"""Unicode and line ends of a document's text, made one of their many forms."""

from __future__ import annotations

import re
import unicodedata

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


def normalise(text: str) -> str:
    """NFC text whose lines end with a line feed and that any UTF-8 file can hold.

    Control characters go, halves of surrogate pairs and C1 controls become U+FFFD. Of more than 30 combining marks in a
    row the first 30 stay (stream-safe text, UAX #15): sorting them is quadratic. Lines lose trailing blanks, the text
    its blank ends.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _REMOVED.sub("", text)
    if not text.isascii():
        text = _DAMAGE.sub("\ufffd", text)
        text = unicodedata.normalize("NFC", _LONG_COMBINING.sub(r"\1", text))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()
