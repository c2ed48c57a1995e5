"""What a retriever finds, and the protocol of everything that finds something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Passage:
    """A piece of text with its title.

    Attributes:
        title: Its heading, may be empty.
        text: Its words, without the title.
        url: Where it stands on the web; empty for a corpus.
        score: How well it fits the query, in the retriever's own unit.
    """

    title: str
    text: str
    url: str = ""
    score: float = 0.0

    @property
    def contents(self) -> str:
        """Title and text as the wiki-18 corpus writes them: ``"Title"\\ntext``."""
        return f'"{self.title}"\n{self.text}'


def from_contents(contents: str, score: float = 0.0) -> Passage:
    """Take ``"Title"\\ntext`` apart; without a line break everything is text."""
    title, line_break, text = contents.partition("\n")
    return Passage(title.strip().strip('"'), text.strip(), score=score) if line_break else Passage("", title.strip())


Style = Literal["compact", "release"]
STYLES = ("compact", "release")


def write_passages(passages: Sequence[Passage], style: Style = "compact") -> str:
    """Passages as an agent reads them, one a line.

    ```
    compact    1 Torham: A town in Norland.
    release    Doc 1(Title: "Torham") A town in Norland.      (as the public MEM1 code does, quotes included)
    ```
    """
    if not passages:
        return "No passage found."
    line = "{k} {title}: {text}" if style == "compact" else 'Doc {k}(Title: "{title}") {text}'
    return "\n".join(line.format(k=k, title=p.title, text=p.text) for k, p in enumerate(passages, 1))


class Retriever(Protocol):
    """Finds passages."""

    def search(self, queries: Sequence[str], top_k: int = 3) -> list[list[Passage]]:
        """Return the best passages of each query, best first; fewer than `top_k` when there are no more.

        Raises:
            RetrievalError: nothing could be found out; never an invented or an empty answer instead.
        """
        ...


class RetrievalError(RuntimeError):
    """A retriever did not answer, or not to the point."""
