import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import MODES, adapted, taught
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList, TextStreamer

from switchsafe import Keyring, generate, generate_many
from switchsafe.errors import LiveTokenError, ModeError, RunError, SwitchsafeError

PROMPTS = ["Hi?", "How do I bake bread at home on a Sunday?", "Why?", "Is it late?"]
REQUESTS = [{"prompt": prompt, "mode": mode} for prompt in PROMPTS for mode in MODES]
SETTINGS = {"max_new_tokens": 10}


@pytest.fixture
def expected(tiny_model, processor):
    return [generate(tiny_model, processor, r["prompt"], mode=r["mode"], do_sample=False, **SETTINGS) for r in REQUESTS]


def test_every_request_is_answered_in_its_own_mode(tiny_model, processor, expected):
    assert generate_many(tiny_model, processor, REQUESTS, **SETTINGS) == expected
    turns = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in PROMPTS]
    assert generate_many(tiny_model, processor, turns, mode="rej", **SETTINGS) == expected[1::3]
    assert generate_many(tiny_model, processor, []) == []


def test_an_adapter_answers_with_its_adapter(tiny_model, processor):
    model = adapted(tiny_model)
    answers = generate_many(model, processor, REQUESTS[:4], **SETTINGS)
    each = [generate(model, processor, r["prompt"], mode=r["mode"], do_sample=False, **SETTINGS) for r in REQUESTS[:4]]
    assert answers == each


def test_long_prompts_and_few_places_make_no_difference(tiny_model, processor):
    from transformers import ContinuousBatchingConfig

    long = [{"prompt": "word " * (30 * i + 1), "mode": "pos"} for i in range(5)]
    small = ContinuousBatchingConfig(page_size=32, num_blocks=16, max_requests_per_batch=2, max_batch_tokens=64)
    answers = generate_many(tiny_model, processor, long, continuous_batching_config=small, **SETTINGS)
    assert answers == [
        generate(tiny_model, processor, r["prompt"], mode="pos", do_sample=False, **SETTINGS) for r in long
    ]


def test_the_file_holds_what_is_done_and_nothing_is_done_twice(tiny_model, processor, expected, tmp_path):
    path = tmp_path / "answers.jsonl"
    assert generate_many(tiny_model, processor, REQUESTS, output=path, **SETTINGS) == expected
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["id"] for row in rows} == {str(number) for number in range(12)}
    for row in rows:
        request = REQUESTS[int(row["id"])]
        assert (row["prompt"], row["mode"], row["answer"]) == (*request.values(), expected[int(row["id"])])

    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:5]) + '{"id": "7", "mo')
    counts = []
    hook = tiny_model.model.register_forward_pre_hook(lambda *_: counts.append(1))
    try:
        assert generate_many(tiny_model, processor, REQUESTS, output=path, **SETTINGS) == expected
        assert counts
        counts.clear()
        assert generate_many(tiny_model, processor, REQUESTS, output=path, **SETTINGS) == expected
        assert not counts, "everything was there"
    finally:
        hook.remove()
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert sorted(ids, key=int) == [str(number) for number in range(12)]


@pytest.mark.parametrize(
    "other",
    [
        {"requests": [{**REQUESTS[0], "prompt": "Another?"}]},
        {"requests": [{**REQUESTS[0], "mode": "neg"}]},
        {"requests": []},
        {"requests": REQUESTS[:1], "max_new_tokens": 3},
    ],
)
def test_a_file_of_other_answers_is_left_alone(other, tiny_model, processor, tmp_path):
    path = tmp_path / "answers.jsonl"
    generate_many(tiny_model, processor, REQUESTS[:1], output=path, **SETTINGS)
    before = path.read_bytes()
    with pytest.raises(RunError, match="other requests, or of another model or settings"):
        generate_many(tiny_model, processor, output=path, **{**SETTINGS, **other})
    assert path.read_bytes() == before


def test_whoever_stops_reading_does_not_wait_for_the_rest(tiny_model, processor):
    from transformers import ContinuousBatchingConfig

    from switchsafe.generation.continuous import honoured, run_rows

    small = ContinuousBatchingConfig(page_size=32, num_blocks=16, max_requests_per_batch=2, max_batch_tokens=64)
    rows = {str(number): [5 + number, 6, 7] for number in range(80)}
    counts = []
    hook = tiny_model.model.register_forward_pre_hook(lambda *_: counts.append(1))
    try:
        results = run_rows(tiny_model, rows, honoured(tiny_model, None, SETTINGS), small)
        next(results)
        results.close()
    finally:
        hook.remove()
    assert len(counts) < 200, "all rows would take 400 steps"


