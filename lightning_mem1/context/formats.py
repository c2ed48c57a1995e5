"""Prompt formats: how a prompt, a reply and its hint are written, and what ends a turn.

`plain` is this package's own, `qa` and `reading` are the same with the tags of QA and of long documents. The other
presets repeat what published MEM1 checkpoints were trained on or are evaluated with (arXiv 2506.15841 and its public
code), the instructions in other words (`rollout.instructions` takes the checkpoint's own): a policy that learned one
format understands no other.

| | plain | release_train | release_inference | paper |
| --- | --- | --- | --- | --- |
| tags | a setting | think, search, answer, information | the same | IS, query, answer, info |
| around a reply | nothing | two line breaks | nothing | nothing |
| hint | ``3 turns left`` | ``[HINT]You have 3 turns left.[/HINT]`` | the same | as release_inference |
| ends the last turn | any action | any action | the answer | the answer |

`hermes`, `qwen_coder` and `llama` are `plain` with tool calls as actions, in a model's own chat format, and replies as
its chat template writes the result of a tool; ``qa_hermes``, ``reading_llama``, ``shop_qwen_coder`` and so on bring the
tools of these worlds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_mem1.checks import check_choice
from lightning_mem1.context.call_tags import SYNTAXES, CallTags, call_tags
from lightning_mem1.context.prompts import render_prompt
from lightning_mem1.context.tags import QA_TAGS, Tags, escape_tags
from lightning_mem1.context.tools import Tool, named_tools


@dataclass(frozen=True)
class PromptFormat:
    """How a prompt and a reply are written.

    Attributes:
        tags: Names of the blocks.
        opening: What begins a reply; ``{tag}`` and ``{hint}`` are filled in.
        closing: What ends a reply.
        hint: The hint for more than one turn left; ``{n}`` is filled in.
        last_hint: The hint for the last turn.
        answer_last: Whether only the final action ends the last turn.
        instructions: What is before the task in the prompt; empty for the styles of `prompts.render_prompt`.
        tools: Names of the tools that a prompt describes, where tags name no actions; empty for those that an
            environment names in what it shows first.
    """

    tags: Tags
    opening: str = "<{tag}>{hint}\n"
    closing: str = "</{tag}>"
    hint: str = "{n} turns left"
    last_hint: str = "1 turn left"
    answer_last: bool = False
    instructions: str = ""
    tools: tuple[str, ...] = ()

    def prompt(
        self, task_prompt: str, observation: str, turns: int, style: str, staged: bool = False, about: str = ""
    ) -> str:
        """The user message that opens every context; a format with `instructions` ignores the last four arguments."""
        if not self.instructions:
            return render_prompt(task_prompt, observation, turns, self.tags, style, staged, about)
        parts = [escape_tags(task_prompt, self.tags), escape_tags(observation, self.tags)]
        return "\n".join([self.instructions, *filter(None, parts)])

    def described_tools(self, observation: str, style: str) -> list[Tool]:
        """The tools that a prompt describes: none where actions are no tool calls, or where it explains nothing."""
        if not isinstance(self.tags, CallTags) or style != "full":
            return []
        return named_tools(self.tags.actions or self.tools, observation)

    def information_ends(self, turns_left: int) -> tuple[str, str]:
        """Opening (with the hint) and closing of a reply, for callers that cut its middle to size."""
        hint = "" if turns_left < 1 else self.last_hint if turns_left == 1 else self.hint.format(n=turns_left)
        tag = self.tags.information
        return self.opening.format(tag=tag, hint=hint), self.closing.format(tag=tag)

    def block(self, information: str, turns_left: int) -> str:
        """A reply with its tags; the text is data, so tags in it are made harmless first."""
        opening, closing = self.information_ends(turns_left)
        return opening + escape_tags(information, self.tags) + closing

    def stop(self, turns_left: int) -> tuple[str, ...]:
        """Strings that end a turn, `turns_left` counting this one."""
        return self.tags.stop[-1:] if self.answer_last and turns_left <= 1 else self.tags.stop


INSTRUCTIONS = """You will answer multiple complex questions by iterative reasoning, summarization and web search.

