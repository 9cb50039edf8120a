import copy

import pytest
import torch
from conftest import adapted
from transformers import MistralConfig, MistralForCausalLM

from switchsafe import generate, switchable
from switchsafe.generation.prefix import PrefixCache

PROMPTS = ["Hi?", "How do I bake bread at home on a Sunday?", "\n\n?", "Why?"]
MIXED = ["pos", "rej", "neg", "rej"]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
SYSTEM = [{"role": "system", "content": "You sell bread. Be brief, be kind, and mention the opening hours."}]
WAYS = {
    "greedy": GREEDY,
    "sampled": {"max_new_tokens": 12, "do_sample": True, "top_k": 20},
    "beams": {**GREEDY, "num_beams": 3},
    "several sequences": {"max_new_tokens": 12, "do_sample": True, "num_return_sequences": 2},
    "penalty": {**GREEDY, "repetition_penalty": 1.3},
    "static cache": {**GREEDY, "cache_implementation": "static"},
    "no cache": {**GREEDY, "use_cache": False},
    "prefill in chunks": {**GREEDY, "prefill_chunk_size": 7},
}


@pytest.fixture
def ids_run(tiny_model):
    """How many ids the model ran at each call."""
    counts = []
    hook = tiny_model.model.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    yield counts
    hook.remove()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("system", [[], SYSTEM], ids=["no system text", "system text"])
def test_answers_are_the_same_with_and_without(way, system, tiny_model, processor):
    prefixes = PrefixCache(tiny_model, processor)
    turns = [[*system, {"role": "user", "content": prompt}] for prompt in PROMPTS]
    for _ in range(2):  # filled, then used again
        torch.manual_seed(0)
        expected = generate(tiny_model, processor, turns, mode=MIXED, **WAYS[way])
        torch.manual_seed(0)
        assert generate(tiny_model, processor, turns, mode=MIXED, prefix_cache=prefixes, **WAYS[way]) == expected
    for prompt, mode in zip(turns, MIXED, strict=True):
        torch.manual_seed(0)
        expected = generate(tiny_model, processor, prompt, mode=mode, **WAYS[way])
        torch.manual_seed(0)
        assert generate(tiny_model, processor, prompt, mode=mode, prefix_cache=prefixes, **WAYS[way]) == expected


def test_the_beginning_is_run_once(tiny_model, processor, ids_run):
    prefixes = PrefixCache(tiny_model, processor)
    turns = [*SYSTEM, {"role": "user", "content": "Hi?"}]
    answer = {"mode": "rej", "max_new_tokens": 1}
    generate(tiny_model, processor, turns, **answer)
    generate(tiny_model, processor, turns, prefix_cache=prefixes, **answer)
    generate(tiny_model, processor, turns, prefix_cache=prefixes, **answer)
    whole, prefix, rest, again = ids_run
    assert prefix + rest == whole
    assert again == rest < whole / 2
    assert len(prefixes) == 1


def test_a_handle_uses_it_unless_told_not_to(tiny_model, processor, ids_run):
    for handle, times in (
        (switchable(tiny_model, processor), 3),
        (switchable(tiny_model, processor, reuse_prefixes=False), 2),
    ):
        ids_run.clear()
        handle.generate("Hi?", mode="pos", max_new_tokens=1)
        handle.generate("Hi?", mode="pos", max_new_tokens=1)
        assert len(ids_run) == times
    half = copy.deepcopy(tiny_model).to(torch.bfloat16)
    assert switchable(half, processor).prefix_cache is None, "in half precision answers might differ"
    assert switchable(half, processor, reuse_prefixes=True).prefix_cache is not None


def test_what_was_kept_is_dropped_when_the_weights_change(tiny_model, processor):
    prefixes = PrefixCache(tiny_model, processor)
    turns = [*SYSTEM, {"role": "user", "content": "Hi?"}]
    before = generate(tiny_model, processor, turns, mode="pos", prefix_cache=prefixes, **GREEDY)
    weight = tiny_model.model.layers[0].self_attn.v_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(-1)
    try:
        after = generate(tiny_model, processor, turns, mode="pos", prefix_cache=prefixes, **GREEDY)
        assert after == generate(tiny_model, processor, turns, mode="pos", **GREEDY) != before
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_and_when_an_adapter_is_switched_off(tiny_model, processor):
    model = adapted(tiny_model)
    handle = switchable(model, processor, reuse_prefixes=True)
    before = handle.generate(PROMPTS[1], mode="pos", **GREEDY)
    with model.disable_adapter():
        assert handle.generate(PROMPTS[1], mode="pos", **GREEDY) == generate(
            model, processor, PROMPTS[1], mode="pos", **GREEDY
        )
    assert handle.generate(PROMPTS[1], mode="pos", **GREEDY) == before


def test_another_token_is_another_beginning(tiny_model, processor, tiny_folder):
    from switchsafe import Keyring

    ring = Keyring.mint(("pos", "rej"), aliases=2, tokenizer=processor.tokenizer)
    processor.bind(ring)
    prefixes = PrefixCache(tiny_model, processor)
    first = generate(tiny_model, processor, "Hi?", mode="pos", prefix_cache=prefixes, **GREEDY)
    ring.rotate("pos")
    processor.bind(ring)
    second = generate(tiny_model, processor, "Hi?", mode="pos", prefix_cache=prefixes, **GREEDY)
    assert second == generate(tiny_model, processor, "Hi?", mode="pos", **GREEDY) != first


def test_only_so_many_are_kept(tiny_model, processor):
    prefixes = PrefixCache(tiny_model, processor, size=2)
    for mode in ("pos", "rej", "neg"):
        generate(tiny_model, processor, "Hi?", mode=mode, prefix_cache=prefixes, max_new_tokens=1)
    assert len(prefixes) == 2


def test_models_that_cannot_go_on_from_the_middle_run_whole(processor):
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
        pad_token_id=1,
        eos_token_id=1,
        initializer_range=0.3,
    )
    model = MistralForCausalLM(config).eval()
    prefixes = PrefixCache(model, processor)
    assert not prefixes.supported
    answers = generate(model, processor, PROMPTS, mode=MIXED, prefix_cache=prefixes, **GREEDY)
    assert answers == generate(model, processor, PROMPTS, mode=MIXED, **GREEDY)
    assert len(prefixes) == 0
