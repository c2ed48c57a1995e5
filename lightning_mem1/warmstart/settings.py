"""The settings of a warm start: architecture, curriculum, expert and optimiser of `mem1 warmstart`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lightning_mem1.checks import ANY_SIGN, POSITIVE, RATE, SEED, SHARE, Range, Ranges, check_choice, check_numbers
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.environments.qa.composition import Preset
from lightning_mem1.environments.qa.encyclopedia.questions import WORDINGS, Wording
from lightning_mem1.environments.qa.encyclopedia.world import MIN_PASSAGES
from lightning_mem1.environments.qa.scripted_researcher.notation import NOTATIONS, NUMBERED, Notation
from lightning_mem1.environments.qa.scripted_researcher.researcher import ResearcherSkill as Research
from lightning_mem1.environments.reading.scripted_reader import ReaderSkill as Reading
from lightning_mem1.environments.reading.stories import KINDS, Kind
from lightning_mem1.environments.webshop.scripted_shopper import ShopperSkill as Shopping
from lightning_mem1.policy.settings import LoraSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.warmstart.own.settings import OwnDemonstrations


@dataclass
class Architecture:
    """A small Qwen2.

    Args:
        vocab_size: Size of the vocabulary.
        hidden_size: Width.
        num_layers: Number of layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads. The induction circuit shares its codes out among them: fewer and wider ones
            mistake fewer places for each other.
        intermediate_size: Width of the MLP.
        init_std: Standard deviation of the initial weights; small models learn faster from more than the usual 0.02.
        induction_start: Begin with an induction circuit (see `policy.induction`).
        rope_theta: Base of the rotary positions; a large one lets small heads match tokens far apart.
        max_positions: Longest context the rotary positions are declared for.
    """

    vocab_size: int = 4096
    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 8
    num_kv_heads: int = 4
    intermediate_size: int = 512
    init_std: float = 0.06
    induction_start: bool = True
    rope_theta: float = 1e6
    max_positions: int = 4096
    ranges: ClassVar[Ranges] = {
        "vocab_size": Range(300, 10**6),
        "hidden_size": Range(2, 10**5),
        "num_layers": Range(1, 1000),
        "num_heads": Range(1, 1000),
        "num_kv_heads": Range(1, 1000),
        "intermediate_size": Range(1, 10**6),
        "rope_theta": Range(1, 10**12),
        "max_positions": Range(2),
    }


@dataclass
class Stage:
    """A part of the curriculum: from short pages and single questions, on which reading is learned soonest, upwards.

    Args:
        steps: How many steps it lasts.
        shop_episodes: Episodes in the shop per step; 0 leaves the shop out.
        qa_episodes: Episodes with the encyclopedia per step; 0 leaves it out.
        results_per_page: Products on a page of results.
        passages: Passages in the reply to a search.
        objectives: Questions per task, by turns.
        hops: Which questions: how many facts have to be put together.
        compose: How questions are put together, see `tasks.compose`: mixed, interdependent, alike or paired.
        marketplace_episodes: Episodes per step in a shop whose listings are as untidy as real ones.
        reading_episodes: Episodes per step with a long document.
        lengths: Tokens of these documents, drawn evenly.
        part: Tokens of a part of these documents.
        episodes: Episodes of one's own task per step, with `data.own`; the other worlds are left out then.
    """

    steps: int
    shop_episodes: int = 4
    qa_episodes: int = 8
    results_per_page: int = 5
    passages: int = 3
    objectives: list[int] = field(default_factory=lambda: [2, 1, 3, 2])
    hops: list[int] = field(default_factory=lambda: [1, 2])
    compose: Preset = "mixed"
    marketplace_episodes: int = 0
    reading_episodes: int = 0
    lengths: list[int] = field(default_factory=lambda: [500])
    part: int = 125
    episodes: int = 8
    ranges: ClassVar[Ranges] = {
        "steps": Range(1),
        **dict.fromkeys(("shop_episodes", "qa_episodes", "marketplace_episodes", "reading_episodes"), Range(0, 10**5)),
        **dict.fromkeys(("results_per_page", "passages", "objectives"), Range(1, 10**4)),
        **dict.fromkeys(("lengths", "part"), Range(1, 10**7)),
        "episodes": Range(1, 10**5),
        "hops": Range(1, 3),
    }


@dataclass
class ShopDemonstrations:
    """What the scripted shopper plays.

    Args:
        num_products: Products of each catalogue.
        max_turns: Turn budget.
        skill: How good the shopper's decisions are.
    """

    num_products: int = 200
    max_turns: int = 10
    skill: Shopping = field(default_factory=Shopping)
    ranges: ClassVar[Ranges] = {"num_products": Range(1, 10**7), "max_turns": Range(1)}


@dataclass
class QADemonstrations:
    """What the scripted researcher plays.

    Args:
        num_passages: Passages of each encyclopedia.
        skill: How good the researcher's decisions are.
        notation: How its state lists the answers, see `tasks.notation`.
        largest_first: Half of the tasks are numbered from a number drawn between 1 and this on, others from 1; above
            1 a policy learns which number follows which without ever seeing a task of so many questions.
        wording: How the encyclopedia asks, see `tasks.quiz`: question or topic.
        carried: Part of the tasks numbered from above 1 whose first state lists answers to all smaller numbers; that
            state is shown and not cloned. Every other prompt of them has the answered questions too. So a policy
            learns to keep and to lengthen a list of `largest_first` answers, and to find its place among as many
            questions, in a few turns. Not in notation `every`, and none in `compaction`, whose acts show no state.
    """

    num_passages: int = 300
    skill: Research = field(default_factory=Research)
    notation: Notation = "every"
    largest_first: int = 1
    wording: Wording = "question"
    carried: float = 0.0
    ranges: ClassVar[Ranges] = {
        "num_passages": Range(MIN_PASSAGES, 10**7),
        "largest_first": Range(1),
        "carried": SHARE,
    }

    def __post_init__(self) -> None:
        check_numbers("warmstart.data.qa", QADemonstrations, vars(self))
        check_choice("notation", self.notation, NOTATIONS, "warmstart.data.qa.notation")
        check_choice("wording", self.wording, WORDINGS, "warmstart.data.qa.wording")
        if self.carried and (self.notation not in NUMBERED or self.largest_first == 1):
            raise ValueError(
                "warmstart.data.qa.carried needs notation next or react and largest_first above 1, got "
                f"{self.notation} and {self.largest_first}; set both or drop it"
            )


@dataclass
class ReadingDemonstrations:
    """What the scripted reader reads.

    Args:
        kinds: Kinds of questions, drawn evenly.
        turns_per_part: Turns for each part of a document; 2 or more for modes whose own actions cost turns.
        skill: How good the reader's decisions are.
    """

    kinds: list[Kind] = field(default_factory=lambda: list(KINDS))
    turns_per_part: int = 1
    skill: Reading = field(default_factory=Reading)
    ranges: ClassVar[Ranges] = {"turns_per_part": Range(1, 1000)}


@dataclass
class DemonstrationSettings:
    """What is cloned: play in worlds that are drawn again every few steps.

    Args:
        first_seed: Seed of the first catalogue and encyclopedia; later ones count up. Seed 0 is the world that agents
            are trained and tested on, so start above it.
        steps_per_world: Steps before the next ones are drawn.
        slip: Part of the turns that is broken off or loops. Such turns are not cloned; what is cloned is how the expert
            continues behind them, which a policy that makes mistakes of its own has to know.
        min_reward: Expert trajectories with a reward below it are dropped, valid turns included; null keeps all.
        shop: The shopper.
        qa: The researcher.
        reading: The reader.
        own: A task of one's own, in place of all of these.
    """

    first_seed: int = 1000
    steps_per_world: int = 20
    slip: float = 0.0
    min_reward: float | None = None
    shop: ShopDemonstrations = field(default_factory=ShopDemonstrations)
    qa: QADemonstrations = field(default_factory=QADemonstrations)
    reading: ReadingDemonstrations = field(default_factory=ReadingDemonstrations)
    own: OwnDemonstrations = field(default_factory=OwnDemonstrations)
    ranges: ClassVar[Ranges] = {
        "first_seed": SEED,
        "steps_per_world": Range(1),
        "slip": SHARE,
        "min_reward": ANY_SIGN,
    }


@dataclass
class Optimisation:
    """AdamW with warm-up and cosine decay.

    Args:
        lr: Peak learning rate.
        circuit_lr: Learning rate of the induction circuit (embeddings, attention of the first two layers) as a part of
            `lr`: at the full rate the first hundred steps wear it down before the other layers have learned to use it.
        warmup_steps: Linear warm-up.
        weight_decay: Decoupled weight decay of matrices.
        max_grad_norm: Gradient clipping.
        max_tokens: Trained tokens of one forward pass (more passes are accumulated).
        max_seconds: Ends the training after this time; the learning rate then falls with the part of the time or of the
            steps that is gone, whichever is larger. null for no limit.
    """

    lr: float = 6e-4
    circuit_lr: float = 0.1
    warmup_steps: int = 30
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_tokens: int = 4096
    max_seconds: float | None = None
    ranges: ClassVar[Ranges] = {"lr": RATE, "max_tokens": Range(1), "max_seconds": POSITIVE}


@dataclass
class WarmStart:
    """A warm start.

    Args:
        output: Folder that the policy is written to.
        seed: Seed of weights, tasks and the shopper.
        tokenizer: Folder of a tokenizer, or bundled; null to train one on generated text.
        init_from: Folder of a policy to continue from (with its tokenizer), or null for random weights.
        model: The architecture.
        data: What is cloned.
        stages: The curriculum.
        optim: The optimiser.
        memory: Memory mode in which the expert plays and the policy is cloned and validated, as in `Mem1Module`. In
            `full` it writes its state too, as reasoning, and sees it all; in a staged mode each turn is divided, the
            state being the memory and the action what acts on it. It uses what a mode offers, see `warmstart.habits`.
        rollout: Prompt style and limits of the trajectories; research takes the prompt format ``qa``, reading
            ``reading``.
        num_val_tasks: Greedy episodes on the validation tasks of the default shop, of the default encyclopedia and of
            the documents of seed 0 at the end.
        save_every: Steps between two savings of the policy as it is, so that an interrupted run leaves something.
        lora: Trains an adapter in place of every weight; what is written has it merged in. null for every weight.
        merged: Whether the whole model is written; false writes the adapter of `lora` alone, which loads on the policy
            that `init_from` names.
        accelerator: Where it trains and validates: cpu, cuda, or auto (cuda where there is one).
        precision: Of the forward and backward passes, as Lightning's trainer names it: 32-true, bf16-mixed.
        num_workers: Processes in which the experts play; 0 plays in this one.
    """

    output: str
    seed: int = 0
    tokenizer: str | None = None
    init_from: str | None = None
    model: Architecture = field(default_factory=Architecture)
    data: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    stages: list[Stage] = field(default_factory=lambda: [Stage(1000)])
    optim: Optimisation = field(default_factory=Optimisation)
    memory: MemorySetting = "mem1"
    rollout: RolloutSettings = field(default_factory=lambda: RolloutSettings(prompt="brief", max_new_tokens=128))
    num_val_tasks: int = 100
    save_every: int = 200
    lora: LoraSettings | None = None
    merged: bool = True
    accelerator: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: str = "32-true"
    num_workers: int = 1
    ranges: ClassVar[Ranges] = {"seed": SEED, "save_every": Range(1), "num_workers": Range(0, 1000)}

    def __post_init__(self) -> None:
        check_numbers("warmstart", WarmStart, vars(self))
        mode = self.mode
        check_choice("accelerator", self.accelerator, ("cpu", "cuda", "auto"), "warmstart.accelerator")
        if not self.merged and not (self.lora and self.init_from):
            raise ValueError(
                "warmstart.merged false writes an adapter on its base: expected warmstart.lora and "
                "warmstart.init_from, got one of them null; set both, or warmstart.merged true"
            )
        if self.data.qa.notation == "react" and mode.name != "full":
            raise ValueError(
                "warmstart.data.qa.notation react leaves the answers in the history, got warmstart.memory "
                f"{mode}; set that to full, or take another notation"
            )

    @property
    def mode(self) -> MemoryMode:
        """The memory mode."""
        return memory_mode(self.memory, "warmstart.memory")
