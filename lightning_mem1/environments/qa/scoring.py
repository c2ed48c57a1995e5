"""Exact match and token F1 of an answer, per objective, with aliases.

The task's score is the *sum* over its objectives, as in the MEM1 paper (arXiv 2506.15841); the mean is reported next to
it. Three variants: ``fixed`` (default) follows SQuAD, ``official`` repeats the public evaluation code to the letter,
``numbered`` is ``fixed`` for agents that write the number of a question before its answer.

| | fixed | numbered | official |
| --- | --- | --- | --- |
| answers | ``odo lin; trier`` | ``1 odo lin 2 trier``, or as fixed | ``odo lin; trier`` |
| case | ignored | ignored | ignored |
| punctuation | dropped | dropped | becomes a space |
| a, an, the | dropped | dropped | kept |
| F1 counts | every token | every token | different tokens |
| wrong number of answers | the missing ones are wrong, the rest stand | the same | everything is wrong |

``numbered`` is meant for worlds where no answer is a small number.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_mem1.types import StepResult, Task

RewardKind = Literal["em", "f1", "em_mean", "f1_mean"]
Variant = Literal["fixed", "official", "numbered"]
# what an answer pays: a word, or a function of the answer and the task that returns a number, or a dict with `reward`
Reward = RewardKind | Callable[[str, Task], Any]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


@dataclass(frozen=True)
class Score:
    """Scores of one task, each tuple with one entry in [0, 1] per objective."""

    em: tuple[float, ...]
    f1: tuple[float, ...]

    @property
    def em_sum(self) -> float:
        """Number of objectives answered exactly: the paper's EM and its reward."""
        return sum(self.em)

    @property
    def f1_sum(self) -> float:
        """Sum of F1 over the objectives: the paper's F1."""
        return sum(self.f1)

    @property
    def em_mean(self) -> float:
        """Exact match per objective, in [0, 1]."""
        return self.em_sum / len(self.em)

    @property
    def f1_mean(self) -> float:
        """F1 per objective, in [0, 1]."""
        return self.f1_sum / len(self.f1)


def score(answer: str | None, targets: Sequence[Sequence[str]], variant: Variant = "fixed", first: int = 1) -> Score:
    """Score the answer to a task of one or more objectives.

    ```
    score("paris; the albert einstein", [["Paris", "City of Paris"], ["Albert Einstein"]])
    -> em (1.0, 1.0), f1 (1.0, 1.0);  official: em (1.0, 0.0), f1 (1.0, 0.8)
    ```

    Args:
        answer: ``answer1; answer2; ...`` in the order of the objectives; None when the agent gave none.
        targets: The accepted answers of each objective.
        variant: ``"fixed"``, ``"official"`` or ``"numbered"``.
        first: Number of the first objective, of use in ``numbered``.

    Returns:
        Exact match and F1 of each objective, the best over its aliases.

    Raises:
        ValueError: There is no objective, an objective has no accepted answer, or `variant` is unknown.
    """
    _check(targets, variant)
    answers = split_answers(answer, len(targets), variant, first)
    if variant == "official" and len(answers) != len(targets):
        return Score((0.0,) * len(targets), (0.0,) * len(targets))
    answers += [""] * (len(targets) - len(answers))
    pairs = list(zip(answers, targets, strict=False))  # answers to questions that nobody asked are left out
    return Score(
        tuple(max(exact_match(given, alias, variant) for alias in aliases) for given, aliases in pairs),
        tuple(max(token_f1(given, alias, variant) for alias in aliases) for given, aliases in pairs),
    )


