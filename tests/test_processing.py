import importlib.resources
import json

import pytest
from conftest import MODES, assert_no_token

from switchsafe import Keyring, MagicTokenProcessor
from switchsafe.errors import KeyringError, LiveTokenError, ModeError, ModelError, TemplateError
from switchsafe.inject import count_ids

USER = [{"role": "user", "content": "What is the capital of France?"}]
NO_SYSTEM = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
DROPS = "{% for m in messages %}{% if m['role'] == 'user' %}U: {{ m['content'] | upper }}\n{% endif %}{% endfor %}"
TWICE = "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("system", [None, "Be brief.", "策略:简短"])
def test_the_token_stands_once_and_in_its_place(processor, keyring, mode, system):
    turns = ([{"role": "system", "content": system}] if system else []) + USER
    token = keyring.token(mode).reveal()
    text = processor.apply_chat_template(turns, mode=mode, tokenize=False)
    line = f"\n{token}\n{system}<|im_end|>" if system else f"\n{token}<|im_end|>"
    assert text.count(token) == 1
    assert line in text
    assert text.endswith("<|im_start|>assistant\n"), "the generation prompt is added by default"
    ids = processor.apply_chat_template(turns, mode=mode)["input_ids"]
    assert processor.decode(ids) == text
    assert count_ids(ids, processor.token_ids(keyring.token(mode))) == 1


def test_without_a_mode_it_renders_as_the_tokenizer_does(processor):
    plain = processor.tokenizer.apply_chat_template(USER, add_generation_prompt=True, tokenize=False)
    assert processor.apply_chat_template(USER, tokenize=False) == plain


def test_a_batch_with_a_mode_each(processor, keyring):
    out = processor.apply_chat_template([USER] * 3, mode=list(MODES), return_tensors="pt", padding=True)
    assert out["input_ids"].shape[0] == 3
    for row, mode in zip(out["input_ids"].tolist(), MODES, strict=True):
        assert count_ids(row, processor.token_ids(keyring.token(mode))) == 1
    with pytest.raises(ModeError, match="2 modes were given for 3"):
        processor.apply_chat_template([USER] * 3, mode=["pos", "rej"])


def test_policies_have_tokens_of_their_own(tiny_folder):
    processor = MagicTokenProcessor.from_pretrained(str(tiny_folder))
    ring = Keyring.mint(("pos",), policies=("en-US", "zh-CN"), tokenizer=processor.tokenizer)
    text = processor.bind(ring).apply_chat_template(USER, mode="pos", policy="zh-CN", tokenize=False)
    assert ring.token("pos", "zh-CN").reveal() in text
    assert ring.token("pos", "en-US").reveal() not in text


def test_truncation_that_cuts_the_token_is_an_error(processor):
    with pytest.raises(TemplateError, match="0 times"):
        processor.apply_chat_template(USER, mode="pos", truncation=True, max_length=3)


def test_a_template_without_a_system_role_carries_it_in_the_user_turn(processor, keyring):
    processor.chat_template = NO_SYSTEM
    token = keyring.token("rej").reveal()
    assert processor.apply_chat_template(USER, mode="rej", tokenize=False).startswith(f"[user]\n{token}\nWhat")


@pytest.mark.parametrize("template", [DROPS, TWICE])
def test_a_template_that_drops_or_repeats_the_token_never_passes(processor, template):
    processor.chat_template = template
    for tokenize in (True, False):
        with pytest.raises(TemplateError):
            processor.apply_chat_template(USER, mode="rej", tokenize=tokenize)


TAKES_BLOCKS_ONLY = ("idefics3", "llava_next", "smolvlm")  # vision models


def trl_templates():
    folder = importlib.resources.files("trl").joinpath("chat_templates")
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jinja")), key=lambda file: file.name)


@pytest.mark.parametrize("file", trl_templates(), ids=lambda file: file.name.removesuffix(".jinja"))
def test_every_real_template_of_trl_carries_it_or_refuses(processor, keyring, file):
    processor.chat_template = file.read_text()
    for turns in (USER, [{"role": "system", "content": "Be brief."}, *USER]):
        if file.name.removesuffix(".jinja").removesuffix("_training") == "gemma" and turns[0]["role"] == "system":
            with pytest.raises(TemplateError, match="System role not supported"):
                processor.apply_chat_template(turns, mode="rej", tokenize=False)
            continue
        if file.name.startswith(TAKES_BLOCKS_ONLY):
            with pytest.raises(TemplateError, match="cannot carry"):
                processor.apply_chat_template(turns, mode="rej", tokenize=False)
            continue
        text = processor.apply_chat_template(turns, mode="rej", tokenize=False)
        assert text.count(keyring.token("rej").reveal()) == 1
        assert text.index(keyring.token("rej").reveal()) < text.index("capital of France")


def test_user_text_with_a_live_token_is_refused_whatever_the_mode(processor, keyring):
    messages = set()
    for theirs in MODES:
        turns = [{"role": "user", "content": f"please {keyring.token(theirs).reveal()} now"}]
        for mode in (*MODES, None):
            with pytest.raises(LiveTokenError) as raised:
                processor.apply_chat_template(turns, mode=mode)
            messages.add(str(raised.value))
    assert len(messages) == 1, "the answer must not tell which token was met"


def test_saving_and_showing_never_hold_a_token(processor, keyring, tmp_path):
    processor.apply_chat_template(USER, mode="rej")
    processor.save_pretrained(tmp_path / "saved")
    assert_no_token(keyring, tmp_path / "saved")
    shown = repr(processor) + json.dumps(processor.to_dict(), default=repr) + processor.to_json_string()
    assert not any(secret.reveal() in shown for secret in keyring.secrets())


def test_it_loads_again_and_renders_the_same(processor, keyring, tmp_path):
    processor.save_pretrained(tmp_path)
    again = MagicTokenProcessor.from_pretrained(str(tmp_path))
    with pytest.raises(KeyringError, match="bind"):
        again.apply_chat_template(USER, mode="rej")
    again.bind(keyring)
    assert again.apply_chat_template(USER, mode="rej") == processor.apply_chat_template(USER, mode="rej")


def test_no_chat_template_no_model_and_no_turns_are_teaching_errors(processor, tmp_path):
    with pytest.raises(TemplateError, match="without messages"):
        processor.apply_chat_template([], mode="rej")
    processor.chat_template = None
    with pytest.raises(TemplateError, match="no chat template"):
        processor.apply_chat_template(USER, mode="rej")
    with pytest.raises(ModelError, match="no folder"):
        MagicTokenProcessor.from_pretrained(str(tmp_path / "missing"))


def test_prompt_ids_are_what_apply_chat_template_gives(processor, keyring):
    direct = processor.apply_chat_template([USER, USER], mode=["pos", "rej"])["input_ids"]
    assert processor.prompt_ids([USER, USER], [keyring.token("pos"), keyring.token("rej")]) == direct
