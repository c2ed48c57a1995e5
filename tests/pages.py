"""The pages of the documentation, taken apart: blocks of code, commands, headings, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAVED = re.compile(r"[Ss]ave this as `([\w.]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that the sentence before it says it is."""

    language: str
    text: str
    file: str | None


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a language, from top to bottom."""
    text, found = page.read_text(), []
    for match in BLOCK.finditer(text):
        before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        named = SAVED.findall(before)
        if match[1] == language:
            found.append(Block(language, match[2], named[-1] if named else None))
    return found


def commands(page: Path) -> list[list[str]]:
    """The words of each command in the shell blocks; lines that end in a backslash are joined."""
    text = "\n".join(block.text for block in blocks(page, "sh")).replace("\\\n", " ")
    lines = (shlex.split(line, comments=True) for line in text.splitlines())
    return [words for words in lines if words]
