"""The Safety Alignment Margin: a mean silhouette over points labelled by mode.

SAM = mean over points of (b - a) / max(a, b), with a the mean distance to the other points of the own mode and b the smallest mean distance to
the points of another mode (arXiv 2508.14904, section 3.3; Rousseeuw 1987). A point that is alone in its mode scores 0 by Rousseeuw's
convention; here it is an error, because a mode measured on one prompt means nothing.

Distances are never needed one by one, only their sums over the points of each mode. So they are taken in blocks of rows, and memory grows with
the number of points, not with its square.
"""

from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import MetricError
from .gram import Floats, Gram

Metric = Literal["euclidean", "cosine", "centred", "log_probs", "prompt_centred"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "centred", "log_probs", "prompt_centred")
Codes = NDArray[np.int64]

_COLUMNS = 2048  # of the points, read at a time
_DRAWS = 50  # shuffles scored at a time


def sam_score(points: Any, labels: Sequence[Hashable], *, metric: Metric = "euclidean") -> float:
    """SAM of labelled points, in [-1, 1].

    Args:
        points: logits, shape (N, V), any real dtype; numpy, nested lists, or a torch tensor of any device.
        labels: the mode of each point, length N.
        metric: `"euclidean"` (the definition); `"cosine"`; or Euclidean after each row was `"centred"` or made `"log_probs"`. Centring by
            prompt needs to know the prompts: see `silhouettes`.

    Raises:
        MetricError: lengths differ, fewer than two modes, a mode with a single point, a value that is not finite, or a zero row under cosine.
    """
    return float(silhouettes(gram_of(points, centre=metric != "cosine"), labels, metric).mean())


def gram_of(points: Any, *, group: int = 1, centre: bool = True) -> Gram:
    """Inner products of points that are at hand.

    Args:
        points: as in `sam_score`.
        group: how many points in a line belong to one prompt.
        centre: see `Gram`.

    Raises:
        MetricError: `points` is not a finite (N, V) array of numbers.
    """
    if hasattr(points, "detach"):
        points = points.detach().cpu()
        points = (points if points.dtype.itemsize == 8 else points.float()).numpy()  # numpy has no bfloat16
    try:
        array = np.asarray(points)
    except ValueError:  # rows of different lengths
        array = np.array("")
    if array.dtype.kind not in "fiub":
        raise MetricError("points must be one array of real numbers, N rows of D columns.")
    if array.ndim != 2 or 0 in array.shape:
        raise MetricError(f"points must have shape (N, D), got {array.shape}.")

    def slices() -> Iterator[Floats]:
        for start in range(0, array.shape[1], _COLUMNS):
            yield array[:, start : start + _COLUMNS].astype(np.float64)

    return Gram(slices, rows=len(array), width=array.shape[1], group=group, centre=centre)


def distances(gram: Gram, metric: Metric = "euclidean") -> Iterator[tuple[slice, Floats]]:
    """Distances between all points as (which rows, block of shape (some, N)), exactly 0 from a point to itself.

    The variants follow from inner products and three numbers a row. Centring a row changes a squared distance by -V times the squared
    difference of the means; taking log-probabilities shifts each row by one number more. No logits are needed.

    Raises:
        MetricError: the metric is unknown, needs what this route does not know, or meets a row without a direction.
    """
    if metric not in METRICS:
        raise MetricError(f"metric {metric!r} is not known: use one of {', '.join(METRICS)}.")
    if metric == "log_probs" and gram.log_sums is None:
        raise MetricError(
            "log-probabilities need the sum over the vocabulary of every row, which this route does not compute."
        )
    if metric == "cosine" and not gram.lengths.all():
        raise MetricError("a point is the zero vector, which has no direction: cosine cannot place it. Use euclidean.")
    for where, block in gram.blocks():
        between = _cosine(gram, where, block) if metric == "cosine" else _euclidean(gram, where, block, metric)
        rows = np.arange(where.start, where.stop)
        between[rows - where.start, rows] = 0
        yield where, between


def _cosine(gram: Gram, where: slice, block: Floats) -> Floats:
    inner = block + gram.shifts[where, None] + gram.shifts + gram.offset
    between = 1 - inner / (gram.lengths[where, None] * gram.lengths)
    between[between < 1e-14] = 0  # rounding
    return np.minimum(between, 2, out=between)


def _euclidean(gram: Gram, where: slice, block: Floats, metric: Metric) -> Floats:
    squares = gram.squares
    if metric == "prompt_centred":
        squares = gram.around_prompt
        by_prompt = block.reshape(-1, gram.group, gram.rows)
        block = (by_prompt - by_prompt.mean(axis=1, keepdims=True)).reshape(block.shape)
        by_prompt = block.reshape(len(block), -1, gram.group)
        block = (by_prompt - by_prompt.mean(axis=2, keepdims=True)).reshape(block.shape)
    between = block * -2
    between += squares[where, None] + squares
    if metric in ("centred", "log_probs"):
        between -= gram.width * np.square(gram.means[where, None] - gram.means)
    if metric == "log_probs" and gram.log_sums is not None:
        level = gram.log_sums - gram.means
        between += gram.width * np.square(level[where, None] - level)
    # What is left between two equal rows is rounding, and a silhouette would make a ratio of it.
    noise = 1e-13 * squares + 1e-28 * np.square(gram.lengths)
    between[between < noise[where, None] + noise] = 0
    return np.sqrt(between, out=between)


