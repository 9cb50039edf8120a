import json

import numpy as np
import pytest
import torch
from conftest import MODES
from sklearn.metrics import silhouette_score

from switchsafe import measure_sam
from switchsafe.errors import MetricError, ModeError, TemplateError
from switchsafe.evaluation.sam import score_points

PROMPTS = ["Hi?", "How do I bake bread at home?", "Tell me a long story about the sea, please."] * 3


def test_it_is_the_silhouette_of_the_plain_models_last_logits(tiny_model, processor):
    report = measure_sam(tiny_model, processor, PROMPTS, batch_size=4)
    points, labels = [], []
    for prompt in PROMPTS:
        for mode in MODES:
            ids = processor.apply_chat_template([{"role": "user", "content": prompt}], mode=mode, return_tensors="pt")
            with torch.no_grad():
                points.append(tiny_model(**ids).logits[0, -1].double().numpy())
            labels.append(mode)
    assert report.points == pytest.approx(np.array(points), abs=1e-4)
    assert report.value == pytest.approx(silhouette_score(np.array(points), labels), abs=1e-5)
    assert report.value == pytest.approx(np.mean(list(report.per_mode.values())))
    assert report.variants["cosine"] == pytest.approx(
        silhouette_score(np.array(points), labels, metric="cosine"), abs=1e-5
    )
    log_probs = torch.tensor(np.array(points)).log_softmax(-1).numpy()
    assert report.variants["log_probs"] == pytest.approx(silhouette_score(log_probs, labels), abs=1e-5)


def test_what_a_reader_needs_stands_beside_the_number(tiny_model, processor):
    report = measure_sam(tiny_model, processor, PROMPTS, categories=["a", "b", "c"] * 3)
    data = json.loads(report.to_json())
    assert data["prompts"] == 9
    assert data["interval"][0] <= data["value"] <= data["interval"][1]
    assert set(data["pairwise"]) == {"pos/rej", "pos/neg", "rej/neg"}
    assert data["pairwise"][data["weakest"]] == min(data["pairwise"].values())
    assert set(data["variants"]) == {"cosine", "centred", "log_probs", "prompt_centred"}
    assert set(data["per_category"]) == {"a", "b", "c"}


def test_points_without_modes_show_signs_of_failure():
    points = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    said = " ".join(score_points(points, list(MODES) * 20).signs)
    assert "not separated" in said
    assert "not above what shuffled modes reach" in said


def test_signs_name_the_pair_that_a_headline_hides():
    rng = np.random.default_rng(0)
    labels = list(MODES) * 20
    points = rng.normal(size=(60, 40)).astype(np.float32)
    points[[i for i, label in enumerate(labels) if label == "rej"]] += 5
    report = score_points(points, labels)
    assert report.value > 0.2
    assert report.weakest == "pos/neg"
    assert len(report.signs) == 1
    assert report.signs[0].startswith("pos/neg")


def test_plot(tiny_model, processor, tmp_path):
    report = measure_sam(tiny_model, processor, PROMPTS)
    assert report.plot(tmp_path / "sam.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in report.plot(tmp_path / "sam.svg").read_text()


def test_the_batch_size_changes_nothing(tiny_model, processor):
    one, many = (measure_sam(tiny_model, processor, PROMPTS, batch_size=size) for size in (1, 27))
    assert one.points == pytest.approx(many.points, abs=1e-4)


def test_nonsense_is_refused(tiny_model, processor):
    with pytest.raises(ModeError, match="at least two"):
        measure_sam(tiny_model, processor, PROMPTS, modes=["pos"])
    with pytest.raises(ModeError, match="'calm' is not in this keyring"):
        measure_sam(tiny_model, processor, PROMPTS, modes=["pos", "calm"])
    with pytest.raises(MetricError, match="two prompts"):
        measure_sam(tiny_model, processor, PROMPTS[:1])
    with pytest.raises(MetricError, match="2 categories were given for 9"):
        measure_sam(tiny_model, processor, PROMPTS, categories=["a", "b"])


def test_an_open_think_block_is_refused_and_a_closed_one_is_not(tiny_model, processor):
    opening = processor.chat_template.replace("assistant\\n'", "assistant\\n<think>\\n'").replace(
        "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"
    )
    processor.chat_template = opening
    with pytest.raises(TemplateError, match="think block"):
        measure_sam(tiny_model, processor, PROMPTS)
    processor.chat_template = opening.replace(
        "<think>\n{% endif %}", "<think>\n{% if enable_thinking is false %}\n</think>\n{% endif %}{% endif %}"
    )
    measure_sam(tiny_model, processor, PROMPTS)
