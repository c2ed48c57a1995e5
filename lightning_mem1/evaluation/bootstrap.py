"""Percentile bootstrap of means: how far a table's numbers could be off because other tasks might have been drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
AT_ONCE = 500  # resamples, so that a thousand trajectories take megabytes


class Interval(NamedTuple):
    """A mean with the ends of its 95% interval."""

    mean: float
    low: float
    high: float


def bootstrap(columns: Mapping[str, Sequence[float]], seed: int = 0) -> dict[str, Interval]:
    """Means with 95% percentile bootstrap intervals (Efron 1979) over 10,000 resamples of whole trajectories.

    A resample draws as many trajectories as there are, with replacement, and takes all their columns together. The
    interval reaches from the 2.5% to the 97.5% quantile of the resamples' means; it covers the choice of tasks, not
    of other seeds or other training runs. One trajectory has an interval of no width, which says nothing::

        [0, 1]        means of a resample: 0 (1/4), 0.5 (1/2), 1 (1/4)      ->  0.5 [0, 1]
        [3, 3, 3]                                                           ->  3 [3, 3]

    Args:
        columns: By name, one number per trajectory; all of the same length.
        seed: Of the resampling.

    Raises:
        ValueError: The columns are empty or differ in length.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or not min(lengths):
        raise ValueError(f"columns must have the same number of trajectories, at least 1, got {sorted(lengths)}")
    values = np.array(list(columns.values()), dtype=np.float64).T  # (trajectories, columns)
    rng, count = np.random.default_rng(seed), len(values)
    drawn = [rng.multinomial(count, np.full(count, 1 / count), AT_ONCE) for _ in range(RESAMPLES // AT_ONCE)]
    means = np.concatenate([times @ values for times in drawn]) / count
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return {
        name: Interval(float(mean), float(min(a, mean)), float(max(b, mean)))  # rounding may part equal numbers
        for name, mean, a, b in zip(columns, values.mean(axis=0), low, high, strict=True)
    }
