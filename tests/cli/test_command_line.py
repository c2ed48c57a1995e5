"""What the commands share: keys, accelerators, and a command line that plays without training."""

import pytest
import torch

from lightning_mem1.cli import lightning_cli as command_line


def test_an_accelerator_is_cuda_or_the_cpu_unless_named():
    assert command_line.accelerator("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert command_line.accelerator("gpu") == "gpu"
    with pytest.raises(ValueError, match="got 'mps'; set it to cpu"):
        command_line.accelerator("mps")


def test_settings_become_dotted_keys_and_an_empty_group_stays():
    assert command_line.flat({"model": {"lr": 1, "lora": {"r": 4}}, "x": {}}) == {
        "model.lr": 1,
        "model.lora.r": 4,
        "x": {},
    }
