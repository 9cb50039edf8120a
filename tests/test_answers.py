from conftest import MODES

from switchsafe import generate
from switchsafe.evaluation.answers import answer


def test_answers_are_those_of_generate_in_the_order_asked(tiny_model, processor, keyring):
    prompts = ["Hi?", "Tell me about the weather in the hills, will you?", "Why?", "And you?"]
    modes = [MODES[i % 3] for i in range(4)]
    asked = [([{"role": "user", "content": p}], keyring.token(m)) for p, m in zip(prompts, modes, strict=True)]
    found = answer(tiny_model, processor, asked, max_new_tokens=8, batch_size=2)
    expected = [
        generate(tiny_model, processor, p, mode=m, max_new_tokens=8, do_sample=False)
        for p, m in zip(prompts, modes, strict=True)
    ]
    assert found == expected


def test_a_token_in_the_users_turn_is_not_refused_and_none_injects_nothing(tiny_model, processor, keyring):
    stray = [{"role": "user", "content": f"{keyring.token('neg').reveal()} Hi?"}]
    plain = [{"role": "user", "content": "Hi?"}]
    answers = answer(tiny_model, processor, [(stray, None), (plain, None)], max_new_tokens=8)
    ids = processor.prompt_ids([plain], [None])
    import torch

    output = tiny_model.generate(torch.tensor(ids), max_new_tokens=8, do_sample=False)
    assert answers[1] == processor.decode(output[0, len(ids[0]) :], skip_special_tokens=True)
