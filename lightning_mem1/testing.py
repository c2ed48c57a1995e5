"""Checks that anybody runs on an environment or a memory mode of their own, before they train with it.

Each raises AssertionError with one line: what was expected, what came, what to do. They call an environment as the
rollout does, and in some ways that it never does (twice, side by side, after the end), because training repeats tasks
in groups and many at once.
"""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from lightning_mem1.context.contexts import asked, context_ids, next_kind
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes.mem1 import Mem1
from lightning_mem1.context.modes.summary import Summary
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.context.tags import ParsedTurn, Tags, escape_tags
from lightning_mem1.types import Env, StepResult, Task, TaskSource, Turn

Player = Callable[[str, random.Random], str]
Script = Callable[[int, str], str | None]  # number of the turn, what was shown -> action; None leaves
Steps = list[tuple[str, StepResult]]
Context = Callable[[Sequence[int], Sequence[Turn]], Sequence[int]]
MALFORMED = (  # "" is what the rollout hands on when a turn holds no action, or more than one
    "",
    " \n",
    "[",
    "[]",
    "no such action",
    "click[",
    "search[]",
    "click[\x00\x1b[2J]",
    "answer[;;]",
    "</state><summary>",
    "{0} %s \\ '\" \u2028 \U0001f600",
    "x" * 5000,
)


@dataclass(frozen=True)
class EnvReport:
    """What was played: an end that no episode reached was not checked.

    Attributes:
        num_episodes: Episodes that were played, the scripted one included.
        num_done: Those that their environment ended.
        num_turns: Turns of all of them.
        num_valid: Turns whose action could be carried out.
    """

    num_episodes: int
    num_done: int
    num_turns: int
    num_valid: int


@dataclass(frozen=True)
class MemoryReport:
    """How the longest context grows, prompt included, with turns of 8 tokens (3 written, 5 replied).

    A memory of a staged mode has 3 tokens, its opening of 1 included, and the context it is written in counts too.

    Attributes:
        longest: By number of turns that act: tokens of the longest context.
        tokens_per_turn: How much longer it gets with each further turn in the end.
    """

    longest: dict[int, int]
    tokens_per_turn: float

    @property
    def bounded(self) -> bool:
        """Whether contexts stop growing, as in `mem1`."""
        return self.tokens_per_turn == 0


def check_env(
    source: TaskSource | Callable[[Task], Env],
    task: Task,
    *,
    actions: Sequence[str] = (),
    player: Player | None = None,
    num_episodes: int = 5,
    tags: Tags | None = None,
    strangers: bool = False,
    seed: int = 0,
) -> EnvReport:
    """Check an environment on one task.

    Args:
        source: The task source, or a function that makes a fresh environment of a task.
        task: The task.
        actions: One episode to play first, best one that ends.
        player: Writes an action from what it was shown; None for `random_action`, which knows ``name[argument]``.
        num_episodes: Episodes of the player.
        tags: Tags of the prompt format; None for the default ones.
        strangers: Texts come from outside (the web, a corpus) and may hold tags: the rollout makes them harmless.
        seed: Of the player.

    Returns:
        What was played.

    Raises:
        AssertionError: with one line, on the first thing that is not as it should be.
    """
    checker = _EnvChecker(source, task, tags or Tags(), strangers)
    checker.task_and_beginning()
    scripts = [_reading(actions)] if actions else []
    scripts += [_drawing(player or random_action, random.Random(f"{seed}/{n}")) for n in range(num_episodes)]
    played = [checker.play(script) for script in scripts]
    for steps in played:
        checker.again(steps)
        checker.watched(steps)
        checker.side_by_side(steps)
        if steps and steps[-1][1].done:
            checker.after_the_end(steps)
    checker.malformed()
    results = [result for steps in played for _, result in steps]
    num_done = sum(result.done for result in results)
    return EnvReport(len(played), num_done, len(results), sum(result.valid for result in results))


