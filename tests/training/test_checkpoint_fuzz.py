"""Checkpoints that are spoilt in every way that a seed can think of: taken as they were written, or one line.

`LIGHTNING_MEM1_FUZZ` says how many cases; 2,000 take two minutes.
"""

import math
import os
import random
from copy import deepcopy

import pytest
import torch

from lightning_mem1.cli.lightning_cli import checkpoint_path
from lightning_mem1.cli.weights import Asked
from lightning_mem1.training.checkpoint_shape import check_resumable
from lightning_mem1.training.checkpoint_state import ENTRY
from tiny_checkpoint import tiny_checkpoint

NUM_CASES = int(os.environ.get("LIGHTNING_MEM1_FUZZ", "25"))
JUNK = [
    None,
    5,
    -5,
    0,
    1.5,
    math.nan,
    2**63,
    10**30,
    True,
    "x",
    "",
    [],
    {},
    [1],
    {"a": 1},
    torch.zeros(3),
    torch.ones(()),
]


@pytest.fixture(scope="module")
def written(tiny_folder, tmp_path_factory):
    """A module and its checkpoint after one rl_step."""
    return tiny_checkpoint(tiny_folder, tmp_path_factory.mktemp("written"))


def places(content, path=(), depth=0):
    """Every place in nested dicts and lists, as what leads there."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs)[:40]:
        yield (*path, key)
        if depth < 4:
            yield from places(value, (*path, key), depth + 1)


def spoilt(good, rng):
    """A copy with one or two things wrong, and where they are."""
    content, where = deepcopy(good), []
    for _ in range(rng.randint(1, 2)):
        chosen = rng.choice(list(places(content)))
        inner = content
        for key in chosen[:-1]:
            inner = inner[key]
        where.append(chosen)
        kind = rng.random()
        if kind < 0.3:
            del inner[chosen[-1]]
        elif kind < 0.4 and isinstance(inner[chosen[-1]], torch.Tensor) and inner[chosen[-1]].is_floating_point():
            inner[chosen[-1]] = inner[chosen[-1]] + rng.choice([math.nan, math.inf])
        else:
            inner[chosen[-1]] = rng.choice(JUNK)
    return content, where


def test_a_checkpoint_with_anything_in_it_is_taken_as_it_was_written_or_is_one_line(written, tmp_path):
    module, good = written
    refused = 0
    for number in range(NUM_CASES):
        rng = random.Random(f"checkpoints/{number}")
        content, where = spoilt(good, rng)
        path = tmp_path / "spoilt.ckpt"
        torch.save(content, path)
        try:
            checkpoint_path(Asked(str(path), None, ""))
            found = torch.load(path, weights_only=True)
            check_resumable(found)
            module.on_load_checkpoint(found)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 700, (number, where, error)
            refused += 1
        else:
            assert module.rl_step == content[ENTRY]["rl_step"] and type(module.rl_step) is int, (number, where)
            assert all(weight.isfinite().all() for weight in module.trained().values()), (number, where)
    assert refused or NUM_CASES < 8


def test_a_checkpoint_with_any_byte_changed_or_cut_is_taken_or_is_one_line_and_stays_as_it_is(written, tmp_path):
    _, good = written
    path = tmp_path / "spoilt.ckpt"
    torch.save(good, path)
    whole = path.read_bytes()
    for number in range(NUM_CASES):
        rng = random.Random(f"bytes/{number}")
        place = rng.randrange(len(whole))
        cut = rng.random() < 0.4
        content = whole[:place] if cut else whole[:place] + rng.randbytes(rng.randint(1, 9)) + whole[place + 1 :]
        path.write_bytes(content)
        try:
            checkpoint_path(Asked(str(path), None, ""))
        except ValueError as error:
            assert "\n" not in str(error) and "spoilt.ckpt" in str(error), (number, error)
        else:
            assert not cut, number
        assert path.read_bytes() == content
