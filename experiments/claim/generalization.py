"""The claim: trained on two objectives, tested on many, at constant memory; memory modes trained alike, over seeds.

    python experiments/claim/generalization.py --output runs/claim   # everything, one job at a time
    python experiments/claim/generalization.py --output runs/claim --jobs 2 --only rl,evaluate
    python experiments/claim/generalization.py --only shop_warmstart,shop_rl,shop_evaluate --catalogue FOLDER

What is done is not repeated, so the same command continues after Ctrl-C or a kill. Every job has one thread; ``--jobs``
run at once. Below the output folder: policies, checkpoints, evaluations, logs, ``claim.json``, ``claim.md``, pictures.
What is compared, and why: experiments/claim/log.md; the result: docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))

import table
from baseline import hardware, integers, some_of
from jobs import ROOT, Job, Start, cost, in_process_of_its_own, run_all
from table import Arm, Result

from lightning_mem1.environments.qa.scripted_researcher.notation import Notation

STAGES = (
    "base", "warmstart", "chained", "haste", "rl", "raft", "cloning", "evaluate", "interdependent", "shop_warmstart",
    "shop_rl", "shop_evaluate",
)  # fmt: skip
ARMS = ("careful", "start", "rl", "raft", "cloning")  # before and after the hasty expert, and three ways on from there
# what is compared -> the memory mode that it is trained and played in. react: the full history with nothing restated in
# it, as agents have it that append each thought and action: an answer is in the turn that found it. `full` restates
# the list of answers in every turn, as `mem1` has to
MEMORY = {"mem1": "mem1", "full": "full", "summary": "summary", "react": "full"}
NOTATION: dict[str, Notation] = {"react": "react"}  # where it is not that of the configs, `next`
MODES = tuple(MEMORY)
LONGEST_TURN = "384"  # tokens: a turn that answers 32 questions has 267
# tokens, as many as the bundled policies have positions for: the history of ten pages is not cut
SHOP_ROOM = "--model.engine.max_context_tokens", "4096"


class Claim:
    """The jobs of the comparison and what comes of them.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(os.path.relpath(Path(options.output).resolve(), ROOT))  # jobs run in the repository root
        self.extra: dict[str, list[str]] = {stage: [] for stage in STAGES}
        for given in options.extra:
            stage, _, argument = given.partition(":")
            if stage not in self.extra:
                raise ValueError(f"--extra names no stage: expected one of {', '.join(STAGES)}, got '{stage}'")
            self.extra[stage].append(argument)

    def jobs(self, stage: str) -> list[Job]:
        """The jobs of a stage; those of the same stage do not need each other."""
        return list(getattr(self, f"_{stage}")())

    def _base(self) -> Iterator[Job]:
        yield self._cloned("base/shared", "warmstart_base", "base")

    def _warmstart(self) -> Iterator[Job]:
        for mode in self.options.modes:
            yield self._cloned_in(mode, "warmstart", "warmstart", mode, "base")

    def _chained(self) -> Iterator[Job]:
        for mode in self.options.modes:
            yield self._cloned_in(mode, "chained", "warmstart_chained", f"chained-{mode}", mode)

    def _haste(self) -> Iterator[Job]:
        for mode in self.options.modes:
            yield self._cloned_in(mode, "haste", "warmstart_hasty", f"hasty-{mode}", f"chained-{mode}")

    def _rl(self) -> Iterator[Job]:
        for seed in self.options.seeds:
            for mode in self.options.modes:
                yield self._trained("rl", "claim/qa", mode, seed, f"hasty-{mode}")

    def _raft(self) -> Iterator[Job]:
        for seed in self.options.seeds:
            yield self._trained("raft", "claim/raft", "mem1", seed, "hasty-mem1")

    def _cloning(self) -> Iterator[Job]:
        for seed in self.options.seeds:
            yield self._cloned(
                f"cloning/mem1/{seed}", "cloning", f"cloning-{seed}", "hasty-mem1", "--warmstart.seed", str(10 + seed)
            )

    def _evaluate(self) -> Iterator[Job]:
        for name, seed, mode, played in self._players():
            yield self._played("evaluate", name, seed, mode, self.options.objectives, played)

    def _interdependent(self) -> Iterator[Job]:
        several = [k for k in self.options.objectives if k > 1]
        for name, seed, mode, played in self._players():
            more = [*played, "--data.compose", "interdependent"]
            yield self._played("interdependent", name, seed, mode, several, more)

    def _shop_warmstart(self) -> Iterator[Job]:
        for mode in self._shop_modes():
            start = self.options.shop_policy
            yield self._cloned_in(mode, "shop_warmstart", "warmstart_shop", f"shop-{mode}", start)

    def _shop_rl(self) -> Iterator[Job]:
        for seed in self.options.seeds:
            for mode in self._shop_modes():
                for shop, given in self._shops().items():
                    yield self._trained(f"shop_rl/{shop}", "webshop", mode, seed, f"shop-{mode}", *SHOP_ROOM, *given)

    def _shop_evaluate(self) -> Iterator[Job]:
        for shop, given in self._shops().items():
            for mode in self._shop_modes():
                chosen = ["--model.policy", self._policy(f"shop-{mode}"), *given]
                yield self._evaluated("shop_evaluate", f"{shop}/start/{mode}", 0, mode, "webshop", chosen, [])
                for seed in self.options.seeds:
                    last = ["--ckpt_path", str(self._root(f"shop_rl/{shop}", mode, seed) / "checkpoints" / "last.ckpt")]
                    yield self._evaluated(
                        "shop_evaluate", f"{shop}/rl/{mode}", seed, mode, "webshop", [*chosen, *last], []
                    )

    def _shop_modes(self) -> list[str]:
        """A shopper's turns list nothing: there is one way to see the full history."""
        return [mode for mode in self.options.modes if mode not in NOTATION]

    def _shops(self) -> dict[str, list[str]]:
        """Name of a shop -> what the commands get of it."""
        if not self.options.catalogue:
            return {"generated": []}
        return {"generated": [], "official": ["--data.catalogue", str(Path(self.options.catalogue).resolve())]}

    def _players(self) -> Iterator[tuple[str, int, str, list[str]]]:
        """Every policy that is evaluated on questions: arm, seed, memory mode, and how it is loaded."""
        modes = self.options.modes
        for arm, those in {"careful": modes, "start": modes, "rl": modes, "raft": ["mem1"]}.items():
            trained = arm in ("rl", "raft")
            for mode in those if arm in self.options.arms else ():
                policy = self._policy(f"chained-{mode}" if arm == "careful" else f"hasty-{mode}")
                for seed in self.options.seeds if trained else [0]:
                    last = ["--ckpt_path", self._last(arm, mode, seed)] if trained else []
                    yield f"{arm}/{mode}", seed, mode, ["--model.policy", policy, *last]
        for seed in self.options.seeds if "cloning" in self.options.arms else ():
            yield "cloning/mem1", seed, "mem1", ["--model.policy", self._policy(f"cloning-{seed}")]

    def arms(self, stage: str) -> list[Arm]:
        """What a stage of evaluation compares."""
        folders: dict[str, list[Path]] = {}
        for job in self.jobs(stage):
            folders.setdefault(job.name.split("/", 1)[1].rsplit("/", 1)[0], []).append(ROOT / self.folder / job.name)
        return [Arm(name, tuple(those), MEMORY[name.split("/")[-1]]) for name, those in folders.items()]

    def _cloned_in(self, mode: str, stage: str, config: str, output: str, start: str) -> Job:
        more = ["--warmstart.memory", MEMORY[mode]]
        more += ["--warmstart.data.qa.notation", NOTATION[mode]] if mode in NOTATION else []
        return self._cloned(f"{stage}/{mode}", config, output, start, *more)

    def _cloned(self, name: str, config: str, output: str, start: str | None = None, *more: str) -> Job:
        stage = name.split("/")[0]
        command = ["-m", "lightning_mem1", "warmstart", f"experiments/claim/{config}.yaml"]
        command += ["--warmstart.output", self._policy(output), *more]
        command += ["--warmstart.init_from", self._policy(start)] if start else []
        return Job(name, (*command, *self.extra[stage]))

    def _trained(self, name: str, config: str, mode: str, seed: int, policy: str, *more: str) -> Job:
        root = self._root(name, mode, seed)
        command = ["-m", "lightning_mem1", "fit", f"experiments/{config}.yaml", "--model.policy", self._policy(policy)]
        command += ["--model.memory", MEMORY[mode], "--seed_everything", str(seed)]
        command += [
            "--trainer.default_root_dir",
            str(root),
            "--trainer.logger",
            "false",
            *more,
            *self.extra[name.split("/")[0]],
        ]
        return Job(f"{name}/{mode}/{seed}", tuple(command), root / "checkpoints" / "last.ckpt")

    def _played(
        self, stage: str, name: str, seed: int, mode: str, objectives: Sequence[int], more: Sequence[str]
    ) -> Job:
        chosen = ["--objectives", ",".join(map(str, objectives)), "--tasks", str(self.options.tasks)]
        chosen += ["--model.rollout.max_new_tokens", LONGEST_TURN]
        return self._evaluated(stage, name, seed, mode, "claim/qa", more, chosen)

    def _evaluated(
        self, stage: str, name: str, seed: int, mode: str, config: str, more: Sequence[str], chosen: Sequence[str]
    ) -> Job:
        full = f"{stage}/{name}/{seed}"
        command = ["-m", "lightning_mem1", "evaluate", f"experiments/{config}.yaml", "--memory", MEMORY[mode], *more]
        command += chosen or ["--tasks", "500"]  # all test goals of the shop
        command += ["--output", str(self.folder / full), "--trainer.logger", "false", *self.extra[stage]]
        return Job(full, tuple(command), extends=True)

    def _policy(self, name: str) -> str:
        return name if "/" in name else str(self.folder / "policies" / name)

    def _root(self, stage: str, mode: str, seed: int) -> Path:
        return self.folder / stage / mode / str(seed)

    def _last(self, stage: str, mode: str, seed: int) -> str:
        return str(self._root(stage, mode, seed) / "checkpoints" / "last.ckpt")