def silhouettes(gram: Gram, labels: Sequence[Hashable], metric: Metric = "euclidean") -> Floats:
    """The silhouette of each point, shape (N,), float64.

    Raises:
        MetricError: as `sam_score` and `distances`.
    """
    codes = mode_codes(labels, gram.rows)
    return from_sums(mode_sums(distances(gram, metric), codes), codes)


def mode_sums(blocks: Iterator[tuple[slice, Floats]], codes: Codes) -> Floats:
    """Sum of the distances of each point to the points of each mode, shape (N, modes)."""
    member = np.eye(codes.max() + 1)[codes]
    sums = np.empty((len(codes), member.shape[1]))
    for where, block in blocks:
        sums[where] = block @ member
    return sums


def from_sums(sums: Floats, codes: Codes, counts: Codes | None = None) -> Floats:
    """Silhouettes from `mode_sums`, shape (N,). `counts` are the points of each mode, where `codes` are not all of them."""
    counts = np.bincount(codes) if counts is None else counts
    rows = np.arange(len(codes))
    own = sums[rows, codes] / (counts[codes] - 1)
    means = sums / counts
    means[rows, codes] = np.inf
    other = means.min(axis=1)
    largest = np.maximum(own, other)
    return np.divide(other - own, largest, out=np.zeros_like(own), where=largest > 0)


def pairwise_sam(sums: Floats, codes: Codes) -> dict[tuple[int, int], float]:
    """SAM of every two modes alone, by their codes: the headline can be carried by one mode."""
    scores = {}
    for pair in combinations(range(sums.shape[1]), 2):
        keep = np.isin(codes, pair)
        scores[pair] = float(from_sums(sums[keep][:, list(pair)], (codes[keep] == pair[1]).astype(np.int64)).mean())
    return scores


def bootstrap_interval(
    values: Floats, groups: Codes, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean silhouette when whole prompts are drawn again with replacement.

    Silhouettes are kept as measured, the distances are not recomputed; points of one prompt stay together because they are not independent.

    Args:
        values: silhouettes, shape (N,).
        groups: the prompt of each point as 0, 1, ..., shape (N,).
        level: share of draws inside the interval.
        draws: how often prompts are drawn.
        seed: fixes the draws.
    """
    means = np.bincount(groups, values) / np.bincount(groups)
    weights = np.bincount(groups) / len(values)
    rng = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for draw in range(draws):
        picks = rng.integers(0, len(means), len(means))
        drawn[draw] = (means * weights)[picks].sum() / weights[picks].sum()
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permuted_null(
    blocks: Iterator[tuple[slice, Floats]],
    codes: Codes,
    groups: Codes,
    *,
    level: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """The `level` interval of SAM when labels are shuffled within each prompt: what chance gives on these very points.

    Args:
        blocks: distances, read once.
        codes: the mode of each point, shape (N,).
        groups: the prompt of each point, shape (N,).
        level: share of the shuffles inside the interval.
        draws: shuffles.
        seed: fixes them.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    shuffled = np.empty((draws, len(codes)), dtype=np.int16)
    for draw in shuffled:
        draw[order] = codes[np.lexsort((rng.random(len(codes)), groups))]
    counts = np.bincount(codes)
    scores = np.zeros(draws)
    for where, block in blocks:
        for start in range(0, draws, _DRAWS):
            labels = shuffled[start : start + _DRAWS]
            member = (labels.T[:, :, None] == np.arange(len(counts))).astype(np.float64)  # (N, some draws, modes)
            sums = (block @ member.reshape(len(codes), -1)).reshape(len(block), *member.shape[1:])
            for index, draw in enumerate(labels):
                scores[start + index] += from_sums(sums[:, index], draw[where].astype(np.int64), counts).sum()
    scores /= len(codes)
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mode_codes(labels: Sequence[Hashable], expected: int) -> Codes:
    """Labels as 0, 1, ... in the order of their first appearance.

    Raises:
        MetricError: not one label per point, fewer than two modes, or a mode with a single point.
    """
    if len(labels) != expected:
        raise MetricError(f"{len(labels)} labels were given for {expected} points: one label per point is needed.")
    index: dict[Hashable, int] = {}
    codes = np.array([index.setdefault(label, len(index)) for label in labels], dtype=np.int64)
    if len(index) < 2:
        raise MetricError("SAM compares modes, and all points have the same one: measure at least two modes.")
    if np.bincount(codes).min() < 2:
        raise MetricError("a mode has a single point, so it has no distance to its own: measure at least two prompts.")
    return codes
