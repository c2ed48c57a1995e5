"""The comparison of memory modes trained alike: its jobs, its table, and the whole command in minute sizes."""

import contextlib
import json
import math
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "claim"))

import forced  # noqa: E402
import generalization  # noqa: E402
import table  # noqa: E402
import upper_bound  # noqa: E402
from jobs import Job, cost, run_all  # noqa: E402
from table import Arm  # noqa: E402

from lightning_mem1.cli.main import main as mem1  # noqa: E402
from lightning_mem1.context.contexts import contexts  # noqa: E402
from lightning_mem1.policy.policy import Policy  # noqa: E402
from lightning_mem1.training.layouts.collate import collate  # noqa: E402

SIZES = {"hidden_size": 16, "num_layers": 4, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 16}
SMALL = "--warmstart.data.qa.num_passages=60", "--warmstart.num_val_tasks=1"
WARM = "base", "warmstart", "chained", "haste", "cloning"
STAGES = [{"steps": 1, "shop_episodes": 0, "qa_episodes": 1, "objectives": [2]}]
TRAINED = "--data.tasks_per_step=1", "--data.group_size=2", "--data.num_rl_steps=1", "--data.num_val_tasks=1"
PLAYED = "--data.encyclopedia.num_passages=300", "--model.rollout.max_new_tokens=12"


def here(command, log):
    """Run a command of the package in this process, where Lightning is imported already."""
    with open(log, "a") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        return mem1(command[2:]), 1.0


def extra():
    given = {stage: [*SMALL, f"--warmstart.stages={json.dumps(STAGES)}"] for stage in WARM}
    given["base"] += [f"--warmstart.model.{name}={size}" for name, size in SIZES.items()]
    given["base"].append("--warmstart.model.induction_start=false")
    for stage in WARM[1:]:
        given[stage].append("--warmstart.rollout.max_new_tokens=12")
    given |= {stage: [*TRAINED, *PLAYED] for stage in ("rl", "raft")}
    given |= {stage: [*PLAYED, "--data.turns_per_task=2"] for stage in ("evaluate", "interdependent")}
    return [part for stage, those in given.items() for each in those for part in ("--extra", f"{stage}:{each}")]


def test_one_command_goes_from_warm_starts_to_the_table_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    argv = ["--output", str(tmp_path), "--seeds", "0", "--objectives", "1,2", "--tasks", "2", *extra()]
    assert generalization.main(argv, here) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "claim.json").read_text())
    arms = [
        *(f"{arm}/{mode}" for arm in ("careful", "start", "rl") for mode in generalization.MODES),
        "raft/mem1",
        "cloning/mem1",
    ]
    rows = told["evaluate"]["rows"]
    assert [(row["arm"], row["objectives"]) for row in rows] == [(arm, k) for arm in arms for k in (1, 2)]
    assert all(row["num_trajectories"] == 2 and row["measures"]["peak_tokens"]["mean"] > 10 for row in rows)
    assert [row["arm"] for row in told["interdependent"]["rows"]] == arms
    assert {stage: each["jobs"] for stage, each in told["cost"].items()} == {
        "base": 1, "warmstart": 4, "chained": 4, "haste": 4, "rl": 4, "raft": 1, "cloning": 1,
        "evaluate": 14, "interdependent": 14,
    }  # fmt: skip
    assert len(told["evaluate"]["ratios"]["rl/mem1 over rl/full"]) == 6  # three ratios at two lengths
    assert "| rl/summary | 2 |" in (tmp_path / "claim.md").read_text() and (tmp_path / "evaluate.png").exists()
    out = capsys.readouterr().out
    assert "CPU hours: base 0.00 (1 jobs)" in out and out.count("  rl/") == 4

    assert generalization.main(argv, lambda command, log: pytest.fail("nothing is left to do")) == 0
    assert generalization.main([*argv, "--extra", "rl:--model.lr=1e-3", "--only", "rl"], here) == 1
    assert "was made by another command: expected" in capsys.readouterr().err


def test_the_shop_plays_every_test_goal_in_each_mode_of_both_catalogues():
    options = generalization.parsed(["--catalogue", "/files", "--seeds", "0,1"])
    jobs = {job.name: job.command for job in generalization.Claim(options).jobs("shop_evaluate")}
    trained = [" ".join(job.command) for job in generalization.Claim(options).jobs("shop_rl")]
    assert len(trained) == 2 * 3 * 2 and all("--model.engine.max_context_tokens 4096" in each for each in trained)
    assert len(jobs) == 2 * 3 * (1 + 2)  # no react: a shopper's turns restate nothing
    command = " ".join(jobs["shop_evaluate/official/rl/full/1"])
    assert "evaluate experiments/webshop.yaml --memory full" in command and "--tasks 500" in command
    assert "--data.catalogue /files" in command
    assert "--ckpt_path runs/claim/shop_rl/official/full/1/checkpoints/last.ckpt" in command


