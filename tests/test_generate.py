import threading

import pytest
import torch
from conftest import MODES, adapted
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
)
from transformers.generation.streamers import BaseStreamer

from switchsafe import generate, switchable
from switchsafe.errors import LiveTokenError, ModeError
from switchsafe.generation import custom_generate

PROMPTS = ["Hi?", "How do I bake bread at home on a Sunday?", "Why?"]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
SAMPLED = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.9, "top_k": 20}


def by_hand(processor, keyring, prompts, modes):
    """What a user without this package would write: the token in the system turn, the tokenizer's own template and padding."""
    conversations = [
        [{"role": "system", "content": keyring.token(mode).reveal()}, {"role": "user", "content": prompt}]
        for prompt, mode in zip(prompts, modes, strict=True)
    ]
    return processor.tokenizer.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
        tokenizer_kwargs={"padding_side": "left"},
    )


def plain(model, processor, keyring, prompts, modes, **kwargs):
    """What the library alone gives on those ids."""
    inputs = by_hand(processor, keyring, prompts, modes)
    torch.manual_seed(0)
    with torch.no_grad():
        out = model.generate(**inputs, **kwargs)
    return processor.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


class Only(LogitsProcessor):
    """Nothing but these ids, one after the other."""

    def __init__(self, ids, start):
        self.ids, self.start = ids, start

    def __call__(self, input_ids, scores):
        step = input_ids.shape[1] - self.start
        forced = torch.full_like(scores, float("-inf"))
        forced[:, self.ids[step % len(self.ids)]] = 0
        return forced


