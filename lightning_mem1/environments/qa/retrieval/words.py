"""The words of a text, as BM25 counts them: of any length, in any script.

```
Vitamin C, Town 6      vitamin c town 6
C++ and F#             c c++ f f#                      the name and what it is without its sign
women's, O'Brien       women o brien                   the letter behind an apostrophe is no word
a river; Vitamin A     river vitamin a                 "a" is an article only where something follows it
東京タワー              東京 京タ タワ ワー               scripts without spaces in pairs, in passages also singly
```
Common words are left out, unless a text holds nothing else: "It" is a title, and a query for it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

STOP_WORDS = frozenset(  # with "a", see above
    ("an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of", "on")
    + ("or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with")
)
# Thai, Lao, Myanmar, Hangul, Khmer, kana, Han: written without spaces, or with endings that hide a word
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u1000-\u109f\u1100-\u11ff\u1780-\u17d3\u3005-\u3007\u3031-\u3035"
    "\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
MARKS_BELOW = 0x20000
_UNSPACED = re.compile(f"[{UNSPACED}]")
_JOINERS = re.compile("[\u00ad\u200c\u200d]")  # soft hyphens too: invisible
# behind a word: a letter behind an apostrophe, what shows that "a" is an article, or the sign of C++, C# and A+
_BEHIND = r"(?:['’][^\W\d_](?!\w)|(?<=\ba)[ \t]+(?=\S)|\+\+(?!\+)|[+#](?![\w+#]))?"
_PLAIN = re.compile(rf"\w+{_BEHIND}", re.ASCII)


def words(text: str, single: bool = False) -> list[str]:
    """The words of a text in their order, in small letters.

    Args:
        text: A title, a passage or a query.
        single: Whether characters of scripts without spaces count singly too, as in what can be found, so that a query
            of one character finds it.
    """
    if text.isascii():
        pieces = _PLAIN.findall(text.lower())
    else:
        pieces = _any_script().findall(_JOINERS.sub("", unicodedata.normalize("NFKC", text)).lower())
    found: list[str] = []
    for piece in pieces:
        if piece.isascii() and piece.isalnum():  # almost all
            found.append(piece)
        else:
            found.extend(_parts(piece, single))
    return [word for word in found if word not in STOP_WORDS] or found


def _parts(token: str, single: bool) -> Iterator[str]:
    """The words in a piece of text; none in an article or a line of underscores."""
    if _UNSPACED.match(token):
        if single and len(token) > 1:
            yield from token
        yield from map("".join, zip(token, token[1:], strict=False)) if len(token) > 1 else token
    elif token[-2:-1] in ("'", "’"):
        yield token[:-2]
    elif token[-1] in "+#":
        yield token.rstrip("+#")
        yield token
    elif not token[-1].isspace() and token.strip("_"):
        yield token


@cache
def _any_script() -> re.Pattern[str]:
    letter = rf"[^\W{UNSPACED}]"
    return re.compile(rf"[{UNSPACED}]+|{letter}(?:{letter}|[{_marks()}])*{_BEHIND}")


def _marks() -> str:
    """Vowel signs and accents, which are parts of words though they are no letters."""
    ranges: list[list[int]] = []
    for code in range(0x300, MARKS_BELOW):
        if unicodedata.category(chr(code)) in ("Mn", "Mc"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