def random_action(shown: str, rng: random.Random) -> str:
    """A random player's action: often something that was shown (``click[red]``), at times what means nothing."""
    if rng.random() < 0.2:
        return rng.choice(MALFORMED)
    offered = re.findall(r"\w+\[[^\]\n]*\]", shown)
    if offered and rng.random() < 0.6:
        return rng.choice(offered)
    named = re.findall(r"\[([^\]\n]+)\]", shown)
    words = [*named, *shown.split()] or ["nothing"]
    return f"{rng.choice(('search', 'click', 'answer'))}[{rng.choice(words)}]"


def _reading(actions: Sequence[str]) -> Script:
    return lambda number, shown: actions[number] if number < len(actions) else None


def _drawing(player: Player, rng: random.Random) -> Script:
    return lambda number, shown: player(shown, rng)


class _EnvChecker:
    """The checks of one environment; `played` episodes are lists of (action, result)."""

    def __init__(self, source: Any, task: Task, tags: Tags, strangers: bool) -> None:
        self.make: Callable[[Task], Env] = source.env if hasattr(source, "env") else source
        self.task, self.tags, self.strangers = task, tags, strangers

    def expect(self, holds: bool, expected: str, got: object, advice: str) -> None:
        if not holds:
            shown = got if isinstance(got, str) else repr(got)
            line = " ".join(f"task '{self.task.id}': expected {expected}, got {shown[:200]}; {advice}".split())
            raise AssertionError(line)

    def task_and_beginning(self) -> None:
        turns = self.task.max_turns
        self.expect(isinstance(turns, int) and turns >= 1, "at least 1 turn", turns, "set Task.max_turns")
        first, second = self.make(self.task), self.make(self.task)
        self.expect(first is not second, "a fresh environment each time", "the same object", "make a new one in env()")
        self.look(first)

    def look(self, env: Env) -> str:
        try:
            text = env.observe()
        except Exception as error:
            self.expect(False, "observe() to show a page", _named(error), "return an empty text where there is none")
        self.expect(isinstance(text, str), "observe() to return text", type(text).__name__, "return a str")
        self.no_tags(text, "observe()")
        return text

    def no_tags(self, text: str, where: str) -> None:
        harmless = escape_tags(text, self.tags)
        at = next((i for i, (a, b) in enumerate(zip(text, harmless, strict=True)) if a != b), 0)
        self.expect(
            self.strangers or text == harmless,
            f"no tag of the prompt format in {where}",
            text[at : at + 40],
            f"leave tags to the prompt format: the agent would read {harmless[at : at + 40]!r}; for texts from "
            "outside, which the rollout makes harmless, give strangers=True",
        )

    def step(self, env: Env, action: str) -> StepResult:
        try:
            result = env.step(action)
        except Exception as error:
            advice = "answer an action that cannot be carried out with valid=False"
            self.expect(False, f"step({action[:60]!r}) to raise nothing", _named(error), advice)
        self.expect(isinstance(result, StepResult), "step() to return a StepResult", type(result).__name__, "make one")
        self.expect(isinstance(result.information, str), "information as text", result.information, "make it a str")
        finite = isinstance(result.reward, Real) and math.isfinite(result.reward)
        self.expect(finite, "a finite reward", result.reward, f"repair what step({action[:60]!r}) pays")
        for name in ("done", "valid"):
            value = getattr(result, name)
            self.expect(isinstance(value, bool), f"{name} to be True or False", value, "make it a bool")
        self.no_tags(result.information, "information")
        return result

    def play(self, script: Script) -> Steps:
        """Play to the end, or until the turns or the script's actions are spent."""
        env, steps = self.make(self.task), Steps()
        shown = f"{self.task.prompt}\n{self.look(env)}"
        while len(steps) < self.task.max_turns and (action := script(len(steps), shown)) is not None:
            result = self.step(env, action)
            steps.append((action, result))
            shown = f"{self.task.prompt}\n{result.information}"
            if result.done:
                break
        return steps

    def fresh(self) -> Env:
        """An environment that has been looked at once, as the rollout does."""
        env = self.make(self.task)
        self.look(env)
        return env

    def again(self, steps: Steps) -> None:
        env = self.fresh()
        self.same(
            [(action, self.step(env, action)) for action, _ in steps],
            steps,
            "the same replies to the same actions in a second environment",
            "draw nothing at random, or seed it by the task, and keep nothing from episode to episode",
        )

    def watched(self, steps: Steps) -> None:
        """Play it again and look after every step."""
        env, seen = self.make(self.task), Steps()
        for action, _ in steps:
            first, second = self.look(env), self.look(env)
            self.expect(first == second, "observe() to show the same twice", f"{first!r} and {second!r}", "only look")
            seen.append((action, self.step(env, action)))
        self.same(seen, steps, "observe() to change nothing", "move what it changes into step()")

    def side_by_side(self, steps: Steps) -> None:
        """Play it in two environments by turns."""
        first, second = self.fresh(), self.fresh()
        pairs = [[(action, self.step(env, action)) for env in (first, second)] for action, _ in steps]
        for taken in zip(*pairs, strict=True):
            advice = "keep state in self, not in the class, the module or the source"
            self.same(list(taken), steps, "two environments of one task to share no state", advice)

    def after_the_end(self, steps: Steps) -> None:
        env = self.fresh()
        for action, _ in steps:
            env.step(action)
        for action in ("", steps[0][0]):
            try:
                result = env.step(action)
            except Exception:
                return
            advice = "raise, or return done=True again, once the episode is over"
            self.expect(result.done, "the end to be the end", f"done={result.done} one step later", advice)

    def malformed(self) -> None:
        """Each on its own, and as many in a row as there are turns."""
        for action in MALFORMED:
            result = self.step(self.fresh(), action)
            if not action.strip():
                advice = "the turn is spent: say so with valid=False"
                self.expect(not result.valid, f"valid=False for {action!r}", "valid=True", advice)
                self.expect(result.reward <= 0, f"no pay for {action!r}", result.reward, "pay for what was done")
        self.play(lambda number, shown: MALFORMED[number % len(MALFORMED)])

    def same(self, got: Steps, expected: Steps, what: str, advice: str) -> None:
        for number, ((action, one), (_, other)) in enumerate(zip(got, expected, strict=True)):
            difference = f"{_short(one)} after {_short(other)} for step({action[:40]!r}), turn {number}"
            self.expect(one == other, what, difference, advice)


