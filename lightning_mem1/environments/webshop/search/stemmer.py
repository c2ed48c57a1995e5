"""The Porter stemmer as Lucene runs it: the 1980 algorithm with its author's two later rules (-bli, -logi).

Any character that is not a, e, i, o, u or y counts as a consonant, digits and other scripts included.
"""

from __future__ import annotations

_VOWELS = frozenset("aeiou")

_STEP_2 = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("bli", "ble"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"),
    ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"),
    ("iviti", "ive"), ("biliti", "ble"), ("logi", "log"),
)  # fmt: skip
_STEP_3 = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""),
)  # fmt: skip
_ENDINGS_2, _ENDINGS_3 = (tuple(ending for ending, _ in rules) for rules in (_STEP_2, _STEP_3))
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate",
    "iti", "ous", "ive", "ize",
)  # fmt: skip


def stem(word: str) -> str:
    """Return the stem of a lower-case word; words of one or two characters stay as they are.

    >>> [stem(word) for word in ("ponies", "relational", "possibly", "apologies", "women")]
    ['poni', 'relat', 'possibl', 'apolog', 'women']
    """
    if len(word) < 3:
        return word
    word = _step_1(word)
    word = _replace(word, _STEP_2, _ENDINGS_2)
    word = _replace(word, _STEP_3, _ENDINGS_3)
    word = _step_4(word)
    return _step_5(word)


def _step_1(word: str) -> str:
    if word.endswith("sses") or word.endswith("ies"):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) > 0 else word
    else:
        for ending in ("ed", "ing"):
            if word.endswith(ending):
                word = _mended(word[: -len(ending)]) if _has_vowel(word[: -len(ending)]) else word
                break
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    return word


def _mended(root: str) -> str:
    """Repair a root that lost -ed or -ing: ``hopp`` -> ``hop``, ``conflat`` -> ``conflate``, ``fil`` -> ``file``."""
    if root.endswith(("at", "bl", "iz")):
        return root + "e"
    if _double_consonant(root):
        return root if root[-1] in "lsz" else root[:-1]
    return root + "e" if _measure(root) == 1 and _short(root) else root


def _replace(word: str, rules: tuple[tuple[str, str], ...], endings: tuple[str, ...]) -> str:
    if not word.endswith(endings):
        return word
    for ending, new in rules:
        if word.endswith(ending):
            root = word[: -len(ending)]
            return root + new if _measure(root) > 0 else word
    return word


def _step_4(word: str) -> str:
    if not word.endswith(_STEP_4):
        return word
    for ending in _STEP_4:
        if word.endswith(ending):
            root = word[: -len(ending)]
            if ending == "ion" and not root.endswith(("s", "t")):
                continue
            return root if _measure(root) > 1 else word
    return word


def _step_5(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _consonants(word: str) -> list[bool]:
    """Return for each letter whether it is a consonant; y is one at the start and after a vowel."""
    flags: list[bool] = []
    for letter in word:
        flags.append((not flags or not flags[-1]) if letter == "y" else letter not in _VOWELS)
    return flags


def _measure(word: str) -> int:
    """Count the vowel-consonant sequences: the m of [C](VC){m}[V]."""
    flags = _consonants(word)
    return sum(not before and after for before, after in zip(flags, flags[1:], strict=False))


def _has_vowel(word: str) -> bool:
    return not all(_consonants(word))


def _double_consonant(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonants(word)[-1]


def _short(word: str) -> bool:
    """Return whether the word ends consonant, vowel, consonant, the last not w, x or y."""
    return len(word) > 2 and _consonants(word)[-3:] == [True, False, True] and word[-1] not in "wxy"
