"""The verdict on a server's log-probabilities, worked by hand: two contexts, three ids."""

import pytest
import torch

from lightning_mem1.engine.remote.probe import Probe

ADAPTED = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]])
BASE = torch.tensor([[-2.0, -2.0, -3.0], [-1.5, -2.0, -3.1]])
BEFORE = torch.tensor([[-1.0, -4.0, -3.0], [-1.0, -2.0, -3.0]])
PROBE = Probe([[5], [5, 6]], ADAPTED, BASE, (BEFORE,))


@pytest.mark.parametrize(
    ("ids", "given", "serves"),
    [
        ((0, 0), (-2.0, -1.5), "the base"),
        ((0, 0), (-1.9, -1.3), "the base"),  # 0.3 off of the base, of 1.5 that the adapter moves
        ((0, 0), (-1.7, -1.3), ""),  # 0.5 off: more than a quarter
        ((0, 0), (-1.0, -1.0), ""),  # the adapter's own
        ((0, 0), (-7.0, -7.0), ""),  # neither
        ((2, 2), (-3.0, -3.1), ""),  # the base's, but the adapter moves them by 0.1 alone
        ((1, 2), (-4.0, -3.0), "an earlier adapter"),
        ((1, 1), (-4.0, -2.0), "an earlier adapter"),
    ],
)
def test_numbers_that_are_nearly_those_of_other_weights_are_named(ids, given, serves):
    found = PROBE.verdict(ids, given)
    assert found.partition(":")[0] == serves
    if serves:
        assert (
            f"expected log-probabilities like {', '.join(f'{ADAPTED[i, k]:.2f}' for i, k in enumerate(ids))}" in found
        )


def test_the_probe_remembers_the_first_adapter_and_the_one_before(make_module):
    from lightning_mem1.engine.remote.probe import probe_of

    policy, probes = make_module().policy, []
    for _ in range(3):
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.add_(0.1)
        probes.append(probe_of(policy, probes[-1] if probes else None))
    assert [len(probe.earlier) for probe in probes] == [0, 1, 2]
    assert torch.equal(probes[2].earlier[0], probes[0].adapted)
    assert torch.equal(probes[2].earlier[1], probes[1].adapted)
    assert torch.equal(probes[2].base, probes[0].base) and not torch.equal(probes[2].adapted, probes[1].adapted)
