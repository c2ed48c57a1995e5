"""The message that opens every context."""

from __future__ import annotations

from lightning_mem1.checks import check_choice
from lightning_mem1.context.tags import Tags, escape_tags
from lightning_mem1.context.tools import named_tools, tool

PROMPT_STYLES = ("full", "brief")


def turns_left_hint(turns_left: int) -> str:
    """The hint at the start of each information block."""
    return "1 turn left" if turns_left == 1 else f"{turns_left} turns left"


FULL_INSTRUCTIONS = """You act step by step in an environment and can see only a little of the past: this message, \
your own previous turn and the reply to it. Everything older is dropped, so carry forward whatever you need.
In every turn write, in this order:
1. <{internal_state}>...</{internal_state}>: your memory and reasoning in one: what is wanted, what you found, \
what you tried, what you plan. It replaces the previous one.
2. {action}: exactly one of the available actions, nothing else.
The reply comes inside <{information}>...</{information}> and starts with the number of turns left."""


STAGED_INSTRUCTIONS = """You act step by step in an environment and can see only a little of the past: this \
message, your memory and the latest reply. Everything older is dropped. Two kinds of turns alternate:
1. To act, reason in a few words and then write {action}: exactly one of the available actions, nothing else.
The reply comes inside <{information}>...</{information}> and starts with the number of turns left.
2. When <{internal_state}> stands behind the reply, write your memory anew and close it with </{internal_state}>: what \
is wanted, what you found, what you tried. It replaces the previous one, and the turn before it is dropped."""


ACT_INSTRUCTIONS = """You act step by step in an environment. {about}
In every turn reason in a few words inside <{internal_state}>...</{internal_state}>, and then write {action}: exactly \
one of the available actions, nothing else.
The reply comes inside <{information}>...</{information}> and starts with the number of turns left."""

STAGED_ACT_INSTRUCTIONS = """You act step by step in an environment. {about}
To act, reason in a few words and then write {action}: exactly one of the available actions, nothing else.
The reply comes inside <{information}>...</{information}> and starts with the number of turns left.
When <{internal_state}> stands behind the reply, do not act: write your memory and close it with </{internal_state}>: \
what is wanted, what you found, what you tried."""


WORKED_TURN = """A turn looks like this:
<{internal_state}>Wanted: a thing and its price. Found: nothing yet. Next: look for the thing.</{internal_state}>\
{action}"""


def worked_turn(observation: str, tags: Tags) -> str:
    """One turn in the format, with the first action that an environment names in what it shows.

    >>> print(worked_turn("Actions: search[words], click[item]", Tags()).partition("price. ")[2])
    Found: nothing yet. Next: look for the thing.</summary><answer>search[the thing]</answer>
    """
    shown = [*named_tools(tags.actions, observation), tool("search")][0]
    return WORKED_TURN.format(internal_state=tags.internal_state, action=tags.written(shown.name, shown.example))


def render_prompt(
    task_prompt: str,
    observation: str,
    turns: int,
    tags: Tags,
    style: str = "full",
    staged: bool = False,
    about: str = "",
) -> str:
    """The user message that opens every context.

    Args:
        task_prompt: The task's own words, e.g. the shopping instruction.
        observation: What the environment shows before the first turn (may be empty).
        turns: Number of turns the agent has.
        tags: The tag names.
        style: ``"full"`` explains the format and shows a turn in it (for pretrained chat models); ``"brief"`` holds
            only the task (for policies that were trained on the format, where each further token costs time in every
            context).
        staged: Explain the format in which calls of their own write the memory.
        about: What a memory mode says of itself, in place of what is said for the modes that say nothing.

    Raises:
        ValueError: unknown `style`.
    """
    check_choice("prompt style", style, PROMPT_STYLES, "model.rollout.prompt")
    parts = [escape_tags(task_prompt, tags), escape_tags(observation, tags), turns_left_hint(turns)]
    if style == "full":
        names = {"internal_state": tags.internal_state, "action": tags.shape, "information": tags.information}
        general, own = (
            (STAGED_INSTRUCTIONS, STAGED_ACT_INSTRUCTIONS) if staged else (FULL_INSTRUCTIONS, ACT_INSTRUCTIONS)
        )
        parts.insert(0, (own if about else general).format(**names, about=about))
        if not staged:
            parts.insert(1, worked_turn(observation, tags))
    return "\n".join(part for part in parts if part)
