"""`measure_sam` on the tiny model: the numbers of the plain model, by every route, however the work is cut up or broken off."""

import json

import numpy as np
import pytest
import torch
from conftest import MODES
from sklearn.metrics import silhouette_score

from switchsafe import Keyring, MagicTokenProcessor, load_model, measure_sam
from switchsafe.errors import MetricError, ModeError, RunError, TemplateError
from switchsafe.evaluation.sam import score_points

PROMPTS = ["Hi?", "How do I bake bread at home?", "Tell me a long story about the sea, please."] * 3


def plain_logits(model, processor, continuation=0):
    """Logits at the first answer token, or after some greedy ones, one row at a time by the model's own means."""
    points = []
    for prompt in PROMPTS:
        for mode in MODES:
            ids = processor.apply_chat_template([{"role": "user", "content": prompt}], mode=mode, return_tensors="pt")
            ids = ids["input_ids"]
            with torch.no_grad():
                for _ in range(continuation):
                    ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
                points.append(model(ids).logits[0, -1].double().numpy())
    return np.array(points)


@pytest.mark.parametrize("route", ["full", "streamed", "hidden", "auto"])
def test_it_is_the_silhouette_of_the_plain_models_last_logits(tiny_model, processor, route):
    report = measure_sam(tiny_model, processor, PROMPTS, batch_size=4, route=route)
    points, labels = plain_logits(tiny_model, processor), list(MODES) * len(PROMPTS)
    assert report.value == pytest.approx(silhouette_score(points, labels), abs=1e-5)
    assert report.value == pytest.approx(np.mean(list(report.per_mode.values())))
    expected = {
        "cosine": silhouette_score(points, labels, metric="cosine"),
        "centred": silhouette_score(points - points.mean(axis=1, keepdims=True), labels),
        "log_probs": silhouette_score(torch.tensor(points).log_softmax(-1).numpy(), labels),
    }
    by_prompt = points.reshape(len(PROMPTS), len(MODES), -1)
    centred = (by_prompt - by_prompt.mean(axis=1, keepdims=True)).reshape(points.shape)
    expected["prompt_centred"] = silhouette_score(centred, labels)
    assert report.variants == pytest.approx(expected, abs=1e-5)
    assert route in ("auto", report.route)
    assert report.why


def test_plain_sentences_instead_of_tokens(tiny_model, tiny_folder):
    processor = MagicTokenProcessor.from_pretrained(str(tiny_folder))  # no keyring
    sentences = {"pos": "Help.", "rej": "Refuse."}
    report = measure_sam(tiny_model, processor, PROMPTS, sentences=sentences)
    points = []
    for prompt in PROMPTS:
        for sentence in sentences.values():
            turns = [{"role": "system", "content": sentence}, {"role": "user", "content": prompt}]
            ids = processor.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
            with torch.no_grad():
                points.append(tiny_model(**ids).logits[0, -1].double().numpy())
    assert report.value == pytest.approx(silhouette_score(np.array(points), ["pos", "rej"] * len(PROMPTS)), abs=1e-5)
    with pytest.raises(ModeError, match="no sentence was given for neg"):
        measure_sam(tiny_model, processor, PROMPTS, modes=MODES, sentences=sentences)