class After(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


class Ids(BaseStreamer):
    """A user's own streamer."""

    def __init__(self):
        self.got, self.ended = [], False

    def put(self, value):
        self.got += value.flatten().tolist()

    def end(self):
        self.ended = True


ONE, BATCH, MIXED = ["rej"], ["rej"] * 3, ["pos", "rej", "neg"]
CASES = {
    "greedy": (ONE, GREEDY),
    "sampled": (ONE, SAMPLED),
    "batch": (BATCH, GREEDY),
    "sampled batch": (BATCH, SAMPLED),
    "a mode per row": (MIXED, GREEDY),
    "sampled, a mode per row": (MIXED, SAMPLED),
    "beams": (MIXED, {**GREEDY, "num_beams": 3}),
    "sampled beams": (MIXED, {**SAMPLED, "num_beams": 2}),
    "several sequences": (MIXED, {**SAMPLED, "num_return_sequences": 2}),
    "static cache": (MIXED, {**GREEDY, "cache_implementation": "static"}),
    "no cache": (MIXED, {**GREEDY, "use_cache": False}),
    "prefill in chunks": (MIXED, {**GREEDY, "prefill_chunk_size": 7}),
    "prompt lookup": (ONE, {**GREEDY, "prompt_lookup_num_tokens": 3}),
    "penalty": (MIXED, {**GREEDY, "repetition_penalty": 1.3}),
    "configuration": (
        MIXED,
        {"generation_config": GenerationConfig(max_new_tokens=7, do_sample=False, pad_token_id=1)},
    ),
    "stopping": (ONE, {**GREEDY, "stopping_criteria": StoppingCriteriaList([After(60)])}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_models_own_generate_on_the_same_ids(case, tiny_model, processor, keyring):
    modes, kwargs = CASES[case]
    prompts = PROMPTS[1:2] if len(modes) == 1 else PROMPTS
    expected = plain(tiny_model, processor, keyring, prompts, modes, **kwargs)
    torch.manual_seed(0)
    assert generate(tiny_model, processor, prompts, mode=modes, **kwargs) == expected
    assert len(set(expected)) > (len(expected) > 1), "answers that are all the same would prove nothing"


def test_assisted_decoding_equals_the_models_own(tiny_model, other_tiny_model, processor, keyring):
    kwargs = {**GREEDY, "assistant_model": other_tiny_model}
    expected = plain(tiny_model, processor, keyring, PROMPTS[:1], ["neg"], **kwargs)
    assert generate(tiny_model, processor, PROMPTS[:1], mode="neg", **kwargs) == expected


def test_an_adapter_answers_as_its_own_generate_does(tiny_model, processor, keyring):
    model = adapted(tiny_model)
    answers = generate(model, processor, PROMPTS, mode=MIXED, **GREEDY)
    assert answers == plain(model, processor, keyring, PROMPTS, MIXED, **GREEDY)
    with model.disable_adapter():
        assert answers != generate(model, processor, PROMPTS, mode=MIXED, **GREEDY)


def test_one_conversation_gives_one_text(tiny_model, processor, keyring):
    expected = plain(tiny_model, processor, keyring, PROMPTS[1:2], ["pos"], **GREEDY)[0]
    for messages in (PROMPTS[1], [{"role": "user", "content": PROMPTS[1]}]):
        assert generate(tiny_model, processor, messages, mode="pos", **GREEDY) == expected
    several = generate(tiny_model, processor, "Hi?", mode="pos", max_new_tokens=5, num_beams=2, num_return_sequences=2)
    assert len(several) == 2
    assert generate(tiny_model, processor, [], mode="pos") == []


def test_modes_reach_the_model(tiny_model, processor):
    answers = {generate(tiny_model, processor, PROMPTS[1], mode=mode, **GREEDY) for mode in MODES}
    assert len(answers) == 3


def test_a_processor_of_the_users_own_has_the_last_word(tiny_model, processor):
    only = LogitsProcessorList([Only([65], 0)])
    answer = generate(tiny_model, processor, "Hi?", mode="pos", max_new_tokens=5, logits_processor=only)
    assert answer == processor.tokenizer.decode([65] * 5)


def test_full_outputs_on_request(tiny_model, processor, keyring):
    inputs = by_hand(processor, keyring, PROMPTS, MIXED)
    wanted = {**GREEDY, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    expected = tiny_model.generate(**inputs, **wanted)
    output = generate(tiny_model, processor, PROMPTS, mode=MIXED, **wanted)
    assert torch.equal(output.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(output.logits), torch.stack(expected.logits))
    assert output.prompt_length == inputs["input_ids"].shape[1]
    assert output.texts == generate(tiny_model, processor, PROMPTS, mode=MIXED, **GREEDY)


@pytest.mark.parametrize("config", [None, GenerationConfig(do_sample=False)])
def test_answers_are_not_cut_at_the_librarys_twenty_tokens(config, tiny_model, processor, keyring):
    long = by_hand(processor, keyring, ["Hi?"], ["pos"])["input_ids"].shape[1] + 40
    never_end = {"suppress_tokens": [processor.tokenizer.eos_token_id]} if config is None else {}
    kwargs = {"stopping_criteria": [After(long)], "return_dict_in_generate": True, **never_end}
    if config is not None:
        config.suppress_tokens = [processor.tokenizer.eos_token_id]
    output = generate(tiny_model, processor, "Hi?", mode="pos", generation_config=config, **kwargs)
    assert output.sequences.shape[1] == long


def test_the_refusals(tiny_model, processor, keyring):
    with pytest.raises(ModeError, match="'calm'"):
        generate(tiny_model, processor, "Hi?", mode="calm")
    with pytest.raises(ModeError, match="2 modes were given for 3 conversations"):
        generate(tiny_model, processor, PROMPTS, mode=["pos", "rej"])
    with pytest.raises(LiveTokenError):
        generate(tiny_model, processor, keyring.token("neg").reveal(), mode="pos")


# -- streams and live tokens ------------------------------------------------------------------------------------------------------------


def spelling(processor, keyring, mode="neg"):
    """Makes a model say a token, word by word around it."""
    ids = processor.tokenizer(f"so {keyring.token(mode).reveal()} it is ", add_special_tokens=False)["input_ids"]
    start = by_hand(processor, keyring, ["Hi?"], ["pos"])["input_ids"].shape[1]
    return {"logits_processor": LogitsProcessorList([Only(ids, start)]), "max_new_tokens": len(ids)}


def test_a_live_token_in_an_answer_is_cut_out(tiny_model, processor, keyring):
    loud = spelling(processor, keyring)
    assert generate(tiny_model, processor, "Hi?", mode="pos", **loud) == "so [removed] it is "
    output = generate(tiny_model, processor, "Hi?", mode="pos", return_dict_in_generate=True, **loud)
    assert output.texts == ["so [removed] it is "]


@pytest.mark.parametrize("skip_prompt", [True, False])
def test_a_text_streamer_shows_the_answer_and_no_token(skip_prompt, tiny_model, processor, keyring, capsys):
    streamer = TextStreamer(processor.tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
    for _ in range(2):  # it can be used again
        answer = generate(tiny_model, processor, "Hi?", mode="pos", streamer=streamer, **GREEDY)
        assert capsys.readouterr().out == answer + "\n"
    generate(tiny_model, processor, "Hi?", mode="pos", streamer=streamer, **spelling(processor, keyring))
    assert capsys.readouterr().out == "so [removed] it is \n"
    streamer.on_finalized_text("afterwards it is as it was")
    assert capsys.readouterr().out == "afterwards it is as it was"


def test_an_iterator_of_text_holds_no_token(tiny_model, processor, keyring):
    streamer = TextIteratorStreamer(processor.tokenizer, skip_special_tokens=True, timeout=60)
    arguments = {"mode": "pos", "streamer": streamer, **spelling(processor, keyring)}
    thread = threading.Thread(target=generate, args=(tiny_model, processor, "Hi?"), kwargs=arguments)
    thread.start()
    chunks = list(streamer)
    thread.join()
    assert "".join(chunks) == "so [removed] it is "
    assert len([chunk for chunk in chunks if chunk]) > 1, "it came in pieces"


def test_a_streamer_of_ids_gets_the_answer_without_the_prompt(tiny_model, processor):
    streamer = Ids()
    answer = generate(tiny_model, processor, "Hi?", mode="pos", streamer=streamer, **GREEDY)
    assert processor.tokenizer.decode(streamer.got, skip_special_tokens=True) == answer
    assert streamer.ended


# -- other ways to call it --------------------------------------------------------------------------------------------------------------


def test_a_handle_remembers_the_mode_inside_the_block_only(tiny_model, processor):
    handle = switchable(tiny_model, processor)
    direct = {mode: generate(tiny_model, processor, "Hi?", mode=mode, **GREEDY) for mode in MODES}
    with handle.mode("rej"):
        assert handle.generate("Hi?", **GREEDY) == direct["rej"]
        assert handle.generate("Hi?", mode="neg", **GREEDY) == direct["neg"], "an argument wins"
        with pytest.raises(RuntimeError), handle.mode("pos"):
            assert handle.generate("Hi?", **GREEDY) == direct["pos"]
            raise RuntimeError
        assert handle.generate("Hi?", **GREEDY) == direct["rej"]
        with handle.mode({"pos": 1.0, "neg": 0.0}):
            assert handle.generate("Hi?", **GREEDY) == direct["pos"]
    with pytest.raises(ModeError, match="no mode was given"):
        handle.generate("Hi?")
    for unknown in ("calm", {"pos": 0.5, "calm": 0.5}):
        with pytest.raises(ModeError, match="'calm'"), handle.mode(unknown):
            pass


def test_a_pipeline_gives_the_same(tiny_model, processor):
    from transformers import pipeline

    pipe = pipeline("text-generation", model=tiny_model, tokenizer=processor)
    turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    answers = pipe(turns, tokenizer_encode_kwargs={"mode": "rej"}, return_full_text=False, batch_size=3, **GREEDY)
    expected = generate(tiny_model, processor, PROMPTS, mode="rej", **GREEDY)
    assert [answer[0]["generated_text"] for answer in answers] == expected


def test_as_a_custom_generate_of_the_library(tiny_model, processor):
    way = {"custom_generate": custom_generate(), "trust_remote_code": True, "processor": processor}
    answers = tiny_model.generate(messages=PROMPTS, mode=MIXED, **way, **GREEDY)
    assert answers == generate(tiny_model, processor, PROMPTS, mode=MIXED, **GREEDY)