def report(claim: Claim, folder: Path) -> list[str]:
    """Put together what has been evaluated so far; writes ``claim.json``, ``claim.md`` and the pictures."""
    from lightning_mem1.evaluation.report import plots

    told: dict[str, Any] = {"hardware": hardware(), "jobs_at_once": claim.options.jobs, "cost": cost(folder)}
    lines, figures = [], {}
    for stage, names in (
        ("evaluate", table.QA), ("interdependent", table.QA), ("shop_evaluate", table.SHOP)
    ):  # fmt: skip
        found = {arm.name: each for arm in claim.arms(stage) if (each := table.results(arm, names))}
        if not found:
            continue
        shops = "", "generated/", "official/"
        pairs = [(f"{shop}rl/mem1", f"{shop}rl/{other}") for shop in shops for other in MODES[1:]]
        ratios = {" over ".join(pair): table.ratios(found, *pair) for pair in pairs if set(pair) <= set(found)}
        told[stage] = {"rows": table.as_json(found), "ratios": ratios, "baselines": _baselines(claim, stage)}
        lines += [f"## {stage}", "", *table.markdown(found, names), ""]
        for pair, rows in ratios.items():
            lines += [*table.ratio_table(rows, pair), ""]
        figures[stage] = plots.by_objectives(
            [result.row for each in found.values() for result in each], _shown(found, names)
        )
    (folder / "claim.json").write_text(json.dumps(told, indent=1) + "\n")
    (folder / "claim.md").write_text("\n".join(lines) + "\n")
    plots.save(figures, folder)
    return [*lines, *_costs(told["cost"])]


