"""SAM against scikit-learn's silhouette, the independent oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import silhouette_samples, silhouette_score

from switchsafe import sam_score
from switchsafe.errors import MetricError
from switchsafe.metrics.sam import bootstrap_interval, distances, pairwise_sam, permuted_null, silhouettes


@st.composite
def labelled_points(draw):
    modes = draw(st.integers(2, 4))
    labels = draw(st.permutations([m for m in range(modes) for _ in range(2)]))
    labels = labels + draw(st.lists(st.integers(0, modes - 1), max_size=12))
    values = st.floats(-1e3, 1e3, width=32)
    points = draw(hnp.arrays(np.float64, (len(labels), draw(st.integers(1, 6))), elements=values))
    return points, labels


@settings(max_examples=200, deadline=None)
@given(labelled_points(), st.sampled_from(["euclidean", "cosine"]))
def test_equals_scikit_learn(case, metric):
    points, labels = case
    if metric == "cosine" and not np.linalg.norm(points, axis=1).all():
        return
    exact = np.array([[_distance(a, b, metric) for b in points] for a in points])
    np.fill_diagonal(exact, 0)
    mine = silhouettes(exact, labels)
    assert mine == pytest.approx(silhouette_samples(exact, labels, metric="precomputed"), abs=1e-12)


def _distance(a, b, metric):
    if metric == "euclidean":
        return np.linalg.norm(a - b)
    return max(0.0, 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_equals_scikit_learn_on_logit_like_points(metric, shift):
    rng = np.random.default_rng(0)
    labels = np.repeat(["pos", "rej", "neg"], 40)
    points = rng.normal(size=(120, 3000)) + shift + 0.3 * (labels == "rej")[:, None]
    expected = silhouette_score(points, labels, metric=metric)
    assert sam_score(points, list(labels), metric=metric) == pytest.approx(expected, abs=1e-7)


def test_dtypes_and_containers_agree():
    import torch

    rng = np.random.default_rng(1)
    points = rng.integers(-8, 8, (12, 5)).astype(np.float64)  # exact in every dtype
    labels = ["a", "b"] * 6
    expected = sam_score(points, labels)
    for other in (points.astype(np.float32), points.tolist(), *(torch.tensor(points, dtype=d) for d in FLOATS())):
        assert sam_score(other, labels) == expected


def FLOATS():
    import torch

    return (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@settings(max_examples=50, deadline=None)
@given(labelled_points())
def test_bounds_and_invariance(case):
    points, labels = case
    value = sam_score(points, labels)
    assert -1 <= value <= 1
    order = np.random.default_rng(0).permutation(len(labels))
    assert sam_score(points[order], [labels[i] for i in order]) == pytest.approx(value, abs=1e-6)
    assert sam_score(points, [f"mode {label}" for label in labels]) == value


def test_separated_modes_score_one_and_identical_ones_not_more_than_zero():
    far = np.array([[0.0, 0], [0, 0], [9, 9], [9, 9]])
    assert sam_score(far, list("aabb")) == 1
    assert sam_score(np.zeros((4, 2)), list("aabb")) == 0


def test_pairwise_is_sam_of_the_two_modes_alone():
    rng = np.random.default_rng(2)
    points, labels = rng.normal(size=(30, 4)), ["pos", "rej", "neg"] * 10
    pairs = pairwise_sam(distances(points), labels)
    assert set(pairs) == {("pos", "rej"), ("pos", "neg"), ("rej", "neg")}
    for pair, value in pairs.items():
        keep = [i for i, label in enumerate(labels) if label in pair]
        assert value == pytest.approx(silhouette_score(points[keep], [labels[i] for i in keep]))


def test_interval_holds_the_mean_and_narrows_with_prompts():
    rng = np.random.default_rng(3)
    widths = []
    for prompts in (20, 2000):
        values = rng.normal(0.1, 0.2, prompts * 3)
        low, high = bootstrap_interval(values, [i // 3 for i in range(len(values))])
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_the_interval_keeps_prompts_together():
    values = np.repeat(np.random.default_rng(4).normal(size=30), 10)
    together = bootstrap_interval(values, [i // 10 for i in range(300)])
    apart = bootstrap_interval(values, list(range(300)))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_the_null_is_what_chance_gives():
    rng = np.random.default_rng(5)
    labels, prompts = ["pos", "rej"] * 40, [i // 2 for i in range(80)]
    noise = distances(rng.normal(size=(80, 6)))
    mean, quantile = permuted_null(noise, labels, prompts)
    assert abs(mean) < 0.03
    assert silhouettes(noise, labels).mean() < quantile + 0.02
    apart = rng.normal(size=(80, 6)) + 3.0 * np.array([label == "rej" for label in labels])[:, None]
    _, quantile = permuted_null(distances(apart), labels, prompts)
    assert sam_score(apart, labels) > quantile + 0.2


@pytest.mark.parametrize(
    ("points", "labels", "said"),
    [
        (np.zeros((4, 2)), list("aaaa"), "at least two modes"),
        (np.zeros((3, 2)), list("aab"), "single point"),
        (np.zeros((4, 2)), list("aab"), "3 labels were given for 4 points"),
        (np.full((4, 2), np.nan), list("aabb"), "NaN"),
        (np.zeros(4), list("aabb"), "shape"),
        ([["x"], ["y"]], list("ab"), "numbers"),
        ([[1], [1, 2]], list("ab"), "numbers"),
    ],
)
def test_nonsense_is_refused(points, labels, said):
    with pytest.raises(MetricError, match=said):
        sam_score(points, labels)


def test_unknown_metric_and_zero_rows():
    with pytest.raises(MetricError, match="euclidean"):
        sam_score(np.eye(4), list("aabb"), metric="manhattan")
    with pytest.raises(MetricError, match="no direction"):
        sam_score(np.zeros((4, 2)), list("aabb"), metric="cosine")
