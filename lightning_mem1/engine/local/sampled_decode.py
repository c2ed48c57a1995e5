"""Decode steps of fixed shapes that draw their tokens, too: on a GPU forward pass, draw and next input are one graph.

What a step needs is on the device before it starts. The random numbers of a turn are those of its seed, in their order,
made for the whole turn where it starts to decode; a table holds them by slot and position. The token that a slot drew
is its next input. So a step can start before anyone has looked at the tokens of the last one.

What stays on the host is the end of a turn: a stop string is looked for in the text, and ids become text there. A turn
that ended therefore takes part in one more step, whose token is dropped and whose key no turn counts as its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.engine.local.static_decode import Captured, Forward, StaticDecode, Step
from lightning_mem1.engine.local.turns import Running
from lightning_mem1.engine.sampling import draw
from lightning_mem1.policy.attention import Pass, carrying
from lightning_mem1.policy.backbone import Head


class Drawn:
    """Ids and log-probs (2, slots) of a step, on their way to the CPU; the step after it may be running already."""

    def __init__(self, found: Tensor) -> None:
        self._found = torch.empty(found.shape, dtype=found.dtype, pin_memory=found.is_cuda)
        self._found.copy_(found, non_blocking=True)
        self._arrived = torch.cuda.current_stream(found.device).record_event() if found.is_cuda else None

    def read(self) -> tuple[list[float], list[float]]:
        """Ids and log-probs by slot; waits for them, and for nothing that started later."""
        if self._arrived is not None:
            self._arrived.synchronize()
        ids, logprobs = self._found.tolist()
        return ids, logprobs


class SampledDecode:
    """All decode steps of an engine, with their draws.

    Args:
        static: The steps up to their logits.
        ahead: Whether a step may start before the tokens of the last one were looked at. Not for recurrent layers: the
            state of a turn that ended would have moved on.
    """

    def __init__(self, static: StaticDecode, ahead: bool) -> None:
        self._static, self._ahead = static, ahead
        pool = static.pool
        self._idle = pool.max_tokens - 1  # the position of idle slots, which no turn reaches
        self._draws = torch.zeros(pool.num_slots, pool.max_tokens, dtype=torch.float64, device=pool.device)
        self._settings = torch.zeros(2, pool.num_slots, dtype=torch.float64, device=pool.device)
        memory = torch.cuda.graph_pool_handle() if static.captures else None
        # a nucleus sorts the vocabulary, so steps without one are steps of their own
        self._runs = {cut: self._drawing(cut) for cut in (False, True)}
        if static.captures:
            self._runs = {cut: Captured(run, pool, memory) for cut, run in self._runs.items()}
        self.forget()

    def forget(self) -> None:
        """No turn runs any more."""
        self._known: dict[int, tuple[Running, int]] = {}  # by slot: whose next input the device has, at which position
        self._started: Drawn | None = None

    def start(self, turns: Sequence[Running]) -> Drawn:
        """Run one token of some turns, unless it runs already."""
        found = self._started or self._run(turns, {turn.slot: turn.cached for turn in turns})
        self._started = None
        return found

    def start_ahead(self, turns: Sequence[Running]) -> None:
        """After `start`, run the next token of the same turns before the last one is read; those at their limit end."""
        longer = [turn for turn in turns if len(turn.ids) + 1 < len(turn.request.context_ids) + len(turn.draws)]
        if self._ahead and longer:
            self._started = self._run(longer, {turn.slot: turn.cached + 1 for turn in longer})

    def _run(self, turns: Sequence[Running], places: dict[int, int]) -> Drawn:
        self._hand_over(turns, places)
        step = self._static.step(max(places.values()))
        with carrying(Pass(slots=step)):
            found = self._runs[any(turn.request.top_p < 1 for turn in turns)](
                self._static.model, self._static.head, step
            )
        self._known = {turn.slot: (turn, places[turn.slot] + 1) for turn in turns}
        return Drawn(found)

    def _hand_over(self, turns: Sequence[Running], places: dict[int, int]) -> None:
        """Give the device what it does not have: turns that are new to it, and slots that are idle now."""
        new = [turn for turn in turns if not self._has(turn, places[turn.slot])]
        if not new and len(turns) == len(self._known):
            return
        inputs, device = self._static.inputs, self._static.inputs.device
        ids, positions = [0] * inputs.shape[1], [self._idle] * inputs.shape[1]
        for turn in turns:
            ids[turn.slot] = positions[turn.slot] = -1  # as it is there
        for turn in new:
            ids[turn.slot], positions[turn.slot] = turn.ids[-1], places[turn.slot]
        given = torch.tensor([ids, positions]).to(device, non_blocking=True)
        inputs.copy_(torch.where(given < 0, inputs, given))
        if new:
            self._hand_over_sampling(turns, new)

    def _hand_over_sampling(self, turns: Sequence[Running], new: Sequence[Running]) -> None:
        settings = [[1.0] * self._settings.shape[1] for _ in range(2)]
        for turn in turns:
            settings[0][turn.slot], settings[1][turn.slot] = turn.request.temperature, turn.request.top_p
        self._settings.copy_(torch.tensor(settings, dtype=torch.float64), non_blocking=True)
        for turn in new:
            first = len(turn.request.context_ids) - 1  # the position that predicts the turn's first token
            row = torch.tensor(turn.draws, dtype=torch.float64)
            self._draws[turn.slot, first : first + len(row)].copy_(row, non_blocking=True)

    def _has(self, turn: Running, place: int) -> bool:
        known, next_place = self._known.get(turn.slot, (None, -1))
        return known is turn and next_place == place

    def _drawing(self, cut: bool) -> Forward:
        """A step that returns ids and log-probs (2, slots) in float64, and has moved its inputs on to the next one."""

        def run(model: Any, head: Head, step: Step) -> Tensor:
            logits = self._static.forward(model, head, step)
            uniforms = self._draws.gather(1, step.positions[:, None])[:, 0]
            with torch.autocast(logits.device.type, enabled=False):  # as where steps leave their logits
                temperatures, top_ps = self._settings[0], self._settings[1]
                ids, logprobs = draw(logits, temperatures, top_ps, uniforms, any_greedy=True, any_cut=cut)
            running = step.positions < self._idle
            step.input_ids.copy_(torch.where(running, ids, step.input_ids))
            step.positions.add_(running)
            return torch.stack([ids.double(), logprobs.double()])

        return run
