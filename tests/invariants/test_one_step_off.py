"""Collection one step off: beside the update, in another thread, with the weights from before it."""

import threading
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback

from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint, RolloutCallback
from lightning_mem1.callbacks.background import BackgroundJob, Stopped
from lightning_mem1.callbacks.collector import Collector
from lightning_mem1.engine.serving.endpoint import endpoint
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.policy.sampling_copy import SamplingPolicy
from lightning_mem1.training.credit.importance import MismatchSettings
from lightning_mem1.training.settings import OptimSettings
from tiny import tiny_policy
from tiny_tasks import InterruptedTasks, RankedEnv, RankedTasks

SYNCHRONOUS = EngineSettings(num_slots=8, max_context_tokens=160)
AHEAD = replace(SYNCHRONOUS, one_step_off=True)
MEASURED = ("seconds", "tokens_per_s", "seconds_per_episode", "process_gib")  # of the machine, not of the run


class Diary(Callback):
    """Writes down what was played and logged in every rl_step; presses Ctrl-C when the next one has been collected."""

    def __init__(self, last=None):
        self.last, self.played, self.logged = last, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.last is not None and batch.rl_step == self.last + 1:
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.played.append([[(turn.action_ids, turn.action_logprobs) for turn in t.turns] for t in batch.trajectories])
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.logged.append({name: value for name, value in found.items() if not name.endswith(MEASURED)})


