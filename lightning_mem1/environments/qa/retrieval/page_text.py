"""The text of a web page, whatever the page is: read in one pass, in bounded time."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from encodings.aliases import aliases
from importlib.util import find_spec


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# encodings of text, read in one pass; others (punycode, idna, utf-7, ...) are slow on purpose or may hide markup
CHARSETS = _words(
    """ascii utf_8 utf_16 utf_16_le utf_16_be latin_1 big5 big5hkscs cp866 euc_jp euc_kr gb18030 gb2312 gbk iso2022_jp
    koi8_r koi8_u mac_roman mac_cyrillic shift_jis cp874 cp949 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257
    cp1258 iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_11
    iso8859_13 iso8859_14 iso8859_15 iso8859_16"""
)
SKIPPED = _words("script style noscript template nav header footer aside form head")
BLOCKS = _words("p div br li tr h1 h2 h3 h4 h5 h6 section article blockquote title table ul ol")
PIECE_CHARS = 1 << 16  # read at once
MAX_DEPTH = 512  # of nested elements, as in browsers; what lies deeper is not read
MAIN_PART = """import sys, trafilatura
page = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write((trafilatura.extract(page, include_comments=False) or "").encode("utf-8", "replace"))"""


def charset(parameters: str) -> str:
    """The encoding that the parameters of a content type name, if it is a harmless one, else UTF-8.

    >>> charset("charset=Latin-1"), charset(' charset="punycode"')
    ('latin_1', 'utf_8')
    """
    given = (part.partition("=") for part in parameters[:1000].split(";"))
    named = [value.strip(" \t\"'") for name, _, value in given if name.strip().lower() == "charset"]
    name = named[0].lower().replace("-", "_").replace(" ", "_") if named else "utf_8"
    found = aliases.get(name, name)
    return found if found in CHARSETS else "utf_8"


def readable(page: str, until: float = math.inf) -> str:
    """The text of an HTML page; with trafilatura (extra ``web``) only its main part.

    trafilatura runs in a process of its own: some pages would keep it busy for minutes.

    Args:
        page: Its markup.
        until: When it has to end, in seconds of `time.monotonic`; without its main part by then, all text is returned.
    """
    left_s = until - time.monotonic()
    if find_spec("trafilatura") is None or left_s <= 0:
        return plain_text(page)
    command, sent = [sys.executable, "-c", MAIN_PART], page.encode("utf-8", "replace")
    limit_s = None if until == math.inf else left_s
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired):
        return plain_text(page)
    return done.stdout.decode(errors="replace").strip() or plain_text(page)


def plain_text(page: str) -> str:
    """Words of a page without markup, scripts, styles and menus.

    Read in one pass by libxml2 without making a tree, whatever the page is.

    >>> plain_text("<p>Red <b>shoes</b></p><script>x()</script>")
    'Red shoes'
    """
    from lxml import etree

    reader = _Reader()
    try:
        parser = etree.HTMLParser(target=reader, no_network=True)
        text = page.encode("utf-8", "replace").decode("utf-8")
        for start in range(0, len(text), PIECE_CHARS):  # it cannot be stopped inside a piece
            parser.feed(text[start : start + PIECE_CHARS])
        parser.close()
    except (etree.LxmlError, _TooDeep):
        pass  # what was read before is what there is to read
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _TooDeep(Exception):
    """Elements are nested too deeply to be read."""


class _Reader:
    """What libxml2 calls for each part of a page."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.depth = 0
        self.skipping: int | None = None  # depth of the element that is not read

    def start(self, tag: str, attributes: object) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeep
        if self.skipping is None and tag in SKIPPED:
            self.skipping = self.depth
        elif self.skipping is None and tag in BLOCKS:
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        if self.skipping == self.depth:
            self.skipping = None
        elif self.skipping is None and tag in BLOCKS:
            self.parts.append("\n")
        self.depth -= 1

    def data(self, data: str) -> None:
        if self.skipping is None:
            self.parts.append(data)

    def close(self) -> None:
        """Nothing is made."""