def final_answer(answer: str, task: Task, reward: Reward = "em", variant: Variant = "fixed") -> StepResult:
    """The end of an episode of questions: what an environment returns for its last action.

    Args:
        answer: ``answer1; answer2; ...``
        task: What was asked; ``data["first"]`` is the number of the first objective, 1 when it says nothing.
        reward: What the episode pays: ``em`` (number of right answers, as in the paper), ``f1``, or a mean of them; or
            a function that says so, ``reward(answer, task)``.
        variant: How answers are compared.

    Returns:
        A finished step; its `info` holds ``success`` (1.0 when all is right), ``em``, ``f1`` (sums), ``em_mean``,
        ``f1_mean`` (per objective), ``em_<n>`` and ``f1_<n>`` of each objective, and ``answer``; and what else the
        function returned.
    """
    targets = [objective.answers for objective in task.objectives]
    result = score(answer, targets, variant, task.data.get("first", 1))
    sums = {"em": result.em_sum, "f1": result.f1_sum, "em_mean": result.em_mean, "f1_mean": result.f1_mean}
    each = {f"em_{n}": em for n, em in enumerate(result.em, 1)} | {f"f1_{n}": f1 for n, f1 in enumerate(result.f1, 1)}
    success = float(result.em_mean == 1.0)
    info = {"success": success, **sums, **each, "answer": answer}
    if not callable(reward):
        return StepResult("", sums[reward], done=True, info=info)
    given = reward(answer, task)
    more = {key: value for key, value in given.items() if key != "reward"} if isinstance(given, Mapping) else {}
    paid = given.get("reward") if isinstance(given, Mapping) else given
    return StepResult("", paid, done=True, info={**info, **more})  # type: ignore[arg-type]


def split_answers(answer: str | None, num_objectives: int, variant: Variant = "fixed", first: int = 1) -> list[str]:
    """Cut ``answer1; answer2`` into its parts; a single objective's answer may hold semicolons, but in ``official``.

    In ``numbered`` the numbers go up from `first`; an answer whose number does not come is empty, and what stands under
    smaller numbers before it is left out.
    """
    if answer is None:
        return []
    if variant == "numbered" and (told := _numbered(answer, range(first, first + num_objectives))):
        return told
    whole = variant != "official" and num_objectives == 1
    return [answer] if whole else [part.strip() for part in answer.split(";")]


def _numbered(answer: str, numbers: range) -> list[str]:
    """The answers of ``1 odo lin 3. trier`` by their numbers, ``["odo lin", "", "trier"]``; nothing without numbers."""
    words: dict[int, list[str]] = {}
    last, given = numbers.start - 1, answer.split()
    if given and 0 <= _number(given[0]) < numbers.start:
        given = given[next((n for n, word in enumerate(given) if _number(word) in numbers), 0) :]
    for word in given:
        if (number := _number(word)) in numbers and number > last:
            words[last := number] = []
        elif not words:
            return []
        else:
            words[last].append(word)
    return [" ".join(words.get(number, [])).strip(" ;,") for number in numbers]


def _number(word: str) -> int:
    """``7``, ``7.``, ``7:`` and ``7)`` are 7, anything else is -1."""
    found = re.fullmatch(r"(\d{1,9})[.:)]?", word, re.ASCII)
    return int(found[1]) if found else -1


def exact_match(given: str, accepted: str, variant: Variant = "fixed") -> float:
    """1.0 when both are the same after normalisation and not empty, else 0.0."""
    tokens = normalise(given, variant)
    return float(bool(tokens) and tokens == normalise(accepted, variant))


def token_f1(given: str, accepted: str, variant: Variant = "fixed") -> float:
    """Harmonic mean of precision and recall over tokens, in [0, 1]."""
    left, right = Counter(normalise(given, variant)), Counter(normalise(accepted, variant))
    if variant == "official":  # sets: a repeated token counts once
        left, right = Counter(left.keys()), Counter(right.keys())
    shared = (left & right).total()
    return 2 * shared / (left.total() + right.total()) if shared else 0.0


def normalise(text: str, variant: Variant = "fixed") -> list[str]:
    """Tokens of a text as they are compared.

    Deviates from SQuAD in one point: a text that consists of articles or punctuation alone ("A", "+") is kept, so that
    such an answer can be right and an empty one cannot.
    """
    lowered = text.lower()
    if variant == "official":
        return lowered.translate(_SPACE_PUNCTUATION).split()
    bare = lowered.translate(_DROP_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split() or bare.split() or lowered.split()


def _check(targets: Sequence[Sequence[str]], variant: str) -> None:
    if variant not in get_args(Variant):
        raise ValueError(f"scoring variant must be one of {', '.join(get_args(Variant))}, got {variant!r}")
    if not targets:
        raise ValueError("a scored task must have at least one objective, got none")
    for number, aliases in enumerate(targets):
        if isinstance(aliases, str) or not aliases:
            raise ValueError(f"objective {number} must have a list of accepted answers, got {aliases!r}")