def check_memory(memory: Any) -> MemoryReport:
    """Check a memory mode, over turns that ask nothing of it and over turns that ask for all kinds of things.

    Args:
        memory: What ``model.memory`` may be: a word, a dotted name, either with settings of its own, or in Python the
            mode, its class, or a function of the turns.

    Returns:
        How its longest context grows.

    Raises:
        AssertionError: with one line, on the first thing that is not as it should be.
        ValueError: it is no memory mode, or its code failed.
    """
    mode = memory_mode(memory)
    name = f"'{mode.name.rpartition('.')[2]}'"

    def context(prompt: Sequence[int], turns: Sequence[Turn]) -> list[int]:
        return context_ids(prompt, turns, mode, next_kind(turns, mode, len(prompt)))

    report = _check(context, name, mode)
    for seed in range(20):
        _check_asking(context, name, mode, random.Random(seed))
    return report


def check_contexts(context: Context, name: str = "given", staged: bool = False) -> MemoryReport:
    """Check how contexts are made: `context` takes (prompt ids, turns so far) and returns the ids of the next one.

    Args:
        context: Makes contexts.
        name: Of the memory mode, for messages.
        staged: A turn of its own writes the memory after each act.

    Returns:
        How the longest context grows.

    Raises:
        AssertionError: as `check_memory`.
    """
    return _check(context, name, Summary() if staged else Mem1())


