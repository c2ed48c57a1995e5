"""Games of TextArena (arXiv 2504.11442), alone or against a fixed opponent; extra ``textarena``.

```yaml
source:
  class_path: lightning_mem1.environments.adapters.textarena.TextArenaTasks
  init_args: {id: GuessTheNumber-v0}
```
An observation is what the game said since the agent's last move, not the whole record: what stays of it is the memory
mode's to say.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from lightning_mem1.checks import ANY_SIGN, Range, Ranges, check_numbers
from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.environments.adapters.game_env import GameEnv
from lightning_mem1.environments.adapters.seeded_tasks import SeededTasks
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.types import Env, Split, StepResult, Task

Opponent = Callable[[str, random.Random], str]  # what was said since its last move, a generator -> move
MAX_MOVES = 1000  # of opponents in a row: a game that never asks the agent again
_GENERATORS = threading.RLock()


def offered(observation: str, rng: random.Random) -> str:
    """An opponent that plays any of the moves in brackets that it was shown last, at random.

    >>> offered("Valid moves: [3], [3]", random.Random(0))
    '[3]'
    """
    last = next((line for line in reversed(observation.splitlines()) if "[" in line), "")
    return rng.choice(re.findall(r"\[[^\[\]]+\]", last) or ["[0]"])


class TextArenaTasks(SeededTasks):
    """Episodes of a TextArena game, one seed each; satisfies `types.TaskSource`.

    Args:
        id: Name in TextArena's registry. Its wrappers of actions are used, those of observations are not.
        kwargs: Settings of the game, as `textarena.make` takes them.
        prompt: What the agent is asked; empty for "Play ...". The game's own rules come below it.
        players: Number of players.
        player: Which one the agent is; None for each in turn, task by task.
        opponent: Dotted name of ``opponent(observation, rng) -> str``, who plays all others;
            ``lightning_mem1.environments.adapters.textarena.offered`` takes a move in brackets that it was shown.
        success_at: Reward from which on a game that ended is a success.
        max_turns: Turns the agent has.
        num_train: Tasks to train on.
        num_val: Tasks of the validation.
        num_test: Tasks of the test.
        seed: Moves the seeds of all tasks.

    Raises:
        ValueError: one line: no such game or setting of it, another number of players, or a number out of range.
    """

    ranges: ClassVar[Ranges] = {"players": Range(1, 100), "player": Range(0, 99), "success_at": ANY_SIGN}

    def __init__(
        self,
        id: str,
        kwargs: dict[str, Any] | None = None,
        *,
        prompt: str = "",
        players: int = 1,
        player: int | None = None,
        opponent: str | None = None,
        success_at: float = 1.0,
        max_turns: int = 20,
        num_train: int = 1_000_000,
        num_val: int = 1000,
        num_test: int = 1000,
        seed: int = 0,
    ) -> None:
        check_numbers("data.source", TextArenaTasks, locals())
        super().__init__(id, max_turns, num_train, num_val, num_test, seed)
        self.kwargs, self.prompt, self.success_at = dict(kwargs or {}), prompt or f"Play {id}.", success_at
        self.players, self.player = players, player
        self._opponent: Opponent | None = imported(opponent, "function", "data.source.opponent") if opponent else None
        _check_players(players, player, self._opponent)
        self._check_game()

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        player = index % self.players if self.player is None else self.player
        return self.seeded_task(split, index, self.prompt, {"player": player})

    def env(self, task: Task) -> Env:
        """Return a fresh game for a task of this source."""
        game = _Match(self.make, self.players, task.data["player"], task.data["seed"], self._opponent)
        return GameEnv(game, self.success_at)

    def make(self) -> Any:
        """Make the game.

        Raises:
            ValueError: there is none of that name, or it does not take these settings.
        """
        textarena = needed("textarena", "textarena", "textarena", "TextArena")
        try:
            return textarena.make(self.name, **self.kwargs)
        except Exception as error:
            raise ValueError(self._wrong(error)) from None

    def _check_game(self) -> None:
        game = _Match(self.make, self.players, 0, 0, None)
        try:
            game.reset()
        except ValueError:
            raise
        except Exception as error:  # another number of players, or word lists that are not on this machine
            raise ValueError(self._wrong(error)) from None

    def _wrong(self, error: Exception) -> str:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            f"no such TextArena game: expected an id that textarena.make takes with these kwargs for "
            f"{self.players} players, got '{self.name}' ({why[:300]}); set data.source.id, kwargs or players"
        )


class _Match:
    """An episode of a TextArena game, see `game_env.Game`."""

    def __init__(
        self, make: Callable[[], Any], players: int, player: int, seed: int, opponent: Opponent | None
    ) -> None:
        self._make, self._players, self._player, self._opponent = make, players, player, opponent
        self._draws, self._seed = _Draws(seed), seed
        self._luck = random.Random(f"opponent/{seed}")
        self._env: Any = None
        self._game: Any = None

    def reset(self) -> None:
        """Make the game and deal it with the task's seed."""
        with self._draws.in_place():
            self._env = self._make()
            self._env.reset(num_players=self._players, seed=self._seed)
            self._game = self._env
            while hasattr(self._game, "env"):  # below every wrapper
                self._game = self._game.env

    def begin(self) -> str:
        """Deal, and let the others move until it is the agent's turn."""
        self.reset()
        if self._others():
            raise ValueError(f"the game of seed {self._seed} is over before player {self._player} has moved")
        return self._heard(self._player)[0]

    def parse(self, action: str) -> str:
        """The action as it is: the game reads it."""
        return action

    def act(self, action: str) -> StepResult:
        """Move; then the others move until it is the agent's turn again, or the game is over."""
        done = self._moved(action) or self._others()
        text, refused = self._heard(self._player)
        if not done:
            return StepResult(text, valid=not refused, info={"invalid": refused} if refused else {})
        rewards, told = self._env.close()
        reward = float((rewards or {}).get(self._player, 0.0))
        info = dict((told or {}).get(self._player, {}))
        return StepResult("", reward, True, not info.get("invalid_move", False), info)

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self) -> None:
        """Nothing is held."""

    def _others(self) -> bool:
        """Let the others move; return whether the game is over."""
        for _ in range(MAX_MOVES):
            mover = self._game.state.current_player_id
            if mover == self._player:
                return False
            assert self._opponent is not None
            if self._moved(self._opponent(self._heard(mover)[0], self._luck)):
                return True
        raise RuntimeError(f"expected a turn of player {self._player} after {MAX_MOVES} moves of the others, got none")

    def _moved(self, action: str) -> bool:
        with self._draws.in_place():
            done, _ = self._env.step(action)
        return bool(done)

    def _heard(self, player: int) -> tuple[str, str]:
        """What the game said to a player since the last time, and why it refused a move, if it did."""
        state = self._game.state
        heard, state.observations[player] = list(state.observations[player]), []
        lines, refused = [], ""
        for sender, text, kind in heard:
            if kind.name == "PLAYER_ACTION" and sender == player:
                continue
            if kind.name == "GAME_ADMIN" and "invalid move" in text:
                refused = text
            lines.append(text if sender < 0 else f"[{state.role_mapping.get(sender, f'Player {sender}')}] {text}")
        return "\n".join(line.strip("\n") for line in lines), refused


class _Draws:
    """The generators of Python and numpy that TextArena draws from, as one episode left them.

    They are the whole process's: they are put in place for a call and taken back after it, so that episodes side by
    side do not depend on each other, nor anything else on them.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._mine: tuple[Any, Any] | None = None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Draw from this episode's generators within the context."""
        with _GENERATORS:
            theirs = random.getstate(), np.random.get_state()
            if self._mine is None:
                random.seed(self._seed)
                np.random.seed(self._seed)
            else:
                _put(self._mine)
            try:
                yield
            finally:
                self._mine = random.getstate(), np.random.get_state()
                _put(theirs)


def _put(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])


def _check_players(players: int, player: int | None, opponent: Opponent | None) -> None:
    if player is not None and player >= players:
        raise ValueError(
            f"no such player: expected data.source.player from 0 to {players - 1}, got {player}; set it or "
            "data.source.players"
        )
    if (players > 1) != (opponent is not None):
        expected, got = ("someone who plays the others", "none") if players > 1 else ("none in a game for one", "one")
        raise ValueError(f"opponent and players do not fit: expected {expected}, got {got}; set data.source.opponent")
