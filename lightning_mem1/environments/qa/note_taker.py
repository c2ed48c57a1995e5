"""An agent of thirty lines that manages its own notes: an example of what the gateway trains.

It knows nothing of this package's loop. It asks a policy through OpenAI's client, keeps what it thinks worth keeping,
and returns its reward. The words around its prompt are those that the bundled policy was trained on.
"""

from __future__ import annotations

from typing import Any

from lightning_mem1.context.tags import QA_TAGS, parse_turn
from lightning_mem1.types import Env, Task

QUESTION = "<|im_start|>user\n{task}\n{turns} turns left<|im_end|>\n<|im_start|>assistant\n"
RESULT = "<information>{turns} turns left\n{text}</information>"
SETTINGS = {"stop": list(QA_TAGS.stop), "extra_body": {"include_stop_str_in_output": True}}


async def play(task: Task, client: Any, env: Env) -> dict[str, Any]:
    """Look things up until there is an answer; of the past, only the last turn, with its notes, and its result stay."""
    question, kept = QUESTION.format(task=task.prompt, turns=task.max_turns), ""
    reward, info = 0.0, {}
    for turns in reversed(range(task.max_turns)):
        answer = await client.completions.create(model="policy", prompt=question + kept, **SETTINGS)
        turn = answer.choices[0].text
        result = env.step(parse_turn(turn, QA_TAGS).action or "")
        reward, info = reward + result.reward, dict(result.info)
        if result.done:
            break
        kept = turn + RESULT.format(turns=turns, text=result.information)
    return {"reward": reward, **info}
