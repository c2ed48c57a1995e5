"""How far a policy follows a faultless researcher, turn by turn: what fails beyond the horizon it was trained on.

    python experiments/claim/forced.py bundled --notation every --wording question
    python experiments/claim/forced.py runs/claim/policies/mem1

Every turn is scored in the context that the faultless researcher left behind, so that one mistake does not hide the
next; a turn counts when each of its tokens is the policy's first choice. Reported are how many tokens of each part of a
turn are not, and the first one that is not, with the words before it. Some seconds on one thread: a look before hours
of training, no measure of episodes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))

from baseline import integers
from generalization import MEMORY
from upper_bound import faultless

from lightning_mem1.context.contexts import contexts
from lightning_mem1.environments.qa.encyclopedia.questions import WORDINGS, Wording
from lightning_mem1.environments.qa.scripted_researcher.notation import NOTATIONS, Notation
from lightning_mem1.policy.policy import Policy


@dataclass(frozen=True)
class Followed:
    """How a turn was followed: its tokens and those that were not the first choice, by part; what went wrong first."""

    parts: Counter[str]
    wrong: Counter[str]
    slip: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of the turn."""
        return self.parts.total()

    @property
    def right(self) -> int:
        """Those of them that were the first choice."""
        return self.tokens - self.wrong.total()


def followed(policy: Policy, context: Sequence[int], written: Sequence[int]) -> Followed:
    """Score one turn of an expert."""
    ids = torch.tensor([[*context, *written]])
    length = ids.shape[1]
    with torch.no_grad():
        logits = policy.causal_lm(
            input_ids=ids,
            attention_mask=torch.ones(length, length, dtype=torch.bool).tril()[None, None],
            position_ids=torch.arange(length)[None],
            use_cache=False,
        ).logits[0, len(context) - 1 : -1]
    return agreement(policy, written, logits.argmax(dim=-1).tolist())


def agreement(policy: Policy, written: Sequence[int], chosen: Sequence[int]) -> Followed:
    """Compare what was written with what the policy would have chosen, token by token."""
    decode = policy.tokenizer.decode
    wrong = [place for place, (one, other) in enumerate(zip(written, chosen, strict=True)) if one != other]
    before = accumulate((decode([token]) for token in written[:-1]), initial="")
    parts = [part_of(text) for text in before]
    slip = ""
    if wrong:
        first = wrong[0]
        left, due, got = decode(written[max(0, first - 6) : first]), decode([written[first]]), decode([chosen[first]])
        slip = f"'{left}' expected '{due}', got '{got}'"
    return Followed(Counter(parts), Counter(parts[place] for place in wrong), slip)


def part_of(before: str) -> str:
    """The part of a turn that follows some text: note, list, question (that is due), query or answers."""
    if "</think>" in before:
        return "answers" if "<answer>" in before else "query"
    if "|" in before:
        return "question"
    return "list" if ";" in before else "note"


def turns(
    policy: Policy, mode: str, objectives: int, num_tasks: int, notation: Notation, wording: Wording
) -> list[Followed]:
    """Every turn of some test tasks."""
    found, _ = faultless(mode, objectives, num_tasks, policy.tokenizer, notation, wording)
    return [
        followed(policy, context, turn.action_ids)
        for trajectory in found
        for context, turn in zip(contexts(trajectory, mode), trajectory.turns, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="How far a policy follows a faultless researcher.")
    parser.add_argument("policy", help="folder, or bundled")
    parser.add_argument("--memory", choices=tuple(dict.fromkeys(MEMORY.values())), default="mem1")
    parser.add_argument("--notation", choices=NOTATIONS, default="next")
    parser.add_argument("--wording", choices=WORDINGS, default="topic")
    parser.add_argument("--objectives", type=integers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--questions", type=int, default=16, help="of each number of objectives, over all its tasks")
    options = parser.parse_args(argv)
    policy = Policy.load(options.policy).eval()
    print("| objectives | turns followed | tokens followed | departures by part of the turn | first slips |")
    print("| --- | --- | --- | --- | --- |")
    for k in options.objectives:
        each = turns(policy, options.memory, k, max(1, options.questions // k), options.notation, options.wording)
        whole, share = (
            sum(not one.slip for one in each),
            sum(one.right for one in each) / sum(one.tokens for one in each),
        )
        slips = "; ".join([one.slip for one in each if one.slip][:3])
        parts, wrong = (sum((getattr(one, name) for one in each), Counter()) for name in ("parts", "wrong"))
        told = ", ".join(f"{part} {wrong[part]}/{count}" for part, count in parts.items())
        print(f"| {k} | {whole} of {len(each)} | {share:.3f} | {told} | {slips} |", flush=True)


if __name__ == "__main__":
    main()