def _check(context: Context, name: str, mode: MemoryMode) -> MemoryReport:
    """Check contexts over turns of the kinds that a mode asks for."""
    prompt = [1, 2, 3]
    turns = _turns(12, random.Random(0), mode, len(prompt))
    kept, seen = copy.deepcopy(turns), []
    for t in range(len(turns) + 1):
        first, second = list(context(prompt, turns[:t])), list(context(prompt, turns[:t]))
        _expect(
            first == second, name, "the same context for the same turns", f"{first} and {second}",
            "make it of the ids alone, or drift will not stay 0",
        )  # fmt: skip
        _expect(turns == kept, name, "turns to be left as they are", "changed ones", "copy before changing a list")
        _check_pieces(first, prompt, turns[:t], name)
        seen.append(first)
    later = [list(context(prompt, turns[:t])) for t in range(len(turns) + 1)]
    changed = [t for t, (before, after) in enumerate(zip(seen, later, strict=True)) if before != after]
    advice = "let a context depend on the turns before it alone, and remember nothing between calls"
    _expect(not changed, name, "contexts that later turns do not change", f"others at turns {changed}", advice)
    longest = {}
    for number in (1, 2, 4, 8, 16, 32):
        even = [*_turns(number, None, mode, len(prompt)), Turn([], [])]
        openings = [even[t].opening_ids for t in range(len(even))]
        longest[number] = max(len([*context(prompt, even[:t]), *openings[t]]) for t in range(len(even)))
    return MemoryReport(longest, (longest[32] - longest[16]) / 16)


def _check_asking(context: Context, name: str, mode: MemoryMode, rng: random.Random) -> None:
    """Check contexts and `parse` over turns that name turns in range and out of it, and actions of the mode's own."""
    prompt, turns, seen = [1, 2, 3], list[Turn](), [[1, 2, 3]]
    while len(turns) < 10:
        memory = next_kind(turns, mode, len(prompt)) == "memory"
        turn = _written(1000 * (len(turns) + 1), rng, memory)
        if not memory:
            written = ParsedTurn(_asking_state(len(turns), rng), _asking_action(mode, len(turns), rng))
            wanted = asked(turns, written, mode)
            _expect("\n" not in wanted.problem, name, "a problem in one line", wanted.problem, "fix its parse()")
            turn.directive, turn.valid = wanted.directive, not wanted.problem
        turns.append(turn)
        seen.append(list(context(prompt, turns)))
        _check_parts(seen[-1], prompt, turns, name)
    later = [list(context(prompt, turns[:t])) for t in range(len(turns) + 1)]
    changed = [t for t, (before, after) in enumerate(zip(seen, later, strict=True)) if before != after]
    advice = "let a context depend on the turns before it alone, and remember nothing between calls"
    _expect(not changed, name, "contexts that later turns do not change", f"others at turns {changed}", advice)


def _written(start: int, rng: random.Random, memory: bool) -> Turn:
    """A turn of ids that no other turn has."""
    length = rng.randint(1, 6)
    ids = list(range(start, start + length))
    if memory:
        return Turn(ids, [0.0] * length, kind="memory", opening_ids=[start + 700])
    reply = list(range(start + 500, start + 500 + rng.randint(1, 9)))
    return Turn(ids, [0.0] * length, reply, state_tokens=rng.randint(0, length), note_ids=[start + 900])


def _asking_state(number: int, rng: random.Random) -> str:
    first, last = rng.randint(0, number), rng.choice((number - 1, rng.randint(0, number + 1)))
    return rng.choice(("", "red", f"[{first}-{last}] red", f"[{number - 1}] red", "[1-", "[99999]", "[3-1]"))


def _asking_action(mode: MemoryMode, number: int, rng: random.Random) -> str:
    named = rng.choice((*mode.actions, "click"))
    first, last = rng.randint(0, number), rng.randint(0, number + 1)
    wanted = (
        "",
        " ",
        "red",
        "-1",
        "99999",
        "0-99999",
        f"{first}",
        f"{first}: red",
        f"{first}-{last}",
        f"{first}, {last}",
    )
    return f"{named}[{rng.choice(wanted)}]"