def _shown(found: Mapping[str, Sequence[Result]], names: Sequence[str]) -> list[str]:
    return [name for name in ("em", "reward", "peak_tokens", "dependency") if name in names]


def _baselines(claim: Claim, stage: str) -> dict[str, Any]:
    """What scripted agents score on the same tasks, as the first evaluation of each arm reports."""
    found = {}
    for arm in claim.arms(stage):
        path = arm.folders[0] / "results.json"
        if path.exists():
            found[arm.name] = json.loads(path.read_text())["baselines"]
    return found


def _costs(stages: Mapping[str, Mapping[str, float]]) -> list[str]:
    total = sum(each["cpu_hours"] for each in stages.values())
    told = [f"{stage} {each['cpu_hours']:.2f} ({each['jobs']:.0f} jobs)" for stage, each in stages.items()]
    return [f"CPU hours: {', '.join(told)}; together {total:.2f}"]


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare memory modes that were trained alike.")
    parser.add_argument("--output", default="runs/claim", help="folder of everything")
    parser.add_argument("--jobs", type=int, default=1, help="jobs at once, each on one thread")
    everything = [stage for stage in STAGES if not stage.startswith("shop")]
    told = f"stages, some of {','.join(STAGES)}; left out: all but the shop's"
    parser.add_argument("--only", type=some_of(STAGES), default=everything, help=told)
    parser.add_argument("--seeds", type=integers, default=[0, 1, 2])
    parser.add_argument("--modes", type=some_of(MODES), default=list(MODES))
    arms = f"what is evaluated, some of {','.join(ARMS)}"
    parser.add_argument("--arms", type=some_of(ARMS), default=list(ARMS), help=arms)
    parser.add_argument("--objectives", type=integers, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--tasks", type=int, default=100, help="tasks of each number of objectives")
    parser.add_argument("--catalogue", help="folder of the official shop files: the shop's stages play there as well")
    parser.add_argument(
        "--shop_policy", default="lightning_mem1/policy/assets/marketplace", help="the policy that the shop begins with"
    )
    parser.add_argument("--extra", action="append", default=[], help="STAGE:ARGUMENT, handed on to its commands")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, start: Start = in_process_of_its_own) -> int:
    """Run what is missing, stage by stage, and report the results; jobs are started by `start`."""
    options = parsed(argv)
    folder = Path(options.output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        claim = Claim(options)
        for stage in [stage for stage in STAGES if stage in options.only]:
            run_all(claim.jobs(stage), folder, options.jobs, start)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(report(claim, folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
