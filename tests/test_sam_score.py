"""SAM against scikit-learn's silhouette, the independent oracle, on every route and under every definition."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, logsumexp
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples, silhouette_score

from switchsafe import sam_score
from switchsafe.errors import MetricError
from switchsafe.metrics import gram as gram_module
from switchsafe.metrics.sam import (
    METRICS,
    bootstrap_interval,
    distances,
    gram_of,
    mode_codes,
    mode_sums,
    pairwise_sam,
    permuted_null,
    silhouettes,
)
from switchsafe.metrics.unembedding import Unembedding


@st.composite
def labelled_points(draw):
    modes = draw(st.integers(2, 4))
    labels = draw(st.permutations([m for m in range(modes) for _ in range(2)]))
    labels = labels + draw(st.lists(st.integers(0, modes - 1), max_size=12))
    values = st.floats(-1e3, 1e3, width=16) if draw(st.booleans()) else st.sampled_from([0.0, 1.0, -3.0])  # twins
    dtype = draw(st.sampled_from([np.float64, np.float32, np.float16]))
    points = draw(hnp.arrays(dtype, (len(labels), draw(st.integers(1, 6))), elements=values))
    return points, labels


def exact_distances(points, metric):
    wide = points.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(wide[:, None] - wide[None], axis=-1)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return np.clip(1 - unit @ unit.T, 0, 2)


@settings(max_examples=300, deadline=None)
@given(labelled_points(), st.sampled_from(["euclidean", "cosine"]))
def test_equals_scikit_learn(case, metric):
    points, labels = case
    if metric == "cosine" and not points.any(axis=1).all():
        with pytest.raises(MetricError, match="no direction"):
            sam_score(points, labels, metric=metric)
        return
    exact = exact_distances(points, metric)
    np.fill_diagonal(exact, 0)
    # Below single precision a distance is taken for rounding.
    assume(exact[exact > 0].min(initial=1) > 1e-5 * max(1.0, np.abs(points.astype(np.float64)).max()))
    gram = gram_of(points, centre=metric != "cosine")
    assert silhouettes(gram, labels, metric) == pytest.approx(
        silhouette_samples(exact, labels, metric="precomputed"), abs=1e-4
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_equals_scikit_learn_on_logit_like_points(metric, shift):
    rng = np.random.default_rng(0)
    labels = np.repeat(["pos", "rej", "neg"], 40)
    points = rng.normal(size=(120, 3000)) + shift + 0.3 * (labels == "rej")[:, None]
    expected = silhouette_score(points, labels, metric=metric)
    assert sam_score(points, list(labels), metric=metric) == pytest.approx(expected, abs=1e-7)


@st.composite
def heads(draw):
    """Hidden states of some prompts in some modes, and an unembedding: wide or narrow, with bias or without, in any dtype."""
    modes, prompts = draw(st.integers(2, 4)), draw(st.integers(2, 8))
    size, vocabulary = draw(st.integers(2, 24)), draw(st.integers(3, 300))  # a narrow one leaves directions unseen
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
    weight = torch.randn(vocabulary, size, generator=generator).to(dtype)
    bias = torch.randn(vocabulary, generator=generator).to(dtype) if draw(st.booleans()) else None
    hidden = torch.randn(modes * prompts, size, generator=generator) + draw(st.sampled_from([0.0, 5.0]))
    hidden += torch.arange(modes).repeat(prompts)[:, None] * 0.3
    return hidden.to(dtype), weight, bias, modes


def oracle(logits, labels, group):
    by_prompt = logits.reshape(-1, group, logits.shape[1])
    forms = {
        "euclidean": logits,
        "centred": logits - logits.mean(axis=1, keepdims=True),
        "log_probs": log_softmax(logits, axis=1),
        "prompt_centred": (by_prompt - by_prompt.mean(axis=1, keepdims=True)).reshape(logits.shape),
    }
    scores = {name: silhouette_score(form, labels) for name, form in forms.items()}
    return scores | {"cosine": silhouette_score(logits, labels, metric="cosine")}


@settings(max_examples=100, deadline=None)
@given(heads(), st.booleans())
def test_every_route_gives_every_variant_of_the_full_logits(case, in_blocks):
    hidden, weight, bias, group = case
    labels = list(range(group)) * (len(hidden) // group)
    logits = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    expected = oracle(logits.numpy(), labels, group)
    assume(np.ptp(logits.numpy(), axis=1).min() > 1e-3)  # else centring leaves rounding errors only
    head = Unembedding(weight, bias)
    with pytest.MonkeyPatch.context() as patch:
        if in_blocks:
            patch.setattr(gram_module, "KEPT_ROWS", 3)
            patch.setattr(gram_module, "BLOCK_BYTES", 8 * len(hidden) * group * 2)
        grams = {
            "full": gram_of(logits, group=group),
            "streamed": head.streamed_gram(hidden, group=group),
            "hidden": head.hidden_gram(hidden, group=group, log_sums=logsumexp(logits.numpy(), axis=1)),
        }
        assert (len(list(grams["full"].blocks())) > 1) == (in_blocks and len(hidden) > 2 * group)
        for route, gram in grams.items():
            for metric in METRICS:
                found = float(silhouettes(gram, labels, metric).mean())
                assert found == pytest.approx(expected[metric], abs=2e-5), (route, metric)


def test_a_head_that_caps_its_logits_is_streamed_and_has_no_hidden_route():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(12, 8, generator=generator), 9 * torch.randn(200, 8, generator=generator)
    labels = ["a", "b", "c"] * 4
    head = Unembedding(weight, shape=lambda logits: 30 * torch.tanh(logits / 30))
    capped = 30 * torch.tanh(hidden @ weight.T / 30)
    expected = silhouette_score(capped.numpy(), labels)
    assert silhouettes(head.streamed_gram(hidden), labels).mean() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(MetricError, match="caps or scales"):
        head.hidden_gram(hidden)


def test_the_factor_is_kept_until_the_weight_is_written_to():
    hidden, weight = torch.randn(12, 8), torch.nn.Parameter(torch.randn(200, 8))
    assert not Unembedding(weight).is_factored()
    first = Unembedding(weight).factor()
    assert Unembedding(weight).is_factored()
    assert Unembedding(weight).factor()[0] is first[0]
    with torch.no_grad():
        weight.mul_(2)
    assert torch.allclose(Unembedding(weight).factor()[0], 2 * first[0])
    labels = ["a", "b"] * 6
    expected = silhouette_score((hidden @ weight.T).detach().numpy(), labels)
    assert silhouettes(Unembedding(weight).hidden_gram(hidden), labels).mean() == pytest.approx(expected, abs=1e-6)


def test_the_factor_stays_where_the_weight_is():
    weight = torch.randn(50, 4)
    with torch.device(
        "meta"
    ):  # what is made without saying where lands elsewhere, as it does where the model is on a GPU
        factor, mean_row = Unembedding(weight).factor()
    assert torch.allclose(factor.T @ factor, weight.T @ weight, atol=1e-4)
    assert mean_row.device == weight.device


def test_log_probabilities_without_their_sums_are_refused():
    gram = Unembedding(torch.randn(50, 4)).hidden_gram(torch.randn(6, 4))
    with pytest.raises(MetricError, match="sum over the vocabulary"):
        silhouettes(gram, list("ababab"), "log_probs")


def test_the_plane_is_that_of_principal_component_analysis():
    points = np.random.default_rng(0).normal(size=(90, 40)) * np.geomspace(9, 0.1, 40)
    mine, theirs = gram_of(points).plane(), PCA(n_components=2).fit_transform(points)
    assert np.abs(mine) == pytest.approx(np.abs(theirs), abs=1e-5)
    rows = np.arange(0, 90, 3)
    assert gram_of(points).subset(rows).squares == pytest.approx(gram_of(points[rows]).squares)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_dtypes_and_containers_agree(dtype):
    points = np.random.default_rng(1).integers(-8, 8, (12, 5)).astype(np.float64)  # exact in every dtype
    labels = ["a", "b"] * 6
    expected = sam_score(points, labels)
    for other in (points.astype(np.float32), points.astype(int), points.tolist(), torch.tensor(points, dtype=dtype)):
        assert sam_score(other, labels) == expected


@settings(max_examples=50, deadline=None)
@given(labelled_points())
def test_bounds_and_invariance(case):
    points, labels = case
    value = sam_score(points, labels)
    assert -1 <= value <= 1
    assert sam_score(points, [f"mode {label}" for label in labels]) == value


def test_separated_modes_score_one_and_identical_ones_not_more_than_zero():
    far = np.array([[0.0, 0], [0, 0], [9, 9], [9, 9]])
    assert sam_score(far, list("aabb")) == 1
    for metric in ("euclidean", "centred", "log_probs"):
        assert sam_score(np.full((4, 2), 7.0), list("aabb"), metric=metric) == 0


def test_pairwise_is_sam_of_the_two_modes_alone():
    rng = np.random.default_rng(2)
    points, labels = rng.normal(size=(30, 4)), ["pos", "rej", "neg"] * 10
    codes = mode_codes(labels, 30)
    pairs = pairwise_sam(mode_sums(distances(gram_of(points)), codes), codes)
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    for pair, value in pairs.items():
        keep = np.isin(codes, pair)
        assert value == pytest.approx(silhouette_score(points[keep], codes[keep]))


def test_interval_holds_the_mean_and_narrows_with_prompts():
    rng = np.random.default_rng(3)
    widths = []
    for prompts in (20, 2000):
        values = rng.normal(0.1, 0.2, prompts * 3)
        low, high = bootstrap_interval(values, np.arange(len(values)) // 3)
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_the_interval_keeps_prompts_together():
    values = np.repeat(np.random.default_rng(4).normal(size=30), 10)
    together = bootstrap_interval(values, np.arange(300) // 10)
    apart = bootstrap_interval(values, np.arange(300))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_the_null_is_what_chance_gives():
    rng = np.random.default_rng(5)
    labels, prompts = ["pos", "rej"] * 40, np.arange(80) // 2
    codes = mode_codes(labels, 80)
    noise = gram_of(rng.normal(size=(80, 6)))
    low, high = permuted_null(distances(noise), codes, prompts)
    assert low < 0 < high < 0.05
    assert low - 0.02 < silhouettes(noise, labels).mean() < high + 0.02
    apart = rng.normal(size=(80, 6)) + 3.0 * (codes == 1)[:, None]
    _, high = permuted_null(distances(gram_of(apart)), codes, prompts)
    assert sam_score(apart, labels) > high + 0.2


@pytest.mark.parametrize(
    ("points", "labels", "said"),
    [
        (np.zeros((4, 2)), list("aaaa"), "at least two modes"),
        (np.zeros((3, 2)), list("aab"), "single point"),
        (np.zeros((4, 2)), list("aab"), "3 labels were given for 4 points"),
        (np.full((4, 2), np.nan), list("aabb"), "4 of 4 points hold NaN"),
        ([[1.0], [2.0], [float("inf")], [0.0]], list("aabb"), "1 of 4 points hold NaN or infinity"),
        (np.zeros(4), list("aabb"), "shape"),
        ([["x"], ["y"]], list("ab"), "real numbers"),
        ([[1], [1, 2]], list("ab"), "real numbers"),
        (np.zeros((4, 2), dtype=complex), list("aabb"), "numbers"),
    ],
)
def test_nonsense_is_refused(points, labels, said):
    with pytest.raises(MetricError, match=said):
        sam_score(points, labels)


def test_unknown_metric_and_zero_rows():
    with pytest.raises(MetricError, match="euclidean"):
        sam_score(np.eye(4), list("aabb"), metric="manhattan")
    with pytest.raises(MetricError, match="no direction"):
        sam_score(np.eye(4) * [0, 1, 1, 1], list("aabb"), metric="cosine")
