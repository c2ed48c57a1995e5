"""A comparison's commands, its ledger and its table: pure functions of settings and of files."""

import json

import pytest

from lightning_mem1.context.modes import MODES
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.evaluation.comparison import report, table
from lightning_mem1.evaluation.comparison.settings import Cloning, Command, Comparison, Measuring, modes, seeds_of
from lightning_mem1.evaluation.comparison.stage_ledger import Cost, StageLedger
from lightning_mem1.evaluation.comparison.stages import Stage, evaluations, options, stages
from lightning_mem1.evaluation.comparison.trained_tokens import num_tokens


def comparison(folder="out", **settings):
    given = {"fit": Command("qa"), "memory": ["mem1", {"mode": "window", "window": 2}], "seeds": [0, 1]}
    return Comparison(str(folder), **{**given, **settings})


def lengths(folder, **settings):
    return comparison(folder, evaluate=Measuring(tasks=2, key="data.length", values=[100, 200]), **settings)


def record(folder, mode, index, reward, seconds=1.0, objectives=1, stop="done"):
    """A line of an evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = {"em_mean": reward, "reward": reward, "peak_tokens": 10.0, "dependency": 2e6, "seconds": seconds}
    entry = {"memory": mode, "objectives": objectives, "index": index, "stop_reason": stop, "measures": measured}
    with (folder / "trajectories.jsonl").open("a") as file:
        file.write(f"{json.dumps(entry)}\n")


def test_every_mode_is_cloned_once_and_trained_and_measured_for_each_seed():
    settings = comparison(warmstart=[Cloning("first", shared=True), Cloning("second")])
    assert [stage.name for stage in stages(settings)] == [
        "warmstart/shared/0",
        "warmstart/mem1/1",
        "warmstart/window/1",
        *(
            f"{kind}/{mode}/{seed}{end}"
            for seed in (0, 1)
            for mode in ("mem1", "window")
            for kind, end in (("fit", ""), ("evaluate", "/objectives-1-2-4-8-16"))
        ),
    ]


def test_modes_differ_in_the_mode_its_policy_and_its_folders_alone():
    settings = comparison(warmstart=[Cloning("first", {"warmstart.seed": 3})], fit=Command("qa", {"model.lr": 0.1}))
    found = {stage.name: stage.command for stage in stages(settings)}
    for kind in ("warmstart/{}/0", "fit/{}/1", "evaluate/{}/1/objectives-1-2-4-8-16"):
        mine, other = found[kind.format("mem1")], found[kind.format("window")]
        pairs = [(a, b) for a, b in zip(mine, other, strict=True) if a != b]
        spelled = '{"mode": "window", "window": 2}'
        for a, b in pairs:
            b = b.replace(f"memory={spelled}", "memory=mem1").replace("/window", "/mem1").replace("0-window", "0-mem1")
            assert a == b


def test_a_training_and_its_evaluation_are_these_commands():
    mode, settings = memory_mode("mem1"), lengths("out", warmstart=[Cloning("start")])
    cloned, trained, *measured = [stage for stage in stages(settings) if stage.mode == "mem1"]
    assert cloned.command == (
        "warmstart", "start", "--warmstart.output=out/policies/0-mem1", "--warmstart.memory=mem1",
    )  # fmt: skip
    assert trained.command == (
        "fit", "qa", "--model.memory=mem1", "--model.policy=out/policies/0-mem1", "--seed_everything=0",
        "--trainer.default_root_dir=out/fit/mem1/0",
        '--trainer.logger={"class_path": "CSVLogger", "init_args": {"save_dir": "out/fit/mem1/0", "name": "metrics"}}',
    )  # fmt: skip
    assert measured[0].command == (
        "evaluate", "qa", "--model.memory=mem1", "--model.policy=out/policies/0-mem1", "--data.length=100",
        "--tasks=2", "--page=0", "--ckpt_path=out/fit/mem1/0/checkpoints/last.ckpt",
        "--output=out/evaluate/mem1/0/data.length-100", "--trainer.logger=false",
    )  # fmt: skip
    assert [values for values, _ in evaluations(settings, mode, 0)] == [[100], [200]]


def test_settings_are_written_as_a_command_line_has_them():
    given = {"a.b": [1, 2], "c": None, "d": True, "e": "x y", "f": {"r": 4}}
    assert options(given) == ["--a.b=[1, 2]", "--c=null", "--d=true", "--e=x y", '--f={"r": 4}']


def test_all_is_every_mode_of_the_package():
    played = [word for word in MODES if word != "recorded"]
    assert [mode.name for mode in modes("all")] == played == [mode.name for mode in comparison(memory="all").modes]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: modes("mem1,mem2"), "unknown memory mode: expected one of mem1, .*got 'mem2'; set compare.memory"),
        (lambda: modes("mem1,mem1"), "must name different memory modes, at least one, got mem1, mem1"),
        (lambda: comparison(memory=[]), "compare.memory must name different memory modes, at least one, got none"),
        (lambda: comparison(seeds=[]), r"compare.seeds must be different numbers, at least one, got \[\]"),
        (lambda: comparison(seeds=[1, 1]), "compare.seeds must be different numbers"),
        (lambda: seeds_of("0,x"), "--seeds must be whole numbers from 0, e.g. 0,1,2, got '0,x'"),
        (lambda: Measuring(tasks=0), "compare.evaluate.tasks"),
        (lambda: Measuring(values=[]), "compare.evaluate.values must be different numbers, at least one"),
    ],
)
def test_what_cannot_be_compared_is_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_finished_stage_is_known_again_and_another_command_of_its_name_is_refused(tmp_path):
    ledger, stage = StageLedger(tmp_path), Stage("fit/mem1/0", ("fit", "qa", "--model.lr=0.1"), tmp_path)
    assert ledger.done(stage) is None
    assert (ledger.begun(stage), ledger.begun(stage)) == (1, 2)
    ledger.finish(stage, Cost(2.0, 1.0, 2, 30))
    assert StageLedger(tmp_path).done(stage) == Cost(2.0, 1.0, 2, 30)
    other = Stage("fit/mem1/0", ("fit", "qa", "--model.lr=0.2"), tmp_path)
    with pytest.raises(ValueError, match="other settings: expected --model.lr=0.1, got --model.lr=0.2; set --output"):
        ledger.done(other)


def test_a_warm_start_whose_policy_is_gone_is_made_again_only_where_a_missing_mode_needs_it(tmp_path):
    settings = comparison(tmp_path, warmstart=[Cloning("first", shared=True), Cloning("second")], seeds=[0])
    ledger, every = StageLedger(tmp_path), stages(settings)
    for stage in every:
        ledger.finish(stage, Cost(1.0, 1.0))
        if stage.kind == "evaluate":
            record(stage.output, stage.mode, 0, 1.0)
    assert ledger.due(every) == []
    (tmp_path / "stages" / "evaluate.window.0.objectives-1-2-4-8-16.json").unlink()
    missing = [f"{kind}/window/{end}" for kind, end in (("warmstart", 1), ("fit", 0))]
    evaluation = "evaluate/window/0/objectives-1-2-4-8-16"
    assert [stage.name for stage in ledger.due(every)] == ["warmstart/shared/0", *missing, evaluation]
    kept = {stage.name: stage.product for stage in every}
    for name in missing:  # its own policies are still there: the shared start is not needed
        kept[name].parent.mkdir(parents=True)
        kept[name].write_text("")
    assert [stage.name for stage in ledger.due(every)] == [evaluation]


def test_an_evaluation_whose_records_are_gone_is_repeated_and_in_no_row(tmp_path):
    settings, ledger = lengths(tmp_path, memory=["mem1"], seeds=[0]), StageLedger(tmp_path)
    every = stages(settings)
    for stage in every:
        ledger.finish(stage, Cost(1.0, 1.0))
    assert ledger.due(every) == every and table.rows(settings, ledger) == []


def test_a_damaged_file_of_the_ledger_is_one_line_that_names_it(tmp_path):
    ledger, stage = StageLedger(tmp_path), Stage("fit/mem1/0", ("fit",), tmp_path)
    ledger.finish(stage, Cost(1.0, 1.0))
    (tmp_path / "stages" / "fit.mem1.0.json").write_text('{"command": ')
    with pytest.raises(ValueError, match="unreadable '.*fit.mem1.0.json'.*remove it to run the stage again"):
        ledger.done(stage)


def test_a_row_is_the_mean_over_seeds_for_each_task_and_an_interval_over_tasks(tmp_path):
    settings, ledger = lengths(tmp_path, memory=["mem1"]), StageLedger(tmp_path)
    for seed, rewards in ((0, (1.0, 0.0)), (1, (0.0, 0.0))):
        for values, stage in evaluations(settings, settings.modes[0], seed):
            if values == [100]:
                for index, reward in enumerate(rewards):
                    record(stage.output, "mem1", index, reward, stop="done" if reward else "max_turns")
                ledger.finish(stage, Cost(1.0, 1.0))
    (row,) = table.rows(settings, ledger)
    assert (row.mode, row.value, row.seeds) == ("mem1", 100, (0, 1))
    assert row.result.row.measures["em_mean"] == (0.25, 0.0, 0.5)  # tasks 0.5 and 0: resampled 0, 0.25 or 0.5
    header, (line,) = table.cells([row], "data.length")
    assert header == [
        "length", "memory", "EM per objective", "peak tokens", "dependency, 1e6 pairs", "seconds", "stopped early",
        "each seed",
    ]  # fmt: skip
    assert line == [
        "100", "mem1", "0.250 [0.000, 0.500]", "10 [10, 10]", "2.000 [2.000, 2.000]", "1.00 [1.00, 1.00]", "3 of 4",
        "0.500, 0.000",
    ]  # fmt: skip
    first, second = table.as_csv([row], "data.length").splitlines()
    assert first.startswith("length,memory,seeds,num_trajectories,stopped_early,em_mean,em_mean_low,em_mean_high,")
    assert second.startswith("100,mem1,0 1,4,3,0.25,0.0,0.5,0.5 0.0,")


def test_an_evaluation_that_is_not_finished_is_in_no_row(tmp_path):
    settings = lengths(tmp_path, memory=["mem1"])
    record(evaluations(settings, settings.modes[0], 0)[0][1].output, "mem1", 0, 1.0)
    assert table.rows(settings, StageLedger(tmp_path)) == []
    assert report.write(settings, StageLedger(tmp_path), "t", "mem1 compare", "here") == []


def test_costs_are_added_over_seeds_by_kind_and_the_shared_start_stands_by_itself(tmp_path):
    settings = comparison(tmp_path, warmstart=[Cloning("first", shared=True)], memory=["mem1"])
    ledger = StageLedger(tmp_path)
    for stage in stages(settings):
        ledger.finish(stage, Cost(3600.0, 1800.0, 2 if stage.kind == "fit" else 1, 1000 if stage.kind == "fit" else 7))
    header, lines = table.cost_cells(settings, ledger)
    assert lines == [
        ["shared", "0.50", "7", "0.00", "0", "0.00", "1.00", "0"],
        ["mem1", "0.00", "0", "1.00", "2,000", "1.00", "4.00", "2"],
    ]
    assert len(header) == 8


def test_tokens_are_those_that_the_commands_wrote_down(tmp_path):
    cloned, trained = Stage("warmstart/mem1/0", (), tmp_path / "a"), Stage("fit/mem1/0", (), tmp_path / "b")
    assert num_tokens(cloned) == num_tokens(trained) == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "README.md").write_text("| seed | 0 |\n| cost | 1.5 M trained tokens, 3 minutes on 1 thread |\n")
    assert num_tokens(cloned) == 1_500_000
    for version, lines in ((0, ("1,10.0,2.0", "2,10.0,3.0")), (1, ("2,10.0,4.0", "3,,"))):
        folder = tmp_path / "b" / "metrics" / f"version_{version}"
        folder.mkdir(parents=True)
        text = "\n".join(["step,rollout/tokens_per_s,rollout/seconds", *lines])
        (folder / "metrics.csv").write_text(f"{text}\n")
    assert num_tokens(trained) == 20 + 40  # rl_step 2 was repeated after a kill: its last word counts


def test_the_page_holds_the_table_and_the_figure_and_lets_nothing_act(tmp_path):
    settings, ledger = lengths(tmp_path, memory=["mem1"], seeds=[0]), StageLedger(tmp_path)
    for values, stage in evaluations(settings, settings.modes[0], 0):
        record(stage.output, "mem1", 0, values[0] / 200)
        ledger.finish(stage, Cost(1.0, 1.0))
    paths = report.write(settings, ledger, "<b>modes</b>", "mem1 compare <x>", "a CPU")
    assert [path.name for path in paths] == [f"comparison.{end}" for end in ("md", "csv", "png", "html")]
    written, page = paths[0].read_text(), paths[3].read_text()
    assert "| 200 | mem1 | 1.000 [1.000, 1.000] |" in written and "1 of 3 stages are still missing." in written
    assert "&lt;b&gt;modes&lt;/b&gt;" in page and "<b>" not in page and "<script" not in page
    assert "default-src 'none'" in page and "data:image/png;base64,iVBOR" in page