class Interrupting(Callback):
    """Presses Ctrl-C at the end of the first rl_step, while the second one is being played."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert collecting()
        raise KeyboardInterrupt


class EndlessEnv(RankedEnv):
    """Never comes to its end."""

    num_turns = 1 << 30


class EndlessTasks(RankedTasks):
    """Environments of the second rl_step never end."""

    def task(self, split, index):
        return replace(super().task(split, index), max_turns=1 << 30)

    def env(self, task):
        env = super().env(task)
        return EndlessEnv(env.reward) if sum(self.made.values()) > 2 * self.group_size else env


def collecting():
    return [thread for thread in threading.enumerate() if thread.name == "collection"]


def test_with_weights_that_stand_still_it_equals_the_synchronous_run(make_module, make_data, fit):
    diaries = [Diary(), Diary()]
    for diary, engine in zip(diaries, (SYNCHRONOUS, AHEAD), strict=True):
        module = make_module(lr=0.0, engine=engine, mismatch=MismatchSettings("tis"))
        fit(module, make_data(), RolloutCallback(), MetricsCallback(), diary, val_check_interval=2)
    there, here = diaries
    assert here.played == there.played and len(here.played) == 3
    assert [logged.pop("rollout/staleness") for logged in there.logged] == [0, 0, 0]
    assert [logged.pop("rollout/staleness") for logged in here.logged] == [0, 1, 1]
    assert here.logged == there.logged and {"val/reward", "train/is_ratio_mean"} <= set(here.logged[-1])


def test_an_rl_step_is_played_with_the_weights_from_before_the_last_update(make_module, make_data, fit):
    diary, module, data = Diary(), make_module(engine=AHEAD), make_data()
    weights = []

    class Before(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            weights.append(pl_module.policy.adapter_state())

    fit(module, data, diary, Before())
    for rl_step, version in ((1, 0), (2, 0), (3, 1)):
        alone = Collector(make_module(), make_data())
        alone.engine.policy.load_adapter_state(weights[version])
        played = alone.play(data.train_batch(rl_step), 3, module.rollout_settings)
        found = [[(turn.action_ids, turn.action_logprobs) for turn in t.turns] for t in played]
        assert found == diary.played[rl_step - 1]
    assert data.train_batch(4) is None


def test_staleness_is_logged_shows_in_the_gap_and_is_corrected_for(make_module, make_data, fit):
    diary = Diary()
    module = make_module(engine=AHEAD, mismatch=MismatchSettings("tis"))
    fit(module, make_data(num_rl_steps=4), diary)
    assert [logged["rollout/staleness"] for logged in diary.logged] == [0, 1, 1, 1]
    gaps = [logged["train/rollout_gap_max"] for logged in diary.logged]
    assert gaps[0] <= 1e-4 < 1e-3 < min(gaps[1:])
    assert diary.logged[0]["train/is_ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert diary.logged[1]["train/is_ratio_mean"] != pytest.approx(1, abs=1e-4)


def test_the_same_seed_gives_the_same_weights_whatever_the_threads_do(make_module, make_data, fit):
    found = []
    for engine in (AHEAD, AHEAD, SYNCHRONOUS):
        module = make_module(
            engine=engine, lora=LoraSettings(r=4, alpha=8, dropout=0.1), optim=OptimSettings(num_minibatches=2)
        )
        torch.manual_seed(0)  # dropout draws from everybody's generator, and nothing of a collection does
        fit(module, make_data(), val_check_interval=1)
        found.append(module.policy.adapter_state())
    first, second, synchronous = found
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], synchronous[name]) for name in first)


@pytest.mark.parametrize("last", [1, 3])
def test_a_resumed_run_plays_with_the_old_weights_again_and_equals_the_uninterrupted_one(
    make_module, make_data, fit, tmp_path, last
):
    def trained(diary, *more, **settings):
        module = make_module(engine=AHEAD)
        fit(module, make_data(num_rl_steps=5), diary, *more, val_check_interval=2, **settings)
        return module

    checkpoint = RLCheckpoint(str(tmp_path / "cut"), save_adapter=False)
    diary, cut, rest = Diary(), Diary(last), Diary()
    whole = trained(diary).policy.adapter_state()
    with pytest.raises(SystemExit):
        trained(cut, checkpoint, enable_checkpointing=True)
    assert collecting() == []
    resumed = trained(rest, ckpt_path=str(checkpoint.last_path)).policy.adapter_state()
    assert cut.played + rest.played == diary.played
    assert [logged["train/loss"] for logged in cut.logged + rest.logged] == [e["train/loss"] for e in diary.logged]
    assert [logged["rollout/staleness"] for logged in rest.logged] == [1] * (5 - last)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_a_run_may_change_over_at_a_checkpoint_and_begins_without_staleness(make_module, make_data, fit, tmp_path):
    checkpoint, diary = RLCheckpoint(str(tmp_path), save_adapter=False), Diary()
    fit(make_module(), make_data(num_rl_steps=2), checkpoint, enable_checkpointing=True)
    fit(make_module(engine=AHEAD), make_data(num_rl_steps=4), diary, ckpt_path=str(checkpoint.last_path))
    assert [logged["rollout/staleness"] for logged in diary.logged] == [0, 1]


class Closing(Callback):
    """Takes the server away in the second rl_step, whose successor is being played by then."""

    def __init__(self, serving):
        self.serving = serving

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch.rl_step == 2:
            self.serving.shutdown()
            self.serving.server_close()


def test_an_error_of_the_collecting_thread_ends_the_run_with_its_message(make_module, make_data, fit, tmp_path):
    serving = endpoint(tiny_policy(), SYNCHRONOUS, "tiny", allow_adapters=True)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{serving.server_port}"
    server = ServerSettings([url], timeout_s=60.0, num_retries=0, pause_s=0.01)
    checkpoint = RLCheckpoint(str(tmp_path), save_adapter=False)
    with pytest.raises(ConnectionError, match=f"no server left: expected turns from {url}, got "):
        fit(
            make_module(engine=replace(AHEAD, kind="server", server=server)),
            make_data(num_rl_steps=None, num_val_tasks=0),
            Closing(serving),
            checkpoint,
            enable_checkpointing=True,
        )
    assert torch.load(checkpoint.last_path, weights_only=True)["lightning_mem1"]["rl_step"] >= 2
    assert collecting() == []


def test_ctrl_c_inside_the_collecting_thread_leaves_the_last_whole_rl_step_on_disk(
    make_module, make_data, fit, tmp_path
):
    checkpoint = RLCheckpoint(str(tmp_path), save_adapter=False)
    with pytest.raises(SystemExit):
        fit(make_module(engine=AHEAD), make_data(InterruptedTasks()), checkpoint, enable_checkpointing=True)
    assert torch.load(checkpoint.last_path, weights_only=True)["lightning_mem1"]["rl_step"] == 2
    assert collecting() == []


def test_ctrl_c_ends_a_collection_that_would_never_end(make_module, make_data, fit):
    with pytest.raises(SystemExit):
        fit(make_module(engine=AHEAD), make_data(EndlessTasks(), num_val_tasks=0), Interrupting())
    assert collecting() == []


def test_a_run_that_ends_early_lets_go_of_what_was_begun(make_module, make_data, fit):
    module = make_module(engine=AHEAD)
    fit(module, make_data(EndlessTasks(), num_val_tasks=0), max_steps=1)
    assert module.rl_step == 1 and collecting() == []


def test_a_copy_shares_what_is_frozen_and_keeps_its_own_adapter_until_it_is_pushed():
    policy, now = tiny_policy(LoraSettings(r=4, alpha=8)), [0]
    sampling = SamplingPolicy(policy, lambda: now[0], apart=True)
    ours, theirs = dict(policy.named_parameters()), dict(sampling.policy.named_parameters())
    shared = {name for name in ours if ours[name].data_ptr() == theirs[name].data_ptr()}
    assert shared == {name for name in ours if "lora_" not in name} and ours.keys() == theirs.keys()
    before, now[0] = sampling.state(), 1
    for name in ours.keys() - shared:
        ours[name].data.add_(1.0)
    assert sampling.version == 0
    assert all(torch.equal(sampling.state()["weights"][name], before["weights"][name]) for name in before["weights"])
    sampling.push()
    assert sampling.version == 1
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    sampling.load(before)
    assert sampling.version == 0 and not any(torch.equal(theirs[name], ours[name]) for name in ours.keys() - shared)


def test_a_job_that_was_told_to_stop_is_stopped_and_another_one_may_begin():
    ahead, begun = BackgroundJob(), threading.Event()

    def endless():
        while True:
            begun.set()
            ahead.check()

    with pytest.raises(Stopped):
        ahead.check()  # this thread is nobody's job
    ahead.start(endless)
    begun.wait()
    ahead.stop()
    assert collecting() == [] and ahead.take() is None
    ahead.start(lambda: 3)
    ahead.wait()
    assert ahead.take() == 3 and ahead.take() is None
