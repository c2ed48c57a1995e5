"""How episodes are sampled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lightning_mem1.checks import TIMEOUT_S, Range, Ranges, check_choice, check_number
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.formats import prompt_format
from lightning_mem1.context.tags import Tags
from lightning_mem1.rollout.workers.settings import WorkerSettings

MALFORMED = ("keep", "retry")


@dataclass
class RolloutSettings:
    """How episodes are sampled.

    Args:
        temperature: Sampling temperature; validation is greedy whatever is set here.
        top_p: Nucleus cut; keep 1.0 for training (see `engine.sampling`).
        max_new_tokens: Limit of one turn; in a staged memory mode, of a memory as well.
        max_information_tokens: Limit of one reply; a longer one loses its middle, never its closing tag.
        prompt: "full" explains the format to a chat model and shows it a turn; "brief" suits policies trained on the
            format.
        tags: Names of the blocks; a preset of `format` brings its own.
        format: Prompt format: plain, qa or reading (plain with the tags of QA and of long documents), what published
            checkpoints expect (release_train, release_inference, paper), or tool calls as actions, in a model's own
            chat format: hermes (Qwen too), qwen_coder, llama; qa_hermes, reading_llama, shop_qwen_coder and so on bring
            the tools of these worlds.
        instructions: Explanation of the format to put before the task, in place of the format's own.
        begin_with_state: Whether every turn begins with the opening tag of the internal state, which is given and not
            scored. A model that was not trained on the format then at least begins as it should.
        chat_template_kwargs: What the policy's chat template is given besides the message, such as
            {enable_thinking: false}; a template that reads none of it is named.
        env_threads: Actions carried out at once, in threads, while others decode: for environments that wait for a
            service. Those in threads must not share what only one thread may use. 0 carries them out in line.
        env_passes: Passes that the engine may make before the reply of an action in a thread is waited for. It is never
            taken in earlier, so the same seed gives the same trajectories however long replies take.
        malformed: What becomes of a turn without exactly one action, cut off for instance. "keep": it stays in later
            contexts like any other, with what was wrong with it; in mode mem1 it has taken the place of the internal
            state. "retry": it costs its turn and is in no later context, so that the next turn is written where it was;
            the hint in that context still counts the turns as they were. A memory without an end is retried once.
        retry_temperature: Sampling temperature, in greedy play, of the turn after one that was malformed or refused, or
            that repeated an earlier one and got the same reply. Greedy decoding repeats such a turn for ever where the
            context is constant. 0 for greedy there too; training samples at `temperature` throughout.
        env_timeout_s: Limit of one call of an environment, after which its episode ends with an error; null for none.
            With a limit environments are called in a thread other than the one that made them, see `env_guard`.
        resample_rounds: How often groups without a signal are played again within an rl_step of training (dapo).
        workers: Where training episodes are played: in this process, in others of this machine, or on a Ray cluster.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    max_information_tokens: int = 1000
    prompt: str = "full"
    tags: Tags = field(default_factory=Tags)
    format: str = "plain"
    instructions: str = ""
    begin_with_state: bool = False
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    env_threads: int = 0
    env_passes: int = 4
    malformed: str = "keep"
    retry_temperature: float = 0.0
    env_timeout_s: float | None = None
    resample_rounds: int = 0
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    ranges: ClassVar[Ranges] = {
        "temperature": Range(0, 1000),
        "retry_temperature": Range(0, 1000),
        "top_p": Range(0, 1, above=True),
        "max_new_tokens": Range(1),
        "max_information_tokens": Range(16),
        "env_threads": Range(0, 4096),
        "env_timeout_s": TIMEOUT_S,
        "resample_rounds": Range(0, 1000),
    }

    def __post_init__(self) -> None:
        self.tags = prompt_format(self.format, self.tags).tags
        for name in ("env_threads", "env_passes", "retry_temperature"):
            check_number(f"model.rollout.{name}", getattr(self, name), self.ranges.get(name, Range()))
        check_choice("treatment of malformed turns", self.malformed, MALFORMED, "model.rollout.malformed")

    @property
    def retries(self) -> bool:
        """Whether a malformed turn is retried."""
        return self.malformed == "retry"

    def encoder(self, tokenizer: Any) -> ContextEncoder:
        """What turns text into the ids of contexts, and back; `tokenizer` is the policy's."""
        chosen = prompt_format(self.format, self.tags, self.instructions)
        limits = (self.max_information_tokens, self.prompt, self.chat_template_kwargs, self.begin_with_state)
        return ContextEncoder(tokenizer, chosen, *limits)


def greedy(settings: RolloutSettings) -> RolloutSettings:
    """The same without sampling, except for what `retry_temperature` says."""
    return replace(settings, temperature=0.0, top_p=1.0)