@pytest.mark.parametrize("option, name", [("--modes", "mem2"), ("--only", "bse"), ("--arms", "rll")])
def test_a_name_that_is_not_known_is_told_beside_those_that_are(option, name, capsys):
    with pytest.raises(SystemExit):
        generalization.parsed([option, name])
    assert re.search(rf"argument {option}: expected some of \w+,.*, got {name}", capsys.readouterr().err)


def test_the_history_that_restates_nothing_is_trained_and_played_in_the_memory_mode_full():
    made = generalization.Claim(generalization.parsed(["--modes", "react", "--seeds", "0"]))
    commands = {stage: " ".join(job.command) for stage in ("chained", "rl", "evaluate") for job in made.jobs(stage)}
    assert commands["chained"].endswith(
        "--warmstart.memory full --warmstart.data.qa.notation react --warmstart.init_from runs/claim/policies/react"
    )
    assert "--model.memory full" in commands["rl"] and "policies/hasty-react" in commands["rl"]
    assert {arm.name: arm.mode for arm in made.arms("evaluate")}["rl/react"] == "full"


def write(folder, mode, rows):
    folder.mkdir(parents=True)
    lines = [
        {"memory": mode, "objectives": k, "index": index, "stop_reason": "done"}
        | {"measures": {"em": em, "peak_tokens": peak}}
        for k, index, em, peak in rows
    ]
    (folder / "trajectories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut short')
    return folder


def test_a_row_is_the_mean_over_seeds_and_then_over_tasks_and_ratios_tell_whether_intervals_touch(tmp_path):
    ours = [
        write(tmp_path / "a0", "mem1", [(16, 0, 8.0, 100.0), (16, 1, 4.0, 100.0)]),
        write(tmp_path / "a1", "mem1", [(16, 0, 6.0, 120.0), (16, 1, 6.0, 120.0), (32, 0, 1.0, 9.0)]),
    ]
    theirs = [write(tmp_path / "b0", "full", [(16, 0, 2.0, 440.0), (16, 1, 1.0, 440.0)])]
    names = ("em", "peak_tokens")
    found = {
        "rl/mem1": table.results(Arm("rl/mem1", tuple(ours), "mem1"), names),
        "rl/full": table.results(Arm("rl/full", tuple(theirs), "full"), names),
    }
    (result,) = found["rl/mem1"]  # the second seed alone has played 32
    assert result.row.measures["em"] == (6.0, 5.0, 7.0)
    assert result.by_seed["em"] == [6.0, 6.0] and result.row.num_trajectories == 4
    assert table.ratios(found, "rl/mem1", "rl/full") == [
        {"measure": "em", "objectives": 16, "ratio": 4.0, "intervals_touch": False},
        {"measure": "peak_tokens", "objectives": 16, "ratio": 0.25, "intervals_touch": False},
    ]
    rows = [{"measure": name, "objectives": 16, "ratio": 4.0, "intervals_touch": False} for name in ("em", "reward")]
    told = table.ratio_table(rows, "rl/mem1 over rl/full")[2:]
    assert told == ["| em | 16 | 4.000 | 3.50 | apart |", "| reward | 16 | 4.000 |  | apart |"]
    assert table.ratio_table(rows, "rl/mem1 over rl/summary")[2] == "| em | 16 | 4.000 |  | apart |"
    assert "| rl/mem1 | 16 | 6.000 [5.000, 7.000] | 110 [110, 110] |" in table.markdown(found, names)


def test_a_job_runs_once_tells_its_cost_and_goes_on_from_its_checkpoint(tmp_path):
    mark = tmp_path / "mark"
    script = f"import sys; sum(range(10**6)); open({str(mark)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    first = Job("rl/a", ("-c", script, "x"), tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").touch()
    run_all([first, Job("base/b", ("-c", script, "y"))], tmp_path, at_once=2)
    run_all([first], tmp_path)
    assert sorted(mark.read_text().splitlines()) == [f"x --ckpt_path {tmp_path / 'last.ckpt'}", "y"]
    told = cost(tmp_path)
    assert {stage: each["jobs"] for stage, each in told.items()} == {"base": 1, "rl": 1}
    assert told["rl"]["cpu_hours"] > 0