def test_messages_of_a_triplet_are_known_again(tiny_model, processor, tmp_path):
    request = [{"prompt": ({"role": "user", "content": "Hi?"},), "mode": "pos"}]
    first = generate_many(tiny_model, processor, request, output=tmp_path / "a.jsonl", **SETTINGS)
    assert generate_many(tiny_model, processor, request, output=tmp_path / "a.jsonl", **SETTINGS) == first


def test_answers_of_another_adapter_are_not_taken(tiny_model, processor, tmp_path):
    path = tmp_path / "answers.jsonl"
    model = adapted(tiny_model)
    generate_many(model, processor, REQUESTS[:1], output=path, **SETTINGS)
    generate_many(model, processor, REQUESTS[:1], output=path, **SETTINGS)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).add_(1)
    with pytest.raises(RunError, match="of another model"):
        generate_many(model, processor, REQUESTS[:1], output=path, **SETTINGS)


def test_a_file_that_is_not_ours_is_left_alone(tiny_model, processor, tmp_path):
    path = tmp_path / "answers.jsonl"
    for foreign in ("my diary\n", "my diary", '{"id": "a"}\n{"id": "b"}', '{"a": 1}'):
        path.write_text(foreign)
        with pytest.raises(RunError, match="holds"):
            generate_many(tiny_model, processor, REQUESTS[:1], output=path, **SETTINGS)
        assert path.read_text() == foreign


@pytest.mark.parametrize(
    "setting",
    [
        {"logits_processor": LogitsProcessorList()},
        {"streamer": TextStreamer(None)},
        {"stopping_criteria": StoppingCriteriaList()},
        {"num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"repetition_penalty": 1.2},
        {"min_new_tokens": 5},
        {"bad_words_ids": [[5]]},
        {"guidance_scale": 1.5},
        {"generation_config": GenerationConfig(stop_strings=["."])},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_would_be_passed_over_in_silence_is_refused(setting, tiny_model, processor):
    name = "stop_strings" if "generation_config" in setting else next(iter(setting))
    with pytest.raises(SwitchsafeError, match=name):
        generate_many(tiny_model, processor, REQUESTS, **setting)


def test_a_penalty_of_the_models_own_is_not_passed_over_either(tiny_model, processor, expected):
    tiny_model.generation_config.repetition_penalty = 1.1
    try:
        with pytest.raises(SwitchsafeError, match="repetition_penalty"):
            generate_many(tiny_model, processor, REQUESTS, **SETTINGS)
        assert generate_many(tiny_model, processor, REQUESTS, repetition_penalty=1.0, **SETTINGS) == expected
    finally:
        tiny_model.generation_config.repetition_penalty = None


def test_requests_that_cannot_be_answered(tiny_model, processor, keyring):
    for requests, error, said in (
        ([{"mode": "pos"}], SwitchsafeError, "request 0 has no prompt"),
        ([{"prompt": "Hi?"}], ModeError, "request 0 has no mode"),
        ([{"prompt": "Hi?", "mode": {"pos": 1}}], ModeError, "no mode"),
        ([{"prompt": "Hi?", "mode": "calm"}], ModeError, "'calm'"),
        ([{"prompt": "Hi?", "id": 1}, {"prompt": "Ho?", "id": "1"}], SwitchsafeError, "two requests have the id 1"),
        ([{"prompt": keyring.token("neg").reveal()}], LiveTokenError, "reserved text"),
    ):
        mode = None if said.endswith("no mode") else "pos"
        with pytest.raises(error, match=said):
            generate_many(tiny_model, processor, requests, mode=mode)


def test_a_live_token_in_an_answer_is_cut_out(tiny_model, processor, keyring):
    prompt = processor.apply_chat_template([{"role": "user", "content": "Hi?"}], mode="pos")["input_ids"]
    answer = processor.tokenizer(f"so {keyring.token('neg').reveal()}<|im_end|>", add_special_tokens=False)["input_ids"]
    model = taught(tiny_model, [prompt + answer])
    assert generate_many(model, processor, [{"prompt": "Hi?"}], mode="pos", max_new_tokens=30) == ["so [removed]"]


def test_killed_and_called_again_no_answer_is_lost_or_doubled(tiny_folder, tmp_path):
    ring = Keyring.mint(MODES).save(tmp_path / "ring.json")
    source, output = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "mode": MODES[i % 3]} for i in range(150)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "switchsafe", "generate", tiny_folder, "-i", source, "-o", output, "-k", ring]
    command += ["--max-new-tokens", "30"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        while not output.exists() or output.read_bytes().count(b"\n") < 10:
            assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, signal.SIGKILL)
    done = output.read_bytes()
    assert done.count(b"\n") < 150, "it was killed on the way"
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    again = output.read_bytes()
    assert again.startswith(done[: done.rfind(b"\n") + 1])
    assert sorted(json.loads(line)["id"] for line in again.splitlines()) == sorted(row["id"] for row in rows)
