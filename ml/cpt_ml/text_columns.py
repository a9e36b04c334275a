"""Many documents at once as flat arrays of characters, lines and tokens, so that a rule is a few passes of numpy.

Segments (lines, paragraphs, words, tokens) are told apart by 64-bit hashes of their characters: differences of the
prefix sums of c·B^position mod 2^64, moved to one origin by the inverse powers (B is odd), then mixed. A text made to
collide can only make itself look repetitive.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cpt_ml.characters import (
    ALNUM,
    DIGIT,
    HAN,
    JOINER,
    LEADER,
    LETTER,
    PUNCTUATION,
    RUN,
    SPACE,
    classes,
    lower_case,
)
from cpt_ml.words import Hashes, mix

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Chars = npt.NDArray[np.uint32]

NEWLINE, ZERO, COMMA = ord("\n"), ord("0"), ord(",")
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_OF_DOCUMENT = np.uint64(0xD1342543DE82EF95)
_OF_TOKEN = 0xA0761D6478BD642F


@dataclass(frozen=True)
class Segments:
    """Pieces of documents, in order: characters `start` to `end` (flat positions), each of the document `doc`."""

    start: Ints
    end: Ints
    doc: Ints

    def __len__(self) -> int:
        return len(self.start)

    @property
    def length(self) -> Ints:
        return self.end - self.start

    def of(self, chosen: Bools) -> Segments:
        if chosen.all():
            return self
        return Segments(self.start[chosen], self.end[chosen], self.doc[chosen])


class TextColumns:
    """The texts as columns. A line feed follows each document; it belongs to none."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.num_docs = len(texts)
        self.num_chars: Ints = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        joined = "\n".join(texts) + "\n"
        self.chars: Chars = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        self.ends: Ints = np.cumsum(self.num_chars + 1) - 1
        self.starts: Ints = self.ends - self.num_chars
        number, self._bits_of_class = classes()
        self._class = number[self.chars]
        self._has: dict[int, Bools] = {}
        self._exact: Prefix | None = None
        self._lowered: Prefix | None = None
        self._shapes: Shapes | None = None
        self._words: Segments | None = None
        self._tokens: Segments | None = None

    @functools.cached_property
    def bits(self) -> npt.NDArray[np.uint16]:
        """What each character is: bits of characters.py."""
        return self._bits_of_class[self._class]

    def has(self, bit: int) -> Bools:
        """Whether each character has one of the bits: to be read, not written to."""
        if bit in self._has:
            return self._has[bit]
        found = (self._bits_of_class & bit != 0)[self._class]
        if len(found) <= MOST_REMEMBERED:
            self._has[bit] = found
        return found

    @functools.cached_property
    def _histogram(self) -> Ints:
        size = len(self._bits_of_class)
        key = np.repeat(np.arange(self.num_docs, dtype=np.int32) * size, self.num_chars + 1)
        key += self._class
        counts = np.bincount(key, minlength=self.num_docs * size).reshape(self.num_docs, size)
        counts[:, self._class[-1]] -= 1  # the line feed that follows
        return counts

    def count(self, bit: int) -> Ints:
        """Characters of each document that have one of the bits."""
        return self._histogram @ (self._bits_of_class & bit != 0)

    def count_at(self, positions: Ints) -> Ints:
        """How many of the sorted flat positions lie in each document."""
        return np.searchsorted(positions, self.ends) - np.searchsorted(positions, self.starts)

    def _doc_of(self, positions: Ints) -> Ints:
        """The document of each of the sorted flat positions."""
        return np.repeat(np.arange(self.num_docs), np.diff(np.searchsorted(positions, self.ends, "right"), prepend=0))

    def sum_by_doc(self, segments: Segments, values: npt.NDArray[np.generic] | None = None) -> Floats:
        """The values of the segments added up by document; without values, their number."""
        return np.bincount(segments.doc, weights=values, minlength=self.num_docs).astype(np.float64)

    # --- lines and paragraphs ---

    @functools.cached_property
    def line_feeds(self) -> Ints:
        return np.flatnonzero(self.chars == NEWLINE)

    @functools.cached_property
    def raw_lines(self) -> Segments:
        """Lines as they stand, empty ones too."""
        end = self.line_feeds
        return Segments(np.concatenate([[0], end[:-1] + 1]), end, self._doc_of(end))

    @functools.cached_property
    def visible(self) -> Ints:
        return np.flatnonzero(~self.has(SPACE))

    @functools.cached_property
    def lines(self) -> Segments:
        """Lines without white space at either end; empty ones are left out."""
        return self._stripped(self.raw_lines)

    def _stripped(self, raw: Segments) -> Segments:
        visible = self.visible
        first = np.searchsorted(visible, raw.start)
        last = np.searchsorted(visible, raw.end)
        some = first < last
        first, last = first[some], last[some]
        last -= 1
        start, end = visible[first], visible[last]
        end += 1
        return Segments(start, end, raw.doc if some.all() else raw.doc[some])

    @functools.cached_property
    def paragraphs(self) -> Segments:
        """What two or more line feeds separate, of the text without white space at either end."""
        whole = self._stripped(Segments(self.starts, self.ends, np.arange(self.num_docs)))
        feed = self.chars == NEWLINE
        double = feed[:-1] & feed[1:]
        gap = np.zeros(len(feed), dtype=np.bool_)
        gap[:-1] |= double
        gap[1:] |= double
        inside = np.zeros(len(feed) + 1, dtype=np.int8)
        inside[whole.start] = 1
        inside[whole.end] -= 1
        body = np.cumsum(inside[:-1], dtype=np.int8).view(np.bool_) & ~gap
        edges = np.flatnonzero(np.diff(body, prepend=False, append=False))
        return Segments(edges[::2], edges[1::2], self._doc_of(edges[::2]))

    # --- words and tokens ---

    # 24 bytes each: the tokens are made when the rules are through with the words

    @property
    def words(self) -> Segments:
        """words-v1: runs of letters and digits, and single Han characters."""
        if self._words is None:
            self._tokens = None
            self._words = self._made_words()
        return self._words

    @property
    def tokens(self) -> Segments:
        """Words as English tokenizers have them, and punctuation.

        As spaCy's English: a word may hold one mark of JOINER between letters or digits, or a comma between digits, and
        begin with one of LEADER; a Han character is a word; other characters are tokens of their own, but full stops or
        hyphens in a row are one.
        """
        if self._tokens is None:
            self._words = None
            self._tokens = self._made_tokens()
        return self._tokens

    def _made_words(self) -> Segments:
        han, alnum = self.has(HAN), self.has(ALNUM)
        return self._pieces(alnum | han, alnum & ~han)

    def _made_tokens(self) -> Segments:
        han, alnum = self.has(HAN), self.has(ALNUM)
        alnum = alnum & ~han
        inner = self.has(JOINER).copy()
        inner[[0, -1]] = False
        inner[1:-1] &= alnum[:-2] & alnum[2:]
        commas = np.flatnonzero(self.chars[1:-1] == COMMA) + 1
        digit = self.has(DIGIT)
        inner[commas] = digit[commas - 1] & digit[commas + 1]
        leader = self.has(LEADER).copy()
        leader[-1] = False
        leader[:-1] &= alnum[1:]
        body = alnum | inner | leader
        runs = self.has(RUN) & ~inner
        runs[1:] &= self.chars[1:] == self.chars[:-1]
        runs[0] = False
        return self._pieces(~self.has(SPACE), body, runs)

    def _pieces(self, member: Bools, body: Bools, more: Bools | None = None) -> Segments:
        """Members one by one, but a run of `body` is one piece, and `more` continues what stands before it."""
        goes_on = np.zeros(len(body) + 1, dtype=np.bool_)
        goes_on[1:-1] = body[1:] & body[:-1]
        if more is not None:
            goes_on[:-1] |= more
        start = np.flatnonzero(member & ~goes_on[:-1])
        end = np.flatnonzero(member & ~goes_on[1:]) + 1
        return Segments(start, end, self._doc_of(start))

    @functools.cached_property
    def is_word(self) -> Bools:
        """Whether each token is a word: it has a character that is no punctuation mark."""
        start = self.tokens.start
        # a leader stands before a letter or digit, all other marks alone or in a row of their own
        return ~self.has(PUNCTUATION)[start] | self.has(ALNUM)[np.minimum(start + 1, self.tokens.end - 1)]

    @functools.cached_property
    def has_letter(self) -> Bools:
        """Whether each token has a letter."""
        if not len(self.tokens):
            return np.zeros(0, dtype=np.bool_)
        edges = np.stack([self.tokens.start, self.tokens.end], axis=1).ravel()
        return np.logical_or.reduceat(self.has(LETTER), edges)[::2]

    # --- hashes ---

    # eight bytes and more a character each, so only the one last asked for is kept: rules ask in turn

    @property
    def exact(self) -> Prefix:
        """Hashes of segments as they are written."""
        if self._exact is None:
            self._lowered = self._shapes = None
            self._exact = Prefix(self.chars)
        return self._exact

    @property
    def lowered(self) -> Prefix:
        """Hashes of segments in lower case."""
        if self._lowered is None:
            self._exact = self._shapes = None
            self._lowered = Prefix(lower_case()[self.chars])
        return self._lowered

    @property
    def shapes(self) -> Shapes:
        """Hashes of segments in lower case with every number written as 0."""
        if self._shapes is None:
            self._exact = self._lowered = None
            self._shapes = self._made_shapes()
        return self._shapes

    def _made_shapes(self) -> Shapes:
        digit = self.has(DIGIT)
        again = digit.copy()
        again[1:] &= digit[:-1]
        again[0] = False
        return Shapes(np.where(digit, np.uint32(ZERO), lower_case()[self.chars]), ~again)


