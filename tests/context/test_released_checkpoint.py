"""The released checkpoint's evaluation, down to its weights: ids of the contexts, stop rules, replies, scores."""

from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.environments.qa.retrieval.passage import Passage
from lightning_mem1.environments.qa.tasks import QATasks
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "experiments" / "paper" / "qa_release.yaml").read_text())
INSTRUCTIONS = "You will answer multiple complex questions.\n"
# as the chat templates of Qwen2.5 do: a system line that nobody asked for, then the message, then an open answer
TEMPLATE = (
    "{{ '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PROMPT = (
    "<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\nYou will answer multiple complex questions.\n\n"
    "Answer the following questions: Where is Ulm?; Who wrote Emma?<|im_end|>\n<|im_start|>assistant\n"
)
TURNS = (
    "<think>nothing yet</think><search>ulm town</search>",
    "<think>Ulm is in Baden</think><search>emma novel</search>",
    "<think>done</think><answer>Baden; the Jane  Austen</answer>",
)
DOCS = 'Doc 1(Title: "Ulm") A town in Baden.\nDoc 2(Title: "Emma") A novel by Jane Austen.\n\n'
REPLIES = (
    f"<information>\n[HINT]You have 2 turns left.[/HINT]\n{DOCS}</information>",
    f"<information>\n[HINT]You have 1 turn left. You must answer the question now.[/HINT]\n{DOCS}</information>",
)


def byte_tokenizer():
    """A token for each byte, as Qwen's has them before it merges any: what is decoded is what was encoded."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=special, chat_template=TEMPLATE
    )


class Two:
    """A retriever that knows two passages."""

    def search(self, queries, top_k=3):
        return [[Passage("Ulm", "A town in Baden."), Passage("Emma", "A novel by Jane Austen.")] for _ in queries]


class Recording(ScriptedEngine):
    """Keeps what was asked."""

    def submit(self, request):
        self.requests = [*getattr(self, "requests", []), request]
        super().submit(request)


@pytest.fixture(scope="module")
def played():
    tokenizer = byte_tokenizer()
    settings = RolloutSettings(**CONFIG["model"]["rollout"], instructions=INSTRUCTIONS, temperature=0.0)
    data = CONFIG["data"]["init_args"]
    questions = [Question("a", "Where is Ulm?", ("Baden",)), Question("b", "Who wrote Emma", ("Jane Austen",))]
    kept = {name: data[name] for name in ("compose", "objectives", "top_k", "style", "variant")}
    source = QATasks({"train": {}, "val": {}, "test": {"nq": questions}}, Two(), max_turns=3, **kept)
    task = source.task("test", 0)
    lines = iter(TURNS)
    engine = Recording(tokenizer, [lambda context: next(lines)])
    (trajectory,) = collect([Episode(task, source.env(task))], engine, tokenizer, settings, CONFIG["model"]["memory"])
    return tokenizer, engine.requests, trajectory


def test_a_context_is_one_user_message_and_the_previous_block_as_an_unfinished_answer(played):
    tokenizer, requests, _ = played
    contexts = [tokenizer.decode(request.context_ids, skip_special_tokens=False) for request in requests]
    assert contexts == [PROMPT, PROMPT + TURNS[0] + REPLIES[0], PROMPT + TURNS[1] + REPLIES[1]]


def test_its_ids_are_those_of_its_parts_and_no_text_is_tokenised_again(played):
    tokenizer, requests, trajectory = played
    assert requests[0].context_ids == tokenizer.encode(PROMPT, add_special_tokens=False) == trajectory.prompt_ids
    first = trajectory.turns[0]
    assert requests[1].context_ids == [*trajectory.prompt_ids, *first.action_ids, *first.information_ids]


def test_both_actions_end_a_turn_and_the_answer_alone_the_last_one(played):
    _, requests, _ = played
    assert [request.stop for request in requests] == [("</search>", "</answer>")] * 2 + [("</answer>",)]
    assert [request.max_new_tokens for request in requests] == [1024] * 3


def test_answers_are_scored_as_published(played):
    _, _, trajectory = played  # "the Jane Austen": articles are kept, so it is not equal; F1 2 * 2 / 5
    info = trajectory.turns[-1].info
    assert (info["em"], info["f1"]) == (1.0, pytest.approx(1.8))