def _check_parts(ids: Sequence[int], prompt: list[int], turns: Sequence[Turn], name: str) -> None:
    """The prompt, then states, rests, replies, notes and memories, each whole and none twice."""
    size = len(prompt)
    _expect(list(ids[:size]) == prompt, name, f"contexts to start with the prompt {prompt}", ids[:size], "put it first")
    cuts = [(turn, turn.state_tokens if turn.kind == "act" else 0) for turn in turns]
    pieces = [
        piece
        for turn, cut in cuts
        for piece in (
            [*turn.opening_ids, *turn.action_ids[:cut]],
            turn.action_ids[cut:],
            turn.information_ids,
            turn.note_ids,
        )
    ]
    wholes = {piece[0]: list(piece) for piece in pieces if piece}
    wholes |= {turn.ids[0]: turn.ids for turn in turns if turn.kind == "memory"}
    at = size
    while at < len(ids):
        piece = wholes.pop(ids[at], [])
        whole = bool(piece) and list(ids[at : at + len(piece)]) == piece
        advice = "keep actions, states and replies whole, as the ids they are, and none of them twice"
        _expect(whole, name, "contexts of whole parts", f"{list(ids[at : at + 8])} at {at}", advice)
        at += len(piece)


def _turns(number: int, rng: random.Random | None, mode: MemoryMode, prompt_tokens: int) -> list[Turn]:
    """Turns of ids that no other turn has, with a memory wherever one is due.

    Lengths are 3 written and 5 replied without `rng`.
    """
    turns: list[Turn] = []
    for t in range(number):
        written, replied = (rng.randint(1, 6), rng.randint(1, 9)) if rng else (3, 5)
        start = 1000 * (t + 1)
        action = list(range(start, start + written))
        turns.append(Turn(action, [0.0] * written, list(range(start + 500, start + 500 + replied))))
        if next_kind(turns, mode, prompt_tokens) == "memory":
            memory = list(range(start + 701, start + 701 + (rng.randint(1, 4) if rng else 2)))
            turns.append(Turn(memory, [0.0] * len(memory), kind="memory", opening_ids=[start + 700]))
    return turns


def _check_pieces(ids: Sequence[int], prompt: list[int], turns: Sequence[Turn], name: str) -> None:
    """The prompt, then whole memories, then whole actions and replies, each oldest first and none of them twice."""
    size = len(prompt)
    _expect(list(ids[:size]) == prompt, name, f"contexts to start with the prompt {prompt}", ids[:size], "put it first")
    ordered = sorted(turns, key=lambda turn: turn.kind == "act")
    pieces = [piece for turn in ordered for piece in (turn.ids, turn.information_ids) if piece]
    starts = {piece[0]: number for number, piece in enumerate(pieces)}
    at, last = size, -1
    while at < len(ids):
        number = starts.get(ids[at], -1)
        piece = pieces[number] if number >= 0 else []
        whole = bool(piece) and list(ids[at : at + len(piece)]) == piece
        advice = "keep actions and replies whole, as the ids they are: layouts and training score nothing else"
        _expect(whole, name, "contexts of whole actions and replies", f"{list(ids[at : at + 8])} at {at}", advice)
        _expect(number > last, name, "turns oldest first and none twice", list(ids), "keep their order")
        at, last = at + len(piece), number


def _expect(holds: bool, name: str, expected: str, got: object, advice: str) -> None:
    if not holds:
        shown = " ".join(str(got)[:200].split())
        raise AssertionError(f"memory mode {name}: expected {expected}, got {shown}; {advice}")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _short(result: StepResult) -> str:
    information = result.information if len(result.information) <= 40 else f"{result.information[:40]}..."
    return f"({information!r}, reward {result.reward}, done {result.done}, valid {result.valid})"
