"""The stream of tasks: what each rl_step gets, on each rank, after a resume."""

from itertools import islice

import pytest

from lightning_mem1.data.task_data import TaskDataModule, TaskStream, spread_indices, train_indices
from lightning_mem1.types import Task
from tiny_tasks import NoTasks, RankedTasks


def ids(batch):
    return [task.id for task in batch.tasks]


def test_every_training_task_comes_once_before_any_comes_again():
    first_round = [
        i for step in (1, 2, 3, 4, 5) for i in train_indices(seed=0, rl_step=step, tasks_per_step=2, size=10)
    ]
    assert sorted(first_round) == list(range(10))
    second_round = [i for step in range(6, 11) for i in train_indices(0, step, 2, 10)]
    assert sorted(second_round) == list(range(10)) and second_round != first_round


def test_the_tasks_of_an_rl_step_depend_on_seed_and_step_alone(make_data):
    data = make_data(num_rl_steps=None)
    stream = list(islice(iter(data.train_dataloader()), 4))
    assert [batch.rl_step for batch in stream] == [1, 2, 3, 4]
    third = [f"ranked/train/{i}" for i in train_indices(0, 3, 2, 10)]
    assert ids(stream[2]) == third
    assert train_indices(1, 3, 2, 10) != train_indices(0, 3, 2, 10)


def test_more_tasks_per_step_than_there_are_repeat_the_split():
    assert sorted(train_indices(0, 1, tasks_per_step=6, size=3)) == [0, 0, 1, 1, 2, 2]


def test_ranks_share_out_the_tasks_of_an_rl_step():
    whole, *shares = [
        next(iter(TaskStream(RankedTasks(), 5, seed=3, done=lambda: 1, last=2, rank=rank, world=world)))
        for rank, world in ((0, 1), (0, 2), (1, 2))
    ]
    assert [share.positions for share in shares] == [[0, 2, 4], [1, 3]]
    assert ids(shares[0]) == [ids(whole)[p] for p in (0, 2, 4)]
    assert ids(shares[1]) == [ids(whole)[p] for p in (1, 3)]


def test_after_a_resume_exactly_the_remaining_rl_steps_are_served(make_data):
    whole = list(make_data(num_rl_steps=5).train_dataloader())
    resumed = make_data(num_rl_steps=5)
    resumed.load_state_dict({"done_rl_steps": 3})
    rest = list(resumed.train_dataloader())
    assert [batch.rl_step for batch in rest] == [4, 5]
    assert [ids(batch) for batch in rest] == [ids(batch) for batch in whole[3:]]


def test_a_second_epoch_goes_on_where_the_first_one_ended(make_module, make_data, fit):
    from lightning_mem1.callbacks import RolloutCallback

    class Keeper(RolloutCallback):
        played = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            self.played = (*self.played, (trainer.current_epoch, batch.rl_step))

    keeper, module = Keeper(), make_module()
    fit(module, make_data(num_rl_steps=3, num_val_tasks=0), keeper, limit_train_batches=2)
    assert keeper.played == ((0, 1), (0, 2), (1, 3)) and module.rl_step == 3


def test_validation_tasks_are_spread_evenly_and_stay_the_same(make_data):
    assert spread_indices(3, 10) == [1, 5, 8]
    assert spread_indices(100, 4) == [0, 1, 2, 3]
    data = make_data(num_val_tasks=3, val_batch_size=2)
    first, second = ([ids(b) for b in data.val_dataloader()] for _ in range(2))
    assert first == second == [["ranked/val/1", "ranked/val/3"], ["ranked/val/5"]]


@pytest.mark.parametrize("name", ["tasks_per_step", "group_size", "num_rl_steps", "val_batch_size"])
def test_a_number_that_is_too_small_is_named(make_data, name):
    with pytest.raises(ValueError, match=rf"data\.{name} too small: expected at least 1, got 0"):
        make_data(**{name: 0})


def test_a_source_without_tasks_is_named(make_data):
    with pytest.raises(ValueError, match="no train tasks: expected at least 1 from NoTasks, got 0"):
        make_data(NoTasks()).setup("fit")


@pytest.mark.parametrize("size", ["many", None, -1, 2.5, True, 10**30])
def test_a_size_that_is_no_number_of_tasks_is_the_sources_mistake(make_data, size):
    class Sized(RankedTasks):
        def size(self, split):
            return size

    with pytest.raises(
        ValueError, match=r"Sized\.size\('train'\) is no number of tasks: expected a whole number from 0"
    ):
        make_data(Sized()).setup("fit")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "Making makes no tasks: expected lightning_mem1.types.Task, got None"),
        ({"id": "a"}, "Making makes no tasks: expected lightning_mem1.types.Task, got {'id': 'a'}"),
        (Task("a", None, (), 3), "expected prompt to be str, got None"),
        (Task("a", "b", (), "3"), "expected max_turns to be int, got '3'"),
        (Task("a", "b", (), 0), "expected max_turns of at least 1, got 0"),
    ],
)
def test_a_task_that_cannot_be_played_is_the_sources_mistake(make_data, made, message):
    class Making(RankedTasks):
        def task(self, split, index):
            return made

    data = make_data(Making())
    for loader in (data.train_dataloader, data.val_dataloader):
        with pytest.raises(ValueError, match=message):
            next(iter(loader()))


def test_a_datamodule_without_a_source_says_where_to_name_one():
    with pytest.raises(ValueError, match="no task source: expected data.init_args.source"):
        TaskDataModule().setup("fit")
