import pytest
import torch
from conftest import MODES

from switchsafe import generate, switchable
from switchsafe.errors import LiveTokenError, ModeError

PROMPTS = ["Hi?", "How do I bake bread at home on a Sunday?", "Why?"]


def plain(model, processor, prompt, mode, **kwargs):
    """What the library alone gives on the same ids."""
    ids = processor.apply_chat_template([{"role": "user", "content": prompt}], mode=mode, return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**ids, **kwargs)
    return processor.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("mode", MODES)
def test_one_conversation_equals_the_models_own_generate(tiny_model, processor, mode):
    expected = plain(tiny_model, processor, PROMPTS[1], mode, max_new_tokens=12, do_sample=False)
    for messages in (PROMPTS[1], [{"role": "user", "content": PROMPTS[1]}]):
        assert generate(tiny_model, processor, messages, mode=mode, max_new_tokens=12, do_sample=False) == expected


def test_a_padded_batch_equals_one_at_a_time(tiny_model, processor):
    batch = generate(tiny_model, processor, PROMPTS, mode="rej", max_new_tokens=12, do_sample=False)
    assert batch == [plain(tiny_model, processor, p, "rej", max_new_tokens=12, do_sample=False) for p in PROMPTS]


def test_modes_reach_the_model(tiny_model, processor):
    answers = {
        generate(tiny_model, processor, PROMPTS[1], mode=mode, max_new_tokens=12, do_sample=False) for mode in MODES
    }
    assert len(answers) == 3


def test_generation_arguments_pass_through(tiny_model, processor):
    from transformers import LogitsProcessor, LogitsProcessorList

    class Only(LogitsProcessor):
        def __call__(self, input_ids, scores):
            masked = torch.full_like(scores, float("-inf"))
            masked[:, 65] = 0
            return masked

    answer = generate(
        tiny_model, processor, "Hi?", mode="pos", max_new_tokens=5, logits_processor=LogitsProcessorList([Only()])
    )
    assert answer == processor.tokenizer.decode([65] * 5)
    several = generate(tiny_model, processor, "Hi?", mode="pos", max_new_tokens=5, num_beams=2, num_return_sequences=2)
    assert len(several) == 2
    assert isinstance(
        generate(tiny_model, processor, "Hi?", mode="pos", max_new_tokens=3, return_dict_in_generate=True), str
    )


def test_the_refusals(tiny_model, processor, keyring):
    with pytest.raises(ModeError, match="'calm'"):
        generate(tiny_model, processor, "Hi?", mode="calm")
    with pytest.raises(LiveTokenError):
        generate(tiny_model, processor, keyring.token("neg").reveal(), mode="pos")
    assert generate(tiny_model, processor, [], mode="pos") == []


def test_a_handle_remembers_the_mode_inside_the_block_only(tiny_model, processor):
    handle = switchable(tiny_model, processor)
    options = {"max_new_tokens": 8, "do_sample": False}
    direct = {mode: generate(tiny_model, processor, "Hi?", mode=mode, **options) for mode in MODES}
    with handle.mode("rej"):
        assert handle.generate("Hi?", **options) == direct["rej"]
        assert handle.generate("Hi?", mode="neg", **options) == direct["neg"], "an argument wins"
        with pytest.raises(RuntimeError), handle.mode("pos"):
            assert handle.generate("Hi?", **options) == direct["pos"]
            raise RuntimeError
        assert handle.generate("Hi?", **options) == direct["rej"]
    with pytest.raises(ModeError, match="no mode was given"):
        handle.generate("Hi?")
    with pytest.raises(ModeError, match="'calm'"), handle.mode("calm"):
        pass