def test_a_job_that_is_added_to_has_cost_what_all_its_commands_did(tmp_path):
    for number in (1, 2):
        job = Job("evaluate/rl/mem1/0", ("-m", "module", f"--objectives={number}"), extends=True)
        run_all([job], tmp_path, start=lambda command, log: (0, 900.0))
    assert cost(tmp_path)["evaluate"]["cpu_hours"] == pytest.approx(0.5)
    assert cost(tmp_path)["evaluate"]["jobs"] == 1


def test_a_failing_job_is_told_with_its_last_line_after_the_others_were_tried(tmp_path):
    jobs = [Job("rl/a", ("-c", "raise SystemExit('no such policy')")), Job("rl/b", ("-c", "print(1)"))]
    with pytest.raises(RuntimeError, match=r"rl/a failed with 1: no such policy \(all of it: .*rl\.a\.log\)"):
        run_all(jobs, tmp_path)
    assert list(cost(tmp_path)) == ["rl"] and not (tmp_path / "jobs" / "rl.a.json").exists()


def test_a_faultless_researcher_needs_less_context_where_older_turns_are_dropped():
    rows = {mode: upper_bound.played(mode, 3, 1)[0] for mode in generalization.MODES}
    assert [row["em"] for row in rows.values()] == [3.0, 3.0, 3.0, 3.0]
    assert rows["summary"]["peak_tokens"] < rows["mem1"]["peak_tokens"] < rows["full"]["peak_tokens"]
    assert rows["mem1"]["longest_turn"] == rows["full"]["longest_turn"]
    for name in ("peak_tokens", "dependency"):  # what is told once costs less than what is told in every turn
        assert rows["mem1"][name] < rows["react"][name] < rows["full"][name]


def test_a_turn_is_followed_when_every_token_is_the_first_choice_and_the_first_slip_is_told():
    policy = Policy.load("bundled").eval()
    one, other, third = (policy.tokenizer.encode(f" {word}", add_special_tokens=False)[-1] for word in ("1", "2", "3"))
    all_right = forced.agreement(policy, [one, other], [one, other])
    assert (all_right.tokens, all_right.right, all_right.slip, all_right.wrong) == (2, 2, "", {})
    slipped = forced.agreement(policy, [one, other, one], [one, third, one])
    assert (slipped.tokens, slipped.right) == (3, 2) and re.fullmatch("' ?1' expected ' ?2', got ' ?3'", slipped.slip)
    found = forced.turns(policy, "mem1", 1, 4, "every", "question")  # what it was made for
    assert len(found) == 8 and sum(not each.slip for each in found) >= 6


def test_departures_are_told_by_the_part_of_the_turn_they_are_in():
    policy = Policy.load("bundled").eval()
    turn = "<think> start; 1 x | 2 who?</think><search> x</search>"
    ids = policy.tokenizer.encode(turn, add_special_tokens=False)
    texts = [policy.tokenizer.decode([token]) for token in ids]
    listed, question, query = texts.index(";") + 1, texts.index("|") + 1, texts.index("</think>") + 1
    never = policy.tokenizer.encode("lamp", add_special_tokens=False)[-1]
    chosen = [*ids[:listed], never, *ids[listed + 1 : question], never, *ids[question + 1 : -1], never]
    told = forced.agreement(policy, ids, chosen)
    assert told.parts == {
        "note": listed, "list": question - listed, "question": query - question, "query": len(ids) - query
    }  # fmt: skip
    assert told.wrong == {"list": 1, "question": 1, "query": 1}
    texts = ("<think> a", "a; 1", "a; 1 x | 2", "a</think>", "</think><answer> a; b")
    assert [forced.part_of(text) for text in texts] == ["note", "list", "question", "query", "answers"]


def test_what_is_followed_is_what_the_policy_would_write():
    policy = Policy.load("bundled").eval()
    (trajectory,), _ = upper_bound.faultless("mem1", 1, 1, policy.tokenizer, "every", "question")
    (context, written), *_ = zip(contexts(trajectory), [turn.action_ids for turn in trajectory.turns], strict=False)
    batch = collate([trajectory])
    told = forced.followed(policy, context, written)
    likely = policy.logprobs(batch)[0][: len(written)] > math.log(0.5)  # more than half is the first choice
    assert told.right >= int(likely.sum()) > len(written) // 2
