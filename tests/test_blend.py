import pytest
import torch
from transformers import LogitsProcessorList, TextStreamer

from switchsafe import generate
from switchsafe.errors import ModeError
from switchsafe.generation.blend import ModeBlendLogitsProcessor, mix

PROMPTS = ["Hi?", "How do I bake bread at home on a Sunday?", "Why?"]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
BLEND = {"pos": 0.6, "rej": 0.4}


def slowly(model, processor, prompt, blend, steps=12):
    """Greedy search on the mixture by its definition: no cache, no batch, one whole pass a mode and token."""
    said = []
    for _ in range(steps):
        log_p = 0
        for mode, weight in blend.items():
            ids = processor.apply_chat_template([{"role": "user", "content": prompt}], mode=mode)["input_ids"]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + said])).logits[0, -1]
            log_p = log_p + weight * logits.log_softmax(-1)
        said.append(int(log_p.argmax()))
        if said[-1] == processor.tokenizer.eos_token_id:
            break
    return processor.tokenizer.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("blend", [BLEND, {"pos": 1.8, "neg": -0.8}, {"pos": 0.5, "rej": 0.3, "neg": 0.2}])
def test_a_blend_is_the_log_linear_mixture(blend, tiny_model, processor):
    answers = generate(tiny_model, processor, PROMPTS, mode=blend, **GREEDY)
    assert answers == [slowly(tiny_model, processor, prompt, blend) for prompt in PROMPTS]
    pure = [generate(tiny_model, processor, PROMPTS, mode=mode, **GREEDY) for mode in blend]
    assert answers not in pure, "a blend that is one of its modes would prove nothing"


@pytest.mark.parametrize(("blend", "mode"), [({"pos": 1.0, "rej": 0.0}, "pos"), ({"pos": 0, "rej": 1}, "rej")])
def test_a_mode_of_weight_0_is_not_run(blend, mode, tiny_model, processor):
    rows = []
    hook = tiny_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        answers = generate(tiny_model, processor, PROMPTS, mode=blend, **GREEDY)
    finally:
        hook.remove()
    assert answers == generate(tiny_model, processor, PROMPTS, mode=mode, **GREEDY)
    assert set(rows) == {3}


def test_all_branches_are_one_batch_and_one_pass_a_token(tiny_model, processor):
    rows = []
    hook = tiny_model.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        generate(tiny_model, processor, PROMPTS, mode=BLEND, min_new_tokens=5, max_new_tokens=5)
    finally:
        hook.remove()
    assert [tuple(shape) for shape in rows[1:]] == [(6, 1)] * 4


OTHER_WAYS = {
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "prefill in chunks": {"prefill_chunk_size": 7},
    "full outputs": {"return_dict_in_generate": True},
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_however_it_is_decoded_the_answer_is_the_same(way, tiny_model, processor):
    answers = generate(tiny_model, processor, PROMPTS, mode=BLEND, **GREEDY, **OTHER_WAYS[way])
    assert getattr(answers, "texts", answers) == generate(tiny_model, processor, PROMPTS, mode=BLEND, **GREEDY)


def test_assisted_and_streamed_it_is_the_same(tiny_model, other_tiny_model, processor, capsys):
    answer = generate(tiny_model, processor, PROMPTS[1], mode=BLEND, **GREEDY)
    streamer = TextStreamer(processor.tokenizer, skip_special_tokens=True)
    for way in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": other_tiny_model}, {"streamer": streamer}):
        assert generate(tiny_model, processor, PROMPTS[1], mode=BLEND, **GREEDY, **way) == answer
    assert capsys.readouterr().out == answer + "\n"


def test_beams_take_the_branches_along(tiny_model, processor):
    beams = {**GREEDY, "num_beams": 4, "num_return_sequences": 2}
    answers = generate(tiny_model, processor, PROMPTS, mode=BLEND, **beams)
    assert answers == generate(tiny_model, processor, PROMPTS, mode=BLEND, use_cache=False, **beams)
    assert len(set(answers)) == 6


def test_sampling_follows_the_mixture(tiny_model, processor):
    """The first token's frequencies are the mixture's probabilities, not those of a mode."""
    prompt = PROMPTS[1]
    scores = generate(
        tiny_model, processor, prompt, mode=BLEND, max_new_tokens=1, return_dict_in_generate=True, output_logits=True
    ).logits[0][0]
    torch.manual_seed(0)
    output = generate(
        tiny_model,
        processor,
        prompt,
        mode=BLEND,
        max_new_tokens=1,
        do_sample=True,
        top_k=0,
        num_return_sequences=4000,
        return_dict_in_generate=True,
    )
    found = torch.bincount(output.sequences[:, -1], minlength=len(scores)) / 4000
    assert (found - scores.softmax(-1)).abs().max() < 0.03


def test_nothing_is_left_on_the_model(tiny_model, processor):
    def hooks():
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny_model.modules()]

    before = hooks()
    output = generate(tiny_model, processor, PROMPTS, mode=BLEND, return_dict_in_generate=True, **GREEDY)
    assert "reorder_cache" not in vars(output.past_key_values)
    with pytest.raises(ValueError, match="no_such_argument"):
        generate(tiny_model, processor, PROMPTS, mode=BLEND, no_such_argument=1, **GREEDY)
    assert hooks() == before


