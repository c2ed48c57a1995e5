"""Text to search terms as Lucene's English analyzer makes them.

Words are cut by Unicode's word boundary rules (UAX #29) with emoji as words of their own; then the possessive 's
goes, letters become lower case, 33 stop words are dropped and the rest is stemmed. ``_`` joins words, ``-`` parts
them, ``'`` ``.`` and ``:`` join inside a word, ``,`` inside a number.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from lightning_mem1.environments.webshop.search.stemmer import stem

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
MAX_REMEMBERED_CHARS = 64
MAX_TOKEN_UNITS = 255  # a longer word is cut, counted in UTF-16 units

# One letter stands for each character of a text, and words are found by a pattern over those letters:
#   a letter  h Hebrew letter  n digit  k katakana  e connector like _   x accents and format  z zero-width joiner
#   m joins letters  d joins digits  b joins both  q '  Q "   f emoji selector  t text selector
#   p pictograph  M skin tone  R regional indicator  c # or *  C keycap   H han  i hiragana  s Thai and the like
_X, _Y = "[xzftC]*", "[xzC]*"
_LETTERS = f"[ah]{_X}(?:(?:(?:e{_X})*|[mbq]{_X})[ah]{_X})*"
_DIGITS = f"n{_X}(?:(?:(?:e{_X})*|[dbq]{_X})n{_X})*"
_PART = f"(?:k{_X}(?:(?:e{_X})*k{_X})*|(?:h{_X}(?:Q{_X}h{_X}|q{_X}(?![ah]))|{_LETTERS}|{_DIGITS})+)"
_WORD = f"(?:e{_X})*{_PART}(?:(?:e{_X})+{_PART})*(?:e{_X})*"
_PICTURE = f"(?:z*p{_Y}(?:M{_Y}|f)?|M{_Y})"
_TOKEN = re.compile(f"{_WORD}|{_PICTURE}(?:(?:(?<=z)|z){_PICTURE})*|[nc]{_Y}f?C{_Y}|R{_X}R{_X}|(?:s{_X})+|[Hi]{_X}")
_POSSESSIVE = ("'s", "’s", "＇s", "'S", "’S", "＇S")

_SPECIAL = {
    **dict.fromkeys(":··՟״‧︓﹕：", "m"),
    **dict.fromkeys(",;;։،؍٬߸⁄︐︔﹐﹔，；", "d"),
    **dict.fromkeys(".‘’․﹒＇．", "b"),
    **dict.fromkeys("゛゜゠ーｰ〱〲〳〴〵", "k"),
    "'": "q", '"': "Q", "#": "c", "*": "c", "\u200b": ".", "\u200c": "x", "\u200d": "z", "\ufe0f": "f",
    "\ufe0e": "t", "\u20e3": "C", "\u202f": "e", "゙": "x", "゚": "x", "ﾞ": "x", "ﾟ": "x",
}  # fmt: skip
# Unicode's Extended_Pictographic but for the four that are letters
_PICTOGRAPH_SPANS = (
    "A9-A9 AE-AE 203C-203C 2049-2049 2122-2122 2194-2199 21A9-21AA 231A-231B 2328-2328 2388-2388 23CF-23CF "
    "23E9-23F3 23F8-23FA 25AA-25AB 25B6-25B6 25C0-25C0 25FB-25FE 2600-2605 2607-2612 2614-2685 2690-2705 "
    "2708-2712 2714-2714 2716-2716 271D-271D 2721-2721 2728-2728 2733-2734 2744-2744 2747-2747 274C-274C "
    "274E-274E 2753-2755 2757-2757 2763-2767 2795-2797 27A1-27A1 27B0-27B0 27BF-27BF 2934-2935 2B05-2B07 "
    "2B1B-2B1C 2B50-2B50 2B55-2B55 3030-3030 303D-303D 3297-3297 3299-3299 1F000-1F0FF 1F10D-1F10F 1F12F-1F12F "
    "1F16C-1F16F 1F18E-1F18E 1F191-1F19A 1F1AD-1F1E5 1F201-1F20F 1F21A-1F21A 1F22F-1F22F 1F232-1F23A "
    "1F23C-1F23F 1F249-1F3FA 1F400-1F53D 1F546-1F64F 1F680-1F6FF 1F774-1F77F 1F7D5-1F7FF 1F80C-1F80F "
    "1F848-1F84F 1F85A-1F85F 1F888-1F88F 1F8AE-1F8FF 1F90C-1F93A 1F93C-1F945 1F947-1FAFF 1FC00-1FFFD"
)
_PICTOGRAPHS = [tuple(int(end, 16) for end in span.split("-")) for span in _PICTOGRAPH_SPANS.split()]
_SOUTH_EAST_ASIAN = ("THAI ", "LAO ", "MYANMAR ", "KHMER ", "NEW TAI LUE ", "TAI LE ", "TAI THAM ", "TAI VIET ")


class _Classes(dict[int, str]):
    """Code point -> class letter, worked out at first sight."""

    def __missing__(self, code: int) -> str:
        self[code] = value = _char_class(chr(code))
        return value


def _char_class(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    code, category = ord(char), unicodedata.category(char)
    if any(first <= code <= last for first, last in _PICTOGRAPHS):
        return "p"
    if 0x1F3FB <= code <= 0x1F3FF:
        return "M"
    if 0x1F1E6 <= code <= 0x1F1FF:
        return "R"
    if category == "Nd":
        return "n"
    if category == "Pc":
        return "e"
    name = unicodedata.name(char, "")
    if name.startswith(_SOUTH_EAST_ASIAN) and category[0] in "LM":
        return "s"
    if category[0] == "M" or category == "Cf":
        return "x"
    return _letter_class(code, category, name)


def _letter_class(code: int, category: str, name: str) -> str:
    if name.startswith(("CJK ", "IDEOGRAPHIC ", "HANGZHOU ")) and category in ("Lo", "Nl", "Lm", "So"):
        return "H" if not name.startswith("CJK STROKE") else "."
    if name.startswith("HIRAGANA"):
        return "i"
    if name.startswith(("KATAKANA", "HALFWIDTH KATAKANA", "CIRCLED KATAKANA")):
        return "k"
    if name.startswith("HEBREW LETTER"):
        return "h"
    circled_latin = 0x24B6 <= code <= 0x24E9 or 0x1F130 <= code <= 0x1F189
    return "a" if category[0] == "L" or category == "Nl" or circled_latin else "."


_CLASSES = _Classes()


def words(text: str) -> list[str]:
    """Cut a text into words.

    >>> words("Women's 6.6ft t-shirt, 1,000 pcs hair_care ★")
    ["Women's", '6.6ft', 't', 'shirt', '1,000', 'pcs', 'hair_care', '★']
    """
    classes = text.translate(_CLASSES)
    spans = [match.span() for match in _TOKEN.finditer(classes)]
    if all(2 * (end - start) <= MAX_TOKEN_UNITS for start, end in spans):  # twice: a character has one or two units
        return [text[start:end] for start, end in spans]
    return _bounded_words(text, classes)


def _bounded_words(text: str, classes: str) -> list[str]:
    """Cut a text that holds a very long word: the longest match within the limit, again and again."""
    found, start = [], 0
    while match := _TOKEN.search(classes, start):
        start, end, units = match.start(), match.start(), 0
        while end < match.end() and units + (size := 1 + (ord(text[end]) > 0xFFFF)) <= MAX_TOKEN_UNITS:
            end, units = end + 1, units + size
        cut = _TOKEN.match(classes, start, end)
        end = cut.end() if cut else end
        found.append(text[start:end])
        start = end
    return found


def analyze(text: str) -> list[str]:
    """Return the search terms of a text, in order.

    >>> analyze("The women's running shoes, not for the men")
    ['women', 'run', 'shoe', 'men']
    """
    terms: list[str] = []
    for piece in text.split(" "):  # no word holds a space
        terms += _terms(piece) if len(piece) <= MAX_REMEMBERED_CHARS else _terms.__wrapped__(piece)
    return terms


@lru_cache(maxsize=1 << 17)
def _terms(piece: str) -> tuple[str, ...]:
    return tuple(term for word in words(piece) if (term := _term(word)))


@lru_cache(maxsize=1 << 17)
def _term(word: str) -> str:
    """Return the term of a word, empty for a stop word."""
    if word.endswith(_POSSESSIVE):
        word = word[:-2]
    if word.isascii():
        word = word.lower()
    else:  # letter by letter: str.lower() looks at a sigma's place in the word and may make two letters of one
        word = "".join(char.lower() if len(char.lower()) == 1 else char for char in word)
    return "" if word in STOP_WORDS else stem(word)
