"""SAM where people already compute metrics: in `evaluate`, on its page, from files of points."""

import json
from importlib.resources import files

import numpy as np
import pytest
import yaml

import switchsafe
from switchsafe.data.points import load_points
from switchsafe.errors import MetricError
from switchsafe.evaluation.sam import score_points
from switchsafe.metrics import sam_module

SPACE = files("switchsafe") / "space" / "sam"
MODES = ["pos", "rej", "neg"]


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(24, 50)) + np.arange(24)[:, None] % 3).astype(np.float32), MODES * 8


def test_evaluate_loads_it_offline_and_gives_our_number(points):
    import evaluate

    logits, labels = points
    metric = evaluate.load(sam_module())
    found = metric.compute(predictions=logits, references=labels)
    report = score_points(logits, labels)
    assert found["sam"] == pytest.approx(report.value)
    assert found["sam_weakest_pair"] == pytest.approx(report.pairwise[report.weakest])
    assert {mode: found[f"sam_{mode}"] for mode in MODES} == pytest.approx(report.per_mode)
    cosine = metric.compute(predictions=logits, references=labels, metric="cosine")
    assert cosine["sam"] == pytest.approx(report.variants["cosine"])
    assert evaluate.combine([metric]).compute(predictions=logits, references=labels)["sam"] == found["sam"]
    with pytest.raises(MetricError, match="at least two modes"):
        metric.compute(predictions=logits, references=["pos"] * 24)


def test_points_from_files_come_out_prompt_by_prompt(points, tmp_path):
    logits, labels = points
    prompts = [f"p{i // 3}" for i in range(24)]
    mixed = np.random.default_rng(1).permutation(24)
    np.savez(tmp_path / "a.npz", points=logits[mixed], labels=np.array(labels)[mixed], prompts=np.array(prompts)[mixed])
    rows = [{"prompt": prompts[i], "mode": labels[i], "logits": logits[i].tolist()} for i in mixed]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = score_points(logits, labels)
    for name in ("a.npz", "a.jsonl"):
        report = score_points(*load_points(tmp_path / name))
        assert report.value == pytest.approx(expected.value)
        assert report.variants == pytest.approx(expected.variants)
        assert report.per_mode == pytest.approx(expected.per_mode)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"mode": "pos"}\n', "not of the form"),
        ("no json\n", "not of the form"),
        (
            '{"prompt": "a", "mode": "pos", "logits": [1]}\n{"prompt": "a", "mode": "rej", "logits": [2]}\n{"prompt": "b", "mode": "pos", "logits": [2]}\n',
            "every prompt needs one point in each",
        ),
    ],
)
def test_files_of_another_form_are_refused(content, said, tmp_path):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(MetricError, match=said):
        load_points(tmp_path / "a.jsonl")
    np.savez(tmp_path / "b.npz", points=np.array([{}], dtype=object), labels=["a"])
    with pytest.raises(MetricError, match="not of the form"):
        load_points(tmp_path / "b.npz")


def test_the_page_scores_an_upload(points, tmp_path):
    from gradio_client import Client, handle_file

    from switchsafe.space.sam.app import demo

    logits, labels = points
    np.savez(tmp_path / "points.npz", points=logits, labels=labels)
    (tmp_path / "bad.jsonl").write_text("no json\n")
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(url, verbose=False)
        table, picture = client.predict(handle_file(tmp_path / "points.npz"), api_name="/score")
        assert f"{score_points(logits, labels).value:.3f}" in table
        assert picture["type"] == "matplotlib"
        with pytest.raises(Exception, match="not of the form"):
            client.predict(handle_file(tmp_path / "bad.jsonl"), api_name="/score")
    finally:
        demo.close()


def test_the_space_has_what_the_hub_asks_for():
    _, front, body = (SPACE / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert (card["sdk"], card["app_file"]) == ("gradio", "app.py")
    assert {"evaluate", "metric"} <= set(card["tags"])
    assert (SPACE / card["app_file"]).is_file()
    assert "Limits" in body
    release = switchsafe.__version__.split(".dev")[0]
    assert (SPACE / "requirements.txt").read_text().strip() == f"switchsafe[eval]=={release}"
