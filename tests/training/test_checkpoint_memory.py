"""Settings of checkpoints from before memory was one value are read in today's words."""

import pytest

from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.checkpoint_state import with_memory
from lightning_mem1.training.plain_settings import plain


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"memory": "mem1", "window": 2}, {"mode": "mem1"}),
        ({"memory": "summary", "window": 5}, {"mode": "summary"}),
        ({"memory": "window", "window": 3}, {"mode": "window", "window": 3}),
        ({"memory": "amem", "window": 4}, {"mode": "amem", "window": 4, "note_embedding": "some/folder"}),
    ],
)
def test_a_word_beside_its_window_becomes_one_value(before, after):
    rollout = {"wire": "qa", "note_embedding": "some/folder", "max_new_tokens": 64}
    found = with_memory({"lr": 0.1, "rollout": rollout, **before})
    assert found == {"lr": 0.1, "memory": after, "rollout": {"format": "qa", "max_new_tokens": 64}}
    assert memory_mode(found["memory"]).settings.items() >= after.items()
    assert rollout["wire"] == "qa"  # what was given is left as it is


def test_settings_of_today_stay_as_they_are():
    today = {"memory": Amem(3).settings, "rollout": plain(RolloutSettings(format="qa"))}
    assert with_memory(today) == today