class Prefix:
    """Hashes of any segments of one sequence of characters."""

    def __init__(self, chars: Chars) -> None:
        self._sums = np.zeros(len(chars) + 1, dtype=np.uint64)
        for begin in range(0, len(chars), BLOCK):
            part = chars[begin : begin + BLOCK]
            _add_sums(self._sums, begin, part, _powers_from(begin, len(part)))

    def hash(self, segments: Segments) -> Hashes:
        """uint64 of each segment: equal for equal characters."""
        sums = self._sums[segments.end]
        sums -= self._sums[segments.start]
        return _mixed(_times_inverse(sums, segments.start))


class Shapes:
    """Hashes and lengths of any segments of a sequence of which some characters are left out."""

    def __init__(self, chars: Chars, kept: Bools) -> None:
        self._place = np.zeros(len(chars) + 1, dtype=np.int32)
        np.cumsum(kept, out=self._place[1:])
        self._sums = np.zeros(len(chars) + 1, dtype=np.uint64)
        for begin in range(0, len(chars), BLOCK):
            part = slice(begin, begin + BLOCK)
            places = self._place[:-1][part]
            first = int(places[0])
            powers = _powers_from(first, int(places[-1]) - first + 1)[places - first]
            _add_sums(self._sums, begin, chars[part], powers * kept[part])

    def hash(self, segments: Segments) -> Hashes:
        """uint64 of each segment: equal for equal characters that are not left out."""
        sums = self._sums[segments.end]
        sums -= self._sums[segments.start]
        return _mixed(_times_inverse(sums, self._place[segments.start]))

    def length(self, segments: Segments) -> Ints:
        """Characters of each segment that are not left out."""
        return (self._place[segments.end] - self._place[segments.start]).astype(np.int64)