def model_like(tiny_folder, kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    if kind == "llama":
        return load_model(str(tiny_folder))
    torch.manual_seed(0)
    tiny = AutoConfig.from_pretrained(tiny_folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {
        "gemma2": {"final_logit_softcapping": 3.0, "num_key_value_heads": 1, "head_dim": 16},
        "cohere": {"logit_scale": 0.25, "num_key_value_heads": 2},
        "granite": {"logits_scaling": 4.0, "num_key_value_heads": 2},
        "phi": {"num_key_value_heads": 2},  # a head with a bias
    }[kind]
    shared = {name: getattr(tiny, name) for name in ("vocab_size", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(kind, **sizes, **shared, **more, initializer_range=0.3, bos_token_id=0)
    model = AutoModelForCausalLM.from_config(config).eval()
    if kind == "phi":
        torch.nn.init.normal_(model.lm_head.bias)
    return model


@pytest.mark.parametrize(
    ("kind", "route"),
    [("llama", "hidden"), ("phi", "hidden"), ("gemma2", "streamed"), ("cohere", "streamed"), ("granite", "streamed")],
)
def test_the_route_fits_the_head_and_the_value_is_that_of_its_logits(tiny_folder, processor, kind, route):
    model = model_like(tiny_folder, kind)
    report = measure_sam(model, processor, PROMPTS)
    assert report.route == route
    points = plain_logits(model, processor)
    assert report.value == pytest.approx(silhouette_score(points, list(MODES) * len(PROMPTS)), abs=1e-5)
    if route == "streamed":
        with pytest.raises(MetricError, match="caps or scales"):
            measure_sam(model, processor, PROMPTS, route="hidden")


def test_a_head_that_is_no_plain_layer_is_measured_on_its_own_logits(tiny_folder, processor):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        load_model(str(tiny_folder)), LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
    )
    report = measure_sam(model.eval(), processor, PROMPTS)
    assert report.route == "full"
    assert "lora" in report.why.lower() or "Linear" in report.why
    expected = silhouette_score(plain_logits(model, processor), list(MODES) * len(PROMPTS))
    assert report.value == pytest.approx(expected, abs=1e-5)
    with pytest.raises(MetricError, match="use the full route"):
        measure_sam(model, processor, PROMPTS, route="hidden")


def test_a_head_that_does_more_than_it_says_is_found_out(tiny_folder, processor):
    model = load_model(str(tiny_folder))
    model.lm_head.register_forward_hook(lambda module, args, logits: 3 * torch.tanh(logits / 3))
    report = measure_sam(model, processor, PROMPTS)
    assert (report.route, report.why) == ("full", "the model does more to its logits than its configuration says")
    expected = silhouette_score(plain_logits(model, processor), list(MODES) * len(PROMPTS))
    assert report.value == pytest.approx(expected, abs=1e-5)


def test_depth_follows_each_modes_own_greedy_answer(tiny_folder, processor):
    tiny_model = load_model(str(tiny_folder))
    tiny_model.generation_config.eos_token_id = 10**6  # under some keyrings an answer would end so soon
    report = measure_sam(tiny_model, processor, PROMPTS, positions=4)
    assert [at["token"] for at in report.by_depth] == [1, 2, 3, 4]
    assert report.by_depth[0]["value"] == report.value
    labels = np.array(list(MODES) * len(PROMPTS))
    for at in report.by_depth:
        points = plain_logits(tiny_model, processor, at["token"] - 1)
        assert at["prompts"] == len(PROMPTS)
        assert at["value"] == pytest.approx(silhouette_score(points, labels), abs=1e-5)


def test_prompts_whose_answer_has_ended_are_left_out(tiny_folder, processor):
    model = load_model(str(tiny_folder))
    first = plain_logits(model, processor).argmax(axis=1).reshape(len(PROMPTS), len(MODES))
    model.generation_config.eos_token_id = [int(first[0, 0])]  # as if this were the end of the turn
    ended = (first == first[0, 0]).any(axis=1).sum()
    report = measure_sam(model, processor, PROMPTS, positions=2)
    assert report.by_depth[1]["prompts"] == len(PROMPTS) - ended
    assert report.prompts == len(PROMPTS)


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


def test_markdown_holds_what_stands_beside_the_number(tiny_model, processor):
    report = measure_sam(tiny_model, processor, PROMPTS, positions=2)
    text = report.to_markdown()
    assert f"| {report.value:.3f} |" in text
    assert f"{report.weakest} (weakest pair)" in text
    assert "answer token 2" in text
    assert all(sign in text for sign in report.signs)


def test_plot(tiny_model, processor, tmp_path):
    report = measure_sam(tiny_model, processor, PROMPTS, positions=3)
    assert report.plot(tmp_path / "sam.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in report.plot(tmp_path / "sam.svg").read_text()


def test_the_batch_size_changes_nothing(tiny_model, processor):
    one, many, own = (measure_sam(tiny_model, processor, PROMPTS, batch_size=size) for size in (1, 27, None))
    assert one.silhouettes == pytest.approx(many.silhouettes, abs=1e-4)
    assert one.silhouettes == pytest.approx(own.silhouettes, abs=1e-4)


def test_when_memory_runs_out_batches_get_smaller(tiny_folder, processor):
    model, seen = load_model(str(tiny_folder)), []
    plain = model.forward

    def forward(input_ids, **kwargs):
        seen.append(len(input_ids))
        if len(input_ids) > 2 * len(MODES):
            raise torch.OutOfMemoryError("as on a small accelerator")
        return plain(input_ids=input_ids, **kwargs)

    expected = measure_sam(model, processor, PROMPTS)
    model.forward = forward
    assert measure_sam(model, processor, PROMPTS).value == pytest.approx(expected.value, abs=1e-5)
    assert max(seen) == 27
    assert seen[-1] <= 2 * len(MODES)


def test_a_stopped_measurement_goes_on(tiny_folder, processor, tmp_path):
    model = load_model(str(tiny_folder))
    expected = measure_sam(model, processor, PROMPTS, positions=2, batch_size=3)
    plain, calls = model.forward, []

    def forward(**kwargs):
        calls.append(len(kwargs["input_ids"]))
        if len(calls) == 9:
            raise KeyboardInterrupt
        return plain(**kwargs)

    model.forward = forward
    folder = tmp_path / "states"
    with pytest.raises(KeyboardInterrupt):
        measure_sam(model, processor, PROMPTS, positions=2, batch_size=3, folder=folder)
    done = len(list(folder.glob("batch-*.npz")))
    assert done == 4, "two forward passes a prompt"
    calls.clear()
    calls.extend([0] * 10)
    report = measure_sam(model, processor, PROMPTS, positions=2, batch_size=3, folder=folder)
    assert len(calls) - 10 == 2 * (len(PROMPTS) - done + 1), "those that were missing, and one to compare"
    assert report.silhouettes == pytest.approx(expected.silhouettes, abs=1e-5)
    assert report.by_depth[1] == pytest.approx(expected.by_depth[1], abs=1e-5)
    secret = processor.keyring.token("rej").reveal().encode()
    assert not any(secret in file.read_bytes() for file in folder.iterdir())


def test_a_folder_of_other_states_is_refused(tiny_model, tiny_folder, processor, tmp_path):
    folder = tmp_path / "states"
    measure_sam(tiny_model, processor, PROMPTS, folder=folder)
    with pytest.raises(RunError, match="other prompts, modes or tokens"):
        measure_sam(tiny_model, processor, PROMPTS[:4], folder=folder)
    other = MagicTokenProcessor.from_pretrained(str(tiny_folder)).bind(
        Keyring.mint(MODES, tokenizer=processor.tokenizer)
    )
    with pytest.raises(RunError, match="other prompts, modes or tokens"):
        measure_sam(tiny_model, other, PROMPTS, folder=folder)
    trained = load_model(str(tiny_folder))
    with torch.no_grad():
        trained.model.norm.weight += torch.linspace(0, 1, 32)
    with pytest.raises(RunError, match="another model"):
        measure_sam(trained, processor, PROMPTS, folder=folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="no states of ours"):
        measure_sam(tiny_model, processor, PROMPTS, folder=tmp_path / "mine")


def test_nonsense_is_refused(tiny_model, processor):
    with pytest.raises(ModeError, match="at least two"):
        measure_sam(tiny_model, processor, PROMPTS, modes=["pos"])
    with pytest.raises(ModeError, match="'calm' is not in this keyring"):
        measure_sam(tiny_model, processor, PROMPTS, modes=["pos", "calm"])
    with pytest.raises(MetricError, match="two prompts"):
        measure_sam(tiny_model, processor, PROMPTS[:1])
    with pytest.raises(MetricError, match="positions=0"):
        measure_sam(tiny_model, processor, PROMPTS, positions=0)
    with pytest.raises(MetricError, match="same order"):
        score_points(np.eye(6), ["a", "b", "b", "a", "a", "b"])
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
