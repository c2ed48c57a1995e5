"""A trained policy as something that acts: an episode so far in, its next turn out. What MLflow loads a model as.

Texts come in, so what is given back to it of earlier turns is tokenised again: the next turn is the one of a rollout as
long as the tokenizer reads its own texts back as they were (`collect` works on ids and knows no such condition).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_mem1.context.contexts import asked, context_ids
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.context.tags import ParsedTurn, parse_turn
from lightning_mem1.engine.factory import local_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import ADAPTER, Policy
from lightning_mem1.rollout.seeds import turn_seed
from lightning_mem1.rollout.settings import RolloutSettings, greedy
from lightning_mem1.rollout.turn_loop import turn_temperature
from lightning_mem1.training.checkpoint_state import with_memory
from lightning_mem1.training.plain_settings import from_plain, plain
from lightning_mem1.types import GenerationRequest, Task, Turn

SETTINGS, WEIGHTS = "settings.json", "policy"
KEPT = ("memory", "rollout")
NUM_SLOTS = 8  # turns generated at once
MAX_TURNS = 10  # of an episode that does not say how many it has


class Agent:
    """Writes the next turn of episodes, greedily but for what `rollout.retry_temperature` says.

    Args:
        policy: Its weights.
        settings: ``memory`` and ``rollout`` of the module that it was trained by, as plain values.

    Raises:
        ValueError: a memory mode with turns or actions for the memory, which one call per turn cannot answer.
    """

    def __init__(self, policy: Policy, settings: Mapping[str, Any]) -> None:
        known = with_memory(settings)
        self.policy, self.memory = policy.eval(), memory_mode(known["memory"])
        if self.memory.staged or self.memory.actions:
            raise ValueError(
                f"an agent writes one turn per call: expected a memory mode without turns or actions for the memory, "
                f"got '{self.memory}'; play it with `collect`, or by the command `play`"
            )
        self.rollout = greedy(from_plain(RolloutSettings, known["rollout"], "model.rollout"))
        self.encoder = self.rollout.encoder(policy.tokenizer)
        self.opening = self.encoder.turn_opening()
        self.annotate = self.memory.annotator(self.encoder)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Write one turn for each episode.

        Args:
            model_input: Episodes, as a list of dicts (or a DataFrame of such rows) with ``prompt`` (what is asked),
                and where there are any ``observation`` (what the environment showed before the first turn),
                ``max_turns`` (10 when left out) and ``turns``: dicts with ``text`` and ``information``, oldest first.
            params: Not used.

        Returns:
            For each a dict with ``text`` (the whole turn), ``internal_state``, ``action`` (None when the turn holds
            none) and ``context_tokens`` (what it saw).

        Raises:
            ValueError: an episode without a prompt, or one that the policy has no positions for.
        """
        rows = _records(model_input) if hasattr(model_input, "to_dict") else list(model_input)
        requests = [self._request(number, row) for number, row in enumerate(rows)]
        texts = self._write(requests)
        reported = []
        for request, text in zip(requests, texts, strict=True):
            parsed = self._parsed(text)
            shown = {"text": text, "internal_state": parsed.internal_state, "action": parsed.action}
            reported.append({**shown, "context_tokens": len(request.context_ids)})
        return reported

    def _request(self, number: int, row: Mapping[str, Any]) -> GenerationRequest:
        if not isinstance(row, Mapping) or not isinstance(row.get("prompt"), str):
            raise ValueError(f"episode {number} has no prompt: expected a dict with 'prompt', got {row!r:.80}")
        max_turns, reported = int(row.get("max_turns") or MAX_TURNS), row.get("turns") or ()
        task = Task(str(number), row["prompt"], (), max_turns)
        about = self.memory.about(self.encoder.format.tags)
        prompt = self.encoder.prompt_ids(task, str(row.get("observation") or ""), about=about)
        turns: list[Turn] = []
        for turn in reported:
            turns.append(self._turn(turn, turns, max_turns - len(turns) - 1))
        context = context_ids(prompt, turns, self.memory) + self.opening
        positions = self.policy.max_positions
        if positions is not None and len(context) + self.rollout.max_new_tokens > positions:
            raise ValueError(
                f"episode {number} is too long: expected a context of at most "
                f"{positions - self.rollout.max_new_tokens} tokens, got {len(context)}"
            )
        stop = self.encoder.format.stop(max_turns - len(turns))
        temperature = turn_temperature(turns, "act", self.rollout)
        seed = turn_seed(0, len(turns))
        return GenerationRequest(number, context, self.rollout.max_new_tokens, stop, temperature, seed=seed)

    def _turn(self, reported: Mapping[str, str], before: Sequence[Turn], turns_left: int) -> Turn:
        information, parsed = reported.get("information", ""), self._parsed(reported["text"])
        label = self.encoder.encode(self.memory.label(before))
        ids = self.encoder.encode(reported["text"])
        reply = self.encoder.information_ids(information, turns_left, label, ids)
        wanted = asked(before, parsed, self.memory)
        turn = Turn(ids, [], reply, parsed.action, information)
        turn.valid, turn.opening_ids = not (parsed.problem or wanted.problem), self.opening
        turn.retried = self.rollout.retries and not turn.valid
        turn.directive = wanted.directive
        turn.note_ids = self.encoder.behind(ids, self.encoder.note_ids(self.memory.left_out()))
        if self.annotate and not turn.retried:
            self.annotate(turn)
        return turn

    def _parsed(self, text: str) -> ParsedTurn:
        return parse_turn(self.encoder.decode(self.opening) + text, self.rollout.tags)

    def _write(self, requests: Sequence[GenerationRequest]) -> list[str]:
        if not requests:
            return []
        longest = max(len(request.context_ids) + request.max_new_tokens for request in requests)
        engine = local_engine(self.policy, EngineSettings(min(NUM_SLOTS, len(requests)), longest))
        for request in requests:
            engine.submit(request)
        written: dict[int, str] = {}
        with torch.no_grad():
            while engine.pending:
                for done in engine.step():
                    written[done.session] = self.encoder.decode(done.ids)
        return [written[request.session] for request in requests]


def _records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a DataFrame, without what is missing in one: pandas writes it as nan."""
    return [
        {key: value for key, value in row.items() if value is not None and value == value}
        for row in frame.to_dict("records")
    ]


def save(
    policy: Policy, settings: Mapping[str, Any], folder: Path, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write what `_load_pyfunc` reads: the policy's adapter (or weights), and those settings that say how it plays.

    Args:
        policy: What was trained.
        settings: The module's.
        folder: Made when it is not there.
        weights: As in `Policy.save`.
    """
    policy.save(folder / WEIGHTS, weights)
    kept = {key: plain(settings[key]) for key in KEPT} | {"dtype": settings["compute"]["dtype"]}
    (folder / SETTINGS).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _load_pyfunc(path: str) -> Agent:
    """What MLflow calls to load a model whose ``loader_module`` is this file; nothing in it is pickled."""
    settings = json.loads((Path(path) / SETTINGS).read_text(encoding="utf-8"))
    weights = Path(path) / WEIGHTS
    inner = weights / ADAPTER  # where earlier versions put the adapter
    return Agent(Policy.load(str(inner if inner.is_dir() else weights), dtype=settings["dtype"]), settings)