@pytest.mark.parametrize("weights", [{}, {"pos": 1, "rej": 1}, {"pos": float("nan"), "rej": 1.0}, {"pos": 0.5}])
def test_weights_that_do_not_add_up_are_refused(weights, tiny_model, processor):
    with pytest.raises(ModeError, match="add up to 1"):
        generate(tiny_model, processor, PROMPTS, mode=weights, **GREEDY)


def test_others_who_use_the_model_meanwhile_get_their_own_answers(tiny_model, processor):
    import threading

    expected = {mode: generate(tiny_model, processor, PROMPTS[1], mode=mode, **GREEDY) for mode in ("rej", "neg")}
    blended = generate(tiny_model, processor, PROMPTS[0], mode=BLEND, **GREEDY)
    got, errors = [], []

    def ask(mode):
        try:
            got.extend((mode, generate(tiny_model, processor, PROMPTS[1], mode=mode, **GREEDY)) for _ in range(20))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(mode,)) for mode in expected]
    for thread in threads:
        thread.start()
    mixed = {generate(tiny_model, processor, PROMPTS[0], mode=BLEND, **GREEDY) for _ in range(20)}
    for thread in threads:
        thread.join()
    assert not errors
    assert mixed == {blended}
    assert set(got) == set(expected.items())


def test_what_a_branch_rules_out_stays_ruled_out():
    inf = float("inf")
    branches = torch.tensor([[1.0, -inf, 2.0], [3.0, 4.0, -inf]])
    assert mix(branches, [0.5, 0.5]).tolist() == [2.0, -inf, -inf]
    assert mix(branches, [1.5, -0.5]).tolist() == [0.0, -inf, -inf]


# -- the processor alone ----------------------------------------------------------------------------------------------------------------


def rows_of(processor, prompts, modes):
    processor.padding_side = "left"
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    each = [mode for mode in modes for _ in prompts]
    return processor.apply_chat_template(turns * len(modes), mode=each, padding=True, return_tensors="pt")


def test_alone_it_blends_the_rows_of_a_batch(tiny_model, processor):
    inputs = rows_of(processor, PROMPTS, BLEND)
    blend = LogitsProcessorList([ModeBlendLogitsProcessor(list(BLEND.values()))])
    output = tiny_model.generate(**inputs, logits_processor=blend, **GREEDY)
    texts = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert texts == generate(tiny_model, processor, PROMPTS, mode=BLEND, **GREEDY) * 2


def test_alone_it_refuses_what_it_cannot_keep_together(tiny_model, processor):
    inputs = rows_of(processor, PROMPTS, BLEND)
    blend = LogitsProcessorList([ModeBlendLogitsProcessor([0.6, 0.4])])
    torch.manual_seed(0)
    with pytest.raises(ModeError, match="went apart"):
        tiny_model.generate(**inputs, logits_processor=blend, do_sample=True, max_new_tokens=12)
    with pytest.raises(ModeError, match="3 rows are no batch of 2 branches"):
        tiny_model.generate(**rows_of(processor, PROMPTS, ["pos"]), logits_processor=blend, **GREEDY)
    with pytest.raises(ModeError, match="add up to 1"):
        ModeBlendLogitsProcessor([0.6, 0.6])
