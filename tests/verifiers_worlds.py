"""Environments of verifiers for the tests' configs, named by their dotted names."""

from __future__ import annotations

from typing import Any

import verifiers as vf
from datasets import Dataset


def sums(number: int = 20) -> Dataset:
    return Dataset.from_list([{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(number)])


def right(completion: Any, answer: str, **_: Any) -> float:
    return float(answer == completion[-1]["content"])


def single(number: int = 20) -> vf.Environment:
    return vf.SingleTurnEnv(dataset=sums(number), system_prompt="Add.", rubric=vf.Rubric(funcs=[right]))


def tagged() -> vf.Environment:
    """Looks for the answer in a tag, as its parser says."""
    parser = vf.XMLParser(["answer"])

    def right_in_tag(completion: Any, answer: str, parser: Any, **_: Any) -> float:
        return float(parser.parse_answer(completion) == answer)

    return vf.SingleTurnEnv(dataset=sums(), parser=parser, rubric=vf.Rubric(funcs=[right_in_tag], parser=parser))


class Higher(vf.MultiTurnEnv):
    """The answer is guessed; what comes back says where it is."""

    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        said, number = messages[-1]["content"], int(state["answer"])
        if said == str(number):
            state["final_env_response"] = [vf.UserMessage(content="yes")]
            return state["final_env_response"]
        word = "a number, please" if not said.isdigit() else "higher" if int(said) < number else "lower"
        return [vf.UserMessage(content=word)]


def guessed(state: Any) -> float:
    return float(state.get("final_env_response") is not None)


def guessing(max_turns: int = 6) -> vf.Environment:
    return Higher(dataset=sums(8), eval_dataset=sums(5), rubric=vf.Rubric(funcs=[guessed]), max_turns=max_turns)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def look(at: str) -> str:
    """Look somewhere."""
    return f"nothing at {at}"


def tools() -> vf.Environment:
    return vf.ToolEnv(dataset=sums(), tools=[add, look], rubric=vf.Rubric(funcs=[right]), max_turns=4)


class Broken(vf.MultiTurnEnv):
    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        raise vf.ToolError("the tool broke")


def broken() -> vf.Environment:
    return Broken(dataset=sums(), rubric=vf.Rubric(funcs=[guessed]), max_turns=4)


def compared() -> vf.Environment:
    def best(completions: Any, **_: Any) -> list:
        return [0.0 for _ in completions]

    return vf.SingleTurnEnv(dataset=sums(), rubric=vf.Rubric(funcs=[best]))


def nothing() -> int:
    return 5
