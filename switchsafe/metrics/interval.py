"""Means with what is needed to believe them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import MetricError


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95 % bootstrap interval and the number of prompts."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def estimate(values: Sequence[float], *, draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean, and the percentile bootstrap over prompts (Efron 1979).

    Args:
        values: one for each prompt.
        draws: bootstrap samples.
        seed: of the draws.

    Raises:
        MetricError: no values.
    """
    if not len(values):
        raise MetricError("a mean needs at least one value.")
    data = np.asarray(values, dtype=np.float64)
    picked = np.random.default_rng(seed).integers(len(data), size=(draws, len(data)))
    low, high = np.quantile(data[picked].mean(axis=1), (0.025, 0.975))
    return Estimate(float(data.mean()), float(low), float(high), len(data))
