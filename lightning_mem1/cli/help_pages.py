"""What ``mem1 COMMAND --help`` shows: two screens, printed without importing anything heavy.

The full list of settings takes seconds (``--help all``). Names and defaults stand here a second time; the tests compare
them with the real parser.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

SETTINGS: dict[str, tuple[Any, str]] = {  # dotted name: default without a config, meaning
    "model.policy": ("bundled", "model to start from: bundled, a folder, or a model of the hub"),
    "model.memory": ("mem1", "a word such as mem1, full, fold (docs/reference/memory_modes.md)"),
    "model.algorithm": ("grpo", "grpo, dr_grpo, rloo, reinforce_pp, dapo, gspo, gigpo, ppo or raft"),
    "model.lr": (1e-3, "learning rate"),
    "model.lora.r": (16, "rank of the adapter; --model.lora null trains every weight"),
    "model.lora.target_modules": ("all-linear", "layers with an adapter"),
    "model.loss.kl_coef": (0.0, "weight of the KL penalty against the base policy"),
    "model.loss_unit": ("token", "what counts the same in the loss: token, turn or trajectory"),
    "model.layout": ("tree", "tree or rows (exact); stitched or official (inexact, for comparison)"),
    "model.compute.dtype": ("float32", "float32, bfloat16 or float16"),
    "model.compute.quantization": ("none", "nf4 for a base in 4 bits"),
    "model.compute.gradient_checkpointing": (False, "true takes less memory and more time"),
    "model.max_tokens_per_microbatch": (16384, "tokens per forward pass; lower it when memory runs out"),
    "model.rollout.temperature": (1.0, "of the sampling in training"),
    "model.rollout.max_new_tokens": (256, "most tokens of a turn"),
    "model.rollout.max_information_tokens": (1000, "most tokens of a reply of the environment"),
    "model.rollout.prompt": ("full", "full instructions, or brief"),
    "model.engine.kind": ("local", "local, vllm or server (vLLM, mem1 serve)"),
    "model.engine.num_slots": (64, "episodes generated at once"),
    "model.engine.max_context_tokens": (1024, "longest context, the turn included"),
    "data.catalogue": (None, "WebShopData: folder with the official files; null: a generated shop"),
    "data.questions": (None, "QAData, ReadingData: files of questions; null: generated ones"),
    "data.corpus": (None, "QAData: file of passages"),
    "data.objectives": (2, "QAData: questions per task"),
    "data.length": (1000, "ReadingData: tokens of a document"),
    "data.tasks_per_step": (8, "tasks in one rl_step"),
    "data.group_size": (8, "episodes of each task"),
    "data.num_rl_steps": (40, "rl_steps of the whole run"),
    "data.num_val_tasks": (100, "tasks of a validation"),
    "trainer.accelerator": ("auto", "auto, cpu or cuda"),
    "trainer.devices": (1, "processes, one per GPU"),
    "trainer.strategy": ("auto", "ddp with several devices; see docs/how-to/several_gpus.md"),
    "trainer.val_check_interval": (10, "rl_steps between validations"),
    "trainer.logger": (None, "null: MLflow; false: none; or a class of Lightning"),
    "seed_everything": (0, "seed of weights, tasks and sampling"),
    "ckpt_path": (None, "last, best, a checkpoint, or none for model.policy as it is"),
    "experiment": (None, "name of the run; null: the config's"),
    "tracking_uri": (None, "MLflow's store; null: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"),
    "objectives": (None, "questions per task, e.g. 1,2,4,8; null: as in the config"),
    "memory": (None, "memory modes, e.g. mem1,full; null: as in the config"),
    "tasks": (100, "tasks of each number of objectives"),
    "split": (None, "split of the tasks: test or val, in play also train"),
    "temperature": (0.0, "of the sampling; 0 is greedy"),
    "output": (None, "folder to write"),
    "page": (4, "trajectories of each row on the HTML page; 0: no page"),
    "published": (False, "also print published numbers"),
    "fresh": (False, "play everything again"),
    "index": (0, "number of the task in its split, from 0"),
    "max_lines": (12, "lines shown of each reply"),
    "human": (False, "type the turns yourself"),
    "merged": (False, "write the whole model, not the adapter alone"),
    "dtype": (None, "of merged weights, e.g. float32; null: as it was trained"),
    "force": (False, "write over an earlier export, or commit to an existing repository"),
    "push_to_hub": (None, "also push to ORG/NAME; the token is HF_TOKEN"),
    "private": (False, "make that repository private"),
    "commit_message": ("Upload policy with lightning_mem1", "message of the commit"),
    "name": (None, "name of the served model; null: as the policy or the config"),
    "host": ("127.0.0.1", "address to listen on"),
    "port": (8000, "port; 0: any free one"),
    "allow_adapters": (False, "let clients load adapters, from folders of this machine or with their files"),
    "allow_weights": (
        False,
        "let clients put whole weights in the place of those served",
    ),
    "seeds": (None, "seeds of the training, e.g. 0,1,2; null: as in the config"),
    "compare.fit.config": (None, "the training: an experiment or a YAML file"),
    "compare.warmstart": ([], "the warm starts, in order"),
    "compare.evaluate.tasks": (100, "tasks at each value"),
    "compare.evaluate.key": ("objectives", "what is varied: objectives, or a setting such as data.length"),
    "compare.evaluate.values": ([1, 2, 4, 8, 16], "its values"),
    "warmstart.output": (None, "folder to write the policy to"),
    "warmstart.init_from": (None, "policy to continue from; null: random weights"),
    "warmstart.tokenizer": (None, "folder of a tokenizer; null: train one"),
    "warmstart.memory": ("mem1", "memory mode of the demonstrations"),
    "warmstart.seed": (0, "seed of weights, tasks and demonstrations"),
    "warmstart.model.hidden_size": (192, "width"),
    "warmstart.model.num_layers": (4, "layers"),
    "warmstart.data.own.expert": (None, "your scripted expert, a dotted name such as my_task.expert"),
    "warmstart.data.own.file": (None, "your recorded episodes, JSON lines of turns or chat messages"),
    "warmstart.data.own.teacher": (None, "a model behind an endpoint that plays your tasks"),
    "warmstart.data.min_reward": (None, "clone only trajectories that reach it; null: all"),
    "warmstart.optim.lr": (6e-4, "peak learning rate"),
    "warmstart.optim.max_tokens": (4096, "tokens per forward pass; lower it when memory runs out"),
    "warmstart.rollout.max_new_tokens": (128, "most tokens of a turn"),
    "warmstart.num_val_tasks": (100, "validation tasks at the end"),
    "warmstart.save_every": (200, "steps between two savings"),
}


FLAGS = (
    "published",
    "fresh",
    "human",
    "merged",
    "force",
    "private",
    "allow_adapters",
    "allow_weights",
)  # take no value


@dataclass(frozen=True)
class Page:
    """The short help of a command.

    Attributes:
        usage: What follows ``mem1 COMMAND``.
        about: What the command does, a line each.
        settings: Names in `SETTINGS`, by heading.
        examples: Command lines.
        defaults: Defaults that differ from those in `SETTINGS`.
    """

    usage: str
    about: tuple[str, ...]
    settings: dict[str, tuple[str, ...]]
    examples: tuple[str, ...]
    defaults: dict[str, Any] = field(default_factory=dict)


CONFIG = "CONFIG is a YAML file or the name of an experiment; mem1 experiments lists them."
ANY = "Every key of the YAML can be given here, dotted."
POLICY = ("model.policy", "ckpt_path")
ROLLOUT = (
    "model.rollout.max_new_tokens", "model.rollout.max_information_tokens", "model.engine.kind",
    "model.engine.num_slots", "model.engine.max_context_tokens",
)  # fmt: skip
WORLDS = ("data.catalogue", "data.questions", "data.corpus", "data.objectives", "data.length")

PAGES = {
    "fit": Page(
        "CONFIG [--KEY VALUE ...]",
        ("Train a policy by RL.", CONFIG, ANY),
        {
            "Training": (
                "model.policy", "model.memory", "model.algorithm", "model.lr", "model.lora.r",
                "model.lora.target_modules", "model.loss.kl_coef", "model.loss_unit", "model.layout",
                "model.compute.dtype", "model.compute.quantization", "model.compute.gradient_checkpointing",
                "model.max_tokens_per_microbatch",
            ),
            "Rollouts": ("model.rollout.temperature", "model.rollout.prompt", *ROLLOUT),
            "Tasks": (
                *WORLDS, "data.tasks_per_step", "data.group_size", "data.num_rl_steps", "data.num_val_tasks"
            ),
            "Run": (
                "seed_everything", "ckpt_path", "experiment", "tracking_uri", "trainer.accelerator", "trainer.devices",
                "trainer.strategy", "trainer.val_check_interval", "trainer.logger",
            ),
        },
        (
            "mem1 fit webshop",
            "mem1 fit webshop --model.memory full --model.lr 1e-4 --data.num_rl_steps 20",
            "mem1 fit my.yaml --ckpt_path last",
        ),
    ),
    "evaluate": Page(
        "CONFIG [--ckpt_path PATH] [--KEY VALUE ...]",
        ("Play tasks in several memory modes and lengths; write every metric with its interval.", CONFIG, ANY),
        {
            "Evaluation": (
                "ckpt_path", "objectives", "memory", "tasks", "split", "temperature", "output", "page", "published",
                "fresh",
            ),
            "Policy and rollouts": ("model.policy", *ROLLOUT),
            "Tasks": (*WORLDS, "seed_everything"),
            "Run": ("experiment", "tracking_uri", "trainer.accelerator", "trainer.logger"),
        },
        (
            "mem1 evaluate webshop --ckpt_path last --tasks 500",
            "mem1 evaluate qa --ckpt_path none --objectives 1,2,4,8,16 --memory mem1,full",
            "mem1 evaluate qa --model.policy exported --output results",
        ),
        {"split": "test"},
    ),
    "compare": Page(
        "CONFIG [--memory all] [--KEY VALUE ...]",
        (
            "Train and evaluate memory modes alike; write the table, the figure and a page.",
            CONFIG,
            "What is finished is not repeated: the same command resumes.",
        ),
        {
            "Comparison": ("memory", "seeds", "output"),
            "What is run": (
                "compare.warmstart", "compare.fit.config", "compare.evaluate.tasks", "compare.evaluate.key",
                "compare.evaluate.values",
            ),
        },
        (
            "mem1 compare compare/qa --memory all",
            "mem1 compare compare/reading --memory mem1,full --seeds 0",
            "mem1 compare my.yaml --output results",
        ),
    ),
    "play": Page(
        "CONFIG [--ckpt_path PATH] [--KEY VALUE ...]",
        ("Play one episode and show it turn by turn.", CONFIG, ANY),
        {
            "Episode": ("ckpt_path", "split", "index", "temperature", "max_lines", "human"),
            "Policy and rollouts": ("model.policy", "model.memory", *ROLLOUT),
            "Tasks": (*WORLDS, "seed_everything"),
        },
        (
            "mem1 play webshop",
            "mem1 play webshop --ckpt_path last --index 3",
            "mem1 play webshop --human",
        ),
        {"split": "val"},
    ),
    "export": Page(
        "CONFIG --output DIR [--merged], or --ckpt_path FILE --output DIR [--merged]",
        (
            "Write a checkpoint as a folder that transformers, peft and vLLM read.",
            CONFIG,
            "It names the run whose last checkpoint is written.",
        ),
        {
            "Export": ("ckpt_path", "output", "merged", "dtype", "force"),
            "Hub": ("push_to_hub", "private", "commit_message"),
            "Run": ("experiment", "model.policy"),
        },
        (
            "mem1 export webshop --output exported",
            "mem1 export webshop --output exported --merged --push_to_hub ORG/NAME",
            "mem1 export --ckpt_path runs/webshop/0/checkpoints/best.ckpt --output exported",
        ),
        {"ckpt_path": "last"},
    ),
    "warmstart": Page(
        "CONFIG [--KEY VALUE ...]",
        ("Clone demonstrations into a small policy, before RL: yours, or those of scripted agents.", CONFIG, ANY),
        {
            "Policy": (
                "warmstart.output", "warmstart.init_from", "warmstart.tokenizer", "warmstart.model.hidden_size",
                "warmstart.model.num_layers", "warmstart.seed",
            ),
            "Demonstrations": (
                "warmstart.memory", "warmstart.data.own.expert", "warmstart.data.own.file",
                "warmstart.data.own.teacher", "warmstart.data.min_reward", "warmstart.rollout.max_new_tokens",
            ),
            "Run": (
                "warmstart.optim.lr", "warmstart.optim.max_tokens", "warmstart.num_val_tasks", "warmstart.save_every",
            ),
        },
        (
            "mem1 warmstart warmstart --warmstart.output policy",
            "mem1 warmstart claim/warmstart_base --warmstart.output base --warmstart.seed 1",
            "mem1 warmstart my.yaml --warmstart.data.own.file episodes.jsonl",
        ),
    ),
    "serve": Page(
        "CONFIG|FOLDER [--ckpt_path PATH] [--port 8000]",
        (
            "Serve a policy over OpenAI's completions protocol.",
            CONFIG,
            "FOLDER is an exported policy, a model of the hub, or bundled.",
            "Clients have to send the key in LIGHTNING_MEM1_API_KEY when it is set.",
        ),
        {
            "Server": ("name", "host", "port", "allow_adapters", "allow_weights"),
            "With CONFIG (with FOLDER: --dtype, --num_slots, --max_context_tokens)": (
                "ckpt_path", "model.policy", "model.compute.dtype", "model.engine.num_slots",
                "model.engine.max_context_tokens",
            ),
        },
        (
            "mem1 serve bundled --port 8000",
            "mem1 serve exported --max_context_tokens 2048 --allow_adapters",
            "mem1 serve webshop --ckpt_path last",
        ),
    ),
}  # fmt: skip


def page(command: str) -> str:
    """The short help of a command.

    >>> page("play").splitlines()[0]
    'usage: mem1 play CONFIG [--ckpt_path PATH] [--KEY VALUE ...]'
    """
    this = PAGES[command]
    settings = {heading: [_setting(name, this) for name in names] for heading, names in this.settings.items()}
    width = 2 + max(len(option) for lines in settings.values() for option, _ in lines)
    shown = [["", f"{heading}:", *(f"  {o:{width}}{m}" for o, m in lines)] for heading, lines in settings.items()]
    rest = [f"  {f'mem1 {command} {option}':{width}}{meaning}" for option, meaning in _rest(command).items()]
    return "\n".join(
        [
            f"usage: mem1 {command} {this.usage}",
            "",
            *this.about,
            "Below are the settings that are changed most, with their defaults without a config.",
            *itertools.chain.from_iterable(shown),
            "",
            "Examples:",
            *(f"  {example}" for example in this.examples),
            "",
            "More:",
            *rest,
        ]
    )


def _setting(name: str, page: Page) -> tuple[str, str]:
    """``--name default`` and what it means."""
    default, meaning = SETTINGS[name]
    default = page.defaults.get(name, default)
    value = default if isinstance(default, str) else json.dumps(default)  # as YAML writes it
    return f"--{name}" if name in FLAGS else f"--{name} {value}", meaning


def _rest(command: str) -> dict[str, str]:
    """How to get what the page leaves out."""
    rest = {"--help all": "every setting", "CONFIG --print_config": "the settings of a config, defaults included"}
    if command not in ("warmstart", "compare"):
        rest |= {"--model.help": "the settings of the model", "--data.help": "those of the shop and of questions"}
    return rest
