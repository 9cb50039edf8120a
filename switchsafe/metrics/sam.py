"""The Safety Alignment Margin: a mean silhouette over points labelled by mode.

SAM = mean over points of (b - a) / max(a, b), with a the mean distance to the other points of the own mode and b the smallest mean distance to
the points of another mode (arXiv 2508.14904, section 3.3; Rousseeuw 1987). A point that is alone in its mode scores 0 by Rousseeuw's
convention; here it is an error, because a mode measured on one prompt means nothing.
"""

from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import MetricError

Metric = Literal["euclidean", "cosine"]
Floats = NDArray[np.float64]


def sam_score(points: Any, labels: Sequence[Hashable], *, metric: Metric = "euclidean") -> float:
    """SAM of labelled points, in [-1, 1].

    Args:
        points: shape (N, D), any real dtype; numpy, nested lists, or a torch tensor of any device.
        labels: the mode of each point, length N.
        metric: `"euclidean"` (the definition) or `"cosine"`.

    Raises:
        MetricError: lengths differ, fewer than two modes, a mode with a single point, a value that is not finite, or a zero row under cosine.
    """
    return float(silhouettes(distances(points, metric), labels).mean())


def pairwise_sam(distance: Floats, labels: Sequence[Hashable]) -> dict[tuple[Hashable, Hashable], float]:
    """SAM of every two modes alone, from the distance matrix of all points: the headline can be carried by one mode."""
    _codes(labels, len(distance))
    scores = {}
    for first, second in combinations(dict.fromkeys(labels), 2):
        keep = [i for i, label in enumerate(labels) if label in (first, second)]
        scores[first, second] = float(silhouettes(distance[np.ix_(keep, keep)], [labels[i] for i in keep]).mean())
    return scores


def distances(points: Any, metric: Metric = "euclidean") -> Floats:
    """Distances between all points, shape (N, N), float64, exactly symmetric with a zero diagonal.

    Raises:
        MetricError: `points` is not a finite (N, D) array of numbers, or `metric` is unknown.
    """
    array = as_points(points)
    if metric == "cosine":
        norms = np.linalg.norm(array, axis=1, keepdims=True)
        if not norms.all():
            raise MetricError(
                "a point is the zero vector, which has no direction: cosine cannot place it. Use euclidean."
            )
        array = array / norms
    elif metric == "euclidean":
        array = array - array.mean(axis=0)  # distances do not change, cancellation below shrinks
    else:
        raise MetricError(f"metric {metric!r} is not known: use 'euclidean' or 'cosine'.")
    gram = array @ array.T
    gram = (gram + gram.T) / 2
    squares = np.diag(gram)
    if metric == "cosine":
        result = np.clip(1 - gram, 0, 2)
    else:
        result = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0))
    np.fill_diagonal(result, 0)
    return result


def silhouettes(distance: Floats, labels: Sequence[Hashable]) -> Floats:
    """The silhouette of each point, shape (N,), float64.

    Args:
        distance: shape (N, N).
        labels: the mode of each point, length N.

    Raises:
        MetricError: as `sam_score`.
    """
    codes = _codes(labels, len(distance))
    counts = np.bincount(codes)
    if len(counts) < 2:
        raise MetricError("SAM compares modes, and all points have the same one: measure at least two modes.")
    if counts.min() < 2:
        raise MetricError("a mode has a single point, so it has no distance to its own: measure at least two prompts.")
    member = np.eye(len(counts))[codes]  # (N, modes), one-hot
    sums = distance @ member
    rows = np.arange(len(codes))
    own = sums[rows, codes] / (counts[codes] - 1)
    means = sums / counts
    means[rows, codes] = np.inf
    other = means.min(axis=1)
    largest = np.maximum(own, other)
    return np.divide(other - own, largest, out=np.zeros_like(own), where=largest > 0)


def bootstrap_interval(
    values: Floats, groups: Sequence[Hashable], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean silhouette when whole prompts are drawn again with replacement.

    Silhouettes are kept as measured, the distances are not recomputed; points of one prompt stay together because they are not independent.

    Args:
        values: silhouettes, shape (N,).
        groups: the prompt of each point, length N.
        level: share of draws inside the interval.
    """
    codes = _codes(groups, len(values))
    means = np.bincount(codes, values) / np.bincount(codes)
    weights = np.bincount(codes) / len(values)
    picks = np.random.default_rng(seed).integers(0, len(means), (draws, len(means)))
    drawn = (means * weights)[picks].sum(axis=1) / weights[picks].sum(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permuted_null(
    distance: Floats,
    labels: Sequence[Hashable],
    groups: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and `level` quantile of SAM when labels are shuffled within each prompt: what chance gives on these very points."""
    rng = np.random.default_rng(seed)
    codes = _codes(labels, len(distance))
    prompts = _codes(groups, len(distance))
    order = np.argsort(prompts, kind="stable")
    scores = []
    for _ in range(draws):
        shuffled = np.empty_like(codes)
        shuffled[order] = codes[np.lexsort((rng.random(len(codes)), prompts))]
        scores.append(silhouettes(distance, shuffled.tolist()).mean())
    return float(np.mean(scores)), float(np.quantile(scores, level))


def as_points(points: Any) -> Floats:
    """`points` as a finite float64 array of shape (N, D); torch tensors are detached and brought to the CPU."""
    if hasattr(points, "detach"):
        points = points.detach().cpu().double().numpy()  # numpy has no bfloat16
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        raise MetricError("points must be one array of numbers, N rows of D columns.") from None
    if array.ndim != 2 or 0 in array.shape:
        raise MetricError(f"points must have shape (N, D), got {array.shape}.")
    if bad := int((~np.isfinite(array)).any(axis=1).sum()):
        raise MetricError(f"{bad} of {len(array)} points hold NaN or infinity: no distance can be taken.")
    return array


def _codes(labels: Sequence[Hashable], expected: int) -> NDArray[np.int64]:
    """Labels as 0, 1, ... in the order of their first appearance."""
    if len(labels) != expected:
        raise MetricError(f"{len(labels)} labels were given for {expected} points: one label per point is needed.")
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(label, len(index)) for label in labels])