In every step you see the questions, your running summary, your latest query and its results; in the first step only \
the questions. In each step:

1. Reason, and write anew a concise summary inside <{think}> ... </{think}>. It is your persistent memory: whatever \
matters in the previous <{think}> and <{information}> has to be in it.

2. Then take exactly one action:
   - while a question is open, a single query for one question inside <{search}> ... </{search}>, as keywords or a \
short phrase;
   - when all questions are answered, the final answers inside <{answer}> answer1; answer2; ... </{answer}>, separated \
by semicolons, in the order of the questions, concise and without explanations.

Important:
- Always follow this order after <{information}> or the questions: <{think}> ... </{think}><{search}> ... </{search}> \
or <{think}> ... </{think}><{answer}> ... </{answer}>.
- Never search for several questions at once.
"""
READING_TAGS = Tags("think", "answer", "information", ("read", "answer"))
PAPER_TAGS = Tags("IS", "answer", "info", ("query", "answer"))


def _instructions(tags: Tags) -> str:
    search, answer = tags.names
    return INSTRUCTIONS.format(think=tags.internal_state, information=tags.information, search=search, answer=answer)


_TRAIN = PromptFormat(
    QA_TAGS,
    opening="\n\n<{tag}>{hint}\n\n",
    closing="</{tag}>\n\n",
    hint="[HINT]You have {n} turns left.[/HINT]",
    last_hint="[HINT]You have 1 turn left. You must answer the question in the next turn.[/HINT]",
    instructions=_instructions(QA_TAGS),
)
_INFERENCE = replace(
    _TRAIN,
    opening="<{tag}>\n{hint}\n",
    closing="\n\n</{tag}>",  # each document ends in a line break there, and one more comes before the tag
    last_hint="[HINT]You have 1 turn left. You must answer the question now.[/HINT]",
    answer_last=True,
)
PRESETS = {
    "qa": PromptFormat(QA_TAGS),
    "reading": PromptFormat(READING_TAGS),
    "release_train": _TRAIN,
    "release_inference": _INFERENCE,
    "paper": replace(_INFERENCE, tags=PAPER_TAGS, instructions=_instructions(PAPER_TAGS)),
}
# worlds whose actions can be tool calls: names of the blocks, and tools where the tags name no actions
WORLDS = {
    "qa": (replace(QA_TAGS, information="tool_response"), ()),
    "reading": (replace(READING_TAGS, information="tool_response"), ()),
    "shop": (Tags(information="tool_response"), ("search", "click")),
}


def _calls(syntax: str, tags: Tags, tools: tuple[str, ...] = ()) -> PromptFormat:
    """Tool calls as actions."""
    return PromptFormat(call_tags(syntax, tags), opening="<{tag}>\n{hint}\n", closing="\n</{tag}>", tools=tools)


CALL_PRESETS = {f"{world}_{syntax}": _calls(syntax, *WORLDS[world]) for world in WORLDS for syntax in SYNTAXES}


def prompt_format(name: str, tags: Tags, instructions: str = "") -> PromptFormat:
    """Return a prompt format by name.

    Args:
        name: ``"plain"``, one of `SYNTAXES`, or one of `PRESETS` and `CALL_PRESETS`.
        tags: Names of the blocks of ``"plain"`` and of the syntaxes; a preset has its own.
        instructions: Replaces the format's own instructions when not empty.

    Raises:
        ValueError: unknown `name`.
    """
    check_choice("prompt format", name, ("plain", *PRESETS, *SYNTAXES, *CALL_PRESETS), "model.rollout.format")
    made = _calls(name, tags) if name in SYNTAXES else PromptFormat(tags)
    found = {**PRESETS, **CALL_PRESETS}.get(name, made)
    return replace(found, instructions=instructions) if instructions else found