def _add_sums(sums: Hashes, begin: int, chars: Chars, powers: Hashes) -> None:
    """The prefix sums of c·power from `begin` on; those up to there are made."""
    values = chars.astype(np.uint64)
    values += np.uint64(1)
    values *= powers
    after = sums[begin + 1 : begin + 1 + len(chars)]
    np.cumsum(values, out=after)
    after += sums[begin]


MOST_REMEMBERED = 1 << 22  # characters of a batch for which what was looked up is kept
BLOCK = 1 << 20  # characters a step: more than most batches have, and what tables of powers are kept for


@functools.cache
def _tables() -> tuple[Hashes, Hashes]:
    """BLOCK powers of the base and of its inverse."""
    return _geometric(_BASE, BLOCK), _geometric(_INVERSE, BLOCK)


def _powers_from(first: int, count: int) -> Hashes:
    """Powers of the base from `first` on, at most BLOCK of them."""
    return _tables()[0][:count] * np.uint64(pow(_BASE, first, 1 << 64))


def _times_inverse(sums: Hashes, powers: npt.NDArray[np.int32] | Ints) -> Hashes:
    """Each sum times that power of the base's inverse; `sums` are overwritten."""
    if len(powers) == 0:
        return sums
    of_blocks = _geometric(pow(_INVERSE, BLOCK, 1 << 64), int(powers.max()) // BLOCK + 1)
    for begin in range(0, len(powers), BLOCK):
        part = slice(begin, begin + BLOCK)
        block, rest = np.divmod(powers[part], BLOCK)
        sums[part] *= _tables()[1][rest]
        sums[part] *= of_blocks[block]
    return sums


def _geometric(ratio: int, size: int) -> Hashes:
    found = np.ones(size, dtype=np.uint64)
    done = 1
    while done < size:
        np.multiply(found[: size - done][:done], np.uint64(pow(ratio, done, 1 << 64)), out=found[done : 2 * done])
        done *= 2
    return found


def by_doc(hashes: Hashes, doc: Ints) -> Hashes:
    """Keys that are equal for equal hashes of one document alone."""
    keys = doc.astype(np.uint64)
    keys *= _OF_DOCUMENT
    keys += hashes
    return _mixed(keys)


def stood_before(keys: Hashes) -> Bools:
    """Whether an equal key stands earlier."""
    order = np.argsort(keys, kind="stable")
    found = np.zeros(len(keys), dtype=np.bool_)
    keys = keys[order]
    found[order[1:]] = keys[1:] == keys[:-1]
    return found


@dataclass(frozen=True)
class Repeats:
    """n-grams of tokens that stand at least twice in their document.

    `at` are their first tokens, in groups of equal ones; `bounds` is where each group starts in `at`; `first` is a
    group's first place.
    """

    n: int
    at: npt.NDArray[np.int32]
    bounds: Ints
    first: Ints

    @property
    def counts(self) -> Ints:
        return np.diff(self.bounds, append=len(self.at))

    @property
    def later(self) -> npt.NDArray[np.int32]:
        """Places, in order, where an n-gram stands that stood before."""
        return np.sort(self.at[self.at != np.repeat(self.first, self.counts)])


class Grams:
    """The repeated n-grams of words of `step` tokens each: a longer one stands where a shorter one does."""

    def __init__(self, hashes: Hashes, doc: Ints, num_docs: int, step: int = 1) -> None:
        self._hashes = hashes
        self._step = step
        last = np.searchsorted(doc, np.arange(num_docs), side="right")
        self._left = (last[doc] - np.arange(len(doc))).astype(np.int32)
        self._at = np.arange(len(doc), dtype=np.int32)
        self._sum = by_doc(np.zeros(len(doc), dtype=np.uint64), doc)
        self._n = 0
        self._extend()

    def _extend(self) -> None:
        long_enough = self._left[self._at] >= self._n + self._step
        self._keep(long_enough)
        for place in range(self._n, self._n + self._step):
            further = self._hashes[self._at + np.int32(place)]
            further *= _place_factor(place)
            self._sum += further
        self._n += self._step

    def _keep(self, chosen: Bools | Ints) -> None:
        self._at = self._at[chosen]
        self._sum = self._sum[chosen]

    def next(self) -> Repeats:
        """The repeated n-grams, one word longer than the last time (2 words the first time)."""
        self._extend()
        keys = _mixed(self._sum)
        likely = _likely_repeated(keys)
        self._keep(likely)
        keys = keys[likely]
        order = np.argsort(keys)
        keys = keys[order]
        new = np.ones(len(keys), dtype=np.bool_)
        new[1:] = keys[1:] != keys[:-1]
        bounds = np.flatnonzero(new)
        counts = np.diff(bounds, append=len(keys))
        repeated = np.repeat(counts > 1, counts)
        del keys
        self._keep(order[repeated])
        counts = counts[counts > 1]
        bounds = np.cumsum(counts) - counts
        first = np.minimum.reduceat(self._at, bounds).astype(np.int64) if len(bounds) else bounds
        return Repeats(self._n, self._at, bounds, first)


def _mixed(sums: Hashes) -> Hashes:
    """mix() of each, a block at a time: its steps are arrays of the same length."""
    mixed = np.empty_like(sums)
    for begin in range(0, len(sums), BLOCK):
        mixed[begin : begin + BLOCK] = mix(sums[begin : begin + BLOCK])
    return mixed


def _place_factor(place: int) -> np.uint64:
    return np.uint64(pow(_OF_TOKEN, place, 1 << 64))


MOST_BUCKET_BITS = 21  # 16 MiB of counts


def _likely_repeated(keys: Hashes) -> Bools:
    """All keys that stand twice, and few others: what is left need not be sorted."""
    if not len(keys):
        return np.zeros(0, dtype=np.bool_)
    size = (4 * len(keys)).bit_length()
    if size <= MOST_BUCKET_BITS:
        bucket = (keys >> np.uint64(64 - size)).view(np.int64)
        return np.bincount(bucket, minlength=1 << size)[bucket] > 1
    # the same buckets, a part of them at a time
    likely = np.zeros(len(keys), dtype=np.bool_)
    part_of = (keys >> np.uint64(64 - size + MOST_BUCKET_BITS)).astype(np.uint8)
    for part in range(1 << (size - MOST_BUCKET_BITS)):
        chosen = np.flatnonzero(part_of == part)
        bucket = ((keys[chosen] >> np.uint64(64 - size)) & np.uint64((1 << MOST_BUCKET_BITS) - 1)).view(np.int64)
        likely[chosen] = np.bincount(bucket, minlength=1 << MOST_BUCKET_BITS)[bucket] > 1
    return likely
